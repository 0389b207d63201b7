"""The engine task as process 1 of a container, with a read-only root and another user. With STEPWES_TEST_IMAGE, a folder
with an unpacked engine image in it, that image; else this machine's own files."""

import json
import os
import pathlib
import shutil
import sys
import tempfile

import container
import pytest
from conftest import BIN, Server, Wes

LOOK = """
id -u
cat /proc/1/comm
cat /proc/1/environ >/dev/null 2>&1 && echo "environ can be read"
(echo >/written-by-a-workflow) 2>/dev/null && echo "the root can be written"
echo >/tmp/written && echo "/tmp can be written"
# An orphan, dead before the shell is: process 1 has to bury it.
(sh -c 'exit 0' & echo $! >orphan)
while [ -e "/proc/$(cat orphan)" ]; do sleep 0.05; done
echo "orphans are reaped"
# One that would outlive the run.
(setsid sh -c 'while :; do sleep 1; done' "$0" >/dev/null 2>&1 &)
echo "$1"
"""


@pytest.fixture(scope="module")
def contained(serve_only):
    if why := container.missing():
        pytest.skip(why)
    image = os.environ.get("STEPWES_TEST_IMAGE")
    # Of what a container can write, /tmp is the only place that every root has.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="stepwes-", dir="/tmp"))
    # `stepwes` starts the program that lies beside it.
    (folder / "bin").mkdir()
    shutil.copy(BIN, folder / "bin/stepwes")
    engine = folder / "bin/stepwes-engine"
    given = {"CONTAINER_ROOT": image or "/", "CONTAINER_ENDS": str(folder / "ends")} | ({} if image else {"CONTAINER_COMMAND": str(BIN.with_name("stepwes-engine"))})
    engine.write_text(
        "#!/bin/sh\n" + "".join(f"export {name}='{value}'\n" for name, value in given.items())
        + f"exec '{sys.executable}' '{pathlib.Path(container.__file__).resolve()}'\n"
    )
    engine.chmod(0o755)
    server = Server(folder / "state", "--container", "none", program=folder / "bin/stepwes").start()
    yield Wes(server.url, server=server)
    server.stop()
    shutil.rmtree(folder)


def test_a_workflow_with_an_expression_runs_where_only_its_own_folders_can_be_written(contained, gate):
    tool = {
        "cwlVersion": "v1.2", "class": "CommandLineTool", "requirements": {"InlineJavascriptRequirement": {}},
        "inputs": {"words": "string[]", "marker": "string"}, "baseCommand": ["sh", "-c", LOOK],
        "arguments": ["$(inputs.marker)", '${ return inputs.words.map(function(w) { return w.toUpperCase() }).join(" ") }'],
        "stdout": "said", "outputs": {"said": "stdout"},
    }
    params = json.dumps({"words": ["one", "two"], "marker": gate.marker})
    log = contained.complete(contained.run("look.cwl", [("look.cwl", json.dumps(tool).encode())], workflow_params=params))
    listing = contained.get(f"/runs/{log['run_id']}/outputs").json()["outputs"]
    assert contained.requests_get(listing[0]["url"]).decode().splitlines() == [
        container.USER, "stepwes-engine", "/tmp can be written", "orphans are reaped", "ONE TWO",
    ]
    assert not gate.processes(), "nothing outlives the run"


def test_process_1_ends_in_time_when_it_is_told_to(contained, gate):
    run_id = contained.gated(gate)
    assert contained.post(f"/runs/{run_id}/cancel").status_code == 200
    assert contained.ended(run_id)["state"] == "CANCELED"
    assert not gate.processes()
    assert f"started {gate.marker}" in contained.get(f"/runs/{run_id}/logs/stderr").text, "its last words"
    # Killed, it would be 137.
    ends = dict(line.split() for line in (contained.server.folder.parent / "ends").read_text().splitlines())
    assert ends[run_id] == "75", "stopped when it was told to"
