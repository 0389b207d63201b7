"""Cancelling: CANCELED once the task is gone, and nothing else afterwards."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from conftest import workflow

GATE = [workflow("gate.cwl")]


def test_a_running_workflow_is_stopped_with_all_its_processes(service, gate):
    run_id = service.gated(gate)
    for _ in range(2):
        answer = service.post(f"/runs/{run_id}/cancel")
        assert answer.status_code == 200 and answer.json() == {"run_id": run_id}
    assert service.state(run_id) in ("CANCELING", "CANCELED")
    log = service.ended(run_id)
    assert log["state"] == "CANCELED" and gate.processes() == []
    assert gate.marker in service.requests_get(log["run_log"]["stderr"]).decode()
    gate.open()
    assert service.post(f"/runs/{run_id}/cancel").status_code == 200
    assert service.state(run_id) == "CANCELED"


def test_a_run_cancelled_right_away_never_starts(service, gate):
    for _ in range(5):
        run_id = service.run("gate.cwl", GATE, workflow_params=gate.params())
        assert service.post(f"/runs/{run_id}/cancel").status_code == 200
        log = service.ended(run_id)
        assert log["state"] == "CANCELED" and "started" not in service.get(f"/runs/{run_id}/logs/stderr").text
    assert gate.processes() == []


def test_a_run_cancelled_in_staging_never_starts_its_engine(service, silent_web):
    address, asked = silent_web
    run_id = service.run(f"http://{address}/never.cwl")
    assert asked.wait(60), "the workflow is being fetched"
    assert service.state(run_id) == "INITIALIZING"
    assert service.post(f"/runs/{run_id}/cancel").status_code == 200
    log = service.ended(run_id)
    assert log["state"] == "CANCELED" and log["run_log"].get("cmd") in (None, [])


@pytest.fixture
def silent_web(same_machine):
    """A web server that takes requests and never answers; its address, and an event for the first request."""
    asked, closing = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.set()
            closing.wait()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    closing.set()
    server.shutdown()


def test_runs_that_ended_by_themselves_stay_as_they_are(service):
    failed = service.run("fail.cwl", [workflow("fail.cwl")])
    service.ended(failed)
    assert service.post(f"/runs/{failed}/cancel").status_code == 403
    assert service.state(failed) == "EXECUTOR_ERROR"


def test_a_cancel_survives_the_death_of_the_server(own_server, gate):
    from conftest import Wes

    service = Wes(own_server.url)
    run_id = service.gated(gate)
    try:
        requests.post(f"{service.base}/runs/{run_id}/cancel", timeout=10)
    finally:
        own_server.kill()
    own_server.start()
    assert service.ended(run_id)["state"] == "CANCELED"
    assert gate.processes() == []
