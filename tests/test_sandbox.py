"""Engines in a sandbox: real workflows that try to leave their folder, and those that need what is outside of it."""

import json

import container
import pytest
from conftest import Server, Wes

TRY = """
exec 2>/dev/null
try() { if echo x >"$1"; then echo "wrote $2"; else echo "not $2"; fi; }
try "$1/written" outside
try "$1/state/written" "the server's folder"
try /usr/written /usr
try "$HOME/written" home
try /tmp/written /tmp
cat "$1/input.txt"
cat "$1"/state/credentials.json || echo "no credentials"
ls "$1/state"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sandbox")


@pytest.fixture(scope="module")
def wes(folder, engines_path, serve_only):
    if why := container.missing():
        pytest.skip(why)
    server = Server(folder / "state", "--container", "none", "--sandbox", "bwrap", path=engines_path)
    yield Wes(server.start().url, server=server)
    server.stop()


def test_a_workflow_writes_its_own_folder_alone_and_reads_the_rest(wes, folder):
    (folder / "input.txt").write_text("read\n")
    tool = {
        "cwlVersion": "v1.2", "class": "CommandLineTool", "inputs": {"folder": "string"}, "baseCommand": ["sh", "-c", TRY, "try"],
        "arguments": ["$(inputs.folder)"], "stdout": "said", "outputs": {"said": "stdout"},
    }
    run_id = wes.run("try.cwl", [("try.cwl", json.dumps(tool))], workflow_params=json.dumps({"folder": str(folder)}))
    log = wes.complete(run_id)
    said = wes.requests_get(wes.get(f"/runs/{run_id}/outputs").json()["outputs"][0]["url"]).decode().splitlines()
    assert said == [
        "not outside", "not the server's folder", "not /usr", "wrote home", "wrote /tmp", "read", "no credentials", "s3", "work",
    ]
    assert log["run_log"]["cmd"][0] == "cwltool" and not (folder / "written").exists()


def test_files_of_the_machine_are_inputs_and_a_workflow_that_writes_elsewhere_fails(wes, folder):
    (folder / "text.txt").write_text("some text\n")
    read = {
        "cwlVersion": "v1.2", "class": "CommandLineTool", "baseCommand": "cat", "stdout": "said", "outputs": {"said": "stdout"},
        "inputs": {"text": {"type": "File", "inputBinding": {}}},
    }
    params = {"text": {"class": "File", "location": (folder / "text.txt").as_uri()}}
    run_id = wes.run("read.cwl", [("read.cwl", json.dumps(read))], workflow_params=json.dumps(params))
    assert wes.complete(run_id)["outputs"]["said"]["size"] == 10
    leave = f'rule all:\n    output: "{folder}/left.txt"\n    shell: "echo x > {{output}}"\n'
    run_id = wes.run("Snakefile", [("Snakefile", leave)], workflow_type="SMK", workflow_type_version="9", workflow_params="{}")
    log = wes.ended(run_id)
    assert log["state"] == "EXECUTOR_ERROR"
    assert log["run_log"]["system_logs"][-1].endswith("(the engine runs in a sandbox, in which it can write nothing but its own folder)")
    assert not (folder / "left.txt").exists()


def test_the_way_to_s3_is_open(wes, folder):
    """stepwes-engine's own interface for credentials answers in the sandbox."""
    ask = {
        "cwlVersion": "v1.2", "class": "CommandLineTool", "inputs": [], "stdout": "said", "outputs": {"said": "stdout"},
        "requirements": {"ShellCommandRequirement": {}},
        "arguments": [{"shellQuote": False, "valueFrom": (
            'curl --silent --header "Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN" "$AWS_CONTAINER_CREDENTIALS_FULL_URI" | grep -o AccessKeyId'
        )}],
    }
    run_id = wes.run("ask.cwl", [("ask.cwl", json.dumps(ask))], workflow_params="{}")
    assert wes.complete(run_id)["outputs"]["said"]["size"] == len("AccessKeyId\n")
