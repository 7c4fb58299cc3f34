// Stands in for `greenroom serve`: notes its arguments in the folder named first, listens, answers every tool, and ends
// with its last connection.

import { writeFileSync } from "node:fs"
import { join } from "node:path"

import { Service } from "./service.js"

const [folder, ...args] = process.argv.slice(2)
writeFileSync(join(folder, `started-${process.pid}`), args.join(" "))
const port = Number(args[args.indexOf("--listen") + 1].split(":").at(-1))
const service = await Service.start(port)
console.error("started")
let answered = 0
setInterval(() => {
  for (const { id } of service.of("toolCall").slice(answered)) {
    answered += 1
    for (const connection of service.connections) connection.send({ type: "toolResult", id, output: "answered" })
  }
  if (service.hellos && service.connections.size === 0) process.exit(0)
}, 10)
setTimeout(() => process.exit(1), 20_000)
