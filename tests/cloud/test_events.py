"""Every event in events/, fed to the binary that AWS would get, through the Runtime API: once for a run that is not
there, once for one that is complete, which no event may change."""

import json

import pytest
import requests
from conftest import Wes
from credentials import SigV4
from runtime_api import Function
from stack import ROOT, ROOT_KEY

EVENTS = ROOT / "events"
FILES = sorted(path.relative_to(EVENTS).as_posix() for path in EVENTS.glob("*/*.json"))
# The runs that the events are about.
RUNS = ("019b7d2e-8f88-7000-8000-000000000001", "01890a5d-ac96-774b-bcce-b302099a8057")

# What an API function answers: for a run that is not there, for one that is complete.
API = {
    "cancel/cancel-run.json": (404, 200),
    "cancel/cancel-run-unknown.json": (404, 404),
    "status/get-log-toil.json": (404, 307),
    "status/get-log.json": (404, 307),
    # The complete run has no such files and no such task.
    "status/get-output.json": (404, 404),
    "status/get-task.json": (404, 404),
    "status/get-outputs-json.json": (404, 307),
    "status/get-run-log.json": (404, 200),
    "status/get-run-status.json": (404, 200),
    "status/get-attachment.json": (404, 404),
    "status/get-ro-crate.json": (404, 200),
    "status/health.json": (200, 200),
    "status/list-attachments.json": (404, 200),
    "status/home.json": (200, 200),
    "status/list-outputs.json": (404, 200),
    "status/list-runs.json": (200, 200),
    "status/list-tasks.json": (404, 200),
    "status/service-info.json": (200, 200),
    "status/unknown-path.json": (404, 404),
    "submit/run-workflow-json.json": (200, 200),
    "submit/run-workflow-multipart.json": (200, 200),
    "submit/run-workflow-unsupported.json": (415, 415),
}
# Events of S3, and the name of the error with which the function ends where nothing of it is there.
LANDED = {
    "submit/object-created-pair-r1.json": None,
    "submit/object-created-pair-r2.json": None,
    "submit/object-created-run-request.json": None,
    "submit/object-created-trigger.json": None,
    "submit/object-deleted.json": "Stepwes.Internal",
}


@pytest.fixture(scope="module")
def functions(stack):
    """Gives each function's binary as a process, with the environment of the deployed one."""
    started = {}

    def function(name):
        if name not in started:
            configuration = stack.configuration(f"{name.capitalize()}Function")
            environment = stack.aws_environment() | configuration["Environment"]["Variables"] | {
                # As Lambda sets them.
                "AWS_LAMBDA_FUNCTION_NAME": name, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration["MemorySize"]),
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_LOG_GROUP_NAME": "g", "AWS_LAMBDA_LOG_STREAM_NAME": "s",
                # Who calls is in the events, as a JWT authorizer says it.
                "STEPWES_AUTH_MODE": "jwt", "STEPWES_S3_PATH_STYLE": "true",
            }
            binary = stack.build / f"{name.capitalize()}Function/bootstrap"
            started[name] = Function(binary, environment, stack.folder / f"{name}.log")
        return started[name]

    yield function
    for each in started.values():
        each.stop()


@pytest.fixture(scope="module")
def complete(stack):
    """A run that is complete, and its owner."""
    wes = Wes(stack.url, stack=stack, credentials=stack.credentials())
    tool = b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [echo, hello]\nstdout: said\noutputs: {said: stdout}\n"
    run_id = wes.run("hello.cwl", [("hello.cwl", tool)])
    wes.complete(run_id)
    return run_id, stack.item(run_id)["owner"]["S"]


def read(name, run_id=None, owner=None):
    text = (EVENTS / name).read_text()
    # Nobody else's machine is asked for a workflow.
    text = text.replace("https://example.org/", "http://127.0.0.1:9/")
    for run in RUNS if run_id else ():
        text = text.replace(run, run_id)
    event = json.loads(text)
    if owner and "authorizer" in event.get("requestContext", {}):
        event["requestContext"]["authorizer"] = {"jwt": {"claims": {"sub": owner}, "scopes": None}}
    return event


