// The plugin against a scripted service. Run by node's own runner: `node --test`.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { test } from "node:test"

import * as plugin from "../greenroom.js"
import { Service, until } from "./service.js"
import { context, stage } from "./stage.js"

const TOOLS = ["background_task", "background_output", "background_cancel", "background_send", "background_list"]
const launch = { description: "look around", prompt: "look", agent: "explore" }

test("the file imports nothing, exports the plugin alone and stays readable", () => {
  const text = readFileSync(new URL("../greenroom.js", import.meta.url), "utf8")
  assert.doesNotMatch(text, /^\s*import\b|\brequire\(|\bimport\(/m)
  assert.ok(text.split("\n").length <= 500)
  assert.match(text, /^\/\/ Greenroom's plugin for opencode, version 0\.0\.0\n/)
  assert.match(text, /^const BINARY = ""/m)
  // opencode takes every export for a plugin.
  assert.deepEqual(Object.keys(plugin), ["Greenroom"])
})

test("the hello says who it is", async (t) => {
  const { service, directory } = await stage(t)
  const { type, protocol, pid, uid, opencodeVersion, ...rest } = await service.next("hello")
  assert.deepEqual([type, protocol, pid, opencodeVersion], ["hello", 1, process.pid, "1.18.33"])
  assert.equal(uid, process.getuid())
  assert.deepEqual(rest, { directory }, "an opencode that listens nowhere names no address, and no secret is made up")
})

test("the secret comes from the environment", async (t) => {
  process.env.GREENROOM_TOKEN = "sesame"
  t.after(() => delete process.env.GREENROOM_TOKEN)
  const { service } = await stage(t)
  assert.equal((await service.next("hello")).token, "sesame")
})

test("a call of a tool is answered by the service", async (t) => {
  const { hooks, service } = await stage(t)
  assert.deepEqual(Object.keys(hooks.tool), TOOLS)
  const { ctx, shown } = context()
  const called = hooks.tool.background_task.execute({ ...launch, model: "", session_id: null, skills: ["a"] }, ctx)
  const { id, ...call } = await service.next("toolCall")
  const said = { sessionID: "ses_1", messageID: "msg_1", agent: "build", callID: "call_1", directory: "/project" }
  assert.deepEqual(call, { type: "toolCall", tool: "background_task", args: { ...launch, skills: ["a"] }, context: said })
  service.send({ type: "toolResult", id: "another", output: "not this one" })
  service.send({ type: "toolResult", id, output: "launched", title: "look around", metadata: { sessionID: "ses_2" } })
  const wanted = { sessionID: "ses_2", sessionId: "ses_2" }
  assert.deepEqual(await called, { title: "look around", output: "launched", metadata: wanted })
  assert.deepEqual(shown.map(({ title, metadata }) => [title, metadata]), [["look around", wanted]])
})

test("an answer that is no answer does no harm", async (t) => {
  const { hooks, service } = await stage(t)
  const called = hooks.tool.background_list.execute(undefined, context().ctx)
  const { id, args } = await service.next("toolCall")
  assert.deepEqual(args, {})
  for (const odd of ["no json", "null", "[]", "7", '{"type":7}', '{"type":"request"}', '{"type":"toolResult"}']) service.send(odd)
  service.send({ type: "toolResult", id, metadata: null })
  assert.deepEqual(await called, { title: "", output: "", metadata: {} })
})

test("an aborted call ends the wait and not the task", async (t) => {
  const { hooks, service } = await stage(t)
  const { ctx, stop } = context()
  const called = hooks.tool.background_output.execute({ task_id: "bg_1", block: true }, ctx)
  const { id } = await service.next("toolCall")
  stop.abort()
  assert.match((await called).output, /tasks themselves go on/)
  assert.equal((await service.next("toolAbort")).id, id)
})

test("a call under way outlives its connection and is sent again under its id", async (t) => {
  const first = await Service.start()
  const { hooks } = await stage(t, { service: first, tuning: { lost: 10_000 } })
  const called = hooks.tool.background_task.execute(launch, context().ctx)
  const { id } = await first.next("toolCall")
  await first.stop()
  const second = await Service.start(first.port)
  t.after(() => second.stop())
  assert.equal((await second.next("toolCall")).id, id)
  second.send({ type: "toolResult", id, output: "launched once" })
  assert.equal((await called).output, "launched once")
})

test("a call whose connection does not come back says what is not known", async (t) => {
  const { hooks, service } = await stage(t)
  const called = hooks.tool.background_task.execute(launch, context().ctx)
  await service.next("toolCall")
  await service.stop()
  assert.match((await called).output, /cannot be used .*not known: look with background_list/)
})

test("a tool says plainly that there is no service", async (t) => {
  const gone = await Service.start()
  await gone.stop()
  const { hooks } = await stage(t, { service: gone, connect: false })
  const { output } = await hooks.tool.background_list.execute({}, context().ctx)
  assert.match(output, /at http:\/\/127\.0\.0\.1:\d+ cannot be used .*greenroom serve/)
})

test("a tool waits for a service that is just coming", async (t) => {
  const gone = await Service.start()
  await gone.stop()
  const { hooks } = await stage(t, { service: gone, connect: false, tuning: { patience: 10_000 } })
  const called = hooks.tool.background_list.execute({}, context().ctx)
  const service = await Service.start(gone.port)
  t.after(() => service.stop())
  const { id } = await service.next("toolCall")
  service.send({ type: "toolResult", id, output: "none" })
  assert.equal((await called).output, "none")
})

test("a refused secret is said, and not tried over and over", async (t) => {
  const service = await Service.start()
  service.greet = (_, connection) => {
    connection.send({ type: "error", message: "the token is not this service's" })
    connection.close(1008, "hello not accepted")
  }
  const { hooks } = await stage(t, { service })
  const said = await until("it is said", async () => {
    const { output } = await hooks.tool.background_list.execute({}, context().ctx)
    return output.includes("the token is not this service's") && output
  })
  assert.match(said, /GREENROOM_TOKEN/)
  assert.equal(service.hellos, 1)
  await service.next("hello", 2) // later, in case somebody has put it right
})

test("one that was replaced stays away until it is needed", async (t) => {
  const { hooks, service } = await stage(t)
  await hooks.tool.background_list.execute({}, context({ abort: AbortSignal.abort() }).ctx)
  service.connection.close(4001, "replaced")
  await until("it has gone", () => service.connections.size === 0)
  const { ctx, stop } = context()
  const called = hooks.tool.background_list.execute({}, ctx)
  await service.next("hello", 2)
  await service.next("toolCall", 2)
  stop.abort()
  await called
})

test("an address that is none is said", async (t) => {
  t.after(() => delete process.env.GREENROOM_URL)
  for (const address of ["http://", "file:///tmp/service", "http://127.0.0.1:99999"]) {
    process.env.GREENROOM_URL = address
    const { hooks } = await stage(t, { connect: false })
    const { output } = await hooks.tool.background_list.execute({}, context().ctx)
    assert.ok(output.includes(`at ${address} `) && output.includes("set GREENROOM_URL"), output)
    assert.doesNotMatch(output, /TOKEN/, "that is not what is wrong")
  }
})

test("an address without a scheme is one", async (t) => {
  t.after(() => delete process.env.GREENROOM_URL)
  const { service } = await stage(t)
  process.env.GREENROOM_URL = ` ${new URL(service.url).host.replace("127.0.0.1", "localhost")} `
  await stage(t, { service })
  assert.equal(service.hellos, 2)
})

test("what the service could not read is no reason why it is gone", async (t) => {
  const { hooks, service } = await stage(t)
  service.send({ type: "error", message: "a frame is a JSON object" })
  await service.stop()
  assert.doesNotMatch((await hooks.tool.background_list.execute({}, context().ctx)).output, /JSON/)
})

test("two plugins in one directory are one bridge", async (t) => {
  const first = await stage(t)
  const second = await stage(t, { service: first.service, directory: first.directory })
  const idle = [{ id: "evt_1", type: "session.idle", properties: { sessionID: "ses_1" } }]
  await first.hooks.event({ event: idle[0] })
  await second.hooks.event({ event: idle[0] })
  await first.tell("session.idle", { sessionID: "ses_2" }, "evt_2")
  await first.service.next("event", 2)
  assert.deepEqual(first.service.events().map((event) => event.id), ["evt_1", "evt_2"])
  assert.equal(first.service.hellos, 1)
  // The first goes, the second goes on; a request goes to its client.
  await first.hooks.dispose()
  first.service.send({ type: "request", id: "rq_1", method: "GET", path: "/session" })
  await first.service.next("response")
  assert.equal(second.asked.at(-1).url, "/session")
  await second.hooks.dispose()
  await until("the bridge has gone", () => first.service.connections.size === 0)
})

test("a disposed instance says so at once, and its aborts still go out", async (t) => {
  const { hooks, service, tell, directory } = await stage(t, { tuning: { linger: 400 } })
  const disposed = hooks.dispose()
  await tell("session.error", { sessionID: "ses_1", error: { name: "MessageAbortedError" } }, "evt_1")
  await disposed
  await service.next("event")
  assert.deepEqual(service.frames.map((frame) => frame.type), ["hello", "disposing", "event"])
  // The late events make opencode initialise the plugin again: the bridge is the same one, and stays.
  const again = await stage(t, { service, directory, tuning: { linger: 400 } })
  await tell("session.idle", { sessionID: "ses_1" }, "evt_2")
  await again.tell("session.idle", { sessionID: "ses_2" }, "evt_3")
  for (const id of ["evt_2", "evt_3"]) await again.tell("session.idle", { sessionID: "ses_1" }, id)
  await service.next("event", 3)
  assert.deepEqual(service.events().map((event) => event.id), ["evt_1", "evt_2", "evt_3"])
  assert.equal(service.hellos, 1)
  await new Promise((done) => setTimeout(done, 500))
  assert.equal(service.connections.size, 1, "it is in use again")
})

test("a bridge that no instance uses is closed after a while", async (t) => {
  const { hooks, service, directory } = await stage(t)
  await hooks.dispose()
  await service.next("disposing")
  await until("the bridge has gone", () => service.connections.size === 0)
  await stage(t, { service, directory })
  await service.next("hello", 2)
})

test("each disposed instance says so, also while another one uses the bridge", async (t) => {
  const first = await stage(t)
  await stage(t, { service: first.service, directory: first.directory })
  await first.hooks.dispose()
  await first.service.next("disposing")
  assert.equal(first.service.connections.size, 1)
})

test("a disposal without a connection is sent before what follows", async (t) => {
  const first = await Service.start()
  const { hooks, tell, is } = await stage(t, { service: first, tuning: { linger: 5000 } })
  await first.stop()
  await is("down", "opening")
  await hooks.dispose()
  await tell("session.idle", { sessionID: "ses_1" })
  const second = await Service.start(first.port)
  t.after(() => second.stop())
  await second.next("event")
  assert.deepEqual(second.frames.map((frame) => frame.type), ["hello", "disposing", "event"])
})

test("requests are made through opencode's own client", async (t) => {
  const answers = {
    "GET /session/ses_1": () => ({ data: { id: "ses_1" } }),
    "POST /session/ses_1/prompt_async": () => ({ status: 204, data: {} }),
    "DELETE /session/ses_2": () => ({ data: true }),
    "GET /broken": () => { throw new Error("boot") },
    "GET /large": () => ({ data: "x".repeat(5 * 1024 * 1024) }),
    "GET /odd": () => ({ data: 1n }),
  }
  const { service, asked } = await stage(t, { answers })
  let count = 0
  const ask = async (request) => {
    service.send({ type: "request", id: `rq_${(count += 1)}`, ...request })
    const response = await service.next("response", count)
    assert.equal(response.id, `rq_${count}`)
    return [response.status, response.body]
  }
  assert.deepEqual(await ask({ method: "GET", path: "/session/ses_1", query: { limit: "1" } }), [200, { id: "ses_1" }])
  assert.deepEqual(asked.at(-1).query, { limit: "1" })
  assert.deepEqual(await ask({ method: "POST", path: "/session/ses_1/prompt_async", body: { parts: [] } }), [204, null])
  assert.deepEqual([asked.at(-1).body, asked.at(-1).headers["content-type"]], [{ parts: [] }, "application/json"])
  assert.deepEqual(await ask({ method: "DELETE", path: "/session/ses_2" }), [200, true])
  assert.deepEqual(await ask({ method: "GET", path: "/session/ses_9" }), [404, { name: "NotFoundError" }])
  const failed = async (request, status, says) => {
    const [got, body] = await ask(request)
    assert.equal(got, status)
    assert.match(body.data.message, says)
  }
  await failed({ method: "GET", path: "/broken" }, 502, /boot/)
  await failed({ method: "GET", path: "/large" }, 413, /larger/)
  await failed({ method: "GET", path: "/odd" }, 502, /BigInt/)
  await failed({ method: "setConfig", path: "/" }, 400, /method/)
  await failed({ method: "GET" }, 400, /path/)
})

test("a request under way is made once, and another service's answer is its own", async (t) => {
  let answer
  let made = 0
  const slow = () => new Promise((done) => {
    made += 1
    answer = done
  })
  const first = await Service.start()
  const { service } = await stage(t, { service: first, answers: { "POST /session": slow } })
  const request = { type: "request", id: "rq_1", method: "POST", path: "/session", body: {} }
  service.send(request)
  await until("it is made", () => made === 1)
  service.send(request)
  service.send({ type: "request", id: "rq_2", method: "GET", path: "/session" })
  await service.next("response")
  assert.equal(made, 1)
  const answerFirst = answer
  await first.stop()
  const second = await Service.start(first.port)
  second.instance = "gr_2"
  t.after(() => second.stop())
  await second.next("hello")
  second.send(request)
  await until("it is made anew", () => made === 2)
  answerFirst({ data: "of the first" })
  answer({ data: "of the second" })
  assert.equal((await second.next("response")).body, "of the second")
})

test("no more requests are made at a time than are good", async (t) => {
  const { service } = await stage(t, { answers: { "GET /hang": () => new Promise(() => {}) }, tuning: { requests: 2 } })
  for (const id of ["a", "b", "c"]) service.send({ type: "request", id, method: "GET", path: "/hang" })
  const { id, status } = await service.next("response")
  assert.deepEqual([id, status], ["c", 503])
})

test("a request that hangs is given up", async (t) => {
  const hang = ({ signal }) => new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)))
  const { service } = await stage(t, { answers: { "GET /hang": hang }, tuning: { requestWithin: 50 } })
  service.send({ type: "request", id: "a", method: "GET", path: "/hang" })
  // The timer of an AbortSignal alone does not keep node from ending.
  const awake = setTimeout(() => {}, 10_000)
  assert.equal((await service.next("response")).status, 504)
  clearTimeout(awake)
})

