"""Zip bundles of the Amazon Genomics CLI's: all forms of them, what wins over what, and those that must not be used."""

import io
import json
import stat
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import Server, Wes

# Says its inputs.
SAY = b"""cwlVersion: v1.2
class: CommandLineTool
inputs:
  a: {type: string, inputBinding: {position: 1}}
  b: {type: string?, inputBinding: {position: 2}}
  c: {type: string?, inputBinding: {position: 3}}
baseCommand: [echo]
stdout: said
outputs: {said: stdout}
"""
OUTER = b"""cwlVersion: v1.2
class: Workflow
inputs: {a: string, b: string?, c: string?}
steps: {say: {run: tools/say.cwl, in: {a: a, b: b, c: c}, out: [said]}}
outputs: {said: {type: File, outputSource: say/said}}
"""


def packed(entries, method=zipfile.ZIP_DEFLATED):
    """A zip archive of (name or ZipInfo, content) pairs."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return content.getvalue()


def manifest(**fields):
    return ("MANIFEST.json", json.dumps(fields))


def said(service, log):
    listing = service.get(f"/runs/{log['run_id']}/outputs").json()["outputs"]
    return service.requests_get(listing[0]["url"]).decode().split()


FULL = packed([
    manifest(
        mainWorkflowURL="wf/main.cwl", inputFileURLs=["first.json", "in/second.json"], optionFileURL="opts.json",
        engineOptions="--relax-path-checks",
    ),
    ("wf/main.cwl", OUTER), ("wf/tools/say.cwl", SAY),
    ("first.json", '{"a": "first", "b": "first", "c": "first"}'), ("in/second.json", '{"b": "second", "c": "second"}'),
    ("opts.json", '{"--debug": null, "--parallel": null}'),
])


def test_a_manifest_names_all_and_the_request_is_on_top(service):
    run_id = service.run(
        "workflow.zip", [("workflow.zip", FULL)], workflow_params='{"c": "mine"}', workflow_engine_parameters='{"--debug": false}',
    )
    log = service.complete(run_id)
    assert said(service, log) == ["first", "second", "mine"]
    assert {"--parallel", "--relax-path-checks"} <= set(log["run_log"]["cmd"]) and "--debug" not in log["run_log"]["cmd"]
    assert log["request"]["workflow_params"] == {"c": "mine"}, "the request is shown as it came"


FORMS = {
    "a single file": ([("any.cwl", SAY)], '{"a": "one"}', ["one"]),
    "main, inputs and options by their names": (
        [("main.cwl", OUTER), ("tools/say.cwl", SAY), ("inputs_1.json", '{"a": "x", "b": "x"}'), ("inputs_2.json", '{"b": "y"}'),
         ("options.json", '{"--debug": true}')],
        None, ["x", "y"],
    ),
    "Toil's name of the options": (
        [manifest(mainWorkflowURL="./say.cwl", optionsFileURL="o.json"), ("say.cwl", SAY), ("o.json", "{}")], '{"a": "z"}', ["z"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_needs_no_manifest(service, form):
    entries, params, words = FORMS[form]
    log = service.complete(service.run("any name.zip", [("any name.zip", packed(entries))], workflow_params=params))
    assert said(service, log) == words


def test_attachments_win_over_the_bundle_s_files(service):
    files = [("d/workflow.zip", FULL), ("d/first.json", b'{"a": "attached"}')]
    log = service.complete(service.run("d/workflow.zip", files))
    assert said(service, log) == ["attached", "second", "second"]


def symbolic_link():
    entry = zipfile.ZipInfo("link")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


MAIN = ("main.cwl", SAY)
BAD = {
    "a path escape": (packed([MAIN, ("../evil", "x")]), "'../evil'", "leads out"),
    "an absolute path": (packed([MAIN, ("/etc/evil", "x")]), "/etc/evil", "absolute"),
    "a symbolic link": (packed([MAIN, (symbolic_link(), "/etc/passwd")]), "link", "symbolic link"),
    "a bomb": (packed([MAIN, ("zeros", bytes(20 << 20))]), "100 times", "fill disks"),
    "too many entries": (packed([MAIN, *((f"e/{n}", "") for n in range(10_000))]), "10000 entries", ""),
    "a bundle in a bundle": (packed([("workflow.zip", packed([MAIN]))]), "zip archive, too", ""),
    "a manifest that leads out": (packed([manifest(mainWorkflowURL="../main.cwl"), MAIN]), "mainWorkflowURL", "leads out"),
    "an absolute manifest path": (packed([manifest(mainWorkflowURL="/main.cwl"), MAIN]), "mainWorkflowURL", "absolute"),
    "a manifest without its file": (packed([manifest(mainWorkflowURL="none.cwl"), MAIN]), "none.cwl", "not in the bundle"),
    "inputs that are no object": (packed([MAIN, ("inputs.json", "[]")]), "inputs.json", "no JSON object"),
    "no main": (packed([("a.cwl", SAY), ("b.cwl", SAY)]), "main.cwl", "MANIFEST.json"),
    "an option that is refused": (packed([MAIN, ("options.json", '{"--cachedir": "/tmp/x"}')]), "--cachedir", "not allowed"),
    "the service's own parameter": (packed([MAIN, ("options.json", '{"stepwes.cpu": 2}')]), "stepwes.cpu", "request"),
    "the service's own file": (packed([MAIN, ("wes_inputs.json", "{}")]), "wes_inputs.json", "taken"),
    "a torn archive": (FULL[: len(FULL) // 2], "no whole zip archive", ""),
    "no archive": (b"class: Workflow", "called a zip archive", ""),
    "a method beside deflate": (packed([MAIN, ("x", "x")], zipfile.ZIP_BZIP2), "deflate", ""),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bundle_that_must_not_be_used_is_an_executor_error_that_says_why(service, case):
    content, *words = BAD[case]
    log = service.ended(service.run("workflow.zip", [("workflow.zip", content)], workflow_params='{"a": "x"}'))
    assert log["state"] == "EXECUTOR_ERROR", log
    reason = log["run_log"]["system_logs"][-1]
    assert all(word.strip("'") in reason for word in words), reason


@pytest.fixture(scope="module")
def web(same_machine):
    """A web server with a bundle, whose content type is none of text's."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = {"/b/workflow.zip": FULL, "/say.cwl": SAY}.get(self.path.split("?")[0])
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "application/zip")
            self.end_headers()
            self.wfile.write(content or b"no")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_bundle_comes_over_http_and_so_may_its_workflow(service, web):
    log = service.complete(service.run(f"{web}/b/workflow.zip?signature=x"))
    assert said(service, log) == ["first", "second", "second"]
    remote = packed([manifest(mainWorkflowURL=f"{web}/say.cwl", inputFileURLs=["i.json"]), ("i.json", '{"a": "far"}')])
    log = service.complete(service.run("workflow.zip", [("workflow.zip", remote)]))
    assert said(service, log) == ["far"]


def test_a_bundle_comes_from_s3_and_from_a_folder_of_the_operators(tmp_path, serve_only):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/workflow.zip").write_bytes(FULL)
    (tmp_path / "secret.cwl").write_bytes(SAY)
    server = Server(tmp_path / "state", "--input-bucket", "bundles", "--workflow-dir", str(tmp_path / "shared")).start()
    (tmp_path / "state/s3/bundles/b").mkdir(parents=True)
    (tmp_path / "state/s3/bundles/b/workflow.zip").write_bytes(FULL)
    service = Wes(server.url, server=server)
    try:
        assert "file" in service.get("/service-info").json()["supported_filesystem_protocols"]
        for url in ["s3://bundles/b/workflow.zip", f"file://{tmp_path}/shared/workflow.zip"]:
            log = service.complete(service.run(url))
            assert said(service, log) == ["first", "second", "second"]
        log = service.ended(service.run(f"file://{tmp_path}/secret.cwl"))
        assert log["state"] == "EXECUTOR_ERROR"
        assert "not below a folder" in log["run_log"]["system_logs"][-1]
    finally:
        server.stop()


