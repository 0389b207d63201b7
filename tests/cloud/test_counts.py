"""What a run costs, counted: state transitions, invocations, calls."""

import collections

from conftest import Wes, until

HELLO = b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [echo, hello]\nstdout: said\noutputs: {said: stdout}\n"


def spent(before, after):
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


def test_a_run_takes_these_transitions_invocations_and_calls(stack):
    wes = Wes(stack.url, stack=stack, credentials=stack.credentials())
    # Once before, so that nothing of a first time is counted.
    wes.complete(wes.run("hello.cwl", [("hello.cwl", HELLO)]))
    invoked, called = stack.invocations(), stack.calls()
    run_id = wes.run("hello.cwl", [("hello.cwl", HELLO)])
    until(lambda: "COMPLETE" in stack.entered(run_id), "the execution has ended")
    invocations = spent(invoked, stack.invocations())
    by_role = spent(called, stack.calls())
    assert stack.entered(run_id) == ["QUEUED", "Attempt?", "INITIALIZING, RUNNING", "Collect", "Ended?", "COMPLETE"]
    # Reconcile works by the clock, and is told of none that ended well.
    invocations.pop("Reconcile", None)
    assert invocations == {"Submit": 1, "Advance": 1, "Report": 2, "Collect": 1}
    calls = collections.Counter()
    for name, count in by_role.items():
        role, call = name.split(" ")
        if role != "root" and "Reconcile" not in role:
            calls[call] += count
    # By the run's own prefixes: how often logs and tasks are uploaded depends on the time that it takes.
    s3 = {call: calls.pop(call) for call in list(calls) if call.startswith("s3:")}
    assert calls == {
        # Transactions: create, initialize, run, complete. The claim is an update. STS takes forms: AssumeRole.
        "dynamodb:TransactWriteItems": 4, "dynamodb:UpdateItem": 1, "dynamodb:GetItem": 6,
        "states:StartExecution": 1, "lambda:Invoke": 2, "sts:POST": 1,
    }
    assert s3["s3:PUT"] <= 12 and s3["s3:GET"] <= 8, s3
