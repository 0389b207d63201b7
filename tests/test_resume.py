"""Going on where an engine was cut off: steps that succeeded are not run again, by the next attempt or by a run that resumes.

Each step adds its name to a file outside of the run's folder before it does anything.
"""

import json
import os
import pathlib
import signal
import subprocess

import pytest
import requests
from conftest import BIN, Server, Wes, workflow
from waiting import until

STEP = """echo "$2" >> "$1"
case "$3" in
  wait) while [ ! -e "$4" ]; do sleep 0.1; done ;;
  need) test -e "$4" || { echo "$4 is missing" >&2; exit 7; } ;;
esac
echo "$2"
"""
CWL = """cwlVersion: v1.2
class: Workflow
requirements: {StepInputExpressionRequirement: {}}
inputs: {counts: string, gate: string, mode: string}
steps:
  first:
    run: step.cwl
    in: {counts: counts, name: {default: first}, mode: {default: go}, gate: gate}
    out: [out]
  second:
    run: step.cwl
    in: {counts: counts, name: {default: second}, mode: mode, gate: gate, after: first/out}
    out: [out]
  third:
    run: step.cwl
    in: {counts: counts, name: {default: third}, mode: {default: go}, gate: gate, after: second/out}
    out: [out]
outputs: {last: {type: File, outputSource: third/out}}
"""
STEP_CWL = """cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh]
inputs:
  script: {type: File, inputBinding: {position: 0}, default: {class: File, location: step.sh}}
  counts: {type: string, inputBinding: {position: 1}}
  name: {type: string, inputBinding: {position: 2}}
  mode: {type: string, inputBinding: {position: 3}}
  gate: {type: string, inputBinding: {position: 4}}
  after: File?
stdout: out.txt
outputs: {out: stdout}
"""
WDL = """version 1.0
workflow w {
  input { String counts  String gate  String mode  File script }
  call step as first { input: script = script, counts = counts, name = "first", mode = "go", gate = gate }
  call step as second { input: script = script, counts = counts, name = "second", mode = mode, gate = gate, after = first.out }
  call step as third { input: script = script, counts = counts, name = "third", mode = "go", gate = gate, after = second.out }
  output { File last = third.out }
}
task step {
  input { File script  String counts  String name  String mode  String gate  File? after }
  command <<< sh '~{script}' '~{counts}' '~{name}' '~{mode}' '~{gate}' > out.txt >>>
  output { File out = "out.txt" }
}
"""
SMK = """rule all:
    input: "third.txt"
rule first:
    output: "first.txt"
    shell: "sh step.sh {config[counts]:q} first go {config[gate]:q} > {output:q}"
rule second:
    input: "first.txt"
    output: "second.txt"
    shell: "sh step.sh {config[counts]:q} second {config[mode]} {config[gate]:q} > {output:q}"
rule third:
    input: "second.txt"
    output: "third.txt"
    shell: "sh step.sh {config[counts]:q} third go {config[gate]:q} > {output:q}"
"""
PY = """import json, subprocess
from toil.common import Toil
from toil.job import Job

def step(job, script, counts, name, mode, gate):
    done = subprocess.run(["sh", "-c", script, "sh", counts, name, mode, gate], check=True, capture_output=True, text=True)
    return done.stdout

if __name__ == "__main__":
    options = Job.Runner.getDefaultArgumentParser().parse_args()
    params = json.load(open("wes_inputs.json"))
    script = open("step.sh").read()
    with Toil(options) as toil:
        if options.restart:
            toil.restart()
        else:
            first, second, third = [
                Job.wrapJobFn(step, script, params["counts"], name, mode, params["gate"])
                for name, mode in (("first", "go"), ("second", params["mode"]), ("third", "go"))]
            first.addFollowOn(second)
            second.addFollowOn(third)
            toil.start(first)
    with open("third.txt", "w") as last:
        last.write("third\\n")
"""
SHELL = ("step.sh", STEP.encode())
ONCE = '{"--retryCount": "0"}'
ENGINES = {
    "toil": {
        "url": "w.cwl", "files": [("w.cwl", CWL.encode()), ("step.cwl", STEP_CWL.encode()), SHELL], "workflow_engine": "toil",
        "workflow_engine_parameters": ONCE, "output": "out.txt",
    },
    "miniwdl": {
        "url": "w.wdl", "files": [("w.wdl", WDL.encode()), SHELL], "workflow_type": "WDL", "workflow_type_version": "1.0",
        "output": "out.txt",
    },
    "snakemake": {
        "url": "Snakefile", "files": [("Snakefile", SMK.encode()), SHELL], "workflow_type": "SMK", "workflow_type_version": "9",
        "output": "third.txt",
    },
    "toil in Python": {
        "url": "w.py", "files": [("w.py", PY.encode()), SHELL], "workflow_type": "PY", "workflow_type_version": "3.11",
        "workflow_engine_parameters": ONCE, "output": "third.txt",
    },
}


