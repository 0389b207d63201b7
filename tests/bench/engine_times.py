#!/usr/bin/env python3
"""What the service adds to a run of each engine: from POST to the engine's start, and from its end to COMPLETE.

    make dist && python3 tests/bench/engine_times.py [ROUNDS]

The engines' starts and ends are those of the engine task's log; POST and COMPLETE are this script's, which asks for the
state every five milliseconds. One run at a time, on loopback, without containers; with a sandbox and without one, where
bubblewrap works. Engines that are not installed are left out: `stepwes engines install cwltool miniwdl toil snakemake`.
Prints the median of each in milliseconds.
"""

import datetime
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
os.environ.setdefault("STEPWES_BIN", str(TARGET / "dist/stepwes"))
sys.path.append(str(ROOT / "tests"))

from conftest import TERMINAL, Server, Wes  # noqa: E402

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
CWL = "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: echo\nstdout: out\ninputs: []\noutputs: {out: stdout}\n"
WDL = 'version 1.0\ntask t { command <<< echo >>> output { File out = stdout() } }\n'
SMK = 'rule all:\n    output: "out"\n    shell: "echo > {output}"\n'
PY = (
    "from toil.common import Toil\nfrom toil.job import Job\n\ndef nothing(job):\n    return 1\n\n"
    "if __name__ == '__main__':\n    with Toil(Job.Runner.getDefaultArgumentParser().parse_args()) as toil:\n"
    "        toil.start(Job.wrapJobFn(nothing))\n"
)
CASES = [
    ("cwltool", "CWL", "v1.2", "w.cwl", CWL), ("miniwdl", "WDL", "1.0", "w.wdl", WDL), ("snakemake", "SMK", "9", "Snakefile", SMK),
    ("toil", "CWL", "v1.2", "w.cwl", CWL), ("toil", "PY", "3.11", "w.py", PY),
]
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


def logged(server, run_id, engine):
    """When the engine started and ended, in seconds since the epoch, by its task's log."""
    found = {}
    for log in server.folder.glob("tasks/*/log"):
        text = log.read_text()
        if run_id not in text:
            continue
        for line in text.splitlines():
            for what in (f"starting {engine}", f"{engine} ended with"):
                if what in line:
                    found[what] = datetime.datetime.fromisoformat(STAMP.search(line)[0]).timestamp()
    return found[f"starting {engine}"], found[f"{engine} ended with"]


def run(wes, engine, kind, version, name, document):
    posted = time.time()
    run_id = wes.run(name, [(name, document.encode())], workflow_type=kind, workflow_type_version=version, workflow_engine=engine, workflow_params="{}")
    while (state := wes.state(run_id)) not in TERMINAL:
        time.sleep(0.005)
    seen = time.time()
    assert state == "COMPLETE", wes.log(run_id)
    started, ended = logged(wes.server, run_id, engine)
    return started - posted, seen - ended, ended - started


def main():
    for sandbox in ("none", "auto"):
        with tempfile.TemporaryDirectory(prefix="stepwes-bench-") as folder:
            server = Server(pathlib.Path(folder) / "state", "--container", "none", "--sandbox", sandbox)
            # Those of the tests, when they are there.
            server.environment["PATH"] = os.pathsep.join([str(ROOT / "target/engines-home/engines/bin"), os.environ["PATH"]])
            wes = Wes(server.start().url, server=server)
            installed = {name for name, known in wes.get("/service-info").json()["workflow_engine_versions"].items() if known["workflow_engine_version"]}
            print(f"--sandbox {sandbox}: milliseconds, median of {ROUNDS}")
            print(f"{'engine':16} {'POST to start':>14} {'end to COMPLETE':>16} {'engine itself':>14}")
            for case in CASES:
                if case[0] not in installed:
                    print(f"{case[0]:16} not installed")
                    continue
                run(wes, *case)
                times = zip(*(run(wes, *case) for _ in range(ROUNDS)))
                before, after, own = (1000 * statistics.median(each) for each in times)
                print(f"{case[0] + ' ' + case[1]:16} {before:14.0f} {after:16.0f} {own:14.0f}")
            server.stop()


if __name__ == "__main__":
    main()
