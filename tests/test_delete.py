"""Deleting runs: files first, then the run; and what is left when that is cut off."""

import json
import subprocess

import requests
from conftest import BIN, Gate, workflow

TEXT = b"one\n"
COUNT = [workflow("count.cwl"), workflow("tools/upper.cwl"), workflow("tools/count.cwl"), ("in/a text.txt", TEXT)]
PARAMS = json.dumps({"text": {"class": "File", "location": "in/a%20text.txt"}})


def delete(wes, run_id):
    return requests.delete(f"{wes.base}/runs/{run_id}", timeout=60, auth=wes.credentials.requests)


def counted(wes):
    return wes.complete(wes.run(
        "count.cwl", COUNT, workflow_params=PARAMS, workflow_engine_parameters='{"--relax-path-checks": null}'))["run_id"]


def files(wes, run_id):
    """What the bucket has of a run, where that can be seen."""
    if wes.server:
        runs = wes.server.folder / "s3/runs"
        return [path for path in runs.rglob("*") if run_id in str(path) and path.is_file()]
    return [key for prefix in ("requests/", "work/", "outputs/", "results/") for key in wes.stack.objects(f"{prefix}{run_id}/")]


def test_a_deleted_run_is_gone_with_its_files_and_like_one_that_never_was(service):
    kept, run_id = counted(service), counted(service)
    counts = service.get("/service-info").json()["system_state_counts"]["COMPLETE"]
    assert files(service, run_id)
    answer = delete(service, run_id)
    assert answer.status_code == 204 and answer.content == b""
    assert files(service, run_id) == [] and files(service, kept)
    never = "01890000-0000-7000-8000-000000000000"
    for path in ("", "/status", "/tasks", "/logs/stdout", "/outputs", "/outputs.json"):
        gone, unknown = service.get(f"/runs/{run_id}{path}"), service.get(f"/runs/{never}{path}")
        assert (gone.status_code, gone.text.replace(run_id, never)) == (404, unknown.text), path
    assert service.post(f"/runs/{run_id}/cancel").status_code == 404
    assert delete(service, run_id).status_code == 404
    listed = [run["run_id"] for run in service.get("/runs?page_size=1000").json()["runs"]]
    assert run_id not in listed and kept in listed
    assert service.get("/service-info").json()["system_state_counts"]["COMPLETE"] == counts - 1
    assert service.state(kept) == "COMPLETE"


def test_a_run_that_goes_on_is_not_deleted(service, gate: Gate):
    run_id = service.gated(gate)
    answer = delete(service, run_id)
    assert answer.status_code == 409 and "cancel it" in answer.json()["msg"]
    gate.open()
    service.complete(run_id)
    assert delete(service, run_id).status_code == 204


def test_a_key_whose_run_was_deleted_makes_no_second_run(service):
    fields = {"workflow_params": "{}", "headers": {"Idempotency-Key": "deleted"}}
    run_id = service.submit("count.cwl", [workflow("count.cwl")], **fields).json()["run_id"]
    service.ended(run_id)
    assert delete(service, run_id).status_code == 204
    again = service.submit("count.cwl", [workflow("count.cwl")], **fields)
    assert again.status_code == 409 and "deleted since" in again.json()["msg"]


def test_a_deletion_that_was_cut_off_is_finished_by_the_next(own_server):
    from conftest import Wes
    wes = Wes(own_server.url, server=own_server)
    run_id = counted(wes)
    # As a server that was killed leaves it: some files are gone, and the run is not.
    for path in (own_server.folder / f"s3/runs/outputs/{run_id}").rglob("*"):
        if path.is_file():
            path.unlink()
    own_server.kill()
    own_server.start()
    assert wes.state(run_id) == "COMPLETE"
    assert delete(wes, run_id).status_code == 204
    assert files(wes, run_id) == []
    assert wes.get(f"/runs/{run_id}").status_code == 404


def test_the_command_deletes_several_and_says_which_it_could_not(service):
    one, other = counted(service), counted(service)
    command = [str(BIN), "delete", one, "nonsense", other]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PATH": "/usr/bin:/bin", **service.environment()})
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"deleted {one}", f"deleted {other}"]
    assert "nonsense cannot be deleted" in done.stderr
    assert service.get(f"/runs/{one}").status_code == 404
