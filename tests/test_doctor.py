"""stepwes doctor: each thing that can be wrong is found, and nothing else is said to be."""

import json
import os
import re
import subprocess
import threading
import time
import urllib.parse
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import BIN, Server, Wes, until

VERSION = subprocess.run([str(BIN), "--version"], capture_output=True, text=True).stdout.split()[-1] if BIN.exists() else ""
STACK = "lab"
IMAGE = "111122223333.dkr.ecr.us-east-1.amazonaws.com/stepwes-engine:1"


def doctor(*arguments, cwd=None, **environment):
    """The checks by their names, and the exit code, which says whether there is a problem."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("STEPWES_", "AWS_"))}
    done = subprocess.run(
        [str(BIN), "doctor", "--json", *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd,
        env={**clean, **environment},
    )
    answer = json.loads(done.stdout or "null")
    assert answer, done.stderr
    checks = {check["name"]: check for check in answer["checks"]}
    assert len(checks) == len(answer["checks"]), "each check is there once"
    problems = [check for check in checks.values() if check["status"] == "problem"]
    assert answer["healthy"] == (not problems) and done.returncode == (1 if problems else 0)
    assert all(("then" in check) == (check["status"] != "ok") for check in checks.values())
    return checks


def statuses(checks):
    return {name: check["status"] for name, check in checks.items() if check["status"] != "ok"}


class Answering:
    """A web server of the test's own, that answers what `answer` says."""

    def __init__(self, answer):
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                length = int(self.headers.get("Content-Length") or 0)
                status, headers, body = fake.answer(self.command, self.path, dict(self.headers), self.rfile.read(length))
                body = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response_only(status)
                for name, value in {"Date": formatdate(usegmt=True), **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_POST = do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.answer = answer
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


INFO = {
    "supported_wes_versions": ["1.1.0"], "type": {"artifact": "wes"}, "system_state_counts": {}, "version": VERSION,
    "workflow_engine_versions": {"cwltool": {"workflow_engine_version": ["3.1"]}},
}


def wes(info=INFO, status=200, runs=200, clock=None):
    """A service whose clock is wrong by so many seconds, if it is."""
    def answer(_, path, sent, __):
        if path.endswith("/service-info"):
            headers = {} if clock is None else {"Date": formatdate(time.time() + clock, usegmt=True)}
            return status, headers, info
        wanted = runs(sent) if callable(runs) else runs
        return wanted, {}, {"runs": [], "next_page_token": ""} if wanted == 200 else {"msg": "no", "status_code": wanted}
    return answer


def of_good_token(sent):
    return 200 if {name.lower(): value for name, value in sent.items()}.get("authorization") == "Bearer good" else 401


def test_a_healthy_service_has_nothing_wrong():
    with Answering(wes()) as server:
        assert statuses(doctor("--url", server.url)) == {}
        assert statuses(doctor(STEPWES_URL=server.url)) == {}


@pytest.mark.parametrize("answer, arguments, expected", [
    (wes(info="hello"), [], {"service": "problem"}),
    (wes(info={"msg": "no"}, status=500, runs=500), [], {"service": "problem", "access": "problem"}),
    (wes(info={"msg": "no"}, status=404, runs=404), [], {"service": "problem", "access": "problem"}),
    (wes(info={**INFO, "version": "0.0.1"}), [], {"version": "warning"}),
    (wes(info={**INFO, "workflow_engine_versions": {}}), [], {"service's engines": "warning"}),
    (wes(clock=-100), [], {"clock": "warning"}),
    (wes(clock=4000), [], {"clock": "problem"}),
    (wes(runs=of_good_token), [], {"access": "warning"}),
    (wes(runs=of_good_token), ["--token", "bad"], {"access": "problem"}),
    (wes(runs=of_good_token), ["--token", "good"], {}),
], ids=str)
def test_what_is_wrong_with_a_service_is_found(answer, arguments, expected):
    with Answering(answer) as server:
        assert statuses(doctor("--url", server.url, *arguments)) == expected


def test_no_service_at_all_is_found():
    with Answering(wes()) as server:
        url = server.url
    checks = doctor("--url", url)
    assert statuses(checks) == {"service": "problem"} and url in checks["service"]["found"]
    assert statuses(doctor("--url", "ftp://x")) == {"service": "problem"}


@pytest.fixture
def machine(tmp_path, serve_only):
    """A folder, and a PATH with an engine and whatever else a run needs."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in {"cwltool": "echo cwltool 3.1", "python3": "echo 3.13.0", "node": "", "podman": "echo podman version 5"}.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_ / name).chmod(0o755)
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path


def local(machine, *arguments):
    environment = {"PATH": str(machine / "bin"), "XDG_DATA_HOME": str(machine / "data")}
    return doctor("--dir", machine / "state", "--port", "0", *arguments, **environment)


def test_a_healthy_machine_has_nothing_wrong(machine):
    checks = local(machine)
    # How full the disk is, is the machine's own business.
    checks.pop("disk")
    assert statuses(checks) == {}, checks
    assert set(checks) == {
        "engine task", "folder", "engines", "node", "python", "containers", "clock of the folder", "engines at work", "left behind",
        "server", "port",
    }
    assert sorted(path.name for path in (machine / "state").iterdir()) == [], "it only looks"


def spoil(machine, what):
    state, bin_ = machine / "state", machine / "bin"
    if what == "folder":
        state.chmod(0o755)
    elif what == "engines":
        (bin_ / "cwltool").unlink()
    elif what == "engines mute":
        (bin_ / "cwltool").write_text("#!/bin/sh\nexit 1\n")
    elif what in ("node", "python3", "podman"):
        (bin_ / what).unlink()
    elif what == "clock":
        (state / "file").touch()
        os.utime(state / "file", (time.time() + 1000,) * 2)
    elif what == "rejected":
        (state / "s3/runs/rejected/submit").mkdir(parents=True)
        (state / "s3/runs/rejected/submit/a.run.json").write_text("{}")
    elif what == "ledger":
        (state / "aws.sqlite").write_text("this is no database, and never was one")
    elif what == "internal port":
        (state / "internal-port").write_text("x\n")


@pytest.mark.parametrize("what, expected", [
    ("folder", {"folder": "warning"}),
    ("engines", {"engines": "problem"}),
    ("engines mute", {"engines": "warning"}),
    ("node", {"node": "warning"}),
    ("python3", {"python": "warning"}),
    ("podman", {"containers": "warning"}),
    ("clock", {"clock of the folder": "problem"}),
    ("rejected", {"left behind": "warning"}),
    ("ledger", {"server": "problem"}),
    ("internal port", {"server": "problem"}),
])
def test_what_is_wrong_with_a_machine_is_found(machine, what, expected):
    spoil(machine, what)
    checks = local(machine)
    checks.pop("disk")
    assert statuses(checks) == expected, checks


def test_a_container_runtime_that_is_asked_for_has_to_answer(machine):
    assert statuses(local(machine, "--container", "docker"))["containers"] == "problem"
    assert local(machine, "--container", "none")["containers"]["status"] == "ok"


def test_a_running_server_is_found_and_asked_and_its_engines_too_when_it_is_gone(tmp_path, gate, serve_only):
    server = Server(tmp_path / "state").start()
    try:
        run_id = Wes(server.url, server=server).gated(gate)
        checks = doctor("--dir", server.folder, **server.environment)
        assert server.url.removesuffix("/ga4gh/wes/v1") in checks["server"]["found"] and str(server.process.pid) in checks["server"]["found"]
        assert {checks[name]["status"] for name in ("server", "service", "access", "version", "clock", "engines at work")} == {"ok"}
        assert "port" not in checks
        server.kill()
        def seen():
            return doctor("--dir", server.folder, "--port", server.port, **server.environment)
        until(lambda: "none runs" in seen()["server"]["found"], "the server is gone")
        checks = seen()
        assert checks["engines at work"]["status"] == "warning" and run_id in checks["engines at work"]["found"]
        pid = int(re.search(r"pid (\d+)", checks["engines at work"]["found"])[1])
        assert os.path.exists(f"/proc/{pid}")
        assert checks["port"]["status"] == checks["internal port"]["status"] == "ok"
        with Answering(wes()) as other:
            taken = doctor("--dir", server.folder, "--port", other.server.server_port, **server.environment)
            assert taken["port"]["status"] == "warning"
        # Looking has left the folder as it was: the next server takes the run to its end.
        server.start()
        gate.open()
        Wes(server.url, server=server).complete(run_id)
    finally:
        if server.process.poll() is not None:
            server.start()
        server.stop()


def test_text_says_what_to_do(machine):
    spoil(machine, "engines")
    done = subprocess.run(
        [str(BIN), "doctor", "--dir", str(machine / "state"), "--port", "0"], capture_output=True, text=True, timeout=60,
        env={"PATH": str(machine / "bin"), "HOME": str(machine)},
    )
    assert done.returncode == 1
    assert "problem engines" in done.stdout and "stepwes engines install cwltool" in done.stdout, done.stdout
    assert re.search(r"\d+ checks: 1 problem, ", done.stdout)


def xml(operation, content):
    return 200, {"Content-Type": "text/xml"}, f"<{operation}Response><{operation}Result>{content}</{operation}Result></{operation}Response>"


def refused(code, status=400):
    return status, {"Content-Type": "text/xml"}, f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"


def stack(status):
    return xml("DescribeStacks", (
        f"<Stacks><member><StackName>{STACK}</StackName><StackStatus>{status}</StackStatus><CreationTime>2026-11-25T00:00:00Z</CreationTime>"
        "<Outputs><member><OutputKey>ApiUrl</OutputKey><OutputValue>URL</OutputValue></member></Outputs></member></Stacks>"
    ))


RESOURCES = {
    "RunTable": ("AWS::DynamoDB::Table", "lab-runs"), "RunsBucket": ("AWS::S3::Bucket", "lab-bucket"), "Cluster": ("AWS::ECS::Cluster", "lab"),
    "RunMachine": ("AWS::StepFunctions::StateMachine", "arn:aws:states:us-east-1:111122223333:stateMachine:lab"),
    "StatusFunction": ("AWS::Lambda::Function", "lab-status"), "SubmitFunction": ("AWS::Lambda::Function", "lab-submit"),
    "EngineTask": ("AWS::ECS::TaskDefinition", "arn:aws:ecs:us-east-1:111122223333:task-definition/lab-engine:1"),
    "ReconcileDlq": ("AWS::SQS::Queue", "http://127.0.0.1/q/reconcile"), "SubmitDlq": ("AWS::SQS::Queue", "http://127.0.0.1/q/submit"),
}


def resources(**without):
    members = "".join(
        f"<member><LogicalResourceId>{name}</LogicalResourceId><PhysicalResourceId>{physical}</PhysicalResourceId><ResourceType>{kind}</ResourceType>"
        "<ResourceStatus>CREATE_COMPLETE</ResourceStatus><LastUpdatedTimestamp>2026-11-25T00:00:00Z</LastUpdatedTimestamp></member>"
        for name, (kind, physical) in RESOURCES.items() if name not in without
    )
    return xml("ListStackResources", f"<StackResourceSummaries>{members}</StackResourceSummaries>")


def function(**change):
    return {"FunctionName": "f", "State": "Active", "LastUpdateStatus": "Successful", "Environment": {"Variables": {"STEPWES_TABLE": "lab-runs"}}, **change}


def table(**change):
    return {"Table": {
        "TableName": "lab-runs", "TableStatus": "ACTIVE", "DeletionProtectionEnabled": True,
        "GlobalSecondaryIndexes": [{"IndexName": "by_owner", "IndexStatus": "ACTIVE"}], **change,
    }}


HEALTHY = {
    "GetCallerIdentity": xml("GetCallerIdentity", "<Arn>arn:aws:iam::111122223333:user/ada</Arn><UserId>u</UserId><Account>111122223333</Account>"),
    "DescribeStacks": stack("UPDATE_COMPLETE"), "ListStackResources": resources(), "DescribeTable": table(), "HeadBucket": (200, {}, b""),
    "DescribeStateMachine": {
        "name": "lab", "status": "ACTIVE", "stateMachineArn": "arn:x", "definition": "{}", "roleArn": "arn:r", "type": "STANDARD", "creationDate": 1,
    },
    "GetFunctionConfiguration": function(), "DescribeClusters": {"clusters": [{"status": "ACTIVE", "runningTasksCount": 1}]},
    "DescribeTaskDefinition": {"taskDefinition": {"containerDefinitions": [{"name": "engine", "image": IMAGE}]}},
    "DescribeImages": {"imageDetails": [{"imageTags": ["1"]}]}, "GetQueueAttributes": {"Attributes": {"ApproximateNumberOfMessages": "0"}},
    "DescribeLogGroups": {"logGroups": [{"logGroupName": "/stepwes/lab/submit", "retentionInDays": 30}]},
}


def denied(name="AccessDeniedException"):
    return 400, {"x-amzn-errortype": name}, {"__type": name, "message": "no"}


def deployed(**changes):
    """doctor --stack against an AWS that answers these; the stack's API is healthy."""
    answers = {**HEALTHY, **changes}
    asked = []

    def aws(method, path, sent, body):
        target = sent.get("X-Amz-Target") or sent.get("x-amz-target")
        if target:
            operation = target.split(".")[-1]
        elif path.startswith("/2015-03-31/functions/"):
            operation = "GetFunctionConfiguration"
        elif method == "HEAD":
            operation = "HeadBucket"
        else:
            operation = urllib.parse.parse_qs(body.decode())["Action"][0]
        asked.append(operation)
        answer = answers[operation]
        if isinstance(answer, dict):
            kind = "application/x-amz-json-1.1" if target else "application/json"
            return 200, {"Content-Type": kind}, answer
        status, headers, content = answer
        return status, headers, content.replace("URL", api.url) if isinstance(content, str) else content

    with Answering(wes()) as api, Answering(aws) as fake:
        checks = doctor("--stack", STACK, AWS_ENDPOINT_URL=fake.url, AWS_REGION="us-east-1", AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s3cret", STEPWES_S3_PATH_STYLE="true")
    assert "s3cret" not in json.dumps(checks)
    return checks, set(asked)


def test_a_healthy_stack_has_nothing_wrong():
    checks, asked = deployed()
    assert statuses(checks) == {}, checks
    assert asked == set(HEALTHY), "docs/observability.md names every call"
    assert {"credentials", "stack", "table", "bucket", "state machine", "functions", "cluster", "engine image", "ReconcileDlq", "SubmitDlq", "logs", "service"} <= set(checks)


@pytest.mark.parametrize("changes, expected", [
    ({"GetCallerIdentity": refused("InvalidClientTokenId", 403)}, {"credentials": "problem"}),
    ({"DescribeStacks": refused("ValidationError")}, {"stack": "problem"}),
    ({"DescribeStacks": refused("AccessDenied", 403)}, {"stack": "warning"}),
    ({"DescribeStacks": stack("ROLLBACK_COMPLETE")}, {"stack": "problem"}),
    ({"DescribeStacks": stack("UPDATE_IN_PROGRESS")}, {"stack": "warning"}),
    ({"ListStackResources": resources(RunTable=1)}, {"table": "problem", "functions": "problem"}),
    ({"ListStackResources": resources(EngineTask=1, Cluster=1, RunMachine=1)}, {"engine image": "problem", "cluster": "problem", "state machine": "problem"}),
    ({"DescribeTable": table(TableStatus="CREATING")}, {"table": "problem"}),
    ({"DescribeTable": table(GlobalSecondaryIndexes=[{"IndexName": "by_state", "IndexStatus": "CREATING"}])}, {"table": "problem"}),
    ({"DescribeTable": table(DeletionProtectionEnabled=False)}, {"table": "warning"}),
    ({"DescribeTable": denied()}, {"table": "warning"}),
    ({"DescribeTable": denied("ResourceNotFoundException")}, {"table": "problem"}),
    ({"HeadBucket": (404, {}, b"")}, {"bucket": "problem"}),
    ({"HeadBucket": (403, {}, b"")}, {"bucket": "warning"}),
    ({"DescribeStateMachine": {**HEALTHY["DescribeStateMachine"], "status": "DELETING"}}, {"state machine": "problem"}),
    ({"DescribeStateMachine": denied("StateMachineDoesNotExist")}, {"state machine": "problem"}),
    ({"GetFunctionConfiguration": function(State="Failed", StateReason="no image")}, {"functions": "problem"}),
    ({"GetFunctionConfiguration": function(LastUpdateStatus="Failed")}, {"functions": "problem"}),
    ({"GetFunctionConfiguration": function(State="Inactive")}, {}),
    ({"GetFunctionConfiguration": function(Environment={"Variables": {"STEPWES_TABLE": "other"}})}, {"functions": "problem"}),
    ({"DescribeClusters": {"clusters": [{"status": "INACTIVE"}]}}, {"cluster": "problem"}),
    ({"DescribeClusters": {"clusters": []}}, {"cluster": "problem"}),
    ({"DescribeImages": denied("ImageNotFoundException")}, {"engine image": "problem"}),
    ({"DescribeImages": denied()}, {"engine image": "warning"}),
    ({"DescribeTaskDefinition": {"taskDefinition": {"containerDefinitions": [{"name": "engine", "image": "docker.io/x:1"}]}}}, {"engine image": "warning"}),
    ({"GetQueueAttributes": {"Attributes": {"ApproximateNumberOfMessages": "2"}}}, {"ReconcileDlq": "problem", "SubmitDlq": "problem"}),
    ({"GetQueueAttributes": denied()}, {"ReconcileDlq": "warning", "SubmitDlq": "warning"}),
    ({"DescribeLogGroups": {"logGroups": []}}, {"logs": "problem"}),
    ({"DescribeLogGroups": {"logGroups": [{"logGroupName": "/stepwes/lab/submit"}]}}, {"logs": "warning"}),
], ids=lambda value: "+".join(value))
def test_what_is_wrong_with_a_stack_is_found(changes, expected):
    checks, _ = deployed(**changes)
    assert statuses(checks) == expected, checks


def test_aws_is_not_reached_without_credentials(tmp_path):
    with Answering(lambda *_: (500, {}, "")) as fake:
        url = fake.url
    environment = {"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    assert statuses(doctor("--stack", STACK, **environment)) == {"credentials": "problem"}
