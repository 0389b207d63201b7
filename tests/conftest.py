"""A WES server under test: the one that STEPWES_TEST_URL names, or `stepwes serve` in a folder of its own."""

import os
import pathlib
import signal
import socket
import subprocess
import time
import uuid

import pytest
import requests

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("STEPWES_BIN", ROOT / "target/debug/stepwes"))
TERMINAL = {"COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR", "CANCELED", "PREEMPTED"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """`stepwes serve` as a process of ours."""

    def __init__(self, folder, *options, path=None):
        self.folder, self.options, self.port = pathlib.Path(folder), options, free_port()
        self.environment = {**os.environ, **({"PATH": path} if path is not None else {})}
        self.process, self.log = None, pathlib.Path(folder).parent / "serve.log"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/ga4gh/wes/v1"

    def command(self, *more):
        return [str(BIN), "serve", "--port", str(self.port), "--dir", str(self.folder), *self.options, *more]

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder.parent, env=self.environment)
        until(lambda: self.answers() or self.process.poll() is not None, "the server answers")
        assert self.process.poll() is None, self.log.read_text()
        return self

    def answers(self):
        try:
            return requests.get(f"{self.url}/service-info", timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        subprocess.run(self.command("--stop-runs"), timeout=120, check=True, capture_output=True)


def until(condition, what, seconds=120):
    """Waits for a condition; fails by name when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain until {what}")


class Wes:
    """The API as a client sees it."""

    def __init__(self, base, folder=None):
        self.base, self.folder = base, folder

    def get(self, path, **more):
        return requests.get(self.base + path, timeout=60, **more)

    def post(self, path, **more):
        return requests.post(self.base + path, timeout=120, **more)

    def requests_get(self, url, **more):
        """The content behind a URL that the service handed out."""
        answer = requests.get(url, timeout=60, **more)
        assert answer.ok, (url, answer.status_code, answer.text)
        return answer.content

    def requests_json(self, url):
        return requests.get(url, timeout=60).json()

    def submit(self, url, files=(), headers=None, **fields):
        """POST /runs as a form; files are (name, content) pairs."""
        form = {"workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": url, **fields}
        parts = [(name, (None, value)) for name, value in form.items() if value is not None]
        parts += [("workflow_attachment", (name, content)) for name, content in files]
        return self.post("/runs", files=parts, headers=headers)

    def run(self, url, files=(), **fields):
        answer = self.submit(url, files, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["run_id"]

    def state(self, run_id):
        return self.get(f"/runs/{run_id}/status").json()["state"]

    def log(self, run_id):
        answer = self.get(f"/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, run_id, seconds=180):
        until(lambda: self.state(run_id) in TERMINAL, f"run {run_id} has ended", seconds)
        return self.log(run_id)

    def gated(self, gate):
        """Starts the workflow that waits at `gate`; gives the run's id once its tool is at work."""
        run_id = self.run("gate.cwl", [workflow("gate.cwl")], workflow_params=gate.params())
        until(lambda: gate.processes() or self.state(run_id) in TERMINAL, "the workflow's tool runs")
        assert gate.processes(), self.log(run_id)
        return run_id

    def complete(self, run_id):
        log = self.ended(run_id)
        assert log["state"] == "COMPLETE", (log, self.get(f"/runs/{run_id}/logs/stderr").text)
        return log


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """The base URL of the server that most tests share."""
    if url := os.environ.get("STEPWES_TEST_URL"):
        yield Wes(url.rstrip("/"))
        return
    assert BIN.exists(), f"{BIN} is missing: build it with `make build`"
    server = Server(tmp_path_factory.mktemp("serve") / "state").start()
    yield Wes(server.url, server.folder)
    server.stop()


@pytest.fixture
def own_server(tmp_path):
    """A server for tests that kill it. Not for a deployed service."""
    if os.environ.get("STEPWES_TEST_URL"):
        pytest.skip("a deployed service cannot be killed: unset STEPWES_TEST_URL")
    server = Server(tmp_path / "state").start()
    yield server
    if server.process.poll() is not None:
        server.start()
    server.stop()


@pytest.fixture
def gate(tmp_path):
    """A file that a workflow waits for, and a marker by which its processes are found."""
    return Gate(tmp_path)


class Gate:
    def __init__(self, folder):
        self.file, self.marker = folder / "gate", f"gate-{uuid.uuid4().hex}"

    def open(self):
        self.file.touch()

    def params(self):
        return f'{{"gate": "{self.file}", "marker": "{self.marker}"}}'

    def processes(self):
        """The pids of the workflow's own processes."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.marker.encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


def workflow(name):
    """An attachment out of tests/workflows."""
    return (name, (ROOT / "tests/workflows" / name).read_bytes())
