// Greenroom's plugin for opencode, version 0.0.0
//
// It connects this opencode to the Greenroom service: events go out, calls to opencode's API come in, and agents get
// the tools of background tasks. It makes no decisions: the service defines what a tool does and which arguments it takes.
// It must never throw into opencode, block it, or grow without bound. `greenroom plugin install` installs it.
//
// GREENROOM_URL        where the service listens; else as its description says, which it writes at its start
// GREENROOM_TOKEN      its secret; else the file that the description names, else ~/.config/greenroom/token
// GREENROOM_HINT=0     leaves the system prompt alone
// GREENROOM_AUTOSTART=0 never starts the service; GREENROOM_BIN is the command to start it with

const BINARY = "" // filled in by the installer
const [PROTOCOL, MIB, VERBS] = [1, 1024 * 1024, ["get", "post", "put", "patch", "delete"]]
const DEFAULTS = {
  url: "http://127.0.0.1:7717", frame: 4 * MIB, // the most the service takes
  buffered: 1000, bufferedBytes: 16 * MIB, fold: 100, // events kept without a connection; one sign of life per session and ms
  retryFirst: 250, retryMost: 10_000, retryRefused: 60_000, // a wrong token stays wrong
  helloWithin: 10_000, startEvery: 15_000,
  patience: 8_000, startWithin: 30_000, // how long a tool waits for a connection, and while this plugin starts the service
  linger: 5_000, // how long a bridge without users stays open: aborts follow the disposal of an instance
  lost: 60_000, callWithin: 660_000, // how long a call waits for one to come back, and for its result: longer than any `timeout`
  requests: 256, calls: 256, requestWithin: 130_000, compaction: 2_000, // longer than the service waits; what a compaction can spare
}

// The events that the service reads; other events of opencode are not forwarded.
const VITAL = new Set(["session.idle", "session.error", "session.deleted", "session.status", "permission.asked",
  "permission.replied", "question.asked", "question.replied", "question.rejected"])
const ACTIVITY = new Set(["session.created", "message.updated", "message.part.updated", "message.part.delta", "todo.updated"])

const HINT = `Where the tool background_task is offered: work that can go on by itself (searches, reviews, long commands, \
independent parts of a plan) is best handed to background tasks. It returns at once; launch independent ones together, \
then go on with other work or end your turn. One message wakes you when all of them are done: never poll or sleep. Read \
results with background_output. Do yourself what is small, or what your next step needs.`

// The same descriptions as in `greenroom_server::tools`.
const [text, flag, number] = ["string", "boolean", "integer"].map((type) => (description) => ({ type, description }))
const tool = (required, properties, description) => ({ required, properties, description })
const TOOLS = {
  background_task: tool(["description", "prompt", "agent"], {
    description: text("The task in three to six words, for people."), agent: text('Which agent does it, for instance "explore".'),
    prompt: text("The prompt for the agent: all it needs to know, since it sees nothing of this conversation."),
    model: text('The model as "provider/model"; without it the agent\'s own.'), category: text("A label that is kept and shown."),
    skills: { type: "array", items: { type: "string" }, description: "Names of skills, kept with the task and shown." },
    directory: text("The absolute path of the directory to work in; without it the directory of the parent session."),
    session_id: text("Resume the session of an ended task: it goes on with all it knows. Only the prompt is used then."),
  }, `Launch a task for another agent in the background, or resume one by its session_id. Returns a task_id at once; several \
run at the same time. You are notified when tasks end: do not poll or wait, go on with other work or end your turn. Read a result \
with background_output.`),
  background_output: tool(["task_id"], {
    task_id: text("The task's id, or its session id."), block: flag("Wait for the task's end. Rarely needed: you are notified when it ends."),
    timeout: number("How long to wait at most with block, in milliseconds (60000; at most 600000)."),
    full_session: flag("The messages of the whole session instead of the last answer; the next four are for it."),
    message_limit: number("At most so many messages (100)."), from_end: flag("The newest messages instead of the oldest."),
    since_message_id: text("Only messages after this one."), include_tool_results: flag("What tools gave back too."),
    include_thinking: flag("Reasoning too."), thinking_max_chars: number("Cut reasoning to so many characters (2000)."),
    offset: number("Begin so many characters into the answer: to read on in one that was cut."),
  }, `Read the result of a background task that has ended, or see how one stands. You are notified when a task ends: call this \
then, and do not poll with it. Reading consumes nothing.`),
  background_cancel: tool([], { taskId: text("The id of the task, or its session id."), all: flag("All you launched, and all below.") },
    "Cancel a background task by its taskId, or all you launched with all=true. You are not notified of tasks that you cancel."),
  background_send: tool(["task_id", "prompt"], { task_id: text("The id of a running task."), prompt: text("The prompt for the agent.") },
    "Give a running background task a further instruction. To go on with one that has ended, use background_task."),
  background_list: tool([], { status: text("Only these: pending, running, completed, error, cancelled, interrupt (commas between).") },
    "List the background tasks you launched, with their states. For an overview, not for waiting: you are notified when tasks end."),
}

