#!/usr/bin/env python3
"""Outputs to S3 and back, beside `cp`: 1 GiB in 1 file and in 10,000 files, and the memory of stepwes-engine.

    cargo build --profile dist -p stepwes -p stepwes-engine && python3 tests/bench/transfer.py [MIB]

The engine is a stub that links ready-made files into its output directory. The upload is from its end to COMPLETE,
checksums and the listing of what arrived included; the download is `stepwes outputs --download`, which verifies them.
Everything is on this machine, files are in the system's cache: read the ratios, not the times. STEPWES_BIN names
another `stepwes`.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BIN = pathlib.Path(os.environ.get("STEPWES_BIN", TARGET / "dist/stepwes"))
MIB = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
TOOL = b"cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: 'true'\ninputs: []\noutputs: []\n"
TERMINAL = {"COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR", "CANCELED", "PREEMPTED"}


def make(folder, files):
    """`files` files with MIB mebibytes in all, which no file system can make smaller."""
    folder.mkdir(parents=True)
    size = MIB * 2**20 // files
    for number in range(files):
        with (folder / f"part-{number:05}.bin").open("wb") as file:
            left = size
            while left:
                piece = os.urandom(min(left, 2**22))
                file.write(piece)
                left -= len(piece)


def stub(folder, data):
    """An engine that makes those files its outputs, and notes when it ends."""
    folder.mkdir(parents=True)
    program = folder / "cwltool"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo cwltool 3.1; exit; }\n'
        'for word; do case "$word" in --outdir=*) out=${word#*=};; --outdir) next=1;; *) [ "$next" ] && out=$word; next=;; esac; done\n'
        f"cp -rl {data}/. \"$out\"\necho '{{}}'\ndate +%s.%N > {folder.parent}/ended\n"
    )
    program.chmod(0o755)


class Memory(threading.Thread):
    """The most that an engine task of the server has had resident, in MiB, as long as one is there."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.most, self.over = server, 0.0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.02):
            for entry in pathlib.Path("/proc").iterdir():
                try:
                    if entry.name.isdigit() and (entry / "comm").read_text().strip() == "stepwes-engine" and self.is_ours(entry.name):
                        self.most = max(self.most, int(status(entry.name)["VmHWM"].split()[0]) / 1024)
                except (OSError, KeyError):
                    continue

    def is_ours(self, pid):
        while pid not in ("0", "1", str(self.server)):
            pid = status(pid)["PPid"]
        return pid == str(self.server)


def status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def submit(base):
    boundary = "bench"
    fields = {"workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "tool.cwl"}
    body = b"".join(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items())
    body += f'--{boundary}\r\nContent-Disposition: form-data; name="workflow_attachment"; filename="tool.cwl"\r\n\r\n'.encode() + TOOL
    body += f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(f"{base}/runs", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["run_id"]


def timed(*command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(folder, files):
    data = folder / "data"
    make(data, files)
    stub(folder / "bin", data)
    copied = [timed("cp", "-r", str(data), str(folder / f"copy{n}")) for n in range(3)]
    cp = sorted(copied)[1]
    for n in range(3):
        shutil.rmtree(folder / f"copy{n}")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    base = f"http://127.0.0.1:{port}/ga4gh/wes/v1"
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "XDG_DATA_HOME": str(folder / "none")}
    log = (folder / "serve.log").open("wb")
    server = subprocess.Popen(
        [BIN, "serve", "--sandbox", "none", "--port", str(port), "--dir", str(folder / "state"), "--container", "none"], env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                get(f"{base}/service-info")
                break
            except OSError:
                time.sleep(0.05)
        memory = Memory(server.pid)
        run_id = submit(base)
        while get(f"{base}/runs/{run_id}/status")["state"] not in TERMINAL:
            time.sleep(0.05)
        end = time.time()
        memory.over.set()
        run = get(f"{base}/runs/{run_id}")
        if run["state"] != "COMPLETE":
            sys.exit(f"error: the run is {run['state']}: {run['run_log']['system_logs']}")
        upload = end - float((folder / "ended").read_text())
        download = timed(BIN, "outputs", run_id, "--download", str(folder / "out"), "--url", f"http://127.0.0.1:{port}")
        # Fails when what came back is not what went up.
        timed("diff", "-r", str(data), str(folder / "out"))
        return cp, upload, download, memory.most
    finally:
        server.terminate()
        server.wait(60)


def main():
    if not BIN.exists():
        sys.exit(f"error: {BIN} is missing: build it, or name another with STEPWES_BIN")
    print(f"{MIB} MiB in {'files':>9} {'cp, s':>8} {'up, s':>8} {'x cp':>6} {'down, s':>8} {'x cp':>6} {'engine, MiB':>12}")
    for files in (1, 10_000):
        with tempfile.TemporaryDirectory(prefix="stepwes-bench-") as folder:
            cp, up, down, memory = measure(pathlib.Path(folder), files)
        print(f"{'':12}{files:>9} {cp:8.2f} {up:8.2f} {up / cp:6.1f} {down:8.2f} {down / cp:6.1f} {memory:12.1f}")


if __name__ == "__main__":
    main()