test("optional arguments are optional", async (t) => {
  const { hooks } = await stage(t)
  const output = { description: "", parameters: {}, jsonSchema: { required: ["all"] } }
  await hooks["tool.definition"]({ toolID: "background_task" }, output)
  assert.deepEqual(output.jsonSchema.required, ["description", "prompt", "agent"])
  assert.equal(output.jsonSchema.properties.skills.items.type, "string")
  const other = { jsonSchema: { required: ["path"] } }
  for (const toolID of ["read", "toString"]) await hooks["tool.definition"]({ toolID }, other)
  assert.deepEqual(other.jsonSchema.required, ["path"])
})

test("the system prompt gets one hint, and none where it is not wanted", async (t) => {
  const { hooks } = await stage(t)
  const hint = hooks["experimental.chat.system.transform"]
  const system = ["You are build"]
  await hint({}, { system })
  await hint({}, { system })
  assert.equal(system.length, 2)
  assert.match(system[1], /background_task/)
  const title = ["You are a title generator."]
  await hint({}, { system: title })
  process.env.GREENROOM_HINT = "0"
  t.after(() => delete process.env.GREENROOM_HINT)
  const plain = ["You are build"]
  await hint({}, { system: plain })
  assert.deepEqual([title.length, plain.length], [1, 1])
})

