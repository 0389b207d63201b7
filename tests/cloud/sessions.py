"""Every process of a session: what a container, or a process that starts others, has started."""

import os
import signal
import time


def session(leader):
    """The pids of a session's processes."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    # After the name, which may hold anything: state, parent, group, session.
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry))
    return found


def kill_session(leader):
    """Kills a session's processes until there are none: one that is being killed may still start another."""
    while pids := session(leader):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