// Without `import`: opencode silently skips a plugin whose imports it cannot resolve.
const builtin = (name) => process.getBuiltinModule(`node:${name}`)
const quietly = (work) => new Promise((done) => done(work())).catch(() => undefined)
const safe = (work) => (...given) => quietly(() => work(...given))
// Timers of the plugin do not keep opencode running.
const later = (work, ms) => setTimeout(() => quietly(work), ms).unref()
const sizeOf = (string) => (string.length * 3 < MIB ? string.length : Buffer.byteLength(string))
const sessionOf = ({ properties: it } = {}) => it?.sessionID ?? it?.info?.sessionID ?? it?.part?.sessionID ?? it?.info?.id
// `opencode run` does not wait for messages of the service.
const endsWithTurn = () => process.argv.slice(2).find((it) => !it.startsWith("-")) === "run"
const complaint = (message) => ({ name: "BridgeError", data: { message } })
// An oversized event is forwarded without its long texts.
const shortened = (_, it) => (typeof it === "string" && it.length > 2000 ? `${it.slice(0, 2000)}…` : it)
const toolText = (output, title = "") => ({ title, output, metadata: {} })

/** Buffers frames while there is no connection. The oldest are dropped first, activity before other events. */
class Outbox {
  held = []; size = 0
  constructor(most, bytes) { Object.assign(this, { most, bytes }) }
  push(frame, vital) {
    this.size += frame.length
    this.held.push({ frame, vital })
    while (this.held.length > this.most || (this.size > this.bytes && this.held.length > 1)) {
      this.dropped = this.take(Math.max(this.held.findIndex((it) => !it.vital), 0)) !== ""
    }
  }
  take(at = 0) {
    const [{ frame }] = this.held.splice(at, 1)
    this.size -= frame.length
    return frame
  }
}

/** Forwards one piece of streamed text per session and window, the newest; other events at once, in order. */
class Fold {
  sessions = new Map()
  constructor(window, emit) { Object.assign(this, { window, emit }) }
  take(event) {
    const session = sessionOf(event)
    const whole = event.type === "message.part.updated" && ["text", "reasoning"].includes(event.properties?.part?.type)
    if (!session || !(whole || event.type === "message.part.delta")) {
      this.forget(session).forEach(this.emit)
      return this.emit(event)
    }
    const open = this.sessions.get(session)
    // The whole text replaces its pieces.
    if (open) return void (open.waiting = whole ? event : (open.waiting ?? event))
    if (this.sessions.size >= 1024) this.sessions.forEach((_, id) => this.forget(id))
    this.sessions.set(session, { timer: later(() => this.forget(session).forEach((it) => this.take(it)), this.window) })
    this.emit(event)
  }
  forget(session) {
    const open = this.sessions.get(session)
    clearTimeout(open?.timer)
    this.sessions.delete(session)
    return open?.waiting ? [open.waiting] : []
  }
}

