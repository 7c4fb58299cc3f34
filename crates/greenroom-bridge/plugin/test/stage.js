// What a plugin finds in opencode, played: a client that answers as scripted, and the context of a tool call.

import { Greenroom } from "../greenroom.js"
import { Service, until } from "./service.js"

process.env.GREENROOM_AUTOSTART = "0"
for (const name of ["GREENROOM_URL", "GREENROOM_TOKEN", "GREENROOM_HINT", "GREENROOM_BIN"]) delete process.env[name]
process.env.XDG_CONFIG_HOME = process.env.XDG_STATE_HOME = "/nowhere"
delete process.env.XDG_RUNTIME_DIR

// Short times, so that the tests need not wait; what they bound is the same.
const QUICK = { retryFirst: 20, retryMost: 100, retryRefused: 400, patience: 300, lost: 400, compaction: 200, startWithin: 300, linger: 100 }
let stages = 0

/** A client like opencode's: `answers` has a function for each `METHOD /path`. */
export function client(answers = {}, asked = []) {
  const verb = (method) => async (call) => {
    asked.push({ method, ...call })
    const answer = await (answers[`${method.toUpperCase()} ${call.url}`] ?? (() => ({ status: 404, error: { name: "NotFoundError" } })))(call)
    return { data: answer.data, error: answer.error, response: { status: answer.status ?? 200 } }
  }
  const names = ["get", "post", "put", "patch", "delete"]
  return { _client: Object.fromEntries(names.map((name) => [name, verb(name)])) }
}

/** The plugin in a directory of its own, connected to a service of its own. */
export async function stage(test, { answers, tuning, service, directory = `/project/${(stages += 1)}`, connect = true } = {}) {
  const own = service ?? (await Service.start())
  const asked = []
  const health = { "GET /global/health": () => ({ data: { healthy: true, version: "1.18.33" } }) }
  const input = { client: client({ ...health, ...answers }, asked), directory, serverUrl: new URL("http://localhost:4096/") }
  const hooks = await Greenroom(input, { url: own.url, ...QUICK, ...tuning })
  test.after(async () => {
    await hooks.dispose()
    await own.stop()
  })
  const bridge = globalThis[Symbol.for("greenroom.bridges")].get(directory)
  const is = (...states) => until(`the bridge is ${states}`, () => states.includes(bridge.state))
  if (connect) await is("up", "refused", "replaced")
  const tell = (type, properties, id) => hooks.event({ event: { id, type, properties } })
  return { hooks, service: own, asked, tell, directory, is }
}

/** The context of a tool call, and what was shown through it. */
export function context(more = {}) {
  const shown = []
  const stop = new AbortController()
  const ctx = { sessionID: "ses_1", messageID: "msg_1", agent: "build", callID: "call_1", directory: "/project", abort: stop.signal }
  return { ctx: { ...ctx, metadata: (it) => void shown.push(it), ...more }, shown, stop }
}
