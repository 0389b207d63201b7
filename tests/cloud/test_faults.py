"""What AWS may do to a run: take its task away, start none, say things twice."""

import json
import os
import pathlib
import signal

import pytest
import requests
from conftest import TERMINAL, Wes, until, workflow
from credentials import SigV4
from stack import ROOT

GATE = [workflow("gate.cwl")]
SUBNET = "Error retrieving subnet information for [subnet-0123456789abcdef0]: The subnet ID 'subnet-0123456789abcdef0' does not exist (ErrorCode: InvalidSubnetID.NotFound)"


@pytest.fixture
def wes(stack):
    yield Wes(stack.url, stack=stack, credentials=stack.credentials())
    stack.faults()


def engine(stack, run_id, attempt):
    """The pid of the process that works at this attempt, once there is one."""

    def found():
        for record in (stack.folder / "containers").glob("*/pid"):
            pid = int(record.read_text())
            try:
                environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if {f"STEPWES_RUN_ID={run_id}".encode(), f"STEPWES_ATTEMPT={attempt}".encode()} <= set(environment):
                return pid
        return None

    return until(found, f"attempt {attempt} of {run_id} has a task")


def attempt(stack, run_id):
    return int(stack.item(run_id)["attempt"]["N"])


def at_work(wes, gate, before=()):
    """Waits until the workflow's tool runs, in other processes than those before."""
    return until(lambda: set(gate.processes()) - set(before), "the workflow's tool runs")


def test_a_task_that_is_killed_is_tried_again_and_thrice_is_a_system_error(wes, stack, gate):
    run_id = wes.gated(gate)
    tools = set()
    for number in (1, 2, 3):
        tools |= at_work(wes, gate, tools)
        assert attempt(stack, run_id) == number and wes.state(run_id) == "RUNNING"
        os.kill(engine(stack, run_id, number), signal.SIGKILL)
    log = wes.ended(run_id)
    assert log["state"] == "SYSTEM_ERROR" and gate.processes() == []
    said = log["run_log"]["system_logs"]
    assert len(said) == 3 and all("killed" in line and "137" in line for line in said), said


def test_a_task_that_is_killed_once_does_its_work_the_second_time(wes, stack, gate):
    run_id = wes.gated(gate)
    first = gate.processes()
    os.kill(engine(stack, run_id, 1), signal.SIGKILL)
    at_work(wes, gate, first)
    gate.open()
    log = wes.complete(run_id)
    assert attempt(stack, run_id) == 2
    assert len(log["run_log"]["system_logs"]) == 1 and "/2/" in log["outputs"]["said"]["location"]


def test_a_spot_interruption_is_told_of_and_tried_again(wes, stack, gate):
    run_id = wes.gated(gate)
    first = gate.processes()
    stack.ecs("StopTask", task=stack.item(run_id)["task_arn"]["S"], reason="Your Spot Task was interrupted.")
    at_work(wes, gate, first)
    assert wes.state(run_id) == "RUNNING" and attempt(stack, run_id) == 2
    gate.open()
    log = wes.complete(run_id)
    assert "Spot" in log["run_log"]["system_logs"][0]


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (dict(run_task_failures=[{"arn": "arn:aws:ecs:us-east-1:123456789012:container-instance/x",
                                  "reason": "Capacity is unavailable at this time. Please try again later or in a different availability zone"}]),
         "Capacity is unavailable at this time"),
        (dict(image_is_missing=True), "CannotPullContainerError"),
        (dict(run_task_error=["InvalidParameterException", SUBNET]), "The subnet ID 'subnet-0123456789abcdef0' does not exist"),
        (dict(run_task_error=["ClusterNotFoundException", "Cluster not found."]), "Cluster not found."),
    ],
    ids=["no capacity", "image missing", "subnet wrong", "cluster missing"],
)
def test_a_task_that_cannot_start_is_a_system_error_in_the_words_of_aws(wes, stack, faults, said):
    stack.faults(**faults)
    log = wes.ended(wes.run("fail.cwl", [workflow("fail.cwl")]))
    assert log["state"] == "SYSTEM_ERROR"
    assert said in log["run_log"]["system_logs"][-1], log["run_log"]["system_logs"]


