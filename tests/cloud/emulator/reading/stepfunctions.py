"""Step Functions: `ecs:runTask`, time limits, and executions that stay as they ended.

- `ecs:runTask.sync` waits without a limit of its own; fails with `States.TaskFailed` and the task, as the AWS SDK for
  Java writes it, when the task did not start or a container ended with another code than 0; fails with
  `AmazonECS.Unknown` when RunTask reports failures, and with `ECS.<code>` when it refuses.
  <https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html>
- A task state that takes too long, or whose execution is stopped, has its ECS task stopped.
  <https://docs.aws.amazon.com/step-functions/latest/dg/connect-to-resource.html#connect-sync>
- `TimeoutSeconds` of a state may be an expression, and that of the machine counts.
- An execution that has ended stays as it ended.
"""

import contextvars
import datetime
import json
import threading
import time

from ministack.core.responses import get_account_id, get_region
from ministack.services import ecs
from ministack.services import stepfunctions as states

# The execution that this thread works for, and whether its state was given up.
EXECUTION = contextvars.ContextVar("execution", default=None)
GIVEN_UP = contextvars.ContextVar("given_up", default=None)


def java(value, name=""):
    """Names that begin with a capital, times as milliseconds."""
    if isinstance(value, list):
        return [java(each) for each in value]
    if isinstance(value, dict):
        return {key[:1].upper() + key[1:]: java(each, key) for key, each in value.items()}
    if name.endswith("At") and isinstance(value, str):
        return int(datetime.datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp() * 1000)
    return value


def run_task(resource, arguments):
    request = {**states._pascal_to_camel(arguments), "startedBy": "AWS Step Functions"}
    status, _, body = ecs._run_task(request)
    answer = json.loads(body)
    if status >= 400:
        code, message = answer["__type"], answer.get("message", "")
        about = f"(Service: AmazonECS; Status Code: {status}; Error Code: {code}; Request ID: 1; Proxy: null)"
        raise states._ExecutionError(f"ECS.{code}", f"{message} {about}")
    if answer["failures"]:
        raise states._ExecutionError("AmazonECS.Unknown", json.dumps(java(answer)))
    if not resource.endswith(".sync"):
        return java(answer)
    (started,) = answer["tasks"]
    execution, given_up = EXECUTION.get(), GIVEN_UP.get()
    stopped = False
    while True:
        _, _, body = ecs._describe_tasks({"cluster": started["clusterArn"], "tasks": [started["taskArn"]]})
        (task,) = json.loads(body)["tasks"]
        if task["lastStatus"] == "STOPPED":
            break
        if not stopped and (execution["status"] != "RUNNING" or given_up and given_up.is_set()):
            stopped = True
            ecs._stop_task({"cluster": started["clusterArn"], "task": started["taskArn"], "reason": "stopped by Step Functions"})
        time.sleep(0.05)
    task = java(task)
    if any(container.get("ExitCode") != 0 for container in task["Containers"]):
        raise states._ExecutionError("States.TaskFailed", json.dumps(task))
    return task


states._SERVICE_DISPATCH["arn:aws:states:::ecs:runTask"] = run_task
execute_task = states._execute_task


def execute_task_in_time(state, raw_input, execution, context):
    EXECUTION.set(execution)
    if isinstance(state.get("TimeoutSeconds"), str):
        seconds = states._jsonata_state_field(state, "TimeoutSeconds", "number", raw_input, context)
        state = {**state, "TimeoutSeconds": seconds}
    return execute_task(state, raw_input, execution, context)


states._execute_task = execute_task_in_time
invoke_in_time = states._invoke_resource_with_timeout


def invoke_in_time_or_give_up(resource, arguments, timeout):
    given_up = threading.Event()
    GIVEN_UP.set(given_up)
    try:
        return invoke_in_time(resource, arguments, timeout)
    finally:
        # Also after it has ended: nobody listens any more.
        given_up.set()


states._invoke_resource_with_timeout = invoke_in_time_or_give_up
run_execution, fail_execution = states._run_execution, states._fail_execution


def run_execution_in_time(arn):
    execution = states._executions[arn]
    machine = json.loads(states._state_machines[execution["stateMachineArn"]]["definition"])

    def time_out():
        if execution["status"] == "RUNNING":
            execution |= {"status": "TIMED_OUT", "stopDate": states.now_iso()}
            states._add_event(execution, "ExecutionTimedOut", {})
            states._emit_execution_status_event(execution)

    if (seconds := machine.get("TimeoutSeconds")) and seconds <= threading.TIMEOUT_MAX:
        timer = threading.Timer(seconds, contextvars.copy_context().run, (time_out,))
        timer.daemon = True
        timer.start()
        try:
            return run_execution(arn)
        finally:
            timer.cancel()
    return run_execution(arn)


def fail_execution_once(execution, error, cause):
    if execution["status"] == "RUNNING":
        fail_execution(execution, error, cause)


states._run_execution, states._fail_execution = run_execution_in_time, fail_execution_once
