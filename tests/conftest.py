"""A WES server under test. Every test that asks for `service` runs against each target:

- `serve`: `stepwes serve` in a folder of its own;
- `stack`: the built template, deployed to an AWS that is played on this machine (tests/cloud);
- or, instead of them, the server that STEPWES_TEST_URL names, with STEPWES_TEST_TOKEN or STEPWES_TEST_USER (name:password).

`pytest --target serve --target stack` chooses; without a choice it is `serve`.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import urllib.parse
import uuid

import pytest
import requests
from credentials import Nobody, from_environment
from waiting import answers, free_ports, until

sys.path.append(str(pathlib.Path(__file__).parent / "cloud"))

from stack import Stack  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("STEPWES_BIN", ROOT / "target/debug/stepwes"))
TERMINAL = {"COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR", "CANCELED", "PREEMPTED"}


def pytest_addoption(parser):
    parser.addoption("--target", action="append", choices=["serve", "stack"], help="what to test (serve); may be repeated")


def targets(config):
    return ["url"] if os.environ.get("STEPWES_TEST_URL") else config.getoption("--target") or ["serve"]


def pytest_generate_tests(metafunc):
    if "service" in metafunc.fixturenames:
        metafunc.parametrize("service", targets(metafunc.config), indirect=True, scope="session")


class Server:
    """`stepwes serve` as a process of ours."""

    def __init__(self, folder, *options, path=None, program=BIN):
        self.folder, self.options, (self.port,) = pathlib.Path(folder), options, free_ports(1)
        self.program = program
        # The engines of whoever runs the tests are not looked for.
        self.environment = {**os.environ, "XDG_DATA_HOME": str(self.folder.parent / "data"), **({"PATH": path} if path is not None else {})}
        self.process, self.log = None, pathlib.Path(folder).parent / "serve.log"

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/ga4gh/wes/v1"

    def command(self, *more):
        return [str(self.program), "serve", "--port", str(self.port), "--dir", str(self.folder), *self.options, *more]

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder.parent, env=self.environment)
        until(lambda: answers(f"{self.url}/service-info") or self.process.poll() is not None, "the server answers")
        assert self.process.poll() is None, self.log.read_text()
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        subprocess.run(self.command("--stop-runs"), timeout=120, check=True, capture_output=True)


class Wes:
    """The API as a client sees it."""

    def __init__(self, base, server=None, stack=None, credentials=Nobody()):
        self.base, self.credentials = base, credentials
        # What runs it, where that is ours: a Server or a Stack.
        self.server, self.stack = server, stack

    @property
    def root(self):
        """The URL that clients want that add the path of WES themselves."""
        return self.base.removesuffix("/ga4gh/wes/v1")

    def get(self, path, **more):
        return requests.get(self.base + path, timeout=60, auth=self.credentials.requests, **more)

    def post(self, path, **more):
        return requests.post(self.base + path, timeout=120, auth=self.credentials.requests, **more)

    def requests_get(self, url, **more):
        """The content behind a URL that the service handed out: one of its own, with its credentials."""
        assert url.startswith(self.root + "/"), url
        answer = requests.get(url, timeout=60, auth=self.credentials.requests, **more)
        assert answer.ok, (url, answer.status_code, answer.text)
        return answer.content

    def requests_json(self, url):
        return json.loads(self.requests_get(url))

    def environment(self):
        """For the `stepwes` command."""
        if not self.credentials.plain:
            pytest.skip("the API wants signatures of AWS's, which this client cannot make")
        return {"STEPWES_URL": self.root, **self.credentials.environment}

    def staged(self):
        """The requests that are in the bucket, where that can be seen."""
        if self.server:
            return sorted(str(path) for path in (self.server.folder / "s3/runs/requests").glob("*"))
        return self.stack.objects("requests/") if self.stack else []

    def submit(self, url, files=(), headers=None, **fields):
        """POST /runs as a form; files are (name, content) pairs."""
        form = {"workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": url, **fields}
        parts = [(name, (None, value)) for name, value in form.items() if value is not None]
        parts += [("workflow_attachment", (name, content)) for name, content in files]
        return self.post("/runs", files=parts, headers=headers)

    def run(self, url, files=(), **fields):
        answer = self.submit(url, files, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["run_id"]

    def state(self, run_id):
        return self.get(f"/runs/{run_id}/status").json()["state"]

    def log(self, run_id):
        answer = self.get(f"/runs/{run_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, run_id, seconds=180):
        until(lambda: self.state(run_id) in TERMINAL, f"run {run_id} has ended", seconds)
        return self.log(run_id)

    def gated(self, gate):
        """Starts the workflow that waits at `gate`; gives the run's id once its tool is at work."""
        run_id = self.run("gate.cwl", [workflow("gate.cwl")], workflow_params=gate.params())
        until(lambda: gate.processes() or self.state(run_id) in TERMINAL, "the workflow's tool runs")
        assert gate.processes(), self.log(run_id)
        return run_id

    def complete(self, run_id):
        log = self.ended(run_id)
        assert log["state"] == "COMPLETE", (log, self.get(f"/runs/{run_id}/logs/stderr").text)
        return log


