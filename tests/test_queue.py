"""More runs than may be at work at once: the others wait, QUEUED, in their order."""

import collections
import concurrent.futures
import os
import shutil

import pytest
from conftest import Gate, Server, Wes, until, workflow

# How many runs are submitted at once; `STEPWES_LOAD=1000` is for those who have minutes.
LOAD = int(os.environ.get("STEPWES_LOAD", "200"))
GATE = [workflow("gate.cwl")]


@pytest.fixture
def one_slot(tmp_path):
    server = Server(tmp_path / "state", "--max-engines", "1").start()
    yield server
    server.stop()


def test_runs_wait_in_their_order_whatever_becomes_of_the_server(one_slot, tmp_path):
    service = Wes(one_slot.url)
    gates = []
    for name in "abcd":
        (tmp_path / name).mkdir()
        gates.append(Gate(tmp_path / name))
    runs = [service.gated(gates[0])]
    runs += [service.run("gate.cwl", GATE, workflow_params=gate.params()) for gate in gates[1:]]
    states = [service.state(run_id) for run_id in runs]
    assert states == ["RUNNING", "QUEUED", "QUEUED", "QUEUED"]
    counts = service.get("/service-info").json()["system_state_counts"]
    assert (counts["RUNNING"], counts["QUEUED"], counts["INITIALIZING"]) == (1, 3, 0)

    one_slot.kill()
    one_slot.start()
    assert [service.state(run_id) for run_id in runs] == states

    # Out of the queue, while the slot is taken.
    assert service.post(f"/runs/{runs[1]}/cancel").status_code == 200
    log = service.ended(runs[1])
    assert log["state"] == "CANCELED" and "cmd" not in log["run_log"]
    assert service.state(runs[0]) == "RUNNING"

    gates[0].open()
    until(gates[2].processes, "the next has its turn")
    assert service.state(runs[3]) == "QUEUED" and gates[3].processes() == []
    service.complete(runs[0])
    # The end of a run that is cancelled makes room, too.
    assert service.post(f"/runs/{runs[2]}/cancel").status_code == 200
    until(gates[3].processes, "the last has its turn")
    assert service.ended(runs[2])["state"] == "CANCELED"
    gates[3].open()
    service.complete(runs[3])


def test_waiting_runs_are_stopped_with_the_others(one_slot, gate):
    service = Wes(one_slot.url)
    runs = [service.gated(gate)]
    runs += [service.run("gate.cwl", GATE, workflow_params=gate.params()) for _ in range(3)]
    one_slot.stop()
    one_slot.start()
    assert {service.state(run_id) for run_id in runs} == {"CANCELED"} and gate.processes() == []


# An engine that writes down how many of it are at work, and ends.
ENGINE = """#!/bin/sh
if [ "$1" = --version ]; then echo "cwltool 3.1"; exit; fi
mkdir "{at_work}/$$"
set -- "{at_work}"/*
echo $# >> "{seen}"
rmdir "{at_work}/$$"
echo '{{}}'
"""


def test_many_runs_at_once_all_have_their_turn_and_no_more_than_may_are_at_work(tmp_path):
    slots = 3
    at_work, seen, programs = tmp_path / "at-work", tmp_path / "seen", tmp_path / "bin"
    at_work.mkdir()
    programs.mkdir()
    (programs / "cwltool").write_text(ENGINE.format(at_work=at_work, seen=seen))
    (programs / "cwltool").chmod(0o755)
    path = os.pathsep.join([str(programs), os.path.dirname(shutil.which("sh"))])
    server = Server(tmp_path / "state", "--max-engines", str(slots), "--sandbox", "none", path=path).start()
    try:
        service = Wes(server.url)
        with concurrent.futures.ThreadPoolExecutor(LOAD) as callers:
            posts = list(callers.map(lambda n: service.submit("fail.cwl", [workflow("fail.cwl")], tags=f'{{"n": {n}}}'), range(LOAD)))
        assert collections.Counter(post.status_code for post in posts) == {200: LOAD}
        assert len({post.json()["run_id"] for post in posts}) == LOAD

        def counts():
            return {state: n for state, n in service.get("/service-info").json()["system_state_counts"].items() if n}

        def none_is_left():
            left = counts()
            assert left.get("INITIALIZING", 0) + left.get("RUNNING", 0) <= slots, left
            return set(left) == {"COMPLETE"}

        until(none_is_left, "every run has ended", seconds=60 + LOAD * 2)
        assert counts() == {"COMPLETE": LOAD}
        told = [int(line) for line in seen.read_text().split()]
        assert len(told) == LOAD and max(told) <= slots
    finally:
        server.stop()
