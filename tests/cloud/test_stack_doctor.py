"""stepwes doctor looks at the deployed stack."""

import json
import subprocess

from conftest import BIN
from stack import STACK


def test_the_stack_is_well_but_for_an_image_that_no_registry_has(stack):
    done = subprocess.run(
        [str(BIN), "doctor", "--json", "--stack", STACK, "--url", stack.url], capture_output=True, text=True, timeout=120,
        env={**stack.aws_environment(), **stack.credentials().environment, "STEPWES_S3_PATH_STYLE": "true"},
    )
    answer = json.loads(done.stdout)
    wrong = {check["name"]: check["found"] for check in answer["checks"] if check["status"] != "ok"}
    # Tests of what fails leave messages in these.
    assert wrong.keys() - {"SubmitDlq", "ReconcileDlq"} == {"engine image"}, (wrong, done.stderr)
    assert "is not there" in wrong["engine image"], wrong
    assert done.returncode == 1 and not answer["healthy"]
    names = {check["name"] for check in answer["checks"]}
    assert {"stack", "table", "bucket", "state machine", "functions", "cluster", "logs", "service", "access", "SubmitDlq", "StateChangeDlq"} <= names
