#!/usr/bin/env python3
"""Time from exec to the first poll of the Lambda Runtime API, each function against a bare one.

    cargo build --release --bins --example hello && python3 tests/bench/cold_start.py

Prints the median of each function in milliseconds and as a ratio to `hello`, and the size of its zip.
The binaries take turns, so that a machine that gets slower slows them all. Each is copied first, as
Lambda unpacks it: a file that the linker has just written is in the page cache in small pieces, which
alone makes a function start a tenth slower.
"""

import http.server
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

FUNCTIONS = ["submit", "status", "cancel", "advance", "report", "collect", "reconcile", "authorize"]
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
RELEASE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", pathlib.Path(__file__).resolve().parents[2] / "target")) / "release"

polled = threading.Event()
poll_time = 0.0


class RuntimeApi(http.server.BaseHTTPRequestHandler):
    """Answers nothing: the first poll is all that is asked for."""

    def do_GET(self):
        global poll_time
        poll_time = time.perf_counter()
        polled.set()
        self.connection.settimeout(5)
        try:
            self.connection.recv(1)
        except OSError:
            pass

    def log_message(self, *_):
        pass


def first_poll(binary, port):
    """Milliseconds from exec to the first poll."""
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
        "AWS_LAMBDA_FUNCTION_NAME": binary.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "STEPWES_TABLE": "runs",
        "STEPWES_BUCKET": "runs",
        "STEPWES_CLUSTER": "arn:aws:ecs:us-east-1:123456789012:cluster/runs",
        "STEPWES_STATE_MACHINE_ARN": "arn:aws:states:us-east-1:123456789012:stateMachine:run",
        "STEPWES_DATA_ROLE_ARN": "arn:aws:iam::123456789012:role/data",
        "STEPWES_ENGINES": '[{"name":"cwltool","workflow_type":"CWL","workflow_type_versions":["v1.2"],"versions":["3"]}]',
        "STEPWES_RESOURCES": '{"compute":"fargate","cpu":{"default":1024,"max":4096},"memory":{"default":4096,"max":30720},"disk":{"default":50,"max":200},"time":86400}',
        "STEPWES_SERVICE": '{"id":"org.example.wes","name":"wes","description":"d","organization":{"name":"o","url":"https://example.org"},"auth_instructions_url":"https://example.org"}',
    }
    polled.clear()
    start = time.perf_counter()
    process = subprocess.Popen([binary], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if not polled.wait(20):
        process.kill()
        sys.exit(f"{binary.name} did not poll: {process.stderr.read().decode()[-500:]}")
    process.kill()
    process.wait()
    return (poll_time - start) * 1000


def zipped(binary):
    """The size of the function's zip, in MiB."""
    path = pathlib.Path("/tmp") / f"{binary.name}-{os.getpid()}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(binary, "bootstrap")
    size = path.stat().st_size
    path.unlink()
    return size / 2**20


def main():
    with tempfile.TemporaryDirectory() as folder:
        measure(pathlib.Path(folder))


def measure(folder):
    """Runs copies in `folder`, and prints the table."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    built = [RELEASE / "examples/hello", *(RELEASE / name for name in FUNCTIONS)]
    binaries = {binary.name: pathlib.Path(shutil.copy(binary, folder)) for binary in built}
    times = {name: [] for name in binaries}
    for _ in range(ROUNDS):
        for name, binary in binaries.items():
            times[name].append(first_poll(binary, server.server_port))
    bare = statistics.median(times["hello"])
    print(f"{'function':10} {'ms':>7} {'ratio':>6} {'zip MiB':>8}")
    for name, binary in binaries.items():
        median = statistics.median(times[name])
        print(f"{name:10} {median:7.2f} {median / bare:6.2f} {zipped(binary):8.2f}")


if __name__ == "__main__":
    main()
