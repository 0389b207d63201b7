"""Lambda: functions that are throttled, killed, or invoked twice, and what each caller is told of it.

Tests name what the next invocations of a function are to meet, in the file that `FAULTS` names, one entry each:

- `throttled`: Lambda has no room; nothing runs.
- a number N: the time limit kills the function when its Nth AWS call has had its effect, before it hears of that.
- `lost`: the time limit kills the function when all its work is done, but for its answer.
- `late`: the caller is told that time is over, and the event arrives after the next one has been worked on.
- `twice`, `at once`: the event is worked on twice, one after the other or together.

What callers are told:

- Invoke: 429 TooManyRequestsException; a time-out is a function error, `Sandbox.Timedout`.
  <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>,
  <https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-invocation.html>
- Step Functions: the function's own error type, `Lambda.TooManyRequestsException` when it is throttled.
  <https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html>
- The HTTP API's clients: 500 for a function error. That it is 503 for a throttled one is an assumption.
  <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-troubleshooting-lambda.html>
- EventBridge invokes asynchronously: what is throttled goes back to the queue, what fails is tried twice more, then it
  goes to the function's destination for failures. (ministack: tried once.)
  <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>

`INVOCATIONS` has every invocation: the function, what it met, and how long it took.
"""

import contextvars
import json
import pathlib
import re
import threading
import time

from ministack.core import lambda_runtime
from ministack.core.responses import new_uuid
from ministack.services import eventbridge, lambda_svc
from ministack.services import stepfunctions as states

from reading.faults import next_fault

INVOCATIONS = []
# Functions that are to be killed in mid-work, by their role.
CUTS = {}
# Events that arrive late, by function.
LATE = {}
ASYNCHRONOUS = contextvars.ContextVar("asynchronous", default=False)
# What this invocation measures, and the environment that it runs in.
MEASURED = contextvars.ContextVar("measured", default=None)


class Cut:
    """Kills an invocation's process at one of its calls."""

    def __init__(self, calls):
        self.left, self.measured = calls, None

    def reached(self):
        self.left -= 1
        return self.left == 0

    def kill(self):
        self.measured["worker"]._proc.kill()


def function_name(config):
    """As the template has it, without `Function`."""
    found = re.search(r"-(\w+)Function-", config["FunctionName"])
    return found[1] if found else config["FunctionName"]


def timed_out(config, request_id):
    message = f"RequestId: {request_id} Error: Task timed out after {config['Timeout']}.00 seconds"
    return {"body": {"errorType": "Sandbox.Timedout", "errorMessage": message}, "error": True, "log": ""}


dispatch = lambda_svc._execute_function_dispatch


def measured(func, config, event, request_id, started, met=None, cut=None):
    """One invocation that runs."""
    taken = {"function": function_name(config), "met": met, "ms": 0.0, "init_ms": 0.0, "cpu_ms": 0.0}
    token = MEASURED.set(taken)
    if cut:
        cut.measured = taken
    try:
        return dispatch(func, config, event, request_id, started)
    finally:
        MEASURED.reset(token)
        if met == "lost":
            taken["worker"]._proc.kill()
        if cut and cut.left > 0:
            # It makes no such call: whoever asked for this is to know.
            taken["met"] = f"not {met}"
        INVOCATIONS.append({name: value for name, value in taken.items() if name != "worker"})


def dispatch_or_fail(func, config, event, request_id, started):
    name = function_name(config)
    met = next_fault("functions", name)
    while met == "throttled":
        INVOCATIONS.append({"function": name, "met": met})
        if not ASYNCHRONOUS.get():
            return lambda_svc._throttle_response("ConcurrentInvocationLimitExceeded", "Rate Exceeded.")
        met = next_fault("functions", name)
    if met == "late":
        LATE.setdefault(name, []).append(event)
        INVOCATIONS.append({"function": name, "met": met})
        return timed_out(config, request_id)
    if isinstance(met, int):
        role = config["Role"].rsplit("/", 1)[-1]
        CUTS[role] = cut = Cut(met)
        try:
            measured(func, config, event, request_id, started, met, cut)
        finally:
            del CUTS[role]
        return timed_out(config, request_id)
    if met == "at once":
        arguments = (func, config, event, new_uuid(), started, met)
        twin = threading.Thread(target=contextvars.copy_context().run, args=(measured, *arguments))
        twin.start()
        result = measured(func, config, event, request_id, started)
        twin.join()
        return result
    result = measured(func, config, event, request_id, started, met)
    if met == "twice":
        result = measured(func, config, event, new_uuid(), time.time())
    for late in LATE.pop(name, []):
        measured(func, config, late, new_uuid(), time.time())
    return timed_out(config, request_id) if met == "lost" else result


lambda_svc._execute_function_dispatch = dispatch_or_fail

# Measured within, where the environment is at hand.
Environment = lambda_runtime.ProvidedWorker
spawn, invoke = Environment._spawn, Environment.invoke


def cpu_ms(process):
    """What the threads of a process have had of a processor."""
    total = 0
    for thread in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat") if process else ():
        try:
            total += int(thread.read_text().split()[0])
        except OSError:
            continue
    return total / 1e6


def measured_spawn(self, *arguments, **more):
    started = time.monotonic()
    spawn(self, *arguments, **more)
    if taken := MEASURED.get():
        taken["init_ms"] += (time.monotonic() - started) * 1000


def measured_invoke(self, *arguments, **more):
    taken = MEASURED.get()
    taken["worker"] = self
    warm = self._proc is not None and self._proc.poll() is None
    before, started = cpu_ms(self._proc) if warm else 0, time.monotonic()
    try:
        return invoke(self, *arguments, **more)
    finally:
        taken["ms"] = (time.monotonic() - started) * 1000 - taken["init_ms"]
        taken["cpu_ms"] = max(cpu_ms(self._proc) - before, 0)


Environment._spawn, Environment.invoke = measured_spawn, measured_invoke

call_lambda = states._call_lambda


def call_lambda_or_throttle(reference, event):
    try:
        return call_lambda(reference, event)
    except states._ExecutionError as error:
        if '"TooManyRequestsException"' in error.cause:
            cause = "Rate Exceeded. (Service: Lambda, Status Code: 429, Request ID: 1)"
            raise states._ExecutionError("Lambda.TooManyRequestsException", cause) from None
        raise


states._call_lambda = call_lambda_or_throttle
to_client = lambda_svc.lambda_execute_result_to_api_proxy_response


def to_client_as_http_api(result):
    if not result.get("error"):
        return to_client(result)
    status, message = (503, "Service Unavailable") if result.get("throttle") else (500, "Internal Server Error")
    body = json.dumps({"message": message})
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": body}, None


lambda_svc.lambda_execute_result_to_api_proxy_response = to_client_as_http_api
invoke_async = lambda_svc.invoke_async_with_retry


def invoke_async_from_a_queue(func, event):
    token = ASYNCHRONOUS.set(True)
    try:
        invoke_async(func, event)
    finally:
        ASYNCHRONOUS.reset(token)


lambda_svc.invoke_async_with_retry = invoke_async_from_a_queue


def dispatch_event(arn, payload):
    func, config, _ = lambda_svc._get_func_record_for_ref(arn)
    lambda_svc.invoke_async_with_retry(lambda_svc._execution_record_for_config(func, config), json.loads(payload))


eventbridge._dispatch_to_lambda = dispatch_event
