"""`kill -9` of the server, of its engines, or of both: no run is lost, and finished work is not done again."""

import os
import signal

from conftest import Wes, until


def engines(server):
    """The pids of the engine tasks that this server started."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environment = open(f"/proc/{entry}/environ", "rb").read()
                name = os.readlink(f"/proc/{entry}/exe")
            except OSError:
                continue
            if name.endswith("/stepwes-engine") and str(server.folder).encode() in environment:
                found.append(int(entry))
    return found


def test_an_engine_that_outlives_the_server_is_found_again(own_server, gate):
    service = Wes(own_server.url)
    run_id = service.gated(gate)
    processes = gate.processes()
    own_server.kill()
    assert gate.processes() == processes
    own_server.start()
    assert service.state(run_id) == "RUNNING"
    gate.open()
    log = service.complete(run_id)
    assert log["run_log"]["system_logs"] == []


def test_an_engine_that_ends_while_there_is_no_server_has_not_worked_in_vain(own_server, gate):
    service = Wes(own_server.url)
    run_id = service.gated(gate)
    own_server.kill()
    gate.open()
    until(lambda: not gate.processes(), "the tool has ended")
    own_server.start()
    log = service.complete(run_id)
    assert log["outputs"]["said"]["size"] == 5
    assert log["run_log"]["system_logs"] == [], "it was not run again"


def test_an_engine_that_died_with_the_server_is_tried_again(own_server, gate):
    service = Wes(own_server.url)
    run_id = service.gated(gate)
    own_server.kill()
    for pid in engines(own_server):
        os.kill(pid, signal.SIGKILL)
    gate.open()
    own_server.start()
    log = service.complete(run_id)
    assert len(log["run_log"]["system_logs"]) == 1, "the lost attempt is told of"


def test_an_engine_that_is_killed_is_tried_again_without_a_trace_of_the_old_one(own_server, gate):
    service = Wes(own_server.url)
    run_id = service.gated(gate)
    first = gate.processes()
    (pid,) = engines(own_server)
    os.kill(pid, signal.SIGKILL)
    until(lambda: set(gate.processes()) - set(first) and not set(gate.processes()) & set(first), "a new attempt runs")
    gate.open()
    service.complete(run_id)


def test_stopping_the_server_leaves_the_engine_and_says_so(own_server, gate):
    service = Wes(own_server.url)
    run_id = service.gated(gate)
    own_server.process.send_signal(signal.SIGINT)
    assert own_server.process.wait(30) == 0
    assert run_id in own_server.log.read_text()
    assert gate.processes()
    own_server.start()
    gate.open()
    service.complete(run_id)
