"""Runs that files start: RunRequests that are dropped into the runs bucket, and objects that triggers wait for."""

import concurrent.futures
import hashlib
import json
import os
import shutil
import subprocess
import urllib.parse
import uuid

import pytest
import requests
from conftest import BIN, Wes, until
from credentials import SigV4
from stack import ROOT_KEY

TOOL = b"""cwlVersion: v1.2
class: CommandLineTool
inputs: {words: {type: "string[]", inputBinding: {}}}
baseCommand: [echo, -n]
stdout: said.txt
outputs: {said: stdout}
"""


class Files:
    """The service's buckets, as a client of S3 sees them."""

    def __init__(self, service):
        self.service = service
        if service.server:
            folder = service.server.folder
            key = json.loads((folder / "credentials.json").read_text())["service"]
            self.auth = SigV4("s3", key["access_key_id"], key["secret_access_key"])
            self.endpoint = f"http://127.0.0.1:{int((folder / 'internal-port').read_text())}"
            # Where triggers' objects lie.
            self.runs, self.data = "runs", "runs"
            self.place, self.environment = ["--dir", str(folder)], {}
        elif service.stack:
            self.auth, self.endpoint = SigV4("s3", *ROOT_KEY), service.stack.endpoint
            self.runs, self.data = service.stack.outputs["RunsBucketName"], "lab-data"
            self.place = ["--bucket", self.runs]
            self.environment = service.stack.aws_environment() | {"STEPWES_S3_PATH_STYLE": "true"}
            self.call("PUT", self.data)
            told = b"<NotificationConfiguration><EventBridgeConfiguration/></NotificationConfiguration>"
            self.call("PUT", f"{self.data}?notification", told)
        else:
            pytest.skip("the service's buckets cannot be reached from here")

    def call(self, method, path, content=b""):
        headers = {"x-amz-content-sha256": hashlib.sha256(content).hexdigest()}
        return requests.request(method, f"{self.endpoint}/{path}", data=content, headers=headers, auth=self.auth, timeout=60)

    def put(self, key, content, bucket=None):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        answer = self.call("PUT", f"{bucket or self.runs}/{urllib.parse.quote(key)}", content)
        assert answer.ok, answer.text

    def report(self, place):
        """Why something was refused, once that is told."""
        path = f"{self.runs}/rejected/{place}.json"
        # An answer that is no success counts as none.
        return until(lambda: self.call("GET", path) or None, f"{place} is refused").json()

    def trigger(self, *arguments, check=True):
        """`stepwes trigger`; what it prints as JSON."""
        done = subprocess.run(
            [str(BIN), "trigger", *map(str, arguments), *self.place, "--json"], capture_output=True, text=True,
            timeout=60, env=self.environment or dict(os.environ),
        )
        assert not check or done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr


READER = b"""cwlVersion: v1.2
class: CommandLineTool
inputs:
  reads: {type: File, inputBinding: {position: 1}}
  mate: {type: File, inputBinding: {position: 2}}
baseCommand: cat
stdout: said.txt
outputs: {said: stdout}
"""


def owner(service):
    """Whom the service takes the tests for."""
    return "tester" if service.stack else "anonymous"


def runs(service, mark):
    """The ids of the runs that bear this mark."""
    answer = service.get("/runs?page_size=1000")
    assert answer.ok, answer.text
    return [run["run_id"] for run in answer.json()["runs"] if run.get("tags", {}).get("mark") == mark]


def only(service, mark):
    """The run that bears this mark, once it is there and complete; that it is the only one."""
    run_id, = until(lambda: runs(service, mark), f"there is a run {mark}")
    log = service.complete(run_id)
    assert runs(service, mark) == [run_id]
    return log


def said(service, log):
    answer = service.get(f"/runs/{log['run_id']}/outputs/said.txt")
    assert answer.ok, answer.text
    return answer.content


def request(mark, url="say.cwl", words=(), **more):
    return {
        "workflow_url": url, "workflow_type": "CWL", "workflow_type_version": "v1.2", "tags": {"mark": mark},
        "workflow_params": {"words": list(words)}, **more,
    }