/** One connection to the service, for one directory of this process. */
class Bridge {
  constructor(input, tuning) {
    // `state` is one of down, opening, up, refused, replaced.
    Object.assign(this, { input, tuning, state: "down", problem: "", trouble: "", users: 0, failures: 0, startedAt: 0 })
    Object.assign(this, { calls: new Map(), contexts: new Map(), requests: new Set(), waiting: new Set() })
    Object.assign(this, { recent: new Set(), reverted: new Set() }) // ids of events, and sessions
    this.outbox = new Outbox(tuning.buffered, tuning.bufferedBytes)
    this.fold = new Fold(tuning.fold, (event) => this.emit(event))
    // An address that is configured. Without one the service describes itself, each time it starts.
    this.fixed = process.env.GREENROOM_URL?.trim() || (tuning.url === DEFAULTS.url ? "" : tuning.url)
    this.locate()
    if (!this.url) return void Object.assign(this, { state: "refused", problem: "GREENROOM_URL is no address" })
    const health = { url: "/global/health", signal: AbortSignal.timeout(5000) }
    const versionRead = quietly(async () => (this.version = (await input.client._client.get(health)).data?.version))
    Promise.race([versionRead, new Promise((done) => later(done, 300))]).then(() => this.connect())
  }

  /** Finds the service: at the configured address, else as described, else at the default address. */
  locate() {
    const described = this.fixed ? undefined : readDescription()
    this.configured = this.fixed || described?.url || this.tuning.url
    this.described = described
    // Without the scheme, `localhost` would be taken for one.
    const address = this.configured.includes("://") ? this.configured : `http://${this.configured}`
    this.url = /^https?:/i.test(address) && URL.canParse(address) ? new URL(address) : undefined
    // The secret of the user's file is not sent to another user's process.
    this.foreign = Boolean(this.url && isLocal(this.url) && listenerIsForeign(this.url.port || 80))
  }

  connect() {
    clearTimeout(this.retry)
    if (this.state === "opening" || this.state === "up" || this.closed) return
    this.locate()
    Object.assign(this, { state: "opening", socket: undefined, refusal: "" })
    if (this.foreign && !this.fixed) return this.end(undefined, 1006, "what listens there belongs to another user")
    try {
      const socket = new WebSocket(new URL("/v1/bridge", this.url).href.replace(/^http/, "ws"))
      const tooLate = later(() => this.end(socket, 1006, "it does not answer"), this.tuning.helloWithin)
      this.socket = socket
      socket.onopen = () => quietly(() => socket.send(this.hello()))
      socket.onmessage = ({ data }) => quietly(() => socket === this.socket && this.hear(JSON.parse(data), tooLate))
      // Not every runtime closes a socket that failed to open; if it does, the close has more details.
      socket.onerror = () => later(() => this.end(socket, 1006, ""), 50)
      socket.onclose = ({ code, reason }) => { clearTimeout(tooLate); this.end(socket, code, reason) }
    } catch (error) {
      this.end(this.socket, 1006, String(error?.message ?? error))
    }
  }

