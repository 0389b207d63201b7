"""What tests have asked to go wrong, by the file that `FAULTS` names."""

import collections
import json
import os
import pathlib
import threading

LOCK = threading.Lock()
# How many of a list's entries have been met.
MET = collections.Counter()


def fault(name):
    """What a test has asked for, by the name of the thing that is to go wrong; None for nothing."""
    try:
        return json.loads(pathlib.Path(os.environ["FAULTS"]).read_text()).get(name)
    except FileNotFoundError:
        return None


def next_fault(name, of):
    """The next of a list of faults: each is met once."""
    listed = (fault(name) or {}).get(of, [])
    with LOCK:
        place = (fault("id"), name, of)
        MET[place] += 1
        return listed[MET[place] - 1] if MET[place] <= len(listed) else None