@pytest.fixture
def mark():
    return uuid.uuid4().hex


@pytest.fixture
def files(service):
    return Files(service)


@pytest.fixture
def pair(files, mark, tmp_path):
    """A trigger on pairs, by its mark."""
    name = f"pair-{mark}"
    (tmp_path / "say.cwl").write_bytes(TOOL)
    file = tmp_path / f"{name}.yaml"
    file.write_text(json.dumps({
        "bucket": files.data, "key": f"{mark}/{{sample}}_R1.fastq.gz", "wait_for": f"{mark}/{{sample}}_R2.fastq.gz",
        "owner": owner(files.service), "request": request(mark, words=["{sample}", "{key.url}", "{mate.name}"]),
    }))
    files.trigger("add", file)
    yield name
    files.trigger("remove", name)


def test_a_dropped_request_makes_one_run(service, files, mark):
    folder = f"submit/{owner(service)}/{mark}"
    files.put(f"{folder}/tools/say.cwl", TOOL)
    files.put(f"{folder}/x.run.json", request(mark, "tools/say.cwl", ["hello", "file"]))
    log = only(service, mark)
    assert said(service, log) == b"hello file"
    assert log["request"]["workflow_url"] == "tools/say.cwl"


def test_a_bad_request_is_reported_and_the_mended_one_runs(service, files, mark):
    key = f"submit/{owner(service)}/{mark}/x.run.json"
    files.put(key.replace("x.run.json", "say.cwl"), TOOL)
    files.put(key, {**request(mark), "workflow_type": "NOPE"})
    report = files.report(key)
    assert "NOPE" in report["why"] and report["key"] == key and report["event_id"], report
    # The bad one's event is still being repeated: it is the mended one that it meets.
    files.put(key, request(mark, words=["mended"]))
    assert said(service, only(service, mark)) == b"mended"


def test_a_pair_makes_one_run_though_both_come_at_once(service, files, mark, pair):
    names = [f"{mark}/s1_R{n}.fastq.gz" for n in (1, 2)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: files.put(name, b"reads", files.data), names))
    log = only(service, mark)
    assert said(service, log) == f"s1 s3://{files.data}/{mark}/s1_R1.fastq.gz s1_R2.fastq.gz".encode()


def test_a_run_reads_the_objects_that_started_it(service, files, mark, tmp_path):
    (tmp_path / "read.cwl").write_bytes(READER)
    name = f"read-{mark}"
    trigger = tmp_path / f"{name}.yaml"
    params = {name: {"class": "File", "location": f"{{{object}.url}}"} for name, object in [("reads", "key"), ("mate", "mate")]}
    trigger.write_text(json.dumps({
        "bucket": files.data, "key": f"{mark}/{{sample}}.1.txt", "wait_for": f"{mark}/{{sample}}.2.txt", "owner": owner(service),
        "request": {**request(mark, "read.cwl"), "workflow_params": params},
    }))
    files.trigger("add", trigger)
    try:
        sample = "s1+\u00fc\u8aad"
        keys = [f"{mark}/{sample}.{n}.txt" for n in (1, 2)]
        for key in keys:
            files.put(key, f"this is {key}\n".encode(), files.data)
        log = only(service, mark)
    finally:
        files.trigger("remove", name)
    assert said(service, log).decode() == "".join(f"this is {key}\n" for key in keys)
    assert json.loads(log["request"]["tags"]["stepwes.triggered_by"]) == [f"s3://{files.data}/{key}" for key in keys]


def test_no_other_run_reads_what_started_one(serve_only, service, files, mark):
    files.put(f"{mark}/a.txt", b"not yours")
    location = {"class": "File", "location": f"s3://{files.runs}/{mark}/a.txt"}
    params = json.dumps({"reads": location, "mate": location})
    workflow = [("read.cwl", READER)]
    tags = json.dumps({"stepwes.triggered_by": json.dumps([location["location"]])})
    answer = service.submit("read.cwl", workflow, workflow_params=params, tags=tags)
    assert answer.status_code == 400 and "stepwes.triggered_by" in answer.text
    log = service.ended(service.run("read.cwl", workflow, workflow_params=params))
    assert log["state"] == "EXECUTOR_ERROR" and "a.txt" in " ".join(log["run_log"]["system_logs"]), log