  hello() {
    // An opencode that does not listen on a port reports this address.
    const serverURL = [this.input.serverUrl].map(String).find((it) => /^http/.test(it) && it !== "http://localhost:4096/")
    const who = { directory: this.input.directory, pid: process.pid, serverURL, opencodeVersion: this.version,
      uid: process.getuid?.(), token: this.foreign ? process.env.GREENROOM_TOKEN : token(this.described) }
    return JSON.stringify({ type: "hello", protocol: PROTOCOL, ...who })
  }
  /** Handles the end of a socket; the end of a replaced socket is ignored. */
  end(socket, code, reason) {
    if (socket !== this.socket || this.closed) return
    const [wasUp, why] = [this.state === "up", this.refusal || reason]
    // A refusal at the default address comes from a service with another home: this user's own one starts beside it.
    const refused = Boolean(this.fixed || this.described) && (code === 1008 || (code >= 4400 && code < 4500))
    // 4001: another plugin of this process and directory has taken over; a reconnect would replace it in turn.
    Object.assign(this, { state: code === 4001 ? "replaced" : refused ? "refused" : "down", socket: undefined })
    quietly(() => socket?.close())
    if (code === 4001) return
    this.problem = refused ? `it refuses this opencode: ${why || code}` : why || this.problem || "nothing answers there"
    const backoff = Math.min(this.tuning.retryFirst * 2 ** Math.min(this.failures, 20), this.tuning.retryMost)
    this.failures = wasUp ? 0 : this.failures + 1
    this.again(refused ? this.tuning.retryRefused : backoff * (0.5 + Math.random() / 2))
    if (refused) this.waiting.forEach((settle) => settle())
    else if (!wasUp) quietly(() => this.startService())
  }
  again(ms) { clearTimeout(this.retry); this.retry = later(() => this.connect(), ms) }
  /** Resolves true once connected; false if that takes too long, or cannot be. */
  connected(ms) {
    if (this.state === "up" || this.state === "refused") return Promise.resolve(this.state === "up")
    this.failures = 0
    this.connect()
    const begun = Date.now()
    const limit = () => (this.starting && !this.trouble ? Math.max(ms, this.tuning.startWithin) : ms)
    return new Promise((done) => {
      const settle = () => { clearInterval(timer); this.waiting.delete(settle); done(this.state === "up") }
      const timer = setInterval(() => Date.now() - begun >= limit() && settle(), Math.min(ms, 250))
      this.waiting.add(settle)
    })
  }
  /** True if it was sent, false if there is no connection, undefined if it is too large. */
  send(frame) {
    const line = JSON.stringify(frame)
    if (sizeOf(line) > this.tuning.frame) return undefined
    if (this.state !== "up" || this.socket.readyState !== 1) return false
    this.socket.send(line)
    return true
  }
  hear(frame, tooLate) {
    if (frame.type === "error" && this.state !== "up") this.refusal = String(frame.message)
    else if (frame.type === "toolResult") this.calls.get(frame.id)?.settle(frame)
    else if (frame.type === "compactionContext") this.contexts.get(frame.id)?.(frame.markdown)
    else if (frame.type === "request" && !this.requests.has(frame.id)) quietly(() => this.answer(frame, this.requests))
    if (frame.type !== "welcome") return
    clearTimeout(tooLate)
    // Another service counts its requests anew.
    if (this.instance !== frame.instance) this.requests = new Set()
    Object.assign(this, { state: "up", failures: 0, problem: "", trouble: "", starting: false, instance: frame.instance })
    this.drain()
    // The service joins a call it knows, or answers it again; it never carries one out twice.
    this.calls.forEach((call) => this.send(call.frame))
    this.waiting.forEach((settle) => settle())
  }
  event(event) {
    const wanted = VITAL.has(event.type) || ACTIVITY.has(event.type)
    if (!(event.type === "session.updated" ? this.changesRevert(event.properties?.info) : wanted)) return
    // Two plugins in one directory both get the event.
    if (event.id && this.recent.has(event.id)) return
    if (event.id) this.recent.add(event.id)
    if (this.recent.size > 256) this.recent.delete(this.recent.values().next().value)
    this.fold.take(event)
  }
  /** True if a session is reverted or restored: of its updates, only these are forwarded. */
  changesRevert({ id, revert } = {}) {
    if (!revert) return this.reverted.delete(id)
    if (this.reverted.size >= 1024) this.reverted.clear()
    return this.reverted.add(id)
  }
  /** An instance begins to use the bridge. */
  use(input) {
    clearTimeout(this.closing)
    this.input = input // the newest client is one that still works
    this.users += 1
  }
  /**
   * An instance is disposed. The frame is sent synchronously: no timer may run after this. The connection stays open for
   * the aborts of the instance's sessions, which follow; the end of the process, or `linger`, closes it.
   */
  leave() {
    this.users -= 1
    const frame = { type: "disposing" }
    if (this.send(frame) === false) this.outbox.push(JSON.stringify(frame), true)
    if (this.users > 0) return
    this.closing = later(() => {
      this.closed = true
      if (bridges.get(this.input.directory) === this) bridges.delete(this.input.directory)
      clearTimeout(this.retry)
      this.socket?.close(1000)
    }, this.tuning.linger)
  }
  emit(event) {
    let line = JSON.stringify({ type: "event", event })
    if (sizeOf(line) > this.tuning.frame) line = JSON.stringify({ type: "event", event }, shortened)
    if (sizeOf(line) <= this.tuning.frame) this.outbox.push(line, !ACTIVITY.has(event.type))
    this.drain()
  }
  drain() {
    clearTimeout(this.draining)
    while (this.outbox.held.length) {
      if (this.state !== "up" || this.socket.readyState !== 1) return
      // A service that reads slowly: later frames wait in the outbox, which is bounded.
      if (this.socket.bufferedAmount > this.tuning.frame) return void (this.draining = later(() => this.drain(), 50))
      this.socket.send(this.outbox.take())
    }
    if (this.outbox.dropped && this.send({ type: "reconcile" })) this.outbox.dropped = false
  }

