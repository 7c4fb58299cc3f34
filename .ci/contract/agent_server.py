"""An agent server just good enough for a service to be ready: sessions are made, prompted, and stay busy until aborted."""

import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

numbers = itertools.count(1)
busy = set()
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=None):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def route(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.split("?")[0].strip("/").split("/")
        match (self.command, path):
            case (_, ["global", "health"]):
                self.answer(200, {"healthy": True, "version": "1.18.33"})
            case ("GET", ["global", "event"] | ["event"]):
                self.stream()
            case ("GET", ["session", "status"]):
                with lock:
                    self.answer(200, {session: {"type": "busy"} for session in busy})
            case ("POST", ["session"]):
                self.answer(200, {"id": f"ses_{next(numbers)}", "directory": "/"})
            case ("GET", ["session"]):
                self.answer(200, [])
            case ("POST", ["session", session, "prompt_async"]):
                with lock:
                    busy.add(session)
                self.answer(204)
            case ("POST", ["session", session, "abort"]):
                with lock:
                    busy.discard(session)
                self.answer(200, True)
            case ("GET", ["session", _, "message" | "todo" | "children"]):
                self.answer(200, [])
            case ("GET", ["session", session]):
                self.answer(200, {"id": session, "directory": "/"})
            case _:
                self.answer(200, True)

    do_GET = do_POST = route

    def stream(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        event = {"payload": {"id": "evt_1", "type": "server.connected", "properties": {}}}
        while True:
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
            event["payload"]["type"] = "server.heartbeat"
            time.sleep(5)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that goes away is none of our business."""


server = Server(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