def test_an_object_waits_for_its_mate(service, files, mark, pair):
    first, second = (f"{mark}/s2_R{n}.fastq.gz" for n in (2, 1))
    tried = files.trigger("test", f"s3://{files.data}/{first}")
    (matched,) = tried["triggers"]
    assert matched["trigger"] == pair and matched["parts"] == {"sample": "s2"} and matched["waits_for"] == [second]
    assert matched["request"]["workflow_params"]["words"][0] == "s2"
    files.put(first, b"reads", files.data)
    tried = files.trigger("test", f"s3://{files.data}/{second}")
    assert tried["triggers"][0]["waits_for"] == []
    assert runs(service, mark) == []
    files.put(second, b"reads", files.data)
    only(service, mark)


def test_triggers_are_listed_and_removed(files, mark, pair, tmp_path):
    listed = {trigger["name"]: trigger for trigger in files.trigger("list")}
    assert listed[pair]["wait_for"] == {"mate": f"{mark}/{{sample}}_R2.fastq.gz"}
    assert "already" in files.trigger("add", tmp_path / f"{pair}.yaml", check=False)
    files.trigger("add", tmp_path / f"{pair}.yaml", "--replace")
    other = f"{mark}-other"
    files.trigger("add", tmp_path / f"{pair}.yaml", "--name", other)
    files.trigger("remove", other)
    assert other not in {trigger["name"] for trigger in files.trigger("list")}
    assert "there is no trigger" in files.trigger("remove", other, check=False)


@pytest.mark.parametrize("change, told", [
    ({"key": "outputs/{a}.gz"}, "the service's own"), ({"key": "x/{a}"}, "does not say how keys end"),
    ({"bucket": "s3://x"}, "no bucket's name"), ({"request": {}}, "workflow_type is missing"),
])
def test_a_bad_trigger_is_refused_before_it_is_written(files, tmp_path, change, told):
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({"bucket": files.runs, "key": "x/{a}.gz", "request": request("x", "https://example.org/a.cwl"), **change}))
    assert told in files.trigger("add", file, check=False)
    assert "bad" not in {trigger.get("name") for trigger in files.trigger("list")}


def test_a_bad_trigger_that_lands_is_reported(files, mark):
    key = f"triggers/bad-{mark}.yaml"
    files.put(key, b"bucket: [")
    assert "cannot be read" in files.report(key)["why"]
    (listed,) = [each for each in files.trigger("list") if each.get("file") == key]
    assert "cannot be read" in listed["error"]
    files.call("DELETE", f"{files.runs}/{key}")


def test_a_file_that_is_copied_into_the_folder_by_hand_is_noticed(serve_only, own_server, mark, tmp_path):
    service = Wes(own_server.url, server=own_server)
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop/say.cwl").write_bytes(TOOL)
    (tmp_path / "drop/x.run.json").write_text(json.dumps(request(mark, words=["by", "hand"])))
    shutil.copytree(tmp_path / "drop", own_server.folder / "s3/runs/submit/drop")
    assert said(service, only(service, mark)) == b"by hand"


def test_a_file_that_landed_just_before_the_server_was_killed_makes_one_run(own_server, mark):
    service = Wes(own_server.url, server=own_server)
    files = Files(service)
    files.put("submit/say.cwl", TOOL)
    files.put("submit/x.run.json", request(mark))
    own_server.kill()
    # While there is no server.
    (own_server.folder / "s3/runs/submit/y.run.json").write_text(json.dumps(request(f"{mark}-y")))
    own_server.start()
    only(service, mark)
    only(service, f"{mark}-y")
    # What has been told of is not told again.
    own_server.kill()
    own_server.start()
    files.put("submit/z.run.json", request(f"{mark}-z"))
    only(service, f"{mark}-z")
    assert len(runs(service, mark)) == len(runs(service, f"{mark}-y")) == 1
