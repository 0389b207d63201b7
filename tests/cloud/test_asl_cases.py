"""The cases of crates/asl through another interpreter of the Amazon States Language, ministack's own.

Where the two differ, one of them is not as AWS is. Each difference is explained here, and a new one fails, and so does
one that is no more. What the interpreters say in their own words (the causes of `States.*` errors) is not compared, nor
the states within branches, which ministack's history leaves out.
"""

import json
import pathlib
import subprocess

import pytest
from stack import ROOT

PYTHON = ROOT / ".venv-cloud/bin/python"
FIELDS = ("status", "output", "error", "cause", "states")

DIFFERENT = {
    "ministack takes no Output of a Succeed": [
        "Succeed ends with its Output",
        "a Succeed in a branch ends only the branch",
        "a catcher can read a cause that is JSON",
        "a condition may be written out",
        "conditions read variables, so that a loop can count",
        "names of states may have blanks and other letters",
        "numbers stay exactly what they were while an execution waits",
        "the first rule that holds decides",
    ],
    "ministack takes no Output of a Choice, and any value for a Condition": [
        "Output and Assign of the state are for Default",
        "a condition must give true or false",
    ],
    "ministack has no limit of 256 KiB": [
        "States.ALL does not catch States.DataLimitExceeded",
        "States.ALL does not retry States.DataLimitExceeded",
        "States.DataLimitExceeded can be caught by its name",
        "a result over 256 KiB is an error",
        "an output over 256 KiB is an error",
        "results over 256 KiB together are an error",
        "variables over 256 KiB in one Assign are an error",
    ],
    "ministack has no other limits either: of events, of items of $range, of a time-out's and a heartbeat's values": [
        "$range refuses more than 1000 items",
        "a heartbeat interval that is not below the time-out fails the execution",
        "a loop that never waits ends at 25000 events",
        "a time-out that is no whole number is an error",
    ],
    "ministack watches no HeartbeatSeconds": [
        "States.HeartbeatTimeout catches a missing heartbeat",
        "States.Runtime in a branch fails the execution whatever is caught",
        "States.Timeout catches a time-out and a missing heartbeat",
        "a Task that stops reporting to be alive is cancelled",
    ],
    "ministack takes no expression for the TimeoutSeconds of a Task (on the deployed stack: put right)": [
        "the time-out of a Task may be computed",
    ],
    "ministack takes no TimeoutSeconds of a machine (on the deployed stack: put right)": [
        "the time-out of the machine ends everything",
        "the time-out of the machine stops branches too",
    ],
    "ministack waits for every branch and iteration before it fails; AWS stops the others": [
        "a branch that fails fails the Parallel and stops the others",
        "a task of a branch that never got to start is not cancelled",
        "an error inside goes up through all levels and stops all tasks",
        "an iteration that fails fails the Map and stops the others",
    ],
    "ministack tolerates no failures in a Map, and maps what is no array": [
        "a computed percentage can be exceeded",
        "a percentage over 100 fails the execution",
        "an input that is no array cannot be mapped",
        "failures within the tolerated count have no result",
        "failures within the tolerated percentage are tolerated",
        "one failure more than tolerated fails the Map",
    ],
    "ministack takes neither Arguments nor Output of a Parallel, and lets a branch write its parent's variables": [
        "Arguments are the input of every branch",
        "Output and Assign of a Parallel see the results",
        "a branch reads outer variables and keeps its own",
    ],
    "ministack assigns one variable after the other; on AWS all see what was there on entry": [
        "Assign and Output see the variables as they were on entry",
    ],
    "ministack names an error States.Fail that has no name, and calls a function as a result States.Runtime": [
        "a Fail may say nothing",
        "an expression that gives a function is an error",
    ],
    "ministack knows less of $states.context, and its clock is the machine's": [
        "$now and $millis tell the time of the state",
        "the context object tells of execution, state and machine",
        "the time a state was entered is its own",
    ],
}


def own_words(error):
    return (error or "").startswith("States.")


def differing(case, outcome):
    """The fields in which an outcome is not what is expected."""
    expected, top = dict(case["expect"]), case["definition"]["States"]
    if own_words(expected.get("error")) or own_words(outcome.get("error")):
        expected.pop("cause", None)
    if "states" in expected:
        # Those of the machine itself.
        expected["states"] = [state for state in expected["states"] if state in top]
    return [field for field in FIELDS if field in expected and expected[field] != outcome.get(field)]


def test_each_difference_to_another_interpreter_is_explained():
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON} is missing: `make .venv-cloud` makes it")
    files = sorted((ROOT / "crates/asl/tests/cases").glob("*.json"))
    cases = [case for file in files for case in json.loads(file.read_text())]
    done = subprocess.run(
        [PYTHON, pathlib.Path(__file__).with_name("run_asl_cases.py")], input=json.dumps(cases), capture_output=True,
        text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = json.loads(done.stdout)
    found = {
        case["name"]: differing(case, outcome) for case, outcome in zip(cases, outcomes, strict=True) if differing(case, outcome)
    }
    explained = [name for names in DIFFERENT.values() for name in names]
    assert len(cases) > 150 and sorted(set(explained)) == sorted(explained)
    assert sorted(found) == sorted(explained), {
        "not explained": {name: found[name] for name in set(found) - set(explained)},
        "no more": sorted(set(explained) - set(found)),
    }
