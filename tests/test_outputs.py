"""Outputs: odd names and kinds of files, many of them, large ones, and their way to a folder or an archive."""

import hashlib
import json
import os
import subprocess
import threading
import zipfile

import pytest
from conftest import BIN, Server, Wes
from test_cli import against, foreign  # noqa: F401
from waiting import until

LONG = "ü" * 127 + "x"
ODD = r"""cwlVersion: v1.2
class: CommandLineTool
requirements: {ShellCommandRequirement: {}}
inputs: []
outputs: {all: {type: Directory, outputBinding: {glob: out}}}
arguments:
- shellQuote: false
  valueFrom: |
    mkdir -p out/void 'out/a b/ü #1 %41' && cd out && echo one > 'a b/ü #1 %41/x+y&z;.txt' && : > empty
    ln -s 'a b' folder && ln -s empty link && echo long > LONG && mkdir out && ln -s ../empty out/up
""".replace("LONG", LONG)
LEAVES = r"""cwlVersion: v1.2
class: CommandLineTool
requirements: {ShellCommandRequirement: {}}
inputs: []
outputs: {all: {type: Directory, outputBinding: {glob: out}}}
arguments: [{shellQuote: false, valueFrom: "mkdir out && ln -s /etc/hostname out/leaves"}]
"""
MANY = r"""cwlVersion: v1.2
class: CommandLineTool
requirements: {ShellCommandRequirement: {}, InlineJavascriptRequirement: {}}
inputs: {count: int}
outputs: {all: {type: "File[]", outputBinding: {glob: "d/*"}}}
arguments: [{shellQuote: false, valueFrom: "mkdir d && cd d && seq 1 $(inputs.count) | split -l 1 -a 5 -d -"}]
"""
BIG = r"""cwlVersion: v1.2
class: CommandLineTool
inputs: {size: string}
outputs: {big: stdout}
baseCommand: [sh, -c, 'seq 1 100000000 | head -c "$0"']
arguments: [$(inputs.size)]
stdout: big
"""


def run(service, tool, params="{}"):
    return service.ended(service.run("tool.cwl", [("tool.cwl", tool.encode())], workflow_params=params), 600)


def listing(service, log):
    files, token = {}, ""
    while True:
        page = service.get(f"/runs/{log['run_id']}/outputs?page_size=1000&page_token={token}").json()
        files |= {entry["path"]: entry for entry in page["outputs"]}
        token = page["next_page_token"]
        if not token:
            return files


