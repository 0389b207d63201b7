"""Inputs by URL: fetched before the engine starts, whatever the engine, within the operator's limits."""

import hashlib
import json
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from conftest import Server, Wes

TEXT = b"ACGT\n" * 1000
SUM = b"""cwlVersion: v1.2
class: CommandLineTool
inputs:
  f: {type: File, secondaryFiles: [.bai?, ^.idx], inputBinding: {}}
baseCommand: [sh, -c, 'cat "$0" "$0.bai" "${0%.*}.idx" | sha1sum']
stdout: sum
outputs: {sum: stdout}
"""
ONE = b"""cwlVersion: v1.2
class: CommandLineTool
inputs: {f: {type: File, inputBinding: {}}}
baseCommand: sha1sum
stdout: sum
outputs: {sum: stdout}
"""


DRS_TOKEN = "a-token-of-the-operators"


class Web:
    """A server of files that breaks off, leads elsewhere, or lies."""

    def __init__(self, context=None):
        self.asked, web = [], self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.split("?")[0]
                web.asked.append((path, self.headers.get("Range")))
                if path.startswith("/ga4gh/drs/v1/objects/"):
                    return self.drs(path.removeprefix("/ga4gh/drs/v1/objects/"))
                assert "Authorization" not in self.headers, "a token is for descriptions"
                if path == "/metadata":
                    self.send_response(302)
                    self.send_header("Location", "http://169.254.169.254/latest/meta-data/iam/security-credentials/")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                if path == "/gone":
                    return self.send_error(404)
                content = path.encode() if "beside" in path else TEXT
                begin = 0
                if self.headers.get("Range"):
                    begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                    assert self.headers["If-Range"] == '"v1"'
                self.send_response(206 if begin else 200)
                if begin:
                    self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
                self.send_header("ETag", '"v1"')
                self.send_header("Content-Length", str(len(content) - begin + (7 if path == "/lies" else 0)))
                self.end_headers()
                # Every other answer breaks off.
                breaks = path == "/broken" and len(content) - begin > 1000
                self.wfile.write(content[begin:begin + 1000] if breaks else content[begin:])
                self.close_connection = True

            def drs(self, name):
                if name.startswith("closed") and self.headers.get("Authorization") != f"Bearer {DRS_TOKEN}":
                    return self.send_error(401)
                sums = [{"type": "sha-256", "checksum": hashlib.sha256(TEXT if name != "wrong" else b"").hexdigest()}]
                if name.endswith("/access/1"):
                    body = {"url": f"{web.url}/broken?signature=secret", "headers": ["X-Token: secret"]}
                elif name == "bundle":
                    inner = {"name": "in ner", "contents": [{"name": "b.txt", "id": "reads"}]}
                    body = {"name": "set", "contents": [{"name": "a.txt", "id": "reads"}, inner]}
                else:
                    body = {"name": "reads.txt", "size": len(TEXT), "checksums": sums,
                            "access_methods": [{"type": "https", "access_id": "1"}]}
                body = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def web(same_machine):
    web = Web()
    yield web
    web.server.shutdown()


def one(service, location, tool=ONE, **more):
    params = json.dumps({"f": {"class": "File", "location": location, **more}})
    return service.ended(service.run("sum.cwl", [("sum.cwl", tool)], workflow_params=params))


def output(service, log):
    assert log["state"] == "COMPLETE", (log, service.get(f"/runs/{log['run_id']}/logs/stderr").text)
    listing = service.get(f"/runs/{log['run_id']}/outputs").json()["outputs"]
    return service.requests_get(listing[0]["url"]).split()[0].decode()


def reason(log):
    assert log["state"] == "EXECUTOR_ERROR", log
    return log["run_log"]["system_logs"][-1]


def sha1(content):
    return hashlib.sha1(content).hexdigest()


def test_a_file_that_breaks_off_again_and_again_arrives_whole(service, web):
    web.asked.clear()
    assert output(service, one(service, f"{web.url}/broken")) == sha1(TEXT)
    ranges = [asked for path, asked in web.asked if path == "/broken"]
    assert ranges == [None, *(f"bytes={n}-" for n in range(1000, 5000, 1000))], "nothing comes twice"


