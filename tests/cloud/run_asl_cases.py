"""Runs the cases of crates/asl through ministack's interpreter as it is, nothing put right.

    .venv-cloud/bin/python tests/cloud/run_asl_cases.py < CASES > OUTCOMES

Cases are those of crates/asl/tests/cases, one array; an outcome has of `expect` what can be told: status, output,
error, cause, and the states in the order entered. Time runs a hundred times as fast.
"""

import contextvars
import json
import os
import sys
import threading
import time
import types

from ministack.services import stepfunctions as states

SCALE = 0.01
# For a task that comes in time, in seconds.
PATIENCE = 60

STATE = contextvars.ContextVar("state")
execute_task, in_time, run = states._execute_task, states._invoke_resource_with_timeout, states._run_execution
tasks, over, ended = [], threading.Event(), threading.Event()


def execute_named_task(state, raw_input, execution, context):
    STATE.set(context["State"]["Name"])
    return execute_task(state, raw_input, execution, context)


def invoke(resource, arguments):
    """What the next task of this state does."""
    entry = next_entry()
    if entry is None:
        raise states._ExecutionError("NoSuchTask", f"the case has no further task for {STATE.get()}")
    tasks.remove(entry)
    if "arguments" in entry and entry["arguments"] != arguments:
        raise states._ExecutionError("OtherArguments", json.dumps(arguments))
    if entry.get("never"):
        over.wait()
        raise states._ExecutionError("Never", "")
    over.wait(entry.get("after", 0) * SCALE)
    if failure := entry.get("fail"):
        raise states._ExecutionError(failure["error"], failure.get("cause") or "")
    return "x" * entry["succeed_bytes"] if "succeed_bytes" in entry else entry.get("succeed")


def next_entry():
    return next((task for task in tasks if task["state"] == STATE.get()), None)


def invoke_in_time(resource, arguments, seconds):
    """Whether a task is in time is told by the case, and not by how busy the machine is."""
    entry = next_entry() or {}
    late = entry.get("never") or entry.get("after", 0) >= seconds
    return in_time(resource, arguments, seconds * SCALE if late else PATIENCE)


def run_and_tell(arn):
    run(arn)
    ended.set()


states._execute_task = execute_named_task
states._invoke_resource = invoke
states._invoke_resource_with_timeout = invoke_in_time
states._run_execution = run_and_tell
states.time = types.SimpleNamespace(time=time.time, sleep=lambda seconds: over.wait(seconds * SCALE))


def outcome(number, case):
    tasks[:] = case.get("tasks", [])
    over.clear()
    ended.clear()
    status, _, body = states._create_state_machine({
        "name": f"case-{number}", "definition": json.dumps(case["definition"]), "roleArn": "arn:aws:iam::000000000000:role/r",
    })
    if status != 200:
        return {"refused": json.loads(body)["__type"]}
    _, _, body = states._start_execution({
        "stateMachineArn": json.loads(body)["stateMachineArn"], "name": "e", "input": json.dumps(case.get("input", {})),
    })
    arn = json.loads(body)["executionArn"]
    if not ended.wait(3):
        over.set()
        ended.wait(3)
        return {"status": "RUNNING"}
    over.set()
    _, _, body = states._describe_execution({"executionArn": arn})
    described = json.loads(body)
    _, _, body = states._get_execution_history({"executionArn": arn, "maxResults": 1000})
    entered = [event["stateEnteredEventDetails"]["name"] for event in json.loads(body)["events"] if "stateEnteredEventDetails" in event]
    told = {"status": described["status"], "states": entered}
    if described["status"] == "SUCCEEDED":
        told["output"] = json.loads(described["output"])
    else:
        told |= {"error": described.get("error"), "cause": described.get("cause")}
    return told


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    json.dump([outcome(number, case) for number, case in enumerate(cases)], sys.stdout)
    sys.stdout.flush()
    # Threads of tasks that never end are left.
    os._exit(0)
