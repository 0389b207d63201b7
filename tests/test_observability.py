"""What a server logs of requests and runs, and the trace that a run belongs to, from its caller to its engine."""

import collections
import json
import pathlib
import re
import subprocess

import pytest
import requests
from conftest import BIN, Server, Wes, until, workflow
from credentials import Token

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TOOL = ("hello.cwl", b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [echo, hello]\nstdout: said\noutputs: {said: stdout}\n")
STATES = ["QUEUED", "INITIALIZING", "RUNNING", "COMPLETE"]


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    """A server that asks for tokens, and a client with one."""
    server = Server(tmp_path_factory.mktemp("observed") / "state", "--auth", "token")
    made = subprocess.run(
        [str(BIN), "token", "create", "ada-laptop", "--owner", "ada@example.org", "--dir", str(server.folder)],
        capture_output=True, text=True, timeout=60, check=True,
    )
    server.start()
    yield Wes(server.url, server=server, credentials=Token(made.stdout.strip()))
    server.stop()


def lines(wes, target=None):
    every = [json.loads(line) for line in wes.server.log.read_text().splitlines() if line.startswith('{"timestamp"')]
    return [line for line in every if target is None or line["target"] == target]


def environments(pid):
    """Those of a process and of all that it was started by, as far as they can be read."""
    while pid > 1:
        process = pathlib.Path("/proc") / str(pid)
        try:
            yield (process / "environ").read_bytes().split(b"\0")
        except OSError:
            pass
        pid = int((process / "stat").read_text().rpartition(")")[2].split()[1])


def test_one_trace_leads_from_the_caller_to_the_engine(asking, gate, serve_only):
    answer = asking.submit(
        "gate.cwl", [workflow("gate.cwl")], headers={"traceparent": PARENT, "x-request-id": "r1"}, workflow_params=gate.params(),
    )
    run_id = answer.json()["run_id"]
    until(gate.processes, "the workflow's tool runs")
    seen = [variable for environment in environments(gate.processes()[0]) for variable in environment if variable.startswith(b"TRACEPARENT=")]
    assert f"TRACEPARENT={PARENT}".encode() in seen, "whoever makes spans in the engine hangs them below the caller's"
    gate.open()
    asking.complete(run_id)
    (submitted,) = [line for line in lines(asking, "stepwes::request") if line["request_id"] == "r1"]
    assert (submitted["run_id"], submitted["trace_id"], submitted["status"]) == (run_id, TRACE, 200)
    # Whatever the machine and the task did for the run belongs to its trace.
    def invoked():
        told = [line for line in lines(asking, "stepwes::invocation") if line.get("run_id") == run_id]
        return told if {"stepwes-advance", "stepwes-report", "stepwes-collect"} <= {line["function"] for line in told} else None
    until(invoked, "the invocations are told")
    told = invoked()
    assert {line["trace_id"] for line in told} == {TRACE}
    assert all(line["request_id"] and line["ms"] >= 0 for line in told)
    task = "\n".join(path.read_text() for path in asking.server.folder.glob("tasks/*/log"))
    assert [line for line in task.splitlines() if json.loads(line).get("trace_id") == TRACE and json.loads(line)["run_id"] == run_id]


def test_each_state_change_and_each_request_has_one_line_and_none_a_secret(asking, serve_only):
    server = asking.server
    run_ids = [asking.run("hello.cwl", [TOOL]) for _ in range(2)]
    for run_id in run_ids:
        asking.complete(run_id)
    for name, path, status in [
        ("known", f"/runs/{run_ids[0]}", 200), ("unknown", "/runs/nobody", 404), ("nowhere", "/nothing", 404), ("refused", "/runs?page_size=x", 400),
    ]:
        assert asking.get(path, headers={"x-request-id": name}).status_code == status
    assert requests.get(server.url + "/runs", headers={"x-request-id": "nobody"}, timeout=60).status_code == 401
    assert requests.get(server.url + "/runs", headers={"x-request-id": "elsewhere", "host": "evil.example"}, timeout=60).status_code == 403

    for run_id in run_ids:
        told = [line for line in lines(asking, "stepwes::state_change") if line["run_id"] == run_id]
        assert [(line["version"], line["to"]) for line in told] == list(enumerate(STATES, 1))
        assert [line.get("from") for line in told] == [None, *STATES[:-1]]
        assert all(line["ms_in_state"] >= 0 for line in told[1:]) and len({line["trace_id"] for line in told}) == 1
    counted = collections.Counter(line["request_id"] for line in lines(asking, "stepwes::request"))
    for name, status in [("known", 200), ("unknown", 404), ("nowhere", 404), ("refused", 400), ("nobody", 401), ("elsewhere", 403)]:
        assert counted[name] == 1, name
        (line,) = [line for line in lines(asking, "stepwes::request") if line["request_id"] == name]
        assert line["status"] == status and line["outcome"] == f"{status // 100}xx"
    assert set(counted.values()) == {1}
    text = server.log.read_text()
    secret = asking.credentials.token.split(".")[1]
    assert secret not in text and "ada@example.org" not in text
    # An attempt's token is 64 hexadecimal digits, and so is every signature of AWS's.
    assert not re.search(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", text)