def test_indexes_beside_a_file_come_along(service, web):
    log = one(service, f"{web.url}/x/beside.bam", SUM)
    assert output(service, log) == sha1(b"/x/beside.bam/x/beside.bam.bai/x/beside.idx")
    named = [{"class": "File", "location": f"{web.url}/y/beside{end}"} for end in (".bam.bai", ".idx")]
    log = one(service, f"{web.url}/x/beside.bam", SUM, secondaryFiles=named)
    assert output(service, log) == sha1(b"/x/beside.bam/y/beside.bam.bai/y/beside.idx")


def test_a_redirect_to_an_instance_s_metadata_is_refused(service, web):
    told = reason(one(service, f"{web.url}/metadata"))
    assert "169.254.169.254" in told and "link-local" in told
    log = service.ended(service.run(f"{web.url}/metadata"))
    assert "link-local" in reason(log) and "workflow_url" in reason(log)


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "0x7f000001.example.org@10.1.1.1"])
def test_private_addresses_are_refused(service, host):
    told = reason(one(service, f"http://{host}/latest/meta-data/"))
    assert "which a request may not name" in told


def test_what_is_not_there_or_lies_is_told_with_its_url(service, web):
    told = reason(one(service, f"{web.url}/gone?key=secret"))
    assert "/gone" in told and "the server answered 404" in told and "secret" not in told
    assert "could not be fetched in 3 tries" in reason(one(service, f"{web.url}/lies"))


def test_an_attachment_is_an_input_by_its_path(service):
    params = json.dumps({"f": {"class": "File", "location": "in/a%2Db.txt"}})
    log = service.ended(service.run("sum.cwl", [("sum.cwl", ONE), ("in/a-b.txt", TEXT)], workflow_params=params))
    assert output(service, log) == sha1(TEXT)


@pytest.fixture(scope="module")
def strict(tmp_path_factory, serve_only, installed):  # noqa: F811
    """A server with a bucket of inputs and a small limit; and a DRS server whose certificate it trusts."""
    folder = tmp_path_factory.mktemp("inputs")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    web = Web(context)
    path = os.pathsep.join([installed, os.environ["PATH"]])
    tokens = folder / "drs-tokens.json"
    tokens.write_text(json.dumps({web.url.removeprefix("https://"): DRS_TOKEN}))
    tokens.chmod(0o600)
    options = ["--container", "none", "--input-bucket", "lab-data", "--max-input-mib", "1", "--drs-tokens", str(tokens)]
    server = Server(folder / "state", *options, path=path)
    server.environment["SSL_CERT_FILE"] = str(folder / "ca.pem")
    server.start()
    data = folder / "state/s3/lab-data/ref/sub"
    data.mkdir(parents=True)
    (data / "c-d.txt").write_bytes(TEXT)
    (data.parent / "a.txt").write_bytes(b"a")
    (data.parent / "big").write_bytes(bytes((1 << 20) + 1))
    yield Wes(server.url, server=server), web
    server.stop()
    web.server.shutdown()


def test_files_and_folders_come_from_s3_with_the_run_s_own_rights(strict):
    service, _ = strict
    assert output(service, one(service, "s3://lab-data/ref/sub/c%2Dd.txt")) == sha1(TEXT)
    tool = ONE.replace(b"type: File", b"type: Directory").replace(b"baseCommand: sha1sum", b"baseCommand: [ls]")
    params = json.dumps({"f": {"class": "Directory", "location": "s3://lab-data/ref/sub"}})
    log = service.complete(service.run("ls.cwl", [("ls.cwl", tool)], workflow_params=params))
    listing = service.get(f"/runs/{log['run_id']}/outputs").json()["outputs"]
    assert service.requests_get(listing[0]["url"]) == b"c-d.txt\n"
    assert "NoSuchKey" in reason(one(service, "s3://lab-data/none"))
    other = log["run_id"]
    assert "AccessDenied" in reason(one(service, f"s3://runs/requests/{other}/request.json"))