  async answer({ id, method, path, query, body }, requests) {
    const reply = (status, answer = null) => {
      if (requests !== this.requests || this.send({ type: "response", id, status, body: answer }) !== undefined) return
      this.send({ type: "response", id, status: 413, body: complaint("the answer is larger than a frame may be") })
    }
    const verb = String(method).toLowerCase()
    if (requests.size >= this.tuning.requests) return reply(503, complaint("too many requests at a time"))
    if (!VERBS.includes(verb) || !String(path).startsWith("/")) return reply(400, complaint("no `method` or `path` of the API"))
    requests.add(id)
    const signal = AbortSignal.timeout(this.tuning.requestWithin)
    const call = { url: path, query, body, headers: body === undefined ? {} : { "content-type": "application/json" }, signal }
    try {
      const { data, error, response } = await this.input.client._client[verb](call)
      const status = response?.status ?? (error === undefined ? 200 : 502)
      reply(status, status === 204 ? null : (data ?? error))
    } catch (error) {
      quietly(() => reply(signal.aborted ? 504 : 502, complaint(String(error?.message ?? error))))
    } finally {
      requests.delete(id)
    }
  }

  async call(name, args, { sessionID, messageID, agent, callID, directory = this.input.directory, abort, metadata: show }) {
    if (!(await this.connected(this.tuning.patience))) return toolText(this.absence(), "no service")
    if (this.calls.size >= this.tuning.calls) return toolText("Too many calls at a time; try again when some have returned.")
    // A model that believes an argument is needed sends it empty.
    const given = ([key, it]) => TOOLS[name].required.includes(key) || !["", null, undefined].includes(it)
    const context = { sessionID, messageID, agent, callID, directory, endsWithTurn: endsWithTurn() || undefined }
    const known = Object.fromEntries(Object.entries(args ?? {}).filter(given))
    const frame = { type: "toolCall", id: crypto.randomUUID(), tool: name, args: known, context }
    if (this.send(frame) === undefined) return toolText("The arguments are too large; put long texts into a file and name it.")
    const { title, output, metadata } = await this.outcome(frame, abort)
    const result = { title: title ?? "", output: output ?? "", metadata: { ...metadata } }
    // The key under which opencode looks for the session that a tool has opened.
    if (metadata?.sessionID) result.metadata.sessionId ??= metadata.sessionID
    await quietly(() => show?.(result))
    return result
  }
  /** Waits for the result of a call, over as many connections as it takes. */
  outcome(frame, abort) {
    const begun = Date.now()
    let up = begun
    return new Promise((done) => {
      const settle = (result) => {
        clearInterval(watch)
        abort?.removeEventListener("abort", stop)
        this.calls.delete(frame.id)
        done(result)
      }
      const stop = () => {
        this.send({ type: "toolAbort", id: frame.id })
        settle({ output: "Stopped waiting. The tasks themselves go on." })
      }
      const watch = setInterval(() => {
        if (this.state === "up") up = Date.now()
        const unsure = "Whether the call took effect is not known: look with background_list before you repeat it."
        if (this.state === "refused" || Date.now() - up > this.tuning.lost) settle({ output: `${this.absence()} ${unsure}` })
        if (Date.now() - begun > this.tuning.callWithin) settle({ output: `The service does not answer. ${unsure}` })
      }, Math.min(500, this.tuning.lost / 4))
      this.calls.set(frame.id, { frame, settle })
      abort?.addEventListener("abort", stop)
      if (abort?.aborted) stop()
    })
  }
  /** Returns the output of a tool when there is no service: why it did not start, else that nothing answers. */
  absence() {
    const wrong = "Tell the user to set GREENROOM_TOKEN, or to install the plugin that came with it, and to start opencode again."
    const unset = "Tell the user to set GREENROOM_URL as http://HOST:PORT, or not at all, and to start opencode again."
    const gone = "Tell the user to start it with `greenroom serve`, or do the work without background tasks."
    const why = (this.state !== "refused" && this.trouble) || this.problem
    const log = this.startLog ? `Its log: ${this.startLog}. ` : ""
    const hint = !this.url ? unset : this.state === "refused" ? wrong : gone
    return `The background task service at ${this.url?.origin ?? this.configured} cannot be used (${why}). ${log}${hint}`
  }
  /** Returns the text that a compaction carries along, or nothing if that takes too long. */
  carried(sessionID) {
    const id = crypto.randomUUID()
    if (!this.send({ type: "compactionContext", id, sessionID })) return undefined
    const answer = new Promise((done) => { this.contexts.set(id, done); later(done, this.tuning.compaction) })
    return answer.finally(() => this.contexts.delete(id))
  }
  /** Starts the service if nothing listens at its address, at limited rate; of several processes, the holder of the lock. */
  async startService() {
    const { hostname, port } = this.url
    if (!isLocal(this.url) || !this.users || process.env.GREENROOM_AUTOSTART === "0" || Date.now() - this.startedAt < this.tuning.startEvery) return
    this.startedAt = Date.now()
    // Without a configured address the service takes a free port if that one is taken.
    const taken = this.fixed && (await listens(hostname.replace(/[[\]]/g, ""), port))
    if (taken) return void (this.trouble = "what listens there is no bridge")
    this.trouble = ""
    const [fs, home] = [builtin("fs"), builtin("os").homedir()]
    const folder = `${process.env.XDG_STATE_HOME || `${home}/.local/state`}/greenroom`, lock = `${folder}/start-${port}.lock`
    this.startLog = `${folder}/serve-${port}.log`
    try {
      fs.mkdirSync(folder, { recursive: true, mode: 0o700 })
      // Left behind by a killed process.
      if (fs.statSync(lock, { throwIfNoEntry: false })?.mtimeMs < Date.now() - 30_000) fs.rmSync(lock, { force: true })
      fs.writeFileSync(lock, String(process.pid), { flag: "wx" })
      later(() => fs.rmSync(lock, { force: true }), 10_000)
      const log = fs.openSync(this.startLog, "a", 0o600)
      const listen = `${hostname === "localhost" ? "127.0.0.1" : hostname}:${port}`
      const address = this.fixed ? ["--listen", listen] : []
      const args = ["serve", ...address, "--set", "opencode.events=bridge", "--exit-when-unused", "1h"]
      const options = { cwd: home, detached: true, stdio: ["ignore", log, log] }
      const child = builtin("child_process").spawn(process.env.GREENROOM_BIN || BINARY || "greenroom", args, options)
      child.once("error", (error) => (this.trouble = `it cannot be started: ${error.message}`))
      child.once("exit", (code) => (this.trouble ||= `it ended with code ${code}`)).unref()
      this.starting = true
      fs.closeSync(log)
    } catch (error) {
      if (error.code !== "EEXIST") this.trouble = `it cannot be started: ${error.message}`
    }
    this.failures = 0
    this.again(this.tuning.retryFirst)
  }
}

