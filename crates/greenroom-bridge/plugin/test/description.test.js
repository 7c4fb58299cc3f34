// The plugin finds the user's service by its description, and sends the secret to no other one.

import assert from "node:assert/strict"
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"

import { Greenroom } from "../greenroom.js"
import { Service, until } from "./service.js"
import { client } from "./stage.js"

let projects = 0

/** A state folder with a description of a service, and a plugin that is given no address. */
async function described(t, change = {}, { mode = 0o600, link = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "greenroom-plugin-"))
  const service = await Service.start()
  mkdirSync(join(folder, "greenroom"))
  const stat = readFileSync(`/proc/${process.pid}/stat`, "utf8").split(")").at(-1).trim().split(" ")
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
  const token = join(folder, "token")
  writeFileSync(token, "sesame\n")
  const it = { url: service.url, pid: process.pid, startTime: `${stat[19]}@${boot}`, tokenFile: token, ...change }
  const path = join(folder, "greenroom", "service.json"), target = link ? join(folder, "elsewhere") : path
  writeFileSync(target, JSON.stringify(it))
  chmodSync(target, mode)
  if (link) symlinkSync(target, path)
  process.env.XDG_STATE_HOME = folder
  const directory = `/described/${(projects += 1)}`
  const input = { client: client(), directory, serverUrl: new URL("http://localhost:4096/") }
  const hooks = await Greenroom(input, { retryFirst: 20, retryMost: 50, linger: 100 })
  t.after(async () => {
    await hooks.dispose()
    await service.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  const bridge = globalThis[Symbol.for("greenroom.bridges")].get(directory)
  const settled = () => until("it has tried", () => bridge.failures > 1 || bridge.state === "up")
  return { service, bridge, settled, path, it }
}

test("a described service is found, with its secret", async (t) => {
  const { service } = await described(t)
  assert.equal((await service.next("hello")).token, "sesame")
})

test("a service that starts later is found then", async (t) => {
  const { service, bridge, settled, path, it } = await described(t, { pid: 4194305 })
  await settled()
  assert.notEqual(bridge.state, "up")
  writeFileSync(path, JSON.stringify({ ...it, pid: process.pid }))
  await service.next("hello")
})

for (const [what, change, how] of [
  ["of a process that has ended", { pid: 4194305 }],
  ["of a reused process id", { startTime: "1@another boot" }],
  ["that others can write", {}, { mode: 0o666 }],
  ["that others can read", {}, { mode: 0o644 }],
  ["that is a link", {}, { link: true }],
]) {
  test(`a description ${what} is ignored`, async (t) => {
    const { service, bridge, settled } = await described(t, change, how)
    await settled()
    assert.notEqual(bridge.state, "up")
    assert.equal(service.hellos, 0)
  })
}

test("a listener of another user gets no secret", { skip: process.getuid() !== 0 }, async (t) => {
  // The same process under another user id at the time of its `listen`: the kernel records the owner of the socket.
  const other = createServer(() => assert.fail("a connection"))
  process.seteuid(54321)
  await new Promise((done) => other.listen(0, "127.0.0.1", done))
  process.seteuid(0)
  t.after(() => other.close())
  const { bridge } = await described(t, { pid: 4194305 })
  bridge.tuning.url = `http://127.0.0.1:${other.address().port}`
  bridge.fixed = ""
  bridge.connect()
  await until("it is noticed", () => bridge.problem.includes("another user"))
})

test("a service that refuses at the default address is not the user's own: one is started", async (t) => {
  const { service, bridge } = await described(t, { pid: 4194305 })
  service.greet = (_, connection) => connection.close(4401, "the token is not this service's")
  let starts = 0
  bridge.startService = () => void (starts += 1)
  Object.assign(bridge, { tuning: { ...bridge.tuning, url: service.url }, fixed: "" })
  await until("one is started", () => starts > 0)
  assert.notEqual(bridge.state, "refused")
})

test("a configured address of another user's process gets no secret of the user's file", { skip: process.getuid() !== 0 }, async (t) => {
  process.seteuid(54321)
  const other = await Service.start()
  process.seteuid(0)
  t.after(() => other.stop())
  const { bridge } = await described(t, { pid: 4194305 })
  bridge.fixed = other.url
  bridge.connect()
  assert.equal((await other.next("hello")).token, undefined)
})