def stepwes(service, *arguments, check=True):
    done = subprocess.run(
        [str(BIN), *map(str, arguments)], capture_output=True, text=True, timeout=600, env={**os.environ, **service.environment()},
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def below(folder):
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def test_odd_names_links_and_empty_files_and_folders_are_kept(service, tmp_path):
    log = run(service, ODD)
    assert log["state"] == "COMPLETE", log
    files = listing(service, log)
    odd = "ü #1 %41/x+y&z;.txt"
    assert set(files) == {f"out/a b/{odd}", f"out/folder/{odd}", "out/empty", "out/link", f"out/{LONG}", "out/out/up"}
    folders = {entry["basename"] for entry in log["outputs"]["all"]["listing"] if entry["class"] == "Directory"}
    assert folders == {"void", "a b", "folder", "out"}
    stepwes(service, "outputs", log["run_id"], "--download", tmp_path / "out")
    there = below(tmp_path / "out")
    assert set(there) == set(files)
    assert there[f"out/folder/{odd}"].read_text() == "one\n" and there["out/link"].read_text() == ""
    assert there[f"out/{LONG}"].read_text() == "long\n"
    stepwes(service, "outputs", log["run_id"], "--zip", tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None and set(archive.namelist()) == set(files)


def test_what_is_no_output_of_a_run_is_not_found(service):
    log = run(service, BIG, '{"size": "1"}')
    assert service.get(f"/runs/{log['run_id']}/outputs/big", allow_redirects=False).status_code == 307
    for name in ("none", "big/none", "%00", "none" * 100, "none/" * 200 + "none"):
        answer = service.get(f"/runs/{log['run_id']}/outputs/{name}", allow_redirects=False)
        assert answer.status_code == 404, (name, answer.text)


def test_a_link_that_leaves_the_run_fails_it_with_the_reason(service):
    log = run(service, LEAVES)
    assert log["state"] == "EXECUTOR_ERROR"
    assert "leaves" in log["run_log"]["system_logs"][-1], log["run_log"]["system_logs"]


def test_an_outputs_object_over_a_megabyte_is_a_pointer_and_all_files_arrive(service, tmp_path):
    # The list of files of each of these takes some 300 bytes.
    log = run(service, MANY, '{"count": 10000}')
    assert log["state"] == "COMPLETE", log
    assert list(log["outputs"]) == ["outputs.json"]
    pointer = log["outputs"]["outputs.json"]
    assert pointer["size"] > 1_000_000 and pointer["location"].startswith("s3://")
    whole = service.requests_json(pointer["url"])
    assert len(whole["outputs"]["all"]) == len(whole["files"]) == 10_000
    assert len(listing(service, log)) == 10_000
    crate = service.get(f"/runs/{log['run_id']}/ro-crate").json()
    results = next(entity for entity in crate["@graph"] if entity["@id"] == "#run")["result"]
    assert results == [{"@id": f"{service.base}/runs/{log['run_id']}/outputs"}]
    stepwes(service, "outputs", log["run_id"], "--download", tmp_path)
    assert sorted(int(path.read_text()) for path in below(tmp_path).values()) == list(range(1, 10_001))


def test_a_large_file_arrives_whole(service, tmp_path):
    size = 50_000_001
    log = run(service, BIG, json.dumps({"size": str(size)}))
    assert log["state"] == "COMPLETE", log["run_log"]["system_logs"]
    stepwes(service, "outputs", log["run_id"], "--download", tmp_path)
    content = (tmp_path / "big").read_bytes()
    assert len(content) == size and content.startswith(b"1\n2\n3\n")
    assert log["outputs"]["big"]["checksum"] == "sha1$" + hashlib.sha1(content).hexdigest()


class Slow:
    """Answers ranges of `content`; the first answer stops short of its end until it is let go."""

    def __init__(self, content, stop):
        self.content, self.stop, self.started, self.go, self.ranges = content, stop, threading.Event(), threading.Event(), []

    def __call__(self, handler):
        asked = handler.headers["Range"]
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = self.content[start:]
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(len(body)))
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.end_headers()
        if len(self.ranges) == 1:
            handler.wfile.write(body[: self.stop])
            handler.wfile.flush()
            self.started.set()
            self.go.wait(60)
            handler.close_connection = True
            return
        handler.wfile.write(body)


LARGE = bytes(range(256)) * 4096 * 6


def test_a_download_that_was_killed_goes_on_where_it_was(against, foreign, tmp_path):  # noqa: F811
    foreign.hands_out(small=b"1", large=LARGE)
    slow = Slow(LARGE, 3 * 1024 * 1024)
    foreign.answers["GET", "/files/1"] = [slow]
    command = [str(BIN), "outputs", "r1", "--download", tmp_path / "out", "--url", foreign.url]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert slow.started.wait(60)
    parts = lambda: [path for path in (tmp_path / "out").glob(".stepwes-*.part") if path.stat().st_size >= 2**21]  # noqa: E731
    until(parts, "two megabytes of the large file are there")
    first.kill()
    first.wait()
    slow.go.set()
    assert not (tmp_path / "out/large").exists()
    done = against("outputs", "r1", "--download", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/large").read_bytes() == LARGE
    assert slow.ranges[0] is None and int(slow.ranges[1].removeprefix("bytes=").rstrip("-")) >= 2**21
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["large", "small"]
    asked = len(foreign.asked("GET", "/files/0")), len(slow.ranges)
    again = against("outputs", "r1", "--download", "out")
    assert again.returncode == 0 and (len(foreign.asked("GET", "/files/0")), len(slow.ranges)) == asked


def test_an_answer_that_breaks_off_goes_on_where_it_did_also_in_an_archive(against, foreign, tmp_path):  # noqa: F811
    for flag, place in [("--download", "out"), ("--zip", "out.zip")]:
        foreign.hands_out(large=LARGE)
        slow = Slow(LARGE, 3 * 1024 * 1024)
        slow.go.set()
        foreign.answers["GET", "/files/0"] = [slow]
        done = against("outputs", "r1", flag, place)
        assert done.returncode == 0, done.stderr
        assert len(slow.ranges) == 2 and slow.ranges[1] != "bytes=0-"
    assert (tmp_path / "out/large").read_bytes() == LARGE
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("large") == LARGE


@pytest.mark.parametrize("content", [b"bad", LARGE[::-1]])
def test_an_archive_is_whole_or_not_there(against, foreign, tmp_path, content):  # noqa: F811
    foreign.hands_out(good=b"1", bad=content[::-1])
    foreign.answers["GET", "/files/1"] = [(200, content)]
    done = against("outputs", "r1", "--zip", "out.zip")
    assert done.returncode == 1 and "bad" in done.stderr and "checksum" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.cwl"]


def test_an_archive_names_nothing_outside_of_itself(against, foreign, tmp_path):  # noqa: F811
    foreign.hands_out(**{"../x": b"1"})
    done = against("outputs", "r1", "--zip", "out.zip")
    assert done.returncode == 1 and "outside" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.cwl"]


def test_a_file_that_was_changed_is_downloaded_again(against, foreign, tmp_path):  # noqa: F811
    foreign.hands_out(x=b"new")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_bytes(b"old")
    done = against("outputs", "r1", "--outdir", "out")
    assert done.returncode == 0 and (tmp_path / "out/x").read_bytes() == b"new"


HELLO = ("hello.cwl", b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [echo, hello]\nstdout: said here\noutputs: {out: stdout}\n")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, serve_only):
    """A server whose outputs go to a bucket of the operator's."""
    options = ["--dest-bucket-base", "s3://lab-archive/runs", "--output-bucket", "lab-results"]
    server = Server(tmp_path_factory.mktemp("elsewhere") / "state", *options).start()
    yield Wes(server.url, server=server)
    server.stop()


def asking(place):
    return {"workflow_engine_parameters": json.dumps({"stepwes.dest": place})}


@pytest.mark.parametrize(("fields", "bucket", "prefix"), [
    ({}, "lab-archive", "runs/"), (asking("s3://lab-results/a/b=c/"), "lab-results", "a/b=c/"), (asking("s3://lab-archive"), "lab-archive", ""),
])
def test_outputs_go_below_the_run_s_id_where_the_operator_or_the_run_says(elsewhere, tmp_path, fields, bucket, prefix):
    log = elsewhere.complete(elsewhere.run("hello.cwl", [HELLO], **fields))
    run_id = log["run_id"]
    assert log["outputs"]["out"]["location"] == f"s3://{bucket}/{prefix}{run_id}/said here"
    folder = elsewhere.server.folder / "s3"
    assert (folder / bucket / prefix / run_id / "said here").read_text() == "hello\n"
    assert not list((folder / "runs/outputs").glob(f"{run_id}/*"))
    (entry,) = elsewhere.get(f"/runs/{run_id}/outputs").json()["outputs"]
    assert entry["location"] == log["outputs"]["out"]["location"] and elsewhere.requests_get(entry["url"]) == b"hello\n"
    assert not any(word.startswith("stepwes.") for word in log["run_log"]["cmd"])
    stepwes(elsewhere, "outputs", run_id, "--download", tmp_path)
    assert (tmp_path / "said here").read_text() == "hello\n"


@pytest.mark.parametrize(("place", "told"), [
    ("s3://elsewhere/x", "may go to lab-archive, lab-results"), ("lab-results", "s3://BUCKET"), ("s3://runs/requests", "may go to"),
    ("s3://lab-results/../x", "s3://BUCKET"), ("s3://lab-results/*", "s3://BUCKET"),
])
def test_a_destination_that_the_operator_does_not_allow_is_refused(elsewhere, place, told):
    answer = elsewhere.submit("hello.cwl", [HELLO], **asking(place))
    assert answer.status_code == 400 and told in answer.json()["msg"]


def test_without_buckets_of_the_operator_s_there_is_no_destination(service):
    answer = service.submit("hello.cwl", [HELLO], **asking("s3://lab-results/x"))
    assert answer.status_code == 400 and "its own bucket" in answer.json()["msg"]


@pytest.mark.parametrize("options", [["--output-bucket", "runs"], ["--output-bucket", "No"], ["--dest-bucket-base", "lab"]])
def test_a_bucket_that_cannot_be_one_keeps_the_server_from_starting(tmp_path, options):
    done = subprocess.run([str(BIN), "serve", "--port", "0", "--dir", tmp_path / "s", *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and options[1] in done.stderr


def test_a_failed_run_puts_nothing_into_a_destination(elsewhere):
    tool = HELLO[1].replace(b"[echo, hello]", b"[sh, -c, 'echo hello; exit 3']")
    log = elsewhere.ended(elsewhere.run("hello.cwl", [("hello.cwl", tool)]))
    assert log["state"] == "EXECUTOR_ERROR"
    assert not (elsewhere.server.folder / "s3/lab-archive/runs" / log["run_id"]).exists()