def test_a_run_s_inputs_have_a_limit(strict):
    service, _ = strict
    assert "larger than 1 MiB together" in reason(one(service, "s3://lab-data/ref/big"))


def test_drs_objects_are_found_fetched_and_checked(strict):
    service, web = strict
    drs = web.url.replace("https://", "drs://")
    assert output(service, one(service, f"{drs}/reads")) == sha1(TEXT)
    wrong = reason(one(service, f"{drs}/wrong"))
    assert "sha-256" in wrong and "secret" not in wrong
    assert "a bundle of 2, not a file" in reason(one(service, f"{drs}/bundle"))
    assert "compact" in reason(one(service, "drs://dg.4503:abc"))


def test_a_drs_server_is_shown_its_token_and_nobody_else_is(strict):
    service, web = strict
    show = ONE.replace(b"baseCommand: sha1sum", b"baseCommand: [sh, -c, 'env; cat /proc/$PPID/environ; cat \"$0\"']")
    log = one(service, web.url.replace("https://", "drs://") + "/closed", show)
    assert log["state"] == "COMPLETE", log
    folder = service.server.folder
    found = [path for path in folder.rglob("*") if path.is_file() and DRS_TOKEN.encode() in path.read_bytes()]
    assert found == [] and DRS_TOKEN not in service.get(f"/runs/{log['run_id']}").text


def test_a_bundle_of_drs_objects_is_a_directory(strict):
    service, web = strict
    tool = ONE.replace(b"type: File", b"type: Directory").replace(b"baseCommand: sha1sum", b"baseCommand: [find, -L]")
    params = json.dumps({"f": {"class": "Directory", "location": web.url.replace("https://", "drs://") + "/bundle"}})
    log = service.ended(service.run("sum.cwl", [("sum.cwl", tool)], workflow_params=params))
    assert log["state"] == "COMPLETE", log
    listing = service.get(f"/runs/{log['run_id']}/outputs").json()["outputs"]
    found = sorted(service.requests_get(listing[0]["url"]).decode().splitlines())
    assert [path.rpartition("/set")[2] for path in found] == ["", "/a.txt", "/in ner", "/in ner/b.txt"]


WDL = b"""version 1.0
struct Sample { File reads  String note }
workflow w {
  input { Sample sample  Array[File] more  String url }
  call count { input: files = flatten([[sample.reads], more]), url = url }
  output { File out = count.out }
}
task count {
  input { Array[File] files  String url }
  command <<< cat ~{sep=" " files} | sha1sum > out; echo ~{url} >&2 >>>
  output { File out = "out" }
}
"""


@pytest.mark.parametrize("engine", ["miniwdl"])
def test_wdl_files_are_fetched_and_strings_are_not(strict, engine):
    service, web = strict
    params = json.dumps({
        "w.sample": {"reads": f"{web.url}/a.txt", "note": f"{web.url}/gone"}, "w.more": ["s3://lab-data/ref/a.txt", "b.txt"],
        "w.url": f"{web.url}/gone",
    })
    run_id = service.run(
        "w.wdl", [("w.wdl", WDL), ("b.txt", b"b")], workflow_params=params, workflow_type="WDL", workflow_type_version="1.0",
        workflow_engine=engine,
    )
    assert output(service, service.ended(run_id)) == sha1(TEXT + b"ab")


def test_snakemake_is_given_the_paths_of_files_in_its_configuration(strict):
    service, web = strict
    rule = b"""
rule all:
    input: config["reads"], config["other"]
    output: "sum"
    shell: "cat {input} | sha1sum > {output}; echo {config[api]}"
"""
    params = json.dumps({"reads": f"{web.url}/reads.txt", "other": "s3://lab-data/ref/a.txt", "api": f"{web.url}/v1/lookup"})
    run_id = service.run("Snakefile", [("Snakefile", rule)], workflow_params=params, workflow_type="SMK", workflow_type_version="9")
    assert output(service, service.ended(run_id)) == sha1(TEXT + b"a")
    assert ("/v1/lookup", None) not in web.asked