def test_an_execution_that_is_aborted_ends_the_task_and_then_the_run(wes, stack, gate):
    run_id = wes.gated(gate)
    execution = stack.outputs["RunMachineArn"].replace(":stateMachine:", ":execution:") + f":{run_id}"
    stack.states("StopExecution", executionArn=execution)
    # EventBridge tells reconcile, which has the task stopped.
    until(lambda: gate.processes() == [], "the task is stopped")
    # The schedule would look again in minutes; EventBridge may say a thing twice, too.
    event = json.loads((ROOT / "events/reconcile/execution-aborted.json").read_text())
    event["detail"] |= {"executionArn": execution, "stateMachineArn": stack.outputs["RunMachineArn"], "name": run_id}

    def ended():
        _, failed = stack.invoke("ReconcileFunction", event)
        assert not failed
        return wes.state(run_id) in TERMINAL

    until(ended, "the run has ended")
    log = wes.log(run_id)
    assert log["state"] == "SYSTEM_ERROR" and "stopped by hand" in log["run_log"]["system_logs"][-1], log["run_log"]["system_logs"]


def test_what_is_said_twice_is_said_once(wes, stack, gate):
    """Each step of the machine is at least once: said again, it answers the same and changes nothing."""
    run_id = wes.gated(gate)
    before = stack.item(run_id)
    claim = {
        "run_id": run_id, "attempt": 1, "token": before["token"]["S"], "task_arn": before["task_arn"]["S"], "action": "claim",
    }
    initialize = {"run_id": run_id, "event": "initialize"}
    answers = [stack.invoke("AdvanceFunction", initialize) for _ in range(2)]
    assert answers[0] == answers[1] and answers[0][0]["token"] == before["token"]["S"]
    run = claim | {"action": "run", "cmd": ["other"], "start_time": "2027-01-15T08:00:05Z"}
    for report in (claim, run):
        for _ in range(2):
            answer, failed = stack.invoke("ReportFunction", report)
            assert not failed and answer["verdict"] == "accepted", answer
    twin, _ = stack.invoke("ReportFunction", claim | {"task_arn": before["task_arn"]["S"] + "x"})
    assert twin == {"verdict": "refused", "reason": "twin"}
    assert stack.item(run_id) == before
    gate.open()
    wes.complete(run_id)
    ended = stack.item(run_id)
    collect = {"run_id": run_id, "attempt": 1, "task": None, "error": {"Error": "States.TaskFailed", "Cause": "{}"}}
    for function, event in [("CollectFunction", collect), ("AdvanceFunction", initialize)]:
        answer, failed = stack.invoke(function, event)
        assert not failed and answer["next"] == "COMPLETE"
    late, _ = stack.invoke("ReportFunction", claim)
    assert late == {"verdict": "refused", "reason": "over"}
    assert stack.item(run_id) == ended


def test_a_task_reaches_its_own_files_and_no_others(wes, stack, gate):
    """The credentials that a task gets, with the policies of role and session evaluated."""
    other = wes.run("fail.cwl", [workflow("fail.cwl")])
    wes.ended(other)
    run_id = wes.gated(gate)
    item = stack.item(run_id)
    answer, _ = stack.invoke("ReportFunction", {
        "run_id": run_id, "attempt": 1, "token": item["token"]["S"], "task_arn": item["task_arn"]["S"], "action": "claim",
    })
    given = answer["credentials"]
    keys = given["access_key_id"], given["secret_access_key"], given["session_token"]
    bucket = f"{stack.endpoint}/{stack.outputs['RunsBucketName']}"

    def s3(method, path, **more):
        return requests.request(method, f"{bucket}{path}", auth=SigV4("s3", *keys), timeout=60, **more).status_code

    assert s3("GET", f"/requests/{run_id}/request.json") == 200
    assert s3("PUT", f"/work/{run_id}/1/probe", data=b"x") == 200
    assert s3("PUT", f"/outputs/{run_id}/1/probe", data=b"x") == 200
    for method, path in [
        ("GET", f"/requests/{other}/request.json"),
        ("GET", f"/work/{other}/1/result.json"),
        ("PUT", f"/work/{other}/1/result.json"),
        ("PUT", f"/outputs/{other}/1/x"),
        ("PUT", f"/requests/{run_id}/request.json"),
        ("PUT", f"/work/{run_id}/2/result.json"),
        ("PUT", f"/results/{run_id}/outputs.json"),
        ("DELETE", f"/work/{run_id}/1/probe"),
        ("GET", "?list-type=2"),
        ("GET", f"?list-type=2&prefix=work/{other}/"),
    ]:
        assert s3(method, path) == 403, (method, path)
    # Nor anything but S3.
    for service, target in [("dynamodb", "DynamoDB_20120810.ListTables"), ("states", "AWSStepFunctions.ListStateMachines")]:
        refused = requests.post(
            stack.endpoint, json={}, auth=SigV4(service, *keys), timeout=60,
            headers={"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.0"},
        )
        assert refused.status_code in (400, 403) and "AccessDenied" in refused.text, refused.text
    gate.open()
    wes.complete(run_id)
