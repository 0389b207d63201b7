#!/usr/bin/env python3
"""What a server takes for a request with few runs and with many, and how the two compare.

    tests/bench/scale.py [--runs 1000 --runs 1000000] [--requests 200] [--keep FOLDER]

The runs are written by the store's own code (crates/local/examples/seed.rs); a million takes some minutes and
gigabytes of disk. With --keep the tables are there the next time. The requests go to one `stepwes serve`
for each, in turns; the engine is a stand-in, and waits.

    cargo build --release -p stepwes-local --example seed && make dist
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))
from waiting import answers, free_ports, until  # noqa: E402

BIN = pathlib.Path(os.environ.get("STEPWES_BIN", ROOT / "target/dist/stepwes"))
SEED = pathlib.Path(os.environ.get("STEPWES_SEED", ROOT / "target/release/examples/seed"))
ENGINE = '#!/bin/sh\nif [ "$1" = --version ]; then echo "cwltool 3.1"; exit; fi\nexec sleep 100000\n'
LIMIT = 1.5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, action="append", help="how many runs there are; the first is compared with (1,000 and 1,000,000)")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--keep", type=pathlib.Path, help="where the filled tables are kept")
    args = parser.parse_args()
    sizes = args.runs or [1_000, 1_000_000]
    with tempfile.TemporaryDirectory(prefix="stepwes-scale-") as temporary:
        kept = args.keep or pathlib.Path(temporary) / "tables"
        tables = [seeded(kept, runs) for runs in sizes]
        with contextlib.ExitStack() as servers:
            whats = [servers.enter_context(served(table, pathlib.Path(temporary) / table.name)) for table in tables]
            columns = measured(whats, args.requests)
    print(f"{'ms (median)':34}" + "".join(f"{runs:>12,}" for runs in sizes) + f"{'ratio':>8}")
    slow = []
    for name in columns[0]:
        times = [column[name] for column in columns]
        ratio = times[-1] / times[0]
        slow += [name] if ratio > LIMIT else []
        print(f"{name:34}" + "".join(f"{ms:12.2f}" for ms in times) + f"{ratio:8.2f}")
    if slow:
        sys.exit(f"over {LIMIT} times as slow: {', '.join(slow)}")


def seeded(kept, runs):
    """A folder with a table of so many runs."""
    folder = kept / str(runs)
    done = folder / "seeded"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([SEED, folder, str(runs)], check=True, stdout=sys.stderr)
        done.touch()
    return folder


def measured(whats, number):
    """The median of each request's milliseconds, of each server. They take turns, so that a machine that gets slower
    slows them all."""
    taken = [{name: [] for name in what} for what in whats]
    for n in range(number):
        for name in whats[0]:
            for what, times in zip(whats, taken, strict=True):
                begin = time.perf_counter()
                what[name](n)
                times[name].append((time.perf_counter() - begin) * 1000)
    return [{name: statistics.median(each) for name, each in times.items()} for times in taken]


@contextlib.contextmanager
def served(table, folder):
    """Starts a server on a copy of the table; gives the requests to it, by name."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/cwltool").write_text(ENGINE)
    (folder / "bin/cwltool").chmod(0o755)
    state = folder / "state"
    shutil.copytree(table, state)
    (port,) = free_ports(1)
    base = f"http://127.0.0.1:{port}/ga4gh/wes/v1"
    command = [BIN, "serve", "--port", str(port), "--dir", state, "--max-engines", "1"]
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "XDG_DATA_HOME": str(folder / "data")}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        until(lambda: answers(f"{base}/service-info") or server.poll() is not None, "the server answers")
        with requests.Session() as session:
            yield requests_of(session, base)
    finally:
        server.terminate()
        server.wait()
        subprocess.run([*command, "--stop-runs"], env=environment, check=True, capture_output=True)


def requests_of(session, base):
    def get(path, wanted=None):
        answer = session.get(base + path)
        assert answer.status_code == 200, answer.text
        answer = answer.json()
        if wanted is not None:
            assert len(answer["runs"]) == wanted, (path, len(answer["runs"]))
        return answer

    def submit(n):
        parts = {
            "workflow_type": (None, "CWL"), "workflow_type_version": (None, "v1.2"), "workflow_url": (None, "a.cwl"),
            "tags": (None, json.dumps({"n": n})), "workflow_attachment": ("a.cwl", b"cwlVersion: v1.2\nclass: CommandLineTool\n"),
        }
        answer = session.post(f"{base}/runs", files=parts)
        assert answer.status_code == 200, answer.text
        return answer.json()["run_id"]

    at_work = submit(0)
    until(lambda: get(f"/runs/{at_work}/status")["state"] == "RUNNING", "the engine is at work")
    newest = get("/runs?page_size=100", 100)
    middle = newest["next_page_token"]
    return {
        "list, 100 runs": lambda _: get("/runs?page_size=100", 100),
        "list, the next 100": lambda _: get(f"/runs?page_size=100&page_token={middle}", 100),
        "list, RUNNING": lambda _: get("/runs?state=RUNNING", 1),
        "list, 10 that failed": lambda _: get("/runs?page_size=10&state=EXECUTOR_ERROR", 10),
        "list, 20 with a tag": lambda _: get("/runs?page_size=20&tags=project:p7", 20),
        "list, 20 of a type": lambda _: get("/runs?page_size=20&workflow_type=WDL", 20),
        "status": lambda _: get(f"/runs/{newest['runs'][50]['run_id']}/status"),
        "service-info": lambda _: get("/service-info"),
        "submit": submit,
    }


if __name__ == "__main__":
    main()
