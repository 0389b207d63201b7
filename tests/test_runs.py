"""Whole runs: from a POST to outputs, logs and tasks."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import Server, Wes, until, workflow

TEXT = b"one\ntwo\nthree\n"
COUNT = [workflow("count.cwl"), workflow("tools/upper.cwl"), workflow("tools/count.cwl"), ("in/a text.txt", TEXT)]
COUNT_PARAMS = json.dumps({"text": {"class": "File", "location": "in/a%20text.txt"}})


@pytest.fixture(scope="module")
def counted(service):
    """A run of the two-step workflow, ended."""
    run_id = service.run(
        "count.cwl", COUNT, workflow_params=COUNT_PARAMS, tags='{"project": "p", "n": 1}',
        workflow_engine_parameters='{"--relax-path-checks": null}',
    )
    return service.complete(run_id)


def test_outputs_are_the_engines_own_object_with_s3_locations(service, counted):
    upper, counts = counted["outputs"]["upper"], counted["outputs"]["counts"]
    assert upper["class"] == "File" and upper["basename"] == "upper case.txt"
    assert upper["location"].startswith("s3://") and upper["location"].endswith("/upper case.txt")
    assert upper["size"] == len(TEXT)
    assert upper["checksum"] == "sha1$" + hashlib.sha1(TEXT.upper()).hexdigest()
    assert counts["class"] == "Directory"
    listed = {entry["basename"]: entry for entry in counts["listing"]}
    assert listed["empty"]["size"] == 0 and listed["deep"]["class"] == "Directory"
    assert listed["deep"]["listing"][0]["location"].endswith("/counts/deep/bytes")


def test_every_output_can_be_listed_and_downloaded(service, counted):
    listing = service.get(f"/runs/{counted['run_id']}/outputs").json()
    content = {entry["path"]: service.requests_get(entry["url"]) for entry in listing["outputs"]}
    assert content == {
        "counts/deep/bytes": b"14\n", "counts/empty": b"", "counts/lines": b"3\n", "upper case.txt": TEXT.upper(),
    }
    assert listing["next_page_token"] == ""


def test_the_run_log_tells_the_whole_story(counted):
    log = counted["run_log"]
    assert log["exit_code"] == 0
    assert log["cmd"][0].endswith("cwltool") and "--relax-path-checks" in log["cmd"]
    assert log["start_time"] <= log["end_time"] and log["end_time"].endswith("Z")
    assert counted["request"]["tags"] == {"project": "p", "n": "1"}
    assert counted["request"]["workflow_params"] == json.loads(COUNT_PARAMS)
    assert counted["task_logs"] is None


def test_tasks_are_the_steps_with_their_exit_codes(service, counted):
    tasks = service.requests_json(counted["task_logs_url"])["task_logs"]
    assert [(task["name"], task["exit_code"]) for task in tasks] == [("upper", 0), ("count", 0)]
    one = service.get(f"/runs/{counted['run_id']}/tasks/{tasks[0]['id']}").json()
    assert one == tasks[0]
    paged = service.get(f"/runs/{counted['run_id']}/tasks?page_size=1").json()
    assert paged["task_logs"] == tasks[:1] and paged["next_page_token"]
    rest = service.get(f"/runs/{counted['run_id']}/tasks?page_token={paged['next_page_token']}").json()
    assert rest["task_logs"] == tasks[1:] and rest["next_page_token"] == ""


def test_logs_are_there_afterwards_whole_and_in_ranges(service, counted):
    stderr = service.requests_get(counted["run_log"]["stderr"])
    assert b"Final process status is success" in stderr
    part = service.requests_get(counted["run_log"]["stderr"], headers={"Range": "bytes=5-9"})
    assert part == stderr[5:10]
    assert json.loads(service.requests_get(counted["run_log"]["stdout"]))["upper"]["class"] == "File"


def test_the_log_is_visible_while_the_engine_works(service, gate):
    run_id = service.run("gate.cwl", [workflow("gate.cwl")], workflow_params=gate.params())
    said = f"started {gate.marker}"
    until(lambda: said in service.get(f"/runs/{run_id}/logs/stderr").text, "the log's first lines are there")
    assert service.state(run_id) == "RUNNING"
    until(lambda: service.get(f"/runs/{run_id}/tasks").json()["task_logs"], "the task is there")
    gate.open()
    service.complete(run_id)


def test_a_failing_tool_is_an_executor_error_with_its_reason(service):
    log = service.ended(service.run("fail.cwl", [workflow("fail.cwl")]))
    assert log["state"] == "EXECUTOR_ERROR"
    assert log["run_log"]["exit_code"] == 1
    assert "exited with code 1" in log["run_log"]["system_logs"][-1]
    assert "it is broken" in service.requests_get(log["run_log"]["stderr"]).decode()


def test_a_workflow_that_does_not_parse_is_an_executor_error(service):
    log = service.ended(service.run("bad.cwl", [("bad.cwl", b"cwlVersion: v1.2\nclass: [")]))
    assert log["state"] == "EXECUTOR_ERROR" and log["run_log"]["system_logs"]


def test_a_fragment_chooses_the_process_in_a_graph(service):
    tool = "{class: CommandLineTool, id: %s, inputs: {}, baseCommand: [echo, %s], stdout: said, outputs: {said: stdout}}"
    graph = "cwlVersion: v1.2\n$graph:\n- " + tool % ("one", "first") + "\n- " + tool % ("two", "second") + "\n"
    log = service.complete(service.run("g.cwl#two", [("g.cwl", graph.encode())]))
    assert log["outputs"]["said"]["checksum"] == "sha1$" + hashlib.sha1(b"second\n").hexdigest()


def test_json_requests_work_as_forms_do(service, web):
    body = {"workflow_type": "cwl", "workflow_type_version": "v1.0", "workflow_url": f"{web}/hello.cwl"}
    answer = service.post("/runs", json=body)
    assert answer.status_code == 200, answer.text
    log = service.complete(answer.json()["run_id"])
    assert log["outputs"]["said"]["size"] == 6


def test_a_workflow_that_is_not_there_is_an_executor_error_that_names_it(service, web):
    log = service.ended(service.run(f"{web}/missing.cwl"))
    assert log["state"] == "EXECUTOR_ERROR"
    assert "404" in log["run_log"]["system_logs"][-1] and "missing.cwl" in log["run_log"]["system_logs"][-1]


SUM = (
    b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {f: {type: File, inputBinding: {}}}\n"
    b"baseCommand: sha1sum\nstdout: sum\noutputs: {sum: stdout}\n"
)


def summed(service, big):
    """Submits a workflow that tells the checksum of a large attachment."""
    params = '{"f": {"class": "File", "location": "big.bin"}}'
    return service.submit("sum.cwl", [("sum.cwl", SUM), ("big.bin", big)], workflow_params=params)


def test_a_large_attachment_arrives_whole_and_one_beyond_the_limit_is_refused(service):
    # Fifty megabytes on one machine; what a Lambda function takes in AWS.
    size = 50 * 65536 if service.server else 4 * 65536
    big = b"0123456789abcdef" * size
    answer = summed(service, big)
    assert answer.status_code == 200, answer.text
    log = service.complete(answer.json()["run_id"])
    listing = service.get(f"/runs/{log['run_id']}/outputs").json()["outputs"]
    assert service.requests_get(listing[0]["url"]).split()[0].decode() == hashlib.sha1(big).hexdigest()
    if service.stack:
        refused = summed(service, b"x" * 4_600_000)
        assert refused.status_code == 413 and "URL" in refused.json()["msg"]


def test_the_same_key_is_the_same_run(service):
    key = {"Idempotency-Key": hashlib.sha1(str(threading.get_ident()).encode()).hexdigest()}
    first = service.submit("fail.cwl", [workflow("fail.cwl")], headers=key).json()["run_id"]
    again = service.submit("fail.cwl", [workflow("fail.cwl")], headers=key).json()["run_id"]
    other = service.submit("fail.cwl", [workflow("fail.cwl")], headers=key, tags='{"other": "request"}')
    assert first == again and other.status_code == 409
    service.ended(first)


def test_state_counts_are_exact(service, gate):
    def counts():
        return service.get("/service-info").json()["system_state_counts"]

    before = counts()
    run_id = service.run("gate.cwl", [workflow("gate.cwl")], workflow_params=gate.params())
    assert sum(counts().values()) == sum(before.values()) + 1
    gate.open()
    service.complete(run_id)
    assert counts()["COMPLETE"] == before["COMPLETE"] + 1


def test_an_engine_that_is_not_installed_is_a_system_error_that_says_how_to_install_it(tmp_path, serve_only):
    server = Server(tmp_path / "state", path="/usr/bin:/bin").start()
    service = Wes(server.url)
    log = service.ended(service.run("fail.cwl", [workflow("fail.cwl")]))
    assert log["state"] == "SYSTEM_ERROR"
    assert "pip install cwltool" in log["run_log"]["system_logs"][-1]
    server.stop()


@pytest.fixture(scope="module")
def web(same_machine):
    """A web server with one workflow."""
    hello = b"cwlVersion: v1.0\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [echo, hello]\nstdout: said\noutputs: {said: stdout}\n"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/hello.cwl"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(hello if found else b"no")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
