#!/usr/bin/env python3
"""stepwes beside Toil's WES server, with a stub engine that exits at once: requests a second, latencies, memory.

    make dist && STEPWES_TOIL=.venv-toil python3 tests/bench/servers.py

The load comes from a script for any WES server, which STEPWES_BENCH names (bench_wes.py of the material
beside the project unless it is set); it uses wrk when that is installed. The servers run one after the
other on loopback: read the ratios, not the times. Toil is left out when STEPWES_TOIL names no environment.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "dist"
SCRIPT = pathlib.Path(os.environ.get("STEPWES_BENCH", ROOT.parent / "shared/bench/bench_wes.py"))
WORKFLOW = (
    "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: echo\nstdout: out\n"
    "inputs: {msg: {type: string, inputBinding: {}}}\noutputs: {out: stdout}\n"
)
# (what, where in the script's answer, whether more is better)
FIGURES = [
    ("start to first answer, s", ("startup_s",), False),
    ("idle memory, MB", ("mem_idle", "rss_mb"), False),
    ("service-info a second, 16 connections", ("service_info", "c16", "rps"), True),
    ("GET status a second, 1 connection", ("run_status", "c1", "rps"), True),
    ("GET status p50, ms, 1 connection", ("run_status", "c1", "p50_ms"), False),
    ("GET status a second, 16 connections", ("run_status", "c16", "rps"), True),
    ("GET status p99, ms, 16 connections", ("run_status", "c16", "p99_ms"), False),
    ("POST a second, 1 connection", ("submit", "c1", "posts_per_s"), True),
    ("POST a second, 4 connections", ("submit", "c4", "posts_per_s"), True),
    ("runs a second to their end, 4 connections", ("submit", "c4", "runs_per_s_to_terminal"), True),
    ("POST to engine start p50, ms", ("start", "post_to_engine_start", "p50_ms"), False),
    ("POST to end seen p50, ms", ("start", "post_to_terminal_seen", "p50_ms"), False),
    ("list of 100 p50, ms", ("list", "page_size_100", "p50_ms"), False),
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stub(folder, name):
    """An engine that notes when it starts, says that there are no outputs, and exits."""
    log = folder / f"{name}.log"
    program = folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\ndate +%s.%N >> '{log}'\necho '{{}}'\n")
    program.chmod(0o755)
    return log


def measure(folder, label, command, port, log, path):
    workflow = folder / "echo.cwl"
    workflow.write_text(WORKFLOW)
    done = subprocess.run(
        [sys.executable, SCRIPT, f"http://127.0.0.1:{port}/ga4gh/wes/v1", "--label", label, "--attach", workflow,
         "--stub-log", log, "--start", command, "--cwd", folder, "--server-log", folder / f"{label}.log"],
        env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True,
    )
    if done.returncode:
        sys.exit(f"error: {label} was not measured; its log is {folder / label}.log")
    return json.loads(done.stdout)


def figure(answer, where):
    for name in where:
        answer = (answer or {}).get(name)
    return answer


def main():
    if not SCRIPT.exists():
        sys.exit(f"error: {SCRIPT} is missing: name the load script with STEPWES_BENCH")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="stepwes-bench-"))
    ours, theirs = free_port(), free_port()
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    log = stub(folder, "cwltool")
    # The stub notes its starts where a sandbox would not let it, and Toil has none.
    answers = {"stepwes": measure(
        folder, "stepwes", f"{TARGET / 'stepwes'} serve --port {ours} --dir {folder / 'state'} --sandbox none", ours, log, path)}
    toil = pathlib.Path(os.environ.get("STEPWES_TOIL", "none")) / "bin/toil"
    if toil.exists():
        log = stub(folder, "toil-cwl-runner")
        answers["Toil"] = measure(
            folder, "toil",
            f"{toil.resolve()} server --bypass_celery -w 2 --host 127.0.0.1 --port {theirs} --work_dir {folder / 'toil'}",
            theirs, log, f"{folder / 'bin'}:{toil.resolve().parent}:{os.environ['PATH']}")
    else:
        print("Toil is left out: STEPWES_TOIL does not name an environment that has it")
    print(f"{'':44}" + "".join(f"{name:>12}" for name in answers) + f"{'better by':>12}")
    for what, where, more in FIGURES:
        values = [figure(answer, where) for answer in answers.values()]
        shown = "".join(f"{'-' if value is None else value:>12}" for value in values)
        ratio = ""
        if len(values) == 2 and all(values):
            ratio = f"{values[0] / values[1] if more else values[1] / values[0]:.1f} x"
        print(f"{what:44}{shown}{ratio:>12}")
    for name, answer in answers.items():
        print(f"{name}: final states of the runs submitted by 4 at once: {answer['submit']['c4']['final_states']}")


if __name__ == "__main__":
    main()
