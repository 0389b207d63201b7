"""The `stepwes` command as a person uses it."""

import json
import os
import pathlib
import pty
import re
import signal
import subprocess

import pytest
from conftest import BIN, ROOT, until

WORKFLOWS = ROOT / "tests/workflows"
# cwltool takes names with blanks only so.
RELAXED = "--engine-option=--relax-path-checks"


@pytest.fixture
def stepwes(service, tmp_path):
    """Runs a command against the shared server; gives the finished process."""

    def call(*arguments, check=True, **more):
        done = subprocess.run(
            [str(BIN), *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=tmp_path,
            env={**os.environ, "STEPWES_URL": service.base.removesuffix("/ga4gh/wes/v1")}, **more,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return call


@pytest.fixture
def inputs(tmp_path):
    """An inputs file beside nothing that it names."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a text.txt").write_text("one\ntwo\n")
    path = tmp_path / "in.yml"
    path.write_text("text:\n  class: File\n  path: data/a text.txt\n")
    return path


def test_run_attaches_watches_and_downloads(stepwes, inputs, tmp_path):
    done = stepwes("run", WORKFLOWS / "count.cwl", inputs, "--outdir", "out", RELAXED)
    outputs = json.loads(done.stdout)
    assert pathlib.Path(outputs["upper"]["path"]).read_text() == "ONE\nTWO\n"
    assert (tmp_path / "out/counts/deep/bytes").read_text() == "8\n"
    assert "COMPLETE" in done.stderr and "2 of 2 tasks done" in done.stderr


def test_run_without_a_server_brings_its_own(inputs, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPWES_")}
    done = subprocess.run(
        [str(BIN), "run", WORKFLOWS / "count.cwl", inputs, "--outdir", "out", "--json", RELAXED],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["state"] == "COMPLETE" and answer["exit_code"] == 0
    assert pathlib.Path(answer["outputs"]["upper"]["path"]).exists()


def test_run_ends_as_the_engine_did_and_says_why(stepwes):
    done = stepwes("run", WORKFLOWS / "fail.cwl", check=False)
    assert done.returncode == 1
    assert "EXECUTOR_ERROR" in done.stderr and "reason:" in done.stderr and "it is broken" in done.stderr


def test_run_follows_the_engines_log(stepwes):
    done = stepwes("run", "-f", WORKFLOWS / "fail.cwl", check=False)
    assert "permanentFail" in done.stderr


def test_submit_then_everything_that_reads(stepwes, inputs):
    run_id = stepwes("submit", WORKFLOWS / "count.cwl", inputs, "--tag", "who=me", RELAXED).stdout.strip()
    assert "Final process status is success" in stepwes("logs", "-f", run_id).stdout
    status = stepwes("status", run_id).stdout
    assert status.startswith("COMPLETE") and "who=me" in status
    assert json.loads(stepwes("status", run_id, "--json").stdout)["state"] == "COMPLETE"
    listed = stepwes("list", "-n", "5").stdout
    assert re.search(rf"{run_id}\s+COMPLETE.*who=me", listed)
    assert json.loads(stepwes("list", "--json", "-n", "1").stdout)[0]["run_id"]
    assert "upper case.txt" in stepwes("outputs", run_id).stdout
    assert json.loads(stepwes("logs", "--stdout", run_id).stdout)["upper"]["class"] == "File"
    assert "cwltool" in stepwes("info").stdout
    assert json.loads(stepwes("info", "--json").stdout)["workflow_type_versions"]["CWL"]


def test_cancel_waits_until_it_is_gone(stepwes, service, gate):
    run_id = service.gated(gate)
    assert "CANCELED" in stepwes("cancel", "--wait", run_id).stdout
    assert gate.processes() == []


def interactive(service, gate, tmp_path, keys):
    """`run` on a terminal, interrupted, then answered."""
    (tmp_path / "in.json").write_text(gate.params())
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(BIN), "run", WORKFLOWS / "gate.cwl", "in.json"], cwd=tmp_path, stdin=theirs, stderr=theirs,
        stdout=subprocess.PIPE, env={**os.environ, "STEPWES_URL": service.base}, start_new_session=True,
    )
    os.close(theirs)
    until(gate.processes, "the tool runs")
    process.send_signal(signal.SIGINT)
    shown = b""
    while b"Cancel the run?" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, keys)
    return process, ours


def drained(process, terminal):
    """Reads the terminal until the process has ended."""
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    return process.wait(120), shown.decode()


def test_an_interrupt_asks_and_a_yes_cancels(service, gate, tmp_path):
    code, shown = drained(*interactive(service, gate, tmp_path, b"y\n"))
    assert code == 130 and "CANCELED" in shown
    assert gate.processes() == []


def test_an_interrupt_asks_and_leave_leaves_it_running(service, gate, tmp_path):
    code, shown = drained(*interactive(service, gate, tmp_path, b"l\n"))
    run_id = re.search(r"stepwes status (\S+)`", shown).group(1)
    assert code == 130 and gate.processes()
    gate.open()
    service.complete(run_id)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.cwl"], "missing.cwl does not exist"),
        (["run", "workflow.xyz"], "cannot be told"),
        (["status", "01890a5d-ac96-774b-bcce-b302099a8057"], "does not exist"),
        (["list", "--url", "http://127.0.0.1:9"], "no server answers"),
        (["list", "--user", "nobody"], "no password"),
    ],
)
def test_an_error_says_what_is_wrong_and_then_what_to_do(stepwes, arguments, said):
    done = stepwes(*arguments, check=False)
    assert done.returncode == 1
    assert said in done.stderr and "hint:" in done.stderr and not done.stdout


def test_serve_says_why_it_cannot_start(tmp_path, service):
    taken = service.base.split(":")[2].split("/")[0]
    done = subprocess.run([str(BIN), "serve", "--port", taken, "--dir", tmp_path / "s"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and taken in done.stderr and "hint:" in done.stderr
    (tmp_path / "file").write_text("")
    done = subprocess.run([str(BIN), "serve", "--dir", tmp_path / "file"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "file" in done.stderr and "hint:" in done.stderr
    done = subprocess.run([str(BIN), "serve", "--host", "0.0.0.0", "--dir", tmp_path / "s"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "--no-auth" in done.stderr