@pytest.fixture(scope="module")
def wes(installed, serve_only, tmp_path_factory):  # noqa: F811
    path = os.pathsep.join([installed, os.environ["PATH"]])
    options = ["--container", "none", "--sandbox", "none", "--max-engines", "4"]
    server = Server(tmp_path_factory.mktemp("resume") / "state", *options, path=path)
    yield Wes(server.start().url, server=server)
    server.stop()


class Steps:
    """What a run of ours was given, and which of its steps have been begun."""

    def __init__(self, folder, mode):
        self.counts, self.gate, self.mode = folder / "counts", folder / "gate", mode
        self.counts.touch()

    def begun(self):
        return self.counts.read_text().split()

    def submit(self, wes, engine, **more):
        fields = {key: value for key, value in ENGINES[engine].items() if key not in ("url", "files", "output")}
        params = {"counts": str(self.counts), "gate": str(self.gate), "mode": self.mode}
        if engine == "miniwdl":
            params = {f"w.{name}": value for name, value in params.items()} | {"w.script": "step.sh"}
        files = ENGINES[engine]["files"]
        return wes.run(ENGINES[engine]["url"], files, workflow_params=json.dumps(params), **fields, **more)


def saved(wes, run_id, attempt=1):
    return wes.server.folder / f"s3/runs/work/{run_id}/{attempt}/state/manifest.json"


def engine_task(wes, run_id):
    """The pid of the run's engine task, which leads a session of its own."""
    for environment in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        pid = environment.parent.name
        try:
            # The engine task hides its environment; its folder is told by where it was started.
            folder = (wes.server.folder / "tasks").resolve()
            alive = [path for path in folder.glob("*/alive") if path.read_text().strip() == pid]
            if alive and os.readlink(alive[0].with_name("work")).endswith(f"stepwes-{run_id}"):
                return int(pid)
        except OSError:
            continue
    raise AssertionError(f"no engine task of run {run_id}")


def last_output(wes, run_id, engine):
    entries = wes.get(f"/runs/{run_id}/outputs").json()["outputs"]
    entry, = [entry for entry in entries if entry["path"].endswith(ENGINES[engine]["output"])]
    return wes.requests_get(entry["url"])


