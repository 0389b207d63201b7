"""Every state change of a run is told to a URL or a command: in order, at least once, whatever is killed."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import BIN, Server, Wes, until

TOOL = ("hello.cwl", b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [echo, hello]\nstdout: said\noutputs: {said: stdout}\n")
STATES = ["QUEUED", "INITIALIZING", "RUNNING", "COMPLETE"]


class Receiver:
    """A web server that keeps what it is posted; while `refuses` is set, it answers 503."""

    def __init__(self):
        self.events, self.refused, self.refuses = [], 0, False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.refuses:
                    receiver.refused += 1
                    self.send_response(503)
                else:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    receiver.events.append((headers, json.loads(body)))
                    self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://hook:secret@127.0.0.1:{self.server.server_port}/hook?key=secret"

    def of(self, run_id):
        return [event["detail"] for _, event in self.events if event["detail"]["run_id"] == run_id]

    def told(self, run_id, *states):
        """Waits until the last of these states has been told; gives the run's changes without repetitions."""
        until(lambda: [each for each in self.of(run_id) if each["to"] == states[-1]], f"{states[-1]} is told", 60)
        changes = self.of(run_id)
        versions = [int(each["version"]) for each in changes]
        first = [version for at, version in enumerate(versions) if version not in versions[:at]]
        assert first == list(range(1, len(states) + 1)), f"in order, and none is skipped: {versions}"
        by_version = {int(each["version"]): each for each in changes}
        assert [by_version[version]["to"] for version in first] == list(states)
        return [by_version[version] for version in first]


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()


@pytest.fixture
def serve(tmp_path, serve_only):
    """Starts a server that tells this receiver."""
    started = []

    def start(told):
        started.append(Server(tmp_path / "state", "--on-state-change", told).start())
        return started[-1], Wes(started[-1].url)

    yield start
    for server in started:
        if server.process.poll() is not None:
            server.start()
        server.stop()


def test_a_url_is_posted_every_change_as_eventbridge_would(serve, receiver):
    server, wes = serve(receiver.url)
    run_id = wes.run("hello.cwl", [TOOL], tags='{"project": "genes"}')
    wes.complete(run_id)
    queued, _, _, complete = receiver.told(run_id, *STATES)
    headers, event = receiver.events[-1]
    assert headers["content-type"] == "application/json; charset=utf-8" and headers["authorization"].startswith("Basic ")
    assert (event["source"], event["detail-type"], event["version"]) == ("stepwes", "WES Run State Change", "0")
    assert set(event) == {"version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"}
    assert queued["from"] == queued["start_time"] == queued["end_time"] == "" and queued["event"] == "enqueue"
    assert complete["from"] == "RUNNING" and complete["attempt"] == "1" and complete["has_outputs"] is True
    assert json.loads(complete["tags"]) == {"project": "genes"} and complete["owner"] == "anonymous"
    assert complete["outputs"] == f"s3://runs/results/{run_id}/outputs.json"
    assert (server.folder / "s3" / complete["outputs"].removeprefix("s3://")).exists()
    assert "secret" not in server.log.read_text()


def test_what_could_not_be_told_before_kill_9_is_told_after(serve, receiver, gate):
    receiver.refuses = True
    server, wes = serve(receiver.url)
    run_id = wes.gated(gate)
    until(lambda: receiver.refused, "the receiver has refused")
    assert wes.state(run_id) == "RUNNING", "a receiver that fails holds nothing up"
    server.kill()
    assert receiver.of(run_id) == []
    receiver.refuses = False
    server.start()
    receiver.told(run_id, *STATES[:3])
    server.kill()
    gate.open()
    server.start()
    wes.complete(run_id)
    receiver.told(run_id, *STATES)


def test_a_command_gets_each_change_on_its_standard_input(serve, tmp_path, gate):
    told = tmp_path / "told"
    # The second time that it is run it fails.
    command = f"test -e {tmp_path}/first -a ! -e {tmp_path}/second && {{ touch {tmp_path}/second; echo no >&2; exit 9; }}; touch {tmp_path}/first; echo \"$STEPWES_TO $(cat)\" >> {told}"
    server, wes = serve(command)
    run_id = wes.gated(gate)
    server.kill()
    gate.open()
    server.start()
    wes.complete(run_id)

    def lines():
        return [line.split(" ", 1) for line in told.read_text().splitlines()] if told.exists() else []

    until(lambda: [state for state, _ in lines() if state == "COMPLETE"], "COMPLETE is told")
    seen = []
    for state, text in lines():
        event = json.loads(text)
        assert event["detail"]["to"] == state and event["detail"]["run_id"] == run_id
        seen += [state] if state not in seen else []
    assert seen == STATES
    assert "the command exited with 9: no" in server.log.read_text()


@pytest.mark.parametrize("told", ["", "https://"])
def test_a_receiver_that_is_none_is_refused(tmp_path, serve_only, told):
    command = [str(BIN), "serve", "--port", "0", "--dir", str(tmp_path / "state"), "--on-state-change", told]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode != 0 and "neither a URL" in answer.stderr, answer.stderr