const listens = (host, port) => new Promise((done) => {
  const socket = builtin("net").connect({ host, port: Number(port), timeout: 1000 })
  const say = (answer) => () => { socket.destroy(); done(answer) }
  socket.once("connect", say(true)).once("error", say(false)).once("timeout", say(true))
})
const attempt = (work) => { try { return work() } catch { return undefined } }
const isOwn = ({ uid }) => process.getuid === undefined || uid === process.getuid()
/** Returns the description of the user's running service. One that another user could have written is ignored. */
function readDescription() {
  return attempt(() => {
    const [fs, runtime] = [builtin("fs"), process.env.XDG_RUNTIME_DIR]
    const state = process.env.XDG_STATE_HOME || `${builtin("os").homedir()}/.local/state`
    const folder = runtime && attempt(() => isOwn(fs.statSync(runtime))) ? runtime : state
    const path = `${folder}/greenroom/service.json`, file = fs.lstatSync(path), home = fs.statSync(`${folder}/greenroom`)
    if (!file.isFile() || !isOwn(file) || file.mode & 0o077 || !isOwn(home) || home.mode & 0o022) return undefined
    const found = JSON.parse(fs.readFileSync(path, "utf8"))
    const startTime = processStart(found.pid)
    return startTime === undefined || startTime === found.startTime ? found : undefined
  })
}
/** Returns the start time of a process as the service writes it; undefined where the system has no such file. Throws if the process has ended. */
function processStart(pid) {
  process.kill(pid, 0)
  const read = (path) => builtin("fs").readFileSync(path, "utf8")
  const boot = attempt(() => read("/proc/sys/kernel/random/boot_id").trim())
  if (boot === undefined) return undefined
  return `${read(`/proc/${pid}/stat`).split(")").at(-1).trim().split(/\s+/)[19]}@${boot}`
}
const isLocal = ({ hostname, protocol }) => protocol === "http:" && ["127.0.0.1", "localhost", "[::1]"].includes(hostname)
// The loopback and unspecified addresses as in the tables of the kernel: of IPv4, of IPv6, and mapped ones.
const MAPPED = "0000000000000000FFFF0000"
const LOCAL_ADDRESSES = ["0100007F", "0".repeat(8), "00000000000000000000000001000000", "0".repeat(32)]
  .concat(["0100007F", "0".repeat(8)].map((it) => MAPPED + it))
