// A scripted service for the plugin's tests: the server's side of a websocket, as much of it as a text protocol needs,
// and a record of all frames. It answers nothing by itself but a hello.

import { createHash } from "node:crypto"
import { createServer } from "node:http"

const PATIENCE = 10_000

/** Waits until the question has an answer that is true. */
export async function until(what, ask) {
  const begun = Date.now()
  for (;;) {
    const answer = await ask()
    if (answer) return answer
    if (Date.now() - begun > PATIENCE) throw new Error(`waited in vain: ${what}`)
    await new Promise((done) => setTimeout(done, 5))
  }
}

function encoded(opcode, payload) {
  const size = payload.length
  const head = size < 126 ? [0x80 | opcode, size] : size < 65536 ? [0x80 | opcode, 126, size >> 8, size & 255]
    : [0x80 | opcode, 127, 0, 0, 0, 0, ...[24, 16, 8, 0].map((by) => (size >>> by) & 255)]
  return Buffer.concat([Buffer.from(head), payload])
}

/** Takes whole frames off the front of what has been read: `[opcode, payload, rest]`, or nothing yet. */
function decoded(bytes) {
  if (bytes.length < 6) return undefined
  let [size, at] = [bytes[1] & 127, 2]
  if (size === 126) [size, at] = [bytes.readUInt16BE(2), 4]
  else if (size === 127) {
    if (bytes.length < 14) return undefined
    ;[size, at] = [Number(bytes.readBigUInt64BE(2)), 10]
  }
  if (bytes.length < at + 4 + size) return undefined
  const mask = bytes.subarray(at, at + 4)
  const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + size)).map((byte, nth) => byte ^ mask[nth & 3])
  return [bytes[0] & 15, payload, bytes.subarray(at + 4 + size)]
}

export class Service {
  frames = [] // all of all connections, in order, each with the number of its connection
  hellos = 0
  instance = "gr_1"
  greet = (hello, connection) => connection.send({ type: "welcome", protocol: 1, instance: this.instance })

  /** Listens; with the port of one before, where that one did. */
  static async start(port = 0) {
    const service = new Service()
    service.connections = new Set()
    service.http = createServer((_, answer) => answer.writeHead(404).end())
    service.http.on("upgrade", (request, socket) => service.accept(request, socket))
    await new Promise((done) => service.http.listen(port, "127.0.0.1", done))
    service.port = service.http.address().port
    service.url = `http://127.0.0.1:${service.port}`
    return service
  }

  accept(request, socket) {
    const key = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key.digest("base64")}\r\n\r\n`)
    const connection = {
      socket,
      send: (frame) => socket.write(encoded(1, Buffer.from(typeof frame === "string" ? frame : JSON.stringify(frame)))),
      close: (code, reason) => socket.end(encoded(8, Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]))),
    }
    this.connections.add(connection)
    let read = Buffer.alloc(0)
    socket.on("data", (chunk) => {
      read = Buffer.concat([read, chunk])
      for (let next = decoded(read); next; next = decoded(read)) {
        const [opcode, payload, rest] = next
        read = rest
        if (opcode === 8) socket.end(encoded(8, payload))
        if (opcode === 1) this.hear(JSON.parse(payload), connection)
      }
    })
    socket.on("error", () => {})
    socket.on("close", () => this.connections.delete(connection))
  }

  hear(frame, connection) {
    this.frames.push(frame)
    if (frame.type !== "hello") return
    this.hellos += 1
    this.connection = connection
    this.greet(frame, connection)
  }

  send(frame) { this.connection.send(frame) }
  /** Frames of that type so far. */
  of(type) { return this.frames.filter((frame) => frame.type === type) }
  /** Waits for so many frames of that type; returns the newest of them. */
  async next(type, count = 1) {
    await until(`${count} of ${type}`, () => this.of(type).length >= count)
    return this.of(type)[count - 1]
  }
  /** The events that were forwarded, by what they are. */
  events() { return this.of("event").map(({ event }) => event) }

  /** Cuts every connection and listens no more. */
  async stop() {
    for (const { socket } of this.connections) socket.destroy()
    this.http.closeAllConnections()
    await new Promise((done) => this.http.close(done))
  }
}