def command(wes, *words):
    environment = {"PATH": "/usr/bin:/bin", **wes.environment()}
    return subprocess.run([str(BIN), *words], capture_output=True, text=True, timeout=400, env=environment)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_next_attempt_goes_on_where_a_killed_one_was(wes, engine, tmp_path):
    steps = Steps(tmp_path, "wait")
    run_id = steps.submit(wes, engine)
    until(lambda: "second" in steps.begun() or wes.state(run_id) in ("EXECUTOR_ERROR", "SYSTEM_ERROR"), "the second step began", 300)
    assert steps.begun() == ["first", "second"], wes.get(f"/runs/{run_id}/logs/stderr").text
    began = steps.counts.stat().st_mtime
    until(lambda: saved(wes, run_id).exists() and saved(wes, run_id).stat().st_mtime > began, "what the first step did is saved", 300)
    os.kill(engine_task(wes, run_id), signal.SIGKILL)
    until(lambda: steps.begun().count("second") == 2 or wes.state(run_id) in ("EXECUTOR_ERROR", "SYSTEM_ERROR"), "the next attempt is there", 300)
    steps.gate.touch()
    log = wes.ended(run_id, 300)
    assert log["state"] == "COMPLETE", (log, wes.get(f"/runs/{run_id}/logs/stderr").text)
    assert steps.begun() == ["first", "second", "second", "third"], "what was done is not done again"
    assert any("attempt 1" in line for line in log["run_log"]["system_logs"])
    assert last_output(wes, run_id, engine) == b"third\n"
    assert not list(saved(wes, run_id).parent.glob("*")), "nobody goes on from a run that is COMPLETE"
    assert not (wes.server.folder / "work" / f"stepwes-{run_id}").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failed_run_is_resumed_where_it_failed(wes, engine, tmp_path):
    steps = Steps(tmp_path, "need")
    run_id = steps.submit(wes, engine, tags='{"project": "p"}')
    log = wes.ended(run_id, 300)
    assert log["state"] == "EXECUTOR_ERROR", log
    assert set(steps.begun()) == {"first", "second"}
    before = wes.log(run_id)
    steps.gate.touch()
    answer = wes.post(f"/runs/{run_id}/resume", headers={"Idempotency-Key": run_id})
    assert answer.status_code == 200, answer.text
    new = answer.json()["run_id"]
    assert wes.post(f"/runs/{run_id}/resume", headers={"Idempotency-Key": run_id}).json() == {"run_id": new}
    log = wes.ended(new, 300)
    assert log["state"] == "COMPLETE", (log, wes.get(f"/runs/{new}/logs/stderr").text)
    assert steps.begun().count("first") == 1 and steps.begun().count("third") == 1
    assert log["resumed_from"] == run_id
    assert log["request"]["tags"] == {"project": "p", "stepwes.resumed_from": run_id}
    assert last_output(wes, new, engine) == b"third\n"
    assert wes.log(run_id) == before, "a run that has ended does not change"


def test_a_canceled_run_is_resumed_and_without_what_it_saved_that_fails_with_the_reason(wes, tmp_path):
    steps = Steps(tmp_path, "wait")
    run_id = steps.submit(wes, "miniwdl")
    until(lambda: "second" in steps.begun(), "the second step began", 300)
    assert wes.post(f"/runs/{run_id}/resume").status_code == 409
    assert wes.post(f"/runs/{run_id}/cancel").status_code == 200
    assert wes.ended(run_id, 300)["state"] == "CANCELED"
    assert saved(wes, run_id).exists(), "stopping it has saved it"
    steps.gate.touch()
    done = command(wes, "resume", run_id, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == {"run_id": told["run_id"], "resumed_from": run_id, "state": "COMPLETE"}
    assert wes.log(told["run_id"])["resumed_from"] == run_id
    assert steps.begun() == ["first", "second", "second", "third"]
    # A part of it is lost, of which the manifest speaks.
    for piece in saved(wes, run_id).parent.glob("0*"):
        piece.unlink()
    again = wes.ended(wes.post(f"/runs/{run_id}/resume").json()["run_id"], 300)
    assert again["state"] == "EXECUTOR_ERROR" and "not whole any more" in again["run_log"]["system_logs"][-1], again
    assert requests.delete(f"{wes.base}/runs/{run_id}", timeout=60).status_code == 204
    assert wes.post(f"/runs/{run_id}/resume").status_code == 404


def test_what_cannot_be_resumed_says_why(service):
    run_id = service.run("count.cwl", [workflow("count.cwl")], workflow_params="{}")
    assert service.ended(run_id)["state"] == "EXECUTOR_ERROR"
    answer = service.post(f"/runs/{run_id}/resume")
    assert answer.status_code == 409 and "cwltool, which cannot go on" in answer.json()["msg"]
    done = command(service, "resume", run_id)
    assert done.returncode == 1 and "cannot go on" in done.stderr and done.stdout == ""
    assert service.post("/runs/nonsense/resume").status_code == 404
    refused = service.submit("count.cwl", [workflow("count.cwl")], tags=json.dumps({"stepwes.resumed_from": run_id}))
    assert refused.status_code == 400 and "stepwes.resumed_from" in refused.json()["msg"]
