// Which events the plugin forwards, and what it keeps while there is no connection.

import assert from "node:assert/strict"
import { test } from "node:test"

import { Service, until } from "./service.js"
import { stage } from "./stage.js"

const delta = (session, text) => ["message.part.delta", { sessionID: session, messageID: "m", partID: "p", field: "text", delta: text }]
const whole = (session, text) => ["message.part.updated", { sessionID: session, part: { id: "p", sessionID: session, type: "text", text } }]

test("what the service reads is forwarded as it is, and nothing else", async (t) => {
  const { tell, service } = await stage(t)
  const read = ["session.created", "session.status", "session.idle", "session.error", "session.deleted", "message.updated",
    "message.part.updated", "todo.updated", "permission.asked", "permission.replied", "question.asked", "question.rejected"]
  const noise = ["plugin.added", "session.updated", "session.diff", "session.next.step", "file.edited", "server.heartbeat", "toString"]
  for (const type of [...noise, ...read]) await tell(type, { sessionID: "ses_1", extra: { kept: type } })
  await service.next("event", read.length)
  assert.deepEqual(service.events(), read.map((type) => ({ type, properties: { sessionID: "ses_1", extra: { kept: type } } })))
})

test("of the updates of a session, only reverts and restores are forwarded", async (t) => {
  const { tell, service } = await stage(t)
  const update = (id, revert) => tell("session.updated", { sessionID: id, info: { id, revert } })
  await update("ses_1")
  await update("ses_1", { messageID: "msg_1" })
  await update("ses_2")
  await update("ses_1")
  await update("ses_1")
  await tell("session.idle", { sessionID: "ses_1" })
  await service.next("event", 3)
  const seen = service.events().map(({ type, properties }) => [type, properties.info?.revert?.messageID])
  assert.deepEqual(seen, [["session.updated", "msg_1"], ["session.updated", undefined], ["session.idle", undefined]])
})

test("streamed text of a session is one sign of life per window, and its newest", async (t) => {
  const { tell, service } = await stage(t, { tuning: { fold: 60 } })
  for (let nth = 0; nth < 200; nth += 1) await tell(...delta("ses_1", `${nth}`))
  await tell(...delta("ses_2", "other"))
  await service.next("event", 3)
  assert.deepEqual(service.events().map((event) => event.properties.delta), ["0", "other", "1"])
  // Whole texts say more than pieces.
  await tell(...whole("ses_3", "a"))
  await tell(...whole("ses_3", "ab"))
  await tell(...delta("ses_3", "c"))
  await service.next("event", 5)
  assert.deepEqual(service.events().slice(3).map((event) => event.properties.part.text), ["a", "ab"])
})

test("what waits in a window comes before what follows it", async (t) => {
  const { tell, service } = await stage(t, { tuning: { fold: 60_000 } })
  await tell(...whole("ses_1", "a"))
  await tell(...whole("ses_1", "abc"))
  await tell("session.idle", { sessionID: "ses_1" })
  await tell(...delta("ses_1", "again"))
  await service.next("event", 4)
  const [first, last, idle, again] = service.events()
  assert.deepEqual([first.properties.part.text, last.properties.part.text, idle.type, again.properties.delta], ["a", "abc", "session.idle", "again"])
})

test("five thousand events without a connection: what matters is kept, in order, and a look is asked for", async (t) => {
  const first = await Service.start()
  const { tell, is } = await stage(t, { service: first, tuning: { fold: 0 } })
  await first.stop()
  await is("down", "opening")
  const vital = []
  for (let nth = 0; nth < 5000; nth += 1) {
    await tell("message.updated", { sessionID: `ses_${nth}`, info: { id: nth } })
    if (nth % 50) continue
    const properties = { sessionID: `ses_${nth}` }
    await tell("session.idle", properties)
    vital.push(properties.sessionID)
  }
  const second = await Service.start(first.port)
  t.after(() => second.stop())
  await second.next("reconcile")
  const events = second.events()
  assert.equal(events.length, 1000)
  assert.deepEqual(events.filter((event) => event.type === "session.idle").map((event) => event.properties.sessionID), vital)
  const activity = events.filter((event) => event.type === "message.updated").map((event) => event.properties.info.id)
  assert.deepEqual(activity, Array.from({ length: 900 }, (_, nth) => 4100 + nth), "the newest")
  assert.deepEqual(second.frames.map((frame) => frame.type).slice(-1), ["reconcile"], "asked for when all is told")
})

test("a short cut loses nothing and asks for nothing", async (t) => {
  const first = await Service.start()
  const { tell, is } = await stage(t, { service: first })
  await first.stop()
  await is("down", "opening")
  for (const id of ["a", "b"]) await tell("session.idle", { sessionID: id })
  const second = await Service.start(first.port)
  t.after(() => second.stop())
  await second.next("event", 2)
  assert.deepEqual(second.events().map((event) => event.properties.sessionID), ["a", "b"])
  assert.equal(second.of("reconcile").length, 0)
})

test("what is kept is bounded in size too", async (t) => {
  const first = await Service.start()
  const { tell, is } = await stage(t, { service: first, tuning: { bufferedBytes: 10_000 } })
  await first.stop()
  await is("down", "opening")
  await tell("session.idle", { sessionID: "kept" })
  for (let nth = 0; nth < 50; nth += 1) await tell("todo.updated", { sessionID: "ses_1", nth, todos: "x".repeat(1000) })
  const second = await Service.start(first.port)
  t.after(() => second.stop())
  await second.next("reconcile")
  const events = second.events()
  assert.equal(events[0].properties.sessionID, "kept")
  assert.ok(events.length < 12 && events.at(-1).properties.nth === 49)
})

test("an event too large for a frame is forwarded without its long texts", async (t) => {
  const { tell, service } = await stage(t)
  const part = { id: "prt_1", type: "tool", tool: "bash", state: { status: "completed", output: "ä".repeat(3 * 1024 * 1024) } }
  await tell("message.part.updated", { sessionID: "ses_1", part })
  const { event } = await service.next("event")
  assert.equal(event.properties.part.state.output.length, 2001)
  assert.equal(event.properties.part.tool, "bash")
})

test("a service that does not read holds nobody up", async (t) => {
  const { tell, service } = await stage(t, { tuning: { frame: 100_000, fold: 0 } })
  service.connection.socket.pause()
  const begun = Date.now()
  for (let nth = 0; nth < 3000; nth += 1) await tell("todo.updated", { sessionID: "ses_1", todos: "x".repeat(10_000) })
  await tell("session.idle", { sessionID: "ses_1" })
  assert.ok(Date.now() - begun < 5000)
  service.connection.socket.resume()
  await until("the idle has come", () => service.events().some((event) => event.type === "session.idle"))
  await service.next("reconcile")
  assert.ok(service.events().length < 3000, "some activity was dropped")
})
