"""A function that is throttled, killed by its time limit at any point of its work, or invoked twice changes nothing that
was not to change: every run ends as it would have, once, with a whole history and exact counts."""

import collections
import json
import os
import signal
import subprocess
import uuid

import pytest
import requests
from conftest import BIN, TERMINAL, Wes, until, workflow
from stack import ROOT
from test_counts import HELLO
from test_faults import at_work, attempt, engine

FILES = [("hello.cwl", HELLO)]
GATE = [workflow("gate.cwl")]
# All that a function may meet beside being killed at one of its calls. `late` is told to the one after it.
SLIPS = ["throttled", "lost", "late", "twice"]


@pytest.fixture
def wes(stack):
    yield Wes(stack.url, stack=stack, credentials=stack.credentials())
    stack.faults()


def history(stack, run_id):
    """A run's events, in order."""
    query = {":run": {"S": f"RUN#{run_id}"}, ":event": {"S": "EVENT#"}}
    return stack.dynamodb(
        "Query", KeyConditionExpression="PK = :run AND begins_with(SK, :event)", ExpressionAttributeValues=query, ConsistentRead=True,
    )["Items"]


def counted(stack):
    """Runs by state: as the counts have it, and as the runs themselves."""
    items, more = [], {}
    while more is not None:
        page = stack.dynamodb("Scan", ConsistentRead=True, **more)
        items += page["Items"]
        more = {"ExclusiveStartKey": page["LastEvaluatedKey"]} if "LastEvaluatedKey" in page else None
    counts = collections.Counter()
    for item in items:
        if item["PK"]["S"] == "COUNTS":
            counts.update({name: int(value["N"]) for name, value in item.items() if "N" in value})
    runs = collections.Counter(item["state"]["S"] for item in items if item["SK"]["S"] == "RUN")
    return {name: count for name, count in counts.items() if count}, dict(runs)


def whole(stack, run_id, *states):
    """Checks that a run went through these states, each recorded once, and that the counts are those of the runs."""
    events, item = history(stack, run_id), stack.item(run_id)
    assert [event["to"]["S"] for event in events] == list(states), events
    assert [event.get("from", {}).get("S") for event in events] == [None, *states[:-1]]
    assert [int(event["version"]["N"]) for event in events] == list(range(1, len(states) + 1))
    assert (item["state"]["S"], int(item["version"]["N"])) == (states[-1], len(states))
    counts, runs = counted(stack)
    assert counts == runs


def tasks_of(stack, run_id):
    """How many tasks have been started for a run."""
    execution = stack.outputs["RunMachineArn"].replace(":stateMachine:", ":execution:") + f":{run_id}"
    events = stack.states("GetExecutionHistory", executionArn=execution, maxResults=1000)["events"]
    scheduled = [event["taskScheduledEventDetails"] for event in events if "taskScheduledEventDetails" in event]
    return sum("ecs:runTask" in task["resource"] for task in scheduled)


class Meets:
    """Has a function meet faults, and tells whether it has."""

    def __init__(self, stack, function, faults):
        self.stack, self.function, self.faults = stack, function, faults
        self.before = len(stack.invoked(function))
        stack.faults(functions={function: faults})

    def met(self):
        return [each["met"] for each in self.stack.invoked(self.function)[self.before:] if each["met"] is not None]

    def all(self):
        return len(self.met()) >= len(self.faults)

    def check(self):
        assert sorted(map(str, self.met())) == sorted(map(str, self.faults)), self.met()


RUN = ("QUEUED", "INITIALIZING", "RUNNING", "COMPLETE")


