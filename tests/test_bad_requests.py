"""What is wrong with a request is said, and nothing is left behind."""

import pytest
from conftest import workflow

FAIL = workflow("fail.cwl")
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def nothing_left(service):
    """The number of runs, and the requests in the bucket where it can be seen, are the same afterwards."""
    def seen():
        counts = service.get("/service-info").json()["system_state_counts"]
        return sum(counts.values()), service.staged()

    before = seen()
    yield
    assert seen() == before


REJECTED = {
    "a type that is not supported": (dict(workflow_type="XYZ"), 400, "CWL"),
    "a version that is not supported": (dict(workflow_type_version="v9"), 400, "v1.2"),
    "no type": (dict(workflow_type=None), 400, "workflow_type"),
    "an engine that is not there": (dict(workflow_engine="nope"), 400, "cwltool"),
    "a version without its engine": (dict(workflow_engine_version="1"), 400, "workflow_engine"),
    "parameters that are not JSON": (dict(workflow_params="{"), 400, "workflow_params"),
    "parameters that are no object": (dict(workflow_params="[]"), 400, "workflow_params"),
    "tags that are no object": (dict(tags="1"), 400, "tags"),
    "a URL that is not attached": (dict(url="other.cwl"), 400, "other.cwl"),
    "a file URL": (dict(url="file:///etc/passwd"), 400, "file"),
    "an attachment with ..": (dict(files=[FAIL, ("../x", b"")]), 400, "workflow_attachment 2"),
    "an absolute attachment": (dict(files=[FAIL, ("/x", b"")]), 400, "workflow_attachment 2"),
    "an attachment twice": (dict(files=[FAIL, FAIL]), 400, "fail.cwl"),
    "no attachment": (dict(files=[]), 400, "missing 'workflow_attachment'"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_request_that_cannot_be_run_is_refused(service, nothing_left, case):
    change, status, said = REJECTED[case]
    answer = service.submit(**{"url": "fail.cwl", "files": [FAIL], **change})
    assert answer.status_code == status, answer.text
    assert answer.json()["status_code"] == status
    assert said in answer.json()["msg"]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"garbage", "multipart/form-data; boundary=x", 400),
        (b"", "multipart/form-data", 400),
        (b"{", "application/json", 400),
        (b"a=1", "application/x-www-form-urlencoded", 415),
        (b"x", "text/plain", 415),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(service, nothing_left, body, content_type, status):
    answer = service.post("/runs", data=body, headers={"Content-Type": content_type})
    assert answer.status_code == status and answer.json()["status_code"] == status


@pytest.mark.parametrize("path", ["", "/status", "/tasks", "/tasks/x", "/logs/stdout", "/outputs", "/outputs/x"])
@pytest.mark.parametrize("run_id", [UNKNOWN, "x", "..%2F..", "%00"])
def test_an_unknown_run_is_not_found_on_every_route(service, run_id, path):
    answer = service.get(f"/runs/{run_id}{path}")
    assert answer.status_code == 404 and answer.json()["status_code"] == 404


def test_an_unknown_run_cannot_be_cancelled(service):
    assert service.post(f"/runs/{UNKNOWN}/cancel").status_code == 404


@pytest.mark.parametrize("query", ["page_size=0", "page_size=1001", "page_size=x", "page_token=x"])
def test_a_page_that_cannot_be_is_refused(service, query):
    answer = service.get(f"/runs?{query}")
    assert answer.status_code == 400 and query.split("=")[0] in answer.json()["msg"]


def test_unknown_paths_and_methods_are_refused_as_json(service):
    assert service.get("/nowhere").json()["status_code"] == 404
    answer = service.post("/service-info")
    assert answer.status_code == 405 and answer.json()["status_code"] == 405