@pytest.fixture(scope="session")
def service(request):
    """The server that most tests share, once for each target."""
    if request.param == "url":
        yield Wes(os.environ["STEPWES_TEST_URL"].rstrip("/"), credentials=from_environment())
    elif request.param == "stack":
        stack = request.getfixturevalue("stack")
        yield Wes(stack.url, stack=stack, credentials=stack.credentials())
    else:
        assert BIN.exists(), f"{BIN} is missing: build it with `make build`"
        server = Server(request.getfixturevalue("tmp_path_factory").mktemp("serve") / "state").start()
        yield Wes(server.url, server=server)
        server.stop()


@pytest.fixture(scope="session")
def stack(request, tmp_path_factory):
    """The deployed stack, for tests that look behind the API."""
    with built_stack(request, tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def built_stack(request, folder, **parameters):
    """A stack with these parameters, to be deployed; without what it needs the test is skipped."""
    if "stack" not in targets(request.config):
        pytest.skip("only of the deployed stack: `make package`, then --target stack")
    parameters = {"TriggerBuckets": "lab-data", **parameters}
    stack = Stack(folder, engine=BIN.with_name("stepwes-engine"), **parameters)
    if missing := stack.missing():
        pytest.skip("; ".join(missing))
    assert not stack.outdated(), f"`make package` first: newer than what is built are {stack.outdated()}"
    return stack


@pytest.fixture(scope="session")
def serve_only(request):
    """For tests that start `stepwes serve` in ways of their own, or kill it."""
    if "serve" not in targets(request.config):
        pytest.skip("this starts or kills a server of its own, which no deployed service is: --target serve")


@pytest.fixture(scope="session")
def installed():
    """The folder with the programs of all engines, which target/engines-home keeps."""
    home = ROOT / "target/engines-home"
    command = [str(BIN), "engines", "install", "--json", "--dir", str(home), "cwltool", "miniwdl", "toil", "snakemake"]
    # By uv it takes seconds, by pip minutes.
    path = os.pathsep.join([str(ROOT / ".venv-lock/bin"), os.environ["PATH"]])
    done = subprocess.run(command, timeout=900, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["bin"]


@pytest.fixture(scope="session")
def engines_path(installed):
    """A PATH by which a server finds all engines."""
    return os.pathsep.join([installed, os.environ["PATH"]])


@pytest.fixture(scope="module")
def contained(engines_path, serve_only, tmp_path_factory):
    """A server with containers: a stand-in for Singularity runs each task in a mount namespace of its own."""
    namespace = subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True)
    if namespace.returncode:
        pytest.skip("no namespaces for users here, which the stand-in for Singularity needs")
    path = os.pathsep.join([str(ROOT / "tests/stand-ins"), engines_path])
    server = Server(tmp_path_factory.mktemp("contained") / "state", "--container", "singularity", path=path)
    yield Wes(server.start().url, server=server)
    server.stop()


@pytest.fixture
def own_server(tmp_path, serve_only):
    """A server for tests that kill it."""
    server = Server(tmp_path / "state").start()
    yield server
    if server.process.poll() is not None:
        server.start()
    server.stop()


@pytest.fixture(scope="session")
def same_machine():
    """For tests whose workflows use files or ports of this machine."""
    host = urllib.parse.urlsplit(os.environ.get("STEPWES_TEST_URL", "http://127.0.0.1")).hostname
    if host not in ("127.0.0.1", "localhost", "::1"):
        pytest.skip("the service's engines are not on this machine")


@pytest.fixture
def gate(tmp_path, same_machine):
    """A file that a workflow waits for, and a marker by which its processes are found."""
    return Gate(tmp_path)


class Gate:
    def __init__(self, folder):
        self.file, self.marker = folder / "gate", f"gate-{uuid.uuid4().hex}"

    def open(self):
        self.file.touch()

    def params(self):
        return f'{{"gate": "{self.file}", "marker": "{self.marker}"}}'

    def processes(self):
        """The pids of the workflow's own processes."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.marker.encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


def workflow(name):
    """An attachment out of tests/workflows."""
    return (name, (ROOT / "tests/workflows" / name).read_bytes())