test("under `opencode run`, which ends with the turn, a call says so and no hint invites to end it", async (t) => {
  const { hooks, service } = await stage(t)
  const before = process.argv
  t.after(() => (process.argv = before))
  process.argv = ["bun", "index.js", "--print-logs", "run", "--format", "json"]
  const system = ["You are build"]
  await hooks["experimental.chat.system.transform"]({}, { system })
  assert.equal(system.length, 1)
  const called = hooks.tool.background_list.execute({}, context().ctx)
  const { id, context: said } = await service.next("toolCall")
  assert.equal(said.endsWithTurn, true)
  service.send({ type: "toolResult", id, output: "none" })
  await called
})

test("a compaction carries the sessions along, and does not wait for ever", async (t) => {
  const { hooks, service, is } = await stage(t)
  const compact = hooks["experimental.session.compacting"]
  const output = { context: ["before"] }
  const compacted = compact({ sessionID: "ses_1" }, output)
  const { id, sessionID } = await service.next("compactionContext")
  assert.equal(sessionID, "ses_1")
  service.send({ type: "compactionContext", id, sessionID, markdown: "## Delegated" })
  await compacted
  assert.deepEqual(output.context, ["before", "## Delegated"])
  const awake = setTimeout(() => {}, 10_000)
  await compact({ sessionID: "ses_2" }, output)
  clearTimeout(awake)
  await service.stop()
  await is("down", "opening")
  await compact({ sessionID: "ses_1" }, output)
  assert.equal(output.context.length, 2)
})

test("no hook ever throws", async (t) => {
  const { hooks } = await stage(t)
  for (const [name, hook] of Object.entries(hooks)) {
    if (typeof hook !== "function" || name === "dispose") continue
    for (const odd of [[{}, {}], [{ event: null, toolID: "background_task" }, null], [{ event: { type: "session.idle" } }, { system: 7 }]]) {
      await hook(...odd)
    }
  }
  for (const tool of Object.values(hooks.tool)) {
    const answer = await tool.execute({ task_id: 1n }, context().ctx)
    assert.match(answer.output, /cannot be used/)
  }
})