/** Returns true if another user's process listens on a port of this machine; false where the system has no table of listeners. */
function listenerIsForeign(port) {
  const wanted = Number(port).toString(16).toUpperCase().padStart(4, "0")
  const tables = ["/proc/net/tcp", "/proc/net/tcp6"].map((path) => attempt(() => builtin("fs").readFileSync(path, "utf8")) ?? "")
  const rows = tables.flatMap((table) => table.split("\n").slice(1)).map((row) => row.trim().split(/\s+/))
  return rows.some(([, local, , state, , , , uid]) => {
    const [address, at] = state === "0A" ? local.split(":") : []
    return at === wanted && LOCAL_ADDRESSES.includes(address) && !isOwn({ uid: Number(uid) })
  })
}
/** Returns the text of a file that no other user than the administrator could have written. */
function readTrusted(path) {
  const fs = builtin("fs"), file = fs.statSync(path)
  return (isOwn(file) || file.uid === 0) && !(file.mode & 0o022) ? fs.readFileSync(path, "utf8") : undefined
}
function token(described) {
  const config = process.env.XDG_CONFIG_HOME || `${builtin("os").homedir()}/.config`
  const path = described?.tokenFile ?? `${config}/greenroom/token`
  return process.env.GREENROOM_TOKEN || attempt(() => readTrusted(path)?.trim()) || undefined
}
// One bridge a directory: opencode may load this file twice, and its instances come and go.
const bridges = (globalThis[Symbol.for("greenroom.bridges")] ??= new Map())

export const Greenroom = async (input, options) => {
  const bridge = bridges.get(input.directory) ?? new Bridge(input, { ...DEFAULTS, ...options })
  bridges.set(input.directory, bridge)
  bridge.use(input)
  const tools = Object.entries(TOOLS).map(([name, { description, properties }]) => {
    const execute = async (...given) => (await quietly(() => bridge.call(name, ...given))) ?? toolText(bridge.absence())
    return [name, { description, args: properties, execute }]
  })
  return {
    tool: Object.fromEntries(tools),
    event: safe(({ event }) => bridge.event(event)),
    // From plain schemas opencode makes every argument a required one.
    "tool.definition": safe(({ toolID }, output) => {
      const { properties, required } = Object.hasOwn(TOOLS, toolID) ? TOOLS[toolID] : {}
      if (properties) output.jsonSchema = { type: "object", properties, required, additionalProperties: false }
    }),
    "experimental.chat.system.transform": safe((_, { system }) => {
      const unwanted = (it) => it === HINT || it.includes("title generator") || endsWithTurn()
      if (process.env.GREENROOM_HINT !== "0" && !system.some(unwanted)) system.push(HINT)
    }),
    "experimental.session.compacting": safe(async ({ sessionID }, output) => {
      const markdown = await bridge.carried(sessionID)
      if (markdown && !output.context.includes(markdown)) output.context.push(markdown)
    }),
    dispose: safe(() => bridge.leave()),
  }
}
