"""What a run costs, counted: state transitions, invocations, calls, units of the table."""

import collections

from conftest import Wes, until

HELLO = b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [echo, hello]\nstdout: said\noutputs: {said: stdout}\n"


def spent(before, after):
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


def counted_run(stack, wes):
    """Runs a workflow of one step and one file; gives what that took, but for what reconcile does by the clock."""
    invoked, called, consumed = len(stack.invoked()), stack.calls(), stack.units()
    run_id = wes.run("hello.cwl", [("hello.cwl", HELLO)])
    # Nobody asks for its state meanwhile: that would count too.
    until(lambda: "COMPLETE" in stack.entered(run_id), "the execution has ended")
    calls, units = collections.Counter(), collections.Counter()
    for total, one in [(calls, spent(called, stack.calls())), (units, spent(consumed, stack.units()))]:
        for name, count in one.items():
            role, *_, what = name.split(" ")
            if role not in ("root", "nobody") and "Reconcile" not in role and "Authorize" not in role:
                total[what] += count
    s3 = {call: calls.pop(call) for call in list(calls) if call.startswith("s3:")}
    invocations = [one for one in stack.invoked()[invoked:] if one["function"] not in ("Reconcile", "Authorize")]
    return {"run_id": run_id, "entered": stack.entered(run_id), "calls": dict(calls), "s3": s3, "units": dict(units), "invoked": invocations}


def test_a_run_takes_these_transitions_invocations_calls_and_units(stack):
    wes = Wes(stack.url, stack=stack, credentials=stack.credentials())
    # Once before, so that nothing of a first time is counted.
    wes.complete(wes.run("hello.cwl", [("hello.cwl", HELLO)]))
    run = counted_run(stack, wes)
    assert run["entered"] == ["QUEUED", "Attempt?", "INITIALIZING, RUNNING", "Collect", "Ended?", "COMPLETE"]
    assert collections.Counter(one["function"] for one in run["invoked"]) == {"Submit": 1, "Advance": 1, "Report": 2, "Collect": 1}
    assert run["calls"] == {
        # Transactions: create, initialize, run, complete. The claim is an update. STS takes forms: AssumeRole.
        "dynamodb:TransactWriteItems": 4, "dynamodb:UpdateItem": 1, "dynamodb:GetItem": 6,
        "states:StartExecution": 1, "lambda:Invoke": 2, "sts:POST": 1,
    }
    # A transaction writes run, event and counts, below 1 KB each, at 2 units, but for the last one's run, which is a
    # little more (2); create adds two index entries, each of the others changes one and moves one (3). The claim writes
    # the run, at 1. docs/deploy.md has them, and what they cost.
    assert run["units"] == {"write": 38, "read": 6}
    # By the run's own prefixes: how often logs and tasks are uploaded depends on the time that it takes.
    assert run["s3"]["s3:PUT"] <= 12 and run["s3"]["s3:GET"] <= 8, run["s3"]