def landed(stack, name):
    """An event of S3, as if it were of the stack's bucket."""
    event = read(name)
    if event["detail"]["bucket"]["name"] == "stepwes-runs":
        event["detail"]["bucket"]["name"] = stack.outputs["RunsBucketName"]
    return event


def body(answer):
    return json.loads(answer["body"]) if answer["body"] else None


def test_every_event_is_tried():
    api = {name for name in FILES if name.split("/")[0] in ("cancel", "status", "submit")}
    assert api == set(API) | set(LANDED) and len(FILES) > len(api)


@pytest.mark.parametrize("name", sorted(LANDED))
def test_an_event_of_an_object_that_is_gone(stack, functions, name):
    kind, answer = functions("submit")(landed(stack, name))
    if LANDED[name]:
        assert (kind, answer["errorType"]) == ("error", LANDED[name]), answer
    else:
        assert kind == "response" and set(answer) == {"nothing"}, answer


def test_an_object_that_is_there_makes_one_run_however_often_it_is_told_of(stack, functions):
    event = landed(stack, "submit/object-created-run-request.json")
    request = {"workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "http://127.0.0.1:9/a.cwl"}
    event["detail"]["object"]["key"] = key = "submit/ada/told.run.json"
    url = f"{stack.endpoint}/{event['detail']['bucket']['name']}/{key}"
    assert requests.put(url, json=request, auth=SigV4("s3", *ROOT_KEY), timeout=60).ok
    kind, answer = functions("submit")(event)
    assert kind == "response", answer
    (run,) = answer["runs"]
    assert stack.item(run["run_id"])["owner"]["S"] == "ada"
    assert functions("submit")(event) == (kind, answer)
    assert requests.put(url, json={}, auth=SigV4("s3", *ROOT_KEY), timeout=60).ok
    kind, answer = functions("submit")(event)
    assert (kind, answer["errorType"]) == ("error", "Stepwes.Rejected"), answer
    assert f"rejected/{key}.json" in stack.objects("rejected/")


@pytest.mark.parametrize("name", [name for name in FILES if name not in LANDED])
def test_an_event_of_an_unknown_run(functions, name):
    function = name.split("/")[0]
    kind, answer = functions(function)(read(name))
    if name in API:
        assert kind == "response" and answer["statusCode"] == API[name][0], answer
        if answer["statusCode"] >= 400:
            assert body(answer)["status_code"] == answer["statusCode"] and body(answer)["msg"]
        elif function == "submit":
            assert body(answer)["run_id"]
    elif function == "report":
        assert (kind, answer) == ("response", {"verdict": "refused", "reason": "unknown"})
    elif function == "authorize":
        # None of their tokens has been made here.
        assert (kind, answer) == ("response", {"isAuthorized": False})
    elif function == "reconcile":
        assert kind == "response", answer
    else:
        assert kind == "error" and answer["errorType"] == "Stepwes.RunNotFound", answer


@pytest.mark.parametrize("name", [name for name in FILES if name not in LANDED])
def test_an_event_of_a_complete_run_changes_nothing(stack, functions, complete, name):
    run_id, owner = complete
    before = stack.item(run_id)
    function = name.split("/")[0]
    kind, answer = functions(function)(read(name, run_id, owner))
    assert kind == "response", answer
    if name in API:
        assert answer["statusCode"] == API[name][1], answer
    elif function == "report":
        # Without the attempt's token a run that is there looks like one that is not.
        assert answer == {"verdict": "refused", "reason": "unknown"}
    elif function == "authorize":
        assert answer == {"isAuthorized": False}
    elif function != "reconcile":
        assert answer["next"] == "COMPLETE", answer
    if name == "status/get-run-log.json":
        assert body(answer)["state"] == "COMPLETE" and body(answer)["run_id"] == run_id
    if name == "status/list-runs.json":
        assert run_id in {run["run_id"] for run in body(answer)["runs"]}
    assert stack.item(run_id) == before
