"""Whoever calls sees their own runs: other people's look like runs that do not exist."""

import pytest
import requests
from conftest import Wes, workflow

FAIL = [workflow("fail.cwl")]


@pytest.fixture
def callers(stack):
    ada, bob = (Wes(stack.url, stack=stack, credentials=stack.credentials(name)) for name in ("ada", "bob"))
    if ada.credentials.requests is None:
        pytest.skip("AuthMode none: everybody is one caller")
    return ada, bob


def test_nobody_is_let_in_without_credentials(stack, callers):
    for path in ("/runs", "/runs/01890a5d-ac96-774b-bcce-b302099a8057"):
        assert requests.get(stack.url + path, timeout=60).status_code in (401, 403)
    assert requests.post(f"{stack.url}/runs", timeout=60).status_code in (401, 403)


def test_a_run_is_its_owners_alone(callers):
    of_its_owner_alone(*callers)


def of_its_owner_alone(ada, bob):
    """Checks that a run of the one does not exist for the other; gives its id."""
    key = {"Idempotency-Key": "of-both"}
    run_id = ada.submit("fail.cwl", FAIL, headers=key).json()["run_id"]
    ada.ended(run_id)
    assert bob.submit("fail.cwl", FAIL, headers=key).json()["run_id"] != run_id
    for path in ("", "/status", "/tasks", "/logs/stdout", "/logs/stderr", "/outputs", "/outputs.json"):
        assert bob.get(f"/runs/{run_id}{path}").status_code == 404, path
    assert bob.post(f"/runs/{run_id}/cancel").status_code == 404
    assert run_id not in {run["run_id"] for run in bob.get("/runs").json()["runs"]}
    assert run_id in {run["run_id"] for run in ada.get("/runs").json()["runs"]}
    assert ada.state(run_id) == "EXECUTOR_ERROR"
    return run_id
