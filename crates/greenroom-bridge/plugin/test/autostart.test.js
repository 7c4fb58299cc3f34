// The plugin starts the service where none listens: a scripted one stands in for the command.

import assert from "node:assert/strict"
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { fileURLToPath } from "node:url"

import { Service, until } from "./service.js"
import { context, stage } from "./stage.js"

const command = fileURLToPath(new URL("./command.js", import.meta.url))

const bridgeOf = ({ port }) => [...globalThis[Symbol.for("greenroom.bridges")].values()].find((it) => it.url?.port === String(port))

/** A free address, a folder for the user's state, and a command that notes how it was called. */
async function house(t, { bin } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "greenroom-plugin-"))
  const gone = await Service.start()
  await gone.stop()
  const file = join(folder, "command")
  writeFileSync(file, `#!/bin/sh\nexec "${process.execPath}" "${command}" "${folder}" "$@"\n`)
  chmodSync(file, 0o755)
  Object.assign(process.env, { GREENROOM_AUTOSTART: "1", GREENROOM_BIN: bin ?? file, XDG_STATE_HOME: folder })
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const starts = () => readdirSync(folder).filter((name) => name.startsWith("started-")).map((name) => readFileSync(join(folder, name), "utf8"))
  return { folder, service: gone, starts, options: { service: gone, connect: false, tuning: { patience: 10_000 } } }
}

test("nothing listens: it is started once for all, and used", async (t) => {
  const { folder, service, starts, options } = await house(t)
  const [one, other] = [await stage(t, options), await stage(t, options)]
  const answers = await Promise.all([one, other].map(({ hooks }) => hooks.tool.background_list.execute({}, context().ctx)))
  assert.deepEqual(answers.map((answer) => answer.output), ["answered", "answered"])
  const [started, ...more] = starts()
  assert.deepEqual(more, [])
  assert.equal(started, `serve --listen 127.0.0.1:${service.port} --set opencode.events=bridge --exit-when-unused 1h`)
  assert.match(readFileSync(join(folder, "greenroom", `serve-${service.port}.log`), "utf8"), /started/)
})

test("a tool waits longer for a service that this plugin is starting", async (t) => {
  const { options } = await house(t)
  const { hooks } = await stage(t, { ...options, tuning: { patience: 1, startWithin: 10_000 } })
  await until("it is started", () => bridgeOf(options.service).starting)
  assert.equal((await hooks.tool.background_list.execute({}, context().ctx)).output, "answered")
})

test("it is not started where that is not wanted", async (t) => {
  const { starts, options } = await house(t)
  process.env.GREENROOM_AUTOSTART = "0"
  const { hooks } = await stage(t, { ...options, tuning: { patience: 200 } })
  assert.match((await hooks.tool.background_list.execute({}, context().ctx)).output, /greenroom serve/)
  assert.deepEqual(starts(), [])
})

test("a command that is missing is said, with the place of the log", async (t) => {
  const { hooks } = await stage(t, { ...(await house(t, { bin: "/nowhere/greenroom" })).options, tuning: { patience: 500 } })
  const { output } = await hooks.tool.background_list.execute({}, context().ctx)
  assert.match(output, /cannot be started: .*ENOENT.*Its log: .*serve-\d+\.log/)
})

test("why it does not start is said where a cut connection has a reason of its own, as under opencode", async (t) => {
  const Real = globalThis.WebSocket
  t.after(() => (globalThis.WebSocket = Real))
  globalThis.WebSocket = class {
    close() {}
    constructor() { setTimeout(() => this.onclose({ code: 1006, reason: "Failed to connect" }), 5) }
  }
  for (const [bin, why] of [["/nowhere/greenroom", /cannot be started: .*ENOENT/], ["/bin/false", /it ended with code 1/]]) {
    const { hooks } = await stage(t, { ...(await house(t, { bin })).options, tuning: { patience: 500 } })
    assert.match((await hooks.tool.background_list.execute({}, context().ctx)).output, why)
  }
})

test("what listens there already is left alone", async (t) => {
  const { service, starts, options } = await house(t)
  const other = createServer((socket) => socket.on("error", () => {}).end("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"))
  await new Promise((done) => other.listen(service.port, "127.0.0.1", done))
  t.after(() => other.close())
  const { hooks } = await stage(t, { ...options, tuning: { patience: 500 } })
  assert.match((await hooks.tool.background_list.execute({}, context().ctx)).output, /is no bridge/)
  assert.deepEqual(starts(), [])
})

test("a lock left behind is not for ever", async (t) => {
  const { folder, service, starts, options } = await house(t)
  mkdirSync(join(folder, "greenroom"))
  const lock = join(folder, "greenroom", `start-${service.port}.lock`)
  writeFileSync(lock, "1")
  const { hooks } = await stage(t, { ...options, tuning: { patience: 300, startEvery: 0 } })
  await hooks.tool.background_list.execute({}, context().ctx)
  assert.deepEqual(starts(), [], "somebody else is starting it")
  const past = Date.now() / 1000 - 60
  utimesSync(lock, past, past)
  await until("it is started", () => starts().length === 1)
  await until("it is used", async () => (await hooks.tool.background_list.execute({}, context().ctx)).output === "answered")
  assert.ok(existsSync(lock), "taken by this one")
})
