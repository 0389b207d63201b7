"""CPU, memory, disk and time of a run by its own request."""

import json

import pytest
from conftest import workflow

GATE = [workflow("gate.cwl")]


def test_a_run_ends_at_the_time_limit_that_it_asked_for_and_says_so(service, gate):
    asked = {"stepwes.time": "3s", "--debug": None}
    run_id = service.run(
        "gate.cwl", GATE, workflow_params=gate.params(), workflow_engine_parameters=json.dumps(asked)
    )
    log = service.ended(run_id)
    assert log["state"] == "SYSTEM_ERROR", log
    said = log["run_log"]["system_logs"]
    assert len(said) == 1 and "limit of 3 seconds" in said[0] and "stepwes.time" in said[0], said
    assert log["request"]["workflow_engine_parameters"]["stepwes.time"] == "3s"
    assert gate.processes() == []


def test_a_run_that_asks_for_a_size_runs_and_its_engine_is_not_told(service):
    asked = {"stepwes.cpu": 0.5, "stepwes.memory": "700 MiB", "stepwes.disk": "10 GiB", "--debug": None}
    tool = b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [echo, hello]\nstdout: said\noutputs: {said: stdout}\n"
    run_id = service.run("hello.cwl", [("hello.cwl", tool)], workflow_engine_parameters=json.dumps(asked))
    log = service.complete(run_id)
    assert "--debug" in log["run_log"]["cmd"] and not any("stepwes." in word for word in log["run_log"]["cmd"][1:-2])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"stepwes.gpu": 1}, "it has: stepwes.cpu, stepwes.memory, stepwes.disk, stepwes.time"),
        ({"stepwes.memory": 16}, "a size with its unit"),
        ({"stepwes.cpu": "100000"}, "more than the"),
        ({"stepwes.memory": "1000 TiB"}, "more than the"),
        ({"stepwes.disk": "100000 TiB"}, "more than the"),
        ({"stepwes.time": "11d"}, "more than the"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(service, asked, said):
    answer = service.submit("gate.cwl", GATE, workflow_engine_parameters=json.dumps(asked))
    assert answer.status_code == 400 and said in answer.json()["msg"], answer.text


def test_service_info_tells_what_a_run_may_ask_for(service):
    info = service.get("/service-info").json()
    parameters = {each["name"]: each["default_value"] for each in info["default_workflow_engine_parameters"]}
    for name in ("stepwes.cpu", "stepwes.memory", "stepwes.disk", "stepwes.time"):
        assert name in parameters and info["tags"][f"{name}.max"]
