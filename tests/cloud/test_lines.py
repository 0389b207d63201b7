"""What the functions' own binaries write to standard output: lines with the ids of their invocation, and metrics in them."""

import json
import uuid

import pytest
from runtime_api import Function
from stack import ROOT

# What the stand-in of Lambda's Runtime API says of every invocation.
TRACE = "69573a455f0c1d2e3b4a59687786a5b4"


class Logged:
    """A function's binary as a process, with the environment of the deployed one."""

    def __init__(self, stack, name):
        configuration = stack.configuration(f"{name.capitalize()}Function")
        self.log = stack.folder / f"{name}-{uuid.uuid4().hex}.lines"
        self.function = Function(stack.build / f"{name.capitalize()}Function/bootstrap", stack.aws_environment() | configuration["Environment"]["Variables"] | {
            # As Lambda sets them.
            "AWS_LAMBDA_FUNCTION_NAME": name, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration["MemorySize"]),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_LOG_GROUP_NAME": "g", "AWS_LAMBDA_LOG_STREAM_NAME": "s",
            "STEPWES_AUTH_MODE": "none", "STEPWES_S3_PATH_STYLE": "true",
        }, self.log)

    def __call__(self, event):
        """Gives the answer, and the lines of this invocation."""
        before = len(self.log.read_text())
        _, answer = self.function(event)
        return answer, [json.loads(line) for line in self.log.read_text()[before:].splitlines() if line.startswith('{"timestamp"')]


@pytest.fixture
def binary(stack):
    started = []

    def start(name):
        started.append(Logged(stack, name))
        return started[-1]

    yield start
    for each in started:
        each.function.stop()


def metrics(line):
    return [
        (metric["Name"], {name: line[name] for name in directive["Dimensions"][0]}, line[metric["Name"]])
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()) for metric in directive["Metrics"]
        if directive["Namespace"] == "stepwes/stepwes-test"
    ]


def of(lines, target):
    return [line for line in lines if line["target"] == f"stepwes::{target}"]


def test_a_state_change_is_told_and_counted_by_whoever_made_it_and_by_nobody_again(binary):
    event = json.loads((ROOT / "events/submit/run-workflow-json.json").read_text().replace("https://example.org/", "http://127.0.0.1:9/"))
    answer, lines = binary("submit")(event)
    run_id = json.loads(answer["body"])["run_id"]
    (queued,), (answered,) = of(lines, "state_change"), of(lines, "request")
    assert metrics(queued) == [("StateChanges", {"to": "QUEUED"}, 1)] and queued["run_id"] == answered["run_id"] == run_id
    assert queued["request_id"] == answered["request_id"] == event["requestContext"]["requestId"]
    assert queued["trace_id"] == answered["trace_id"] == TRACE
    assert (answered["route"], answered["status"], metrics(answered)) == ("/ga4gh/wes/v1/runs", 200, []), "requests are counted if that is asked for"

    advance = binary("advance")
    # The stack's machine is at the same run: whoever is first tells of it.
    _, first = advance({"run_id": run_id, "event": "initialize"})
    assert len(of(first, "state_change")) <= 1 and len(of(first, "invocation")) == 1
    _, again = advance({"run_id": run_id, "event": "initialize"})
    assert of(again, "state_change") == []
    (invoked,) = of(again, "invocation")
    assert (invoked["function"], invoked["run_id"], invoked["trace_id"], invoked["level"]) == ("advance", run_id, TRACE, "INFO")

    answer, unknown = advance({"run_id": "01a2033d-2b81-7418-bdf5-2d6241489c15", "event": "initialize"})
    (failed,) = of(unknown, "invocation")
    assert failed["error_type"] == answer["errorType"] == "Stepwes.RunNotFound" and failed["level"] == "WARN"
