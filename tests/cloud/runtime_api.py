"""A stand-in of Lambda's Runtime API: feeds events to a function's binary and takes its answers.
<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>"""

import http.server
import json
import queue
import subprocess
import threading
import time
import uuid


class Function:
    """A bootstrap as a process, with its own Runtime API."""

    def __init__(self, binary, environment, log):
        events, self.events, self.answers = queue.Queue(), None, queue.Queue()
        self.events = events
        answers = self.answers

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                assert self.path == "/2018-06-01/runtime/invocation/next", self.path
                event = events.get()
                if event is None:
                    self.close_connection = True
                    return
                self.reply(200, json.dumps(event).encode(), {
                    "Lambda-Runtime-Aws-Request-Id": str(uuid.uuid4()),
                    "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 30_000),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:f",
                    "Lambda-Runtime-Trace-Id": "Root=1-69573a45-5f0c1d2e3b4a59687786a5b4;Parent=53995c3f42cd8ad8;Sampled=0",
                })

            def do_POST(self):
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers["Content-Length"]))
                answers.put((self.path.rpartition("/")[2], body))
                self.reply(202, b"{}", {})

            def reply(self, status, body, headers):
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [binary], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=environment | {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}"},
            )

    def __call__(self, event):
        """Gives the answer, and whether it is one: `response`, or `error`."""
        self.events.put(event)
        kind, body = self.answers.get(timeout=60)
        return kind, json.loads(body)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.events.put(None)
        self.server.shutdown()
        self.server.server_close()
