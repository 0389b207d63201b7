"""Runs the engine task as ECS runs a container, for want of a container runtime: `stepwes serve` starts it in place of
stepwes-engine, with the task's environment.

The command is process 1 of processes of its own; the user is the image's, without capabilities; the root is read-only,
and only /tmp and the task's folder can be written. The network is the machine's. SIGTERM goes to process 1 alone.

CONTAINER_ROOT is what the container's root is to be: the machine's own, or an unpacked engine image. CONTAINER_ENDS is a
file that gets a line for each container: its run, and its exit code.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

USER = "2000"
COMMAND = "/usr/local/bin/stepwes-engine"
PATH = "/opt/engines/bin:/usr/local/bin:/usr/bin:/bin"


def bwrap(root, task, *more):
    """bubblewrap's command line, but for what is to run."""
    return [
        "bwrap", "--unshare-user", "--uid", USER, "--gid", USER, "--unshare-pid", "--as-pid-1", "--unshare-ipc",
        "--cap-drop", "ALL", "--die-with-parent", "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
        "--bind", task, task, *more,
    ]


def missing():
    """Why there can be no container here; nothing when there can."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        try:
            tried = subprocess.run([*bwrap("/", folder), "true"], capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            return "bubblewrap, which stands in for a container runtime, is missing: `apt-get install bubblewrap`"
        return tried.stderr and f"bubblewrap can make no container here: {tried.stderr.strip()}"


def main():
    root, ends = os.environ.pop("CONTAINER_ROOT"), os.environ.pop("CONTAINER_ENDS")
    task = str(pathlib.Path(os.environ["STEPWES_EXIT_FILE"]).parent)
    command = os.environ.pop("CONTAINER_COMMAND", COMMAND)
    if root == "/":
        # What is built here may lie below /tmp, too.
        here = {str(pathlib.Path(__file__).resolve().parent.parent), str(pathlib.Path(command).parent)}
        more = [word for folder in sorted(here) for word in ("--ro-bind", folder, folder)]
    else:
        more = []
        os.environ |= {"PATH": PATH, "HOME": "/home/engine"}
    told, tells = os.pipe()
    started = subprocess.Popen([*bwrap(root, task, *more, "--info-fd", str(tells)), command], pass_fds=[tells])
    os.close(tells)
    with os.fdopen(told) as info:
        first = json.load(info)["child-pid"]
    signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGTERM))
    code = started.wait()
    with open(ends, "a") as file:
        file.write(f"{os.environ['STEPWES_RUN_ID']} {code}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
