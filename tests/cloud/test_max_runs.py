"""The stack with MaxRuns: runs beyond it wait in their order, without an execution, and begin as others end."""

import collections
import json

import pytest
from conftest import Gate, Wes, built_stack, until, workflow
from stack import ROOT
from test_counts import HELLO, counted_run, spent

GATE = [workflow("gate.cwl")]
TICK = json.loads((ROOT / "events/reconcile/tick.json").read_text())


@pytest.fixture(scope="module")
def limited(request, tmp_path_factory):
    # The schedule is out of the way: what starts those that wait is the end of another's execution.
    with built_stack(
        request, tmp_path_factory.mktemp("limited"), MaxRuns="1", ReconcileSchedule='"rate(1 hour)"', Monitoring="no",
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def wes(limited):
    return Wes(limited.url, stack=limited, credentials=limited.credentials())


@pytest.fixture
def gates(tmp_path):
    made = []
    for name in "abcd":
        (tmp_path / name).mkdir()
        made.append(Gate(tmp_path / name))
    yield made
    for gate in made:
        gate.open()


def executions(stack, *status):
    listed = stack.states("ListExecutions", stateMachineArn=stack.outputs["RunMachineArn"], maxResults=1000)["executions"]
    return {one["name"] for one in listed if not status or one["status"] in status}


def slots(stack):
    """Which run has which slot."""
    items = stack.dynamodb(
        "Query", KeyConditionExpression="PK = :slots", ExpressionAttributeValues={":slots": {"S": "SLOTS"}}, ConsistentRead=True,
    )["Items"]
    return {item["SK"]["S"]: item["run_id"]["S"] for item in items if "run_id" in item}


def waiting(wes, gate):
    return wes.run("gate.cwl", GATE, workflow_params=gate.params())


def test_runs_wait_without_an_execution_and_begin_as_others_end(limited, wes, gates):
    runs = [wes.gated(gates[0])]
    runs += [waiting(wes, gate) for gate in gates[1:]]
    assert [wes.state(run_id) for run_id in runs] == ["RUNNING", "QUEUED", "QUEUED", "QUEUED"]
    assert [limited.item(run_id)["place"]["S"] for run_id in runs[1:]] == ["WAITING"] * 3
    assert executions(limited).isdisjoint(runs[1:]), "one that waits has no execution"
    (slot,) = slots(limited)
    assert slots(limited) == {slot: runs[0]}
    counts = wes.get("/service-info").json()["system_state_counts"]
    assert (counts["RUNNING"], counts["QUEUED"], counts["INITIALIZING"]) == (1, 3, 0)

    # Out of the queue, while the slot is taken: its execution ends it without a task.
    assert wes.post(f"/runs/{runs[1]}/cancel").status_code == 200
    assert wes.ended(runs[1])["state"] == "CANCELED"
    assert "task_arn" not in limited.item(runs[1]) and "INITIALIZING, RUNNING" not in limited.entered(runs[1])
    assert [wes.state(run_id) for run_id in runs] == ["RUNNING", "CANCELED", "QUEUED", "QUEUED"]
    assert executions(limited).isdisjoint(runs[2:]) and slots(limited) == {slot: runs[0]}

    gates[0].open()
    wes.complete(runs[0])
    until(gates[2].processes, "the next has its turn")
    assert slots(limited) == {slot: runs[2]} and wes.state(runs[3]) == "QUEUED" and runs[3] not in executions(limited)
    # One that is cancelled at work makes room, too.
    assert wes.post(f"/runs/{runs[2]}/cancel").status_code == 200
    until(gates[3].processes, "the last has its turn")
    assert wes.ended(runs[2])["state"] == "CANCELED" and slots(limited) == {slot: runs[3]}
    gates[3].open()
    wes.complete(runs[3])
    until(lambda: not slots(limited) and not executions(limited, "RUNNING"), "nothing is left")


def test_a_run_takes_this_more_where_runs_are_limited(limited, wes):
    # Once before, so that nothing of a first time is counted.
    wes.complete(wes.run("hello.cwl", [("hello.cwl", HELLO)]))
    until(lambda: not executions(limited, "RUNNING"), "the execution has ended")

    def reconciled():
        return [one["function"] for one in limited.invoked("Reconcile")]

    def by_reconcile(counted):
        total = collections.Counter()
        for name, count in counted.items():
            role, *_, what = name.split(" ")
            if "Reconcile" in role:
                total[what] += count
        return total

    def all_told():
        """What reconcile has done, once it has nothing more to do."""
        ends = len(executions(limited))
        until(lambda: len(reconciled()) >= ends, "reconcile has been told of each end")
        return len(reconciled()), by_reconcile(limited.calls()), by_reconcile(limited.units())

    invoked, called, consumed = all_told()
    run = counted_run(limited, wes)
    until(lambda: not executions(limited, "RUNNING"), "the execution has ended")
    invoked_after, called_after, consumed_after = all_told()
    taken = {
        "calls": run["calls"], "units": run["units"], "reconcile": invoked_after - invoked,
        "its calls": spent(called, called_after), "its units": spent(consumed, consumed_after),
    }
    # Beside what test_counts.py has: the slot, given in one transaction and freed in the last; the slots are read, and who
    # waits, by submit and again once the execution has ended. docs/deploy.md has them.
    assert taken == {
        "calls": {
            "dynamodb:TransactWriteItems": 5, "dynamodb:UpdateItem": 1, "dynamodb:GetItem": 6, "dynamodb:Query": 3,
            "states:StartExecution": 1, "lambda:Invoke": 2, "sts:POST": 1,
        },
        "units": {"write": 46, "read": 8.5},
        "reconcile": 1, "its calls": {"dynamodb:Query": 2}, "its units": {"read": 1.5},
    }


def test_without_the_limit_those_that_wait_begin_at_the_next_tick(limited, wes, gates):
    runs = [wes.gated(gates[0])]
    runs += [waiting(wes, gate) for gate in gates[1:]]
    limited.update(MaxRuns="0")
    assert [wes.state(run_id) for run_id in runs] == ["RUNNING", "QUEUED", "QUEUED", "QUEUED"]
    answer, is_error = limited.invoke("ReconcileFunction", TICK)
    assert not is_error, answer
    until(lambda: all(gate.processes() for gate in gates), "all of them are at work")
    for gate, run_id in zip(gates, runs, strict=True):
        gate.open()
        wes.complete(run_id)
    assert slots(limited) == {}
