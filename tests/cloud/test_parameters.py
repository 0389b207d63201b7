"""The parameters of the template through another evaluator than ours, ministack's: what scripts/template/parameters.py
has refused is refused there too, before anything is made and by the same words, and what it has taken is taken."""

import json
import pathlib
import subprocess

import pytest
from stack import ROOT

PYTHON = ROOT / ".venv-cloud/bin/python"


def output(*command, given=None):
    done = subprocess.run([PYTHON, *command], input=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_both_refuse_and_take_the_same_parameters():
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON} is missing: `make .venv-cloud` makes it")
    # A name that no parameter has is CloudFormation's to refuse, which ministack does not.
    cases = [(given, named) for given, named in output(ROOT / "scripts/template/parameters.py", "--json") if "Nothing" not in given]
    refusals = output(pathlib.Path(__file__).with_name("check_parameters.py"), given=json.dumps([given for given, _ in cases]))
    assert len(cases) > 1000 and any(named for _, named in cases) and not all(named for _, named in cases)
    wrong = [
        (given, named, refused) for (given, named), refused in zip(cases, refusals, strict=True)
        if (refused is None) != (named is None) or named and named not in refused
    ]
    assert not wrong, wrong[:5]
