"""What a workflow's tool may do in S3 with the credentials that it finds: read its run's request, and nothing else."""

import json
import os
import pathlib

import pytest
from conftest import workflow

# Of Toil's environment, which has AWS's SDK; cwltool's does not go with it.
PYTHON = pathlib.Path(os.environ.get("STEPWES_TOIL", "")) / "bin/python"
FILES = [workflow("read.cwl"), workflow("ask.py"), ("data/own.txt", b"what is mine")]
DENIED = {"code": "AccessDenied"}


@pytest.mark.skipif(
    not os.environ.get("STEPWES_TOIL"),
    reason="STEPWES_TOIL does not name an environment with AWS's SDK: `make test` makes one, .venv-toil",
)
def test_a_tool_reads_its_own_request_and_writes_nothing(service, gate):
    bucket = "runs" if service.server else service.stack and service.stack.outputs["RunsBucketName"]
    if not bucket:
        pytest.skip("the name of the service's bucket is not known")
    other = service.run("read.cwl", FILES, workflow_params="{}")
    service.ended(other)

    params = {"python": str(PYTHON), "questions": str(gate.file), "marker": gate.marker}
    # Whatever runtime of containers is here, this tool needs none.
    bare = json.dumps({"--no-container": None})
    run = service.run("read.cwl", FILES, workflow_params=json.dumps(params), workflow_engine_parameters=bare)
    own, its = f"requests/{run}/attachments/data/own.txt", f"requests/{other}/attachments/data/own.txt"
    asked = [
        (("get_object", {"Key": own}), "what is mine"),
        (("list_objects_v2", {"Prefix": f"requests/{run}/attachments/data/"}), [own]),
        # Another run's.
        (("get_object", {"Key": its}), DENIED),
        (("get_object", {"Key": f"work/{other}/1/logs/stderr"}), DENIED),
        (("list_objects_v2", {"Prefix": f"requests/{other}/"}), DENIED),
        (("list_objects_v2", {"Prefix": ""}), DENIED),
        # What the run comes to is the service's to write.
        (("put_object", {"Key": f"work/{run}/1/result.json", "Body": "{}"}), DENIED),
        (("put_object", {"Key": f"outputs/{run}/1/forged.txt", "Body": "x"}), DENIED),
        (("put_object", {"Key": f"results/{run}/outputs.json", "Body": "{}"}), DENIED),
        (("put_object", {"Key": own, "Body": "x"}), DENIED),
        (("delete_object", {"Key": own}), DENIED),
    ]
    questions = [(operation, {"Bucket": bucket, **parameters}) for (operation, parameters), _ in asked]
    # At once, so that the tool does not read a part.
    gate.file.with_suffix(".new").write_text(json.dumps(questions))
    gate.file.with_suffix(".new").rename(gate.file)
    log = service.complete(run)
    listing = service.get(f"/runs/{run}/outputs").json()["outputs"]
    said = json.loads(service.requests_get(listing[0]["url"]))
    assert said["answers"] == [answer for _, answer in asked]
    assert said["method"] == "container-role"
    # No key of the task's, and not its token.
    assert {"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"} <= set(said["environment"])
    assert set(said["environment"]) <= {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
    }
    shown = json.dumps(log)
    assert "AWS_CONTAINER_AUTHORIZATION_TOKEN" in shown, "by its name in the command line, without its value"
