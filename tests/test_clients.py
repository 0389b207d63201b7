"""Clients that people have, unchanged."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.parse

import pytest
import yaml
from conftest import ROOT

WORKFLOWS = ROOT / "tests/workflows"


def tool(name):
    """A program beside this Python, or on PATH."""
    beside = pathlib.Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


@pytest.fixture
def counting(tmp_path):
    """A folder with the two-step workflow and its job. No blank in a name: cwltool wants an option for that, and
    not every client can send one."""
    for name in ("count.cwl", "tools/upper.cwl", "tools/count.cwl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((WORKFLOWS / name).read_text().replace("upper case.txt", "upper.txt"))
    (tmp_path / "text.txt").write_text("one\ntwo\n")
    (tmp_path / "job.json").write_text('{"text": {"class": "File", "path": "text.txt"}}')
    return tmp_path


def by_netrc(folder, where, name, password):
    """The environment in which wes-client says who it is when it submits: its --auth is not sent then (wes-service
    5.0); what its HTTP library finds in netrc is."""
    netrc = folder / "netrc"
    netrc.touch(0o600)
    netrc.write_text(f"machine {where.hostname} login {name} password {password}\n")
    return {**os.environ, "NETRC": str(netrc)}


def test_wes_client_submits_and_waits(service, counting):
    client = tool("wes-client")
    assert client, "wes-client is missing: `make test` installs it (PyPI wes-service)"
    where = urllib.parse.urlsplit(service.base)
    if not service.credentials.plain:
        pytest.skip("the API wants signatures of AWS's, which wes-client cannot make")
    options = [f"--host={where.netloc}", f"--proto={where.scheme}"]
    environment = os.environ
    if service.credentials.header:
        options.append(f"--auth={service.credentials.header}")
        environment = by_netrc(counting, where, *service.credentials.user)
    done = subprocess.run(
        [client, *options,
         "--attachments=tools/upper.cwl,tools/count.cwl,text.txt", "count.cwl", "job.json"],
        cwd=counting, capture_output=True, text=True, timeout=300, env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["upper"]["size"] == 8
    assert "Final process status is success" in done.stderr
    listed = subprocess.run(
        [client, *options, "--list"],
        capture_output=True, text=True, timeout=60, check=True,
    )
    assert json.loads(listed.stdout)["runs"][0]["state"] == "COMPLETE"


def test_curl_as_in_toils_documentation(service, tmp_path):
    """docs: "Submitting a Workflow" of Toil's WES server, the host aside."""
    if not service.credentials.plain:
        pytest.skip("the API wants signatures of AWS's, and curl (--aws-sigv4) leaves a form out of what it signs")
    (tmp_path / "example.cwl").write_text(
        "cwlVersion: v1.0\nclass: CommandLineTool\nbaseCommand: echo\nstdout: output.txt\n"
        "inputs:\n  message:\n    type: string\n    inputBinding:\n      position: 1\noutputs:\n  output:\n    type: stdout\n"
    )
    posted = subprocess.run(
        ["curl", "--silent", "--location", *service.credentials.curl(), "--request", "POST", f"{service.base}/runs",
         "--form", "workflow_url=example.cwl", "--form", 'workflow_type="cwl"',
         "--form", 'workflow_type_version="v1.0"', "--form", 'workflow_params="{\\"message\\": \\"Hello world!\\"}"',
         "--form", 'workflow_attachment=@"./example.cwl"'],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )
    run_id = json.loads(posted.stdout)["run_id"]
    service.complete(run_id)
    log = subprocess.run(
        ["curl", "--silent", "--location", *service.credentials.curl(), f"{service.root}/toil/wes/v1/logs/{run_id}/stdout"],
        capture_output=True, text=True, check=True, timeout=60,
    )
    assert json.loads(log.stdout)["output"]["basename"] == "output.txt"


@pytest.mark.skipif(
    not os.environ.get("STEPWES_TOIL"),
    reason="STEPWES_TOIL does not name an environment with Toil's client: `make test` makes one, .venv-toil",
)
def test_toil_wes_cwl_runner_runs_a_workflow(service, counting):
    client = pathlib.Path(os.environ["STEPWES_TOIL"]) / "bin/toil-wes-cwl-runner"
    if not service.credentials.plain:
        pytest.skip("the API wants signatures of AWS's, which toil-wes-cwl-runner cannot make")
    name, password = service.credentials.user
    done = subprocess.run(
        [client, "--wes_endpoint", service.root, "count.cwl", "job.json"],
        cwd=counting, capture_output=True, text=True, timeout=600,
        env={**os.environ, "TOIL_WES_USER": name, "TOIL_WES_PASSWORD": password},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["upper"]["size"] == 8


def official(folder):
    """The official OpenAPI file, if it is there, with the one answer that it leaves out: it names 400 for a bad
    page of runs, and none for a bad page of a run's tasks."""
    source = ROOT.parent / "shared/spec"
    name = "workflow_execution_service.openapi.yaml"
    if not (source / name).exists():
        return []
    shutil.copytree(source, folder / "spec")
    contract = yaml.safe_load((source / name).read_text())
    (tasks,) = (path["get"] for path in contract["paths"].values() if path.get("get", {}).get("operationId") == "ListTasks")
    (runs,) = (path["get"] for path in contract["paths"].values() if path.get("get", {}).get("operationId") == "ListRuns")
    assert 400 not in tasks["responses"], "the official file has it now: take this out"
    tasks["responses"][400] = runs["responses"][400]
    changed = folder / "spec" / name
    changed.chmod(0o644)
    changed.write_text(yaml.safe_dump(contract, sort_keys=False))
    return [changed]


def test_every_answer_is_as_the_specification_says(service, tmp_path):
    """Schemathesis with all its checks, over the official file where it is, and over our own."""
    schemathesis = os.environ.get("STEPWES_SCHEMATHESIS") or tool("schemathesis")
    assert schemathesis, "schemathesis is missing: `make test` installs it (PyPI schemathesis)"
    header = ["--header", service.credentials.header] if service.credentials.header else []
    if not service.credentials.plain:
        pytest.skip("the API wants signatures of AWS's, which schemathesis cannot make")
    # A run with outputs, so that there is something to be found behind each address.
    now = b"{cwlVersion: v1.2, class: CommandLineTool, baseCommand: date, stdout: now, inputs: [], outputs: {now: stdout}}"
    service.complete(service.run("now.cwl", [("now.cwl", now)]))
    # The official file has no DELETE for a run, which Allow names: our own is asked for that.
    specs = [(spec, ["--exclude-checks", "allow_header_conformance"]) for spec in official(tmp_path)]
    for spec, excluded in [*specs, (ROOT / "docs/openapi.yaml", [])]:
        done = subprocess.run(
            [schemathesis, "--config-file", ROOT / "tests/schemathesis.toml", "run", spec, "--url", service.base, *header,
             "--checks", "all", *excluded, "--max-examples", "30", "--seed", "20250101", "--no-color"],
            capture_output=True, text=True, timeout=900, cwd=ROOT,
        )
        assert done.returncode == 0, f"{spec}\n{done.stdout[-8000:]}{done.stderr[-2000:]}"