@pytest.mark.parametrize(
    ("function", "faults"),
    [
        # The run's item is read; run, event and counts are written.
        ("Advance", [1, 2, *SLIPS]),
        ("Advance", ["at once"]),
        # A claim reads, writes and asks for credentials; then RUNNING reads and writes.
        ("Report", [1, 2, *SLIPS, 1, 2, *SLIPS]),
        ("Report", [3, "at once", "at once"]),
        # The run, its result, its files, outputs.json; then as advance.
        ("Collect", [1, 2, 3, 4, 5, 6, *SLIPS]),
        ("Collect", ["at once"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_a_run_completes_once_whatever_its_functions_meet(wes, stack, function, faults):
    meets = Meets(stack, function, faults)
    run_id = wes.run("hello.cwl", FILES)
    log = wes.complete(run_id)
    until(lambda: "COMPLETE" in stack.entered(run_id), "the execution has ended")
    meets.check()
    whole(stack, run_id, *RUN)
    assert attempt(stack, run_id) == tasks_of(stack, run_id) == 1
    assert not log["run_log"]["system_logs"]
    assert wes.get(f"/runs/{run_id}/outputs").json()["outputs"], log


def test_an_attempt_is_lost_once_whatever_advance_meets(wes, stack, gate):
    run_id = wes.gated(gate)
    first = gate.processes()
    meets = Meets(stack, "Advance", [1, 2, *SLIPS])
    os.kill(engine(stack, run_id, 1), signal.SIGKILL)
    at_work(wes, gate, first)
    gate.open()
    log = wes.complete(run_id)
    meets.check()
    whole(stack, run_id, "QUEUED", "INITIALIZING", "RUNNING", "INITIALIZING", "RUNNING", "COMPLETE")
    assert attempt(stack, run_id) == tasks_of(stack, run_id) == 2 and len(log["run_log"]["system_logs"]) == 1


def test_a_step_that_never_works_is_a_system_error_that_is_recorded_once(wes, stack):
    """advance has no room as often as it is tried; then it has, to say so."""
    meets = Meets(stack, "Advance", ["throttled"] * 9 + [1, 2, *SLIPS])
    run_id = wes.run("hello.cwl", FILES)
    log = wes.ended(run_id)
    until(lambda: "SYSTEM_ERROR" in stack.entered(run_id), "the execution has ended")
    meets.check()
    whole(stack, run_id, "QUEUED", "SYSTEM_ERROR")
    (said,) = log["run_log"]["system_logs"]
    assert "Lambda.TooManyRequestsException" in said and tasks_of(stack, run_id) == 0


def test_what_is_never_collected_is_settled_by_reconcile(wes, stack):
    """collect has no room as often as it is tried; the work is done all the same."""
    meets = Meets(stack, "Collect", ["throttled"] * 11)
    run_id = wes.run("hello.cwl", FILES)
    log = wes.complete(run_id)
    meets.check()
    assert "Not collected" in stack.entered(run_id)
    whole(stack, run_id, *RUN)
    assert attempt(stack, run_id) == 1 and "said" in log["outputs"]


def submitted(wes, key, marker):
    """What a client gets that sends a submission again until it is taken."""
    refused = []

    def taken():
        answer = wes.submit("hello.cwl", FILES, headers={"Idempotency-Key": key}, tags=json.dumps({"marker": marker}))
        if answer.status_code in (500, 503):
            refused.append(answer.status_code)
            return None
        assert answer.status_code == 200, answer.text
        return answer.json()["run_id"]

    return until(taken, "the submission is taken"), refused


def marked(wes, marker):
    return [run for run in wes.get("/runs?page_size=1000").json()["runs"] if (run.get("tags") or {}).get("marker") == marker]


@pytest.mark.parametrize(
    "faults",
    [
        # The key is read, two files and the run are written; the key is read, the run is, and its execution is started.
        [1, 2, 3, 4, 1, 2, 3, *SLIPS],
        # The same, and started.
        [5, *SLIPS],
        ["at once"],
    ],
    ids=["killed", "killed at last", "at once"],
)
def test_a_submission_that_is_sent_again_makes_one_run(wes, stack, faults):
    marker = uuid.uuid4().hex
    meets = Meets(stack, "Submit", faults)
    run_id, refused = submitted(wes, uuid.uuid4().hex, marker)
    assert len(refused) == sum(fault not in ("twice", "at once") for fault in faults)
    wes.complete(run_id)
    meets.check()
    assert [run["run_id"] for run in marked(wes, marker)] == [run_id]
    whole(stack, run_id, *RUN)
    assert tasks_of(stack, run_id) == 1


@pytest.mark.parametrize("fault", ["throttled", 1, 2, 3, 4, "lost"])
def test_a_submission_that_is_cut_off_leaves_a_run_that_ends_or_none(wes, stack, fault):
    """Without a key nobody sends it again. Files of a run that never was are all that may be left."""
    marker, staged = uuid.uuid4().hex, set(wes.staged())
    meets = Meets(stack, "Submit", [fault])
    answer = wes.submit("hello.cwl", FILES, tags=json.dumps({"marker": marker}))
    assert answer.status_code == (503 if fault == "throttled" else 500) and answer.json() == {
        "message": "Service Unavailable" if fault == "throttled" else "Internal Server Error"
    }
    meets.check()
    runs = marked(wes, marker)
    if fault == "throttled":
        assert not runs and set(wes.staged()) == staged
    if not runs:
        assert {key.split("/")[0] for key in set(wes.staged()) - staged} <= {"requests"}
        counts, items = counted(stack)
        assert counts == items
        return
    (run_id,) = (run["run_id"] for run in runs)
    if stack.item(run_id)["state"]["S"] == "QUEUED":
        settled(stack, run_id)
    wes.complete(run_id)
    whole(stack, run_id, *RUN)
    assert tasks_of(stack, run_id) == 1


def settled(stack, run_id):
    """Has reconcile look at a run, as its schedule does when the run has stood still for long enough."""
    event = json.loads((ROOT / "events/reconcile/execution-aborted.json").read_text())
    event["detail"] |= {
        "executionArn": stack.outputs["RunMachineArn"].replace(":stateMachine:", ":execution:") + f":{run_id}",
        "stateMachineArn": stack.outputs["RunMachineArn"], "name": run_id,
    }
    answer, failed = stack.invoke("ReconcileFunction", event)
    assert not failed, answer


@pytest.mark.parametrize("faults", [[1, 2, 3, *SLIPS], ["at once"]], ids=["killed", "at once"])
def test_a_run_is_cancelled_once(wes, stack, gate, faults):
    run_id = wes.gated(gate)
    meets = Meets(stack, "Cancel", faults)
    until(lambda: wes.post(f"/runs/{run_id}/cancel").status_code == 200, "the cancellation is taken")
    log = wes.ended(run_id)
    assert log["state"] == "CANCELED" and gate.processes() == []
    meets.check()
    until(lambda: "CANCELED" in stack.entered(run_id), "the execution has ended")
    whole(stack, run_id, "QUEUED", "INITIALIZING", "RUNNING", "CANCELING", "CANCELED")
    assert tasks_of(stack, run_id) == 1


def test_a_cancellation_that_is_cut_off_before_the_task_is_told_is_taken_up_by_reconcile(wes, stack, gate):
    run_id = wes.gated(gate)
    meets = Meets(stack, "Cancel", [3])
    assert wes.post(f"/runs/{run_id}/cancel").status_code == 500
    meets.check()
    assert wes.state(run_id) == "CANCELING" and gate.processes()
    settled(stack, run_id)
    assert wes.ended(run_id)["state"] == "CANCELED" and gate.processes() == []
    until(lambda: "CANCELED" in stack.entered(run_id), "the execution has ended")
    whole(stack, run_id, "QUEUED", "INITIALIZING", "RUNNING", "CANCELING", "CANCELED")


def test_reading_changes_nothing(wes, stack):
    run_id = wes.run("hello.cwl", FILES)
    wes.complete(run_id)
    before = stack.item(run_id)
    meets = Meets(stack, "Status", ["throttled", 1, "lost", "late", "twice", "at once"])
    answers = [wes.get(f"/runs/{run_id}").status_code for _ in meets.faults]
    assert answers == [503, 500, 500, 500, 200, 200]
    meets.check()
    assert stack.item(run_id) == before


def test_nobody_is_let_in_while_the_authorizer_does_not_answer(stack, wes):
    if stack.mode != "token":
        pytest.skip("only AuthMode token has an authorizer of ours")
    token = stack.new_token(f"caller-{uuid.uuid4().hex[:8]}")
    meets = Meets(stack, "Authorize", ["throttled", 1, "lost", "late", "twice"])

    def answer():
        return requests.get(f"{stack.url}/runs", auth=token.requests, timeout=60).status_code

    assert [answer() for _ in meets.faults] == [500, 500, 500, 500, 200]
    meets.check()


def test_reconcile_settles_a_run_once_whatever_it_meets(wes, stack, gate):
    """Told by EventBridge: what is throttled comes again, what fails is tried twice more."""
    run_id = wes.gated(gate)
    meets = Meets(stack, "Reconcile", ["throttled", "throttled", 1, "lost", "at once"])
    stack.states("StopExecution", executionArn=stack.outputs["RunMachineArn"].replace(":stateMachine:", ":execution:") + f":{run_id}")
    until(meets.all, "reconcile has met all of it")
    assert gate.processes() == []

    def ended():
        # Told while the task was still stopping, it stopped it again.
        settled(stack, run_id)
        return wes.state(run_id) in TERMINAL

    until(ended, "the run has ended")
    meets.check()
    whole(stack, run_id, "QUEUED", "INITIALIZING", "RUNNING", "SYSTEM_ERROR")
    assert len(wes.log(run_id)["run_log"]["system_logs"]) == 1


def test_what_reconcile_cannot_deal_with_is_in_its_queue(wes, stack, gate):
    run_id = wes.gated(gate)
    queue = stack.outputs["ReconcileDlqUrl"]
    meets = Meets(stack, "Reconcile", [1, 1, 1])
    stack.states("StopExecution", executionArn=stack.outputs["RunMachineArn"].replace(":stateMachine:", ":execution:") + f":{run_id}")

    def told():
        received = stack.call("sqs", "AmazonSQS.ReceiveMessage", QueueUrl=queue, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in received.get("Messages", [])]

    (message,) = until(told, "the queue has the event")
    assert message["requestPayload"]["detail"]["name"] == run_id and message["requestContext"]["condition"] == "RetriesExhausted"
    meets.check()

    def ended():
        settled(stack, run_id)
        return wes.state(run_id) in TERMINAL

    until(ended, "the run has ended")
    whole(stack, run_id, "QUEUED", "INITIALIZING", "RUNNING", "SYSTEM_ERROR")


def test_stepwes_outlasts_functions_that_end_without_an_answer(wes, stack, tmp_path):
    (tmp_path / "hello.cwl").write_bytes(HELLO)
    meets = Meets(stack, "Status", ["throttled", 1, "lost", "late", "throttled", 1, "lost", "late"])
    done = subprocess.run(
        [BIN, "run", "hello.cwl", "--outdir", "out", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={"PATH": os.environ["PATH"], **wes.environment()},
    )
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "COMPLETE", done.stderr
    meets.check()
