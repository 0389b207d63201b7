"""What a run leaves behind: no secret in any log, answer or file that is not meant for it, and nothing that others can read."""

import json
import os
import pathlib
import re
import sqlite3
import stat
import sys
import urllib.parse

import pytest
import requests
from conftest import Server, Wes, workflow
from credentials import Token
from test_callers import Asking

# Where secrets are kept: the principals' keys, the runs' tokens (the table), the sessions (the ledger), each its owner's alone.
KEPT = {"credentials.json"}
DATABASE = re.compile(r"\.sqlite(-wal|-shm)?$")


@pytest.fixture(scope="module")
def ran(serve_only, tmp_path_factory):
    """A server that logs much, under a umask that hides nothing, and a complete run on it."""
    server = Server(tmp_path_factory.mktemp("secrets") / "state", "--auth", "token")
    server.environment["STEPWES_LOG"] = "debug"
    before = os.umask(0)
    try:
        server.start()
    finally:
        os.umask(before)
    try:
        token = Asking(server).made("ada")
        wes = Wes(server.url, server=server, credentials=Token(token))
        run = wes.run("borrow.cwl", [workflow("borrow.cwl")], workflow_params=json.dumps({"python": sys.executable}),
                      workflow_engine_parameters=json.dumps({"--no-container": None, "--debug": None}))
        yield wes, token, run, wes.complete(run)
    finally:
        server.stop()


def files_of(folder):
    return [path for path in pathlib.Path(folder).rglob("*") if path.is_file() and not path.is_symlink()]


def strings(value):
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def test_no_secret_of_a_run_is_in_a_log_an_answer_or_a_file(ran):
    wes, token, run, log = ran
    folder = wes.server.folder
    (listed,) = wes.get(f"/runs/{run}/outputs").json()["outputs"]
    # Backwards, so that the output itself, which is the tool's own doing, is not found.
    borrowed = [secret[::-1] for secret in json.loads(wes.requests_get(listed["url"]))]
    assert len(borrowed) == 3 and all(len(secret) >= 16 for secret in borrowed)
    kept = json.loads((folder / "credentials.json").read_text())
    principals = [key["secret_access_key"] for key in kept.values()]
    assert principals
    located = [
        requests.get(url, auth=wes.credentials.requests, allow_redirects=False, timeout=60).headers["Location"]
        for url in [log["run_log"]["stderr"], log["run_log"]["stdout"], listed["url"]]
    ]
    signatures = [urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["X-Amz-Signature"][0] for url in located]
    attempts = set(attempt_tokens(folder))
    assert attempts
    secrets = {
        "the caller's": [token.split(".")[1]], "lent credentials": borrowed, "the principals'": principals,
        "presigned URLs": signatures, "the attempt's token": attempts,
    }
    answers = {
        path: wes.get(path).content
        for path in ["/service-info", "/runs", f"/runs/{run}", f"/runs/{run}/status", f"/runs/{run}/tasks", f"/runs/{run}/outputs",
                     f"/runs/{run}/outputs.json", f"/runs/{run}/logs/stdout", f"/runs/{run}/logs/stderr", f"/runs/{run}x"]
    }
    searched = [path for path in files_of(folder) if path.name not in KEPT and not DATABASE.search(path.name)]
    assert {"stderr", "request.json", "result.json", "tasks.json"} <= {path.name for path in searched}
    logged = wes.server.log.read_bytes()
    assert b"DEBUG" in logged, "the server logs much"
    for what, values in secrets.items():
        for secret in values:
            for name, content in [*answers.items(), ("serve.log", logged), *((path, path.read_bytes()) for path in searched)]:
                assert secret.encode() not in content, f"{what} in {name}"


def attempt_tokens(folder):
    """The tokens in the tables: of an attempt, 64 hexadecimal digits that nothing else there has under that name."""
    for path in folder.glob("*.sqlite"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
                for row in database.execute(f'select * from "{table}"'):
                    for value in row:
                        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
                        yield from re.findall(r'[Tt][Oo][Kk][Ee][Nn]"[^"]{1,20}(?:"S"[^"]{1,5})?"([0-9a-f]{64})"', text)


def test_what_is_in_the_folder_is_its_owners_alone(ran):
    wes, _, _, _ = ran
    folder = wes.server.folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    private = [path for path in files_of(folder) if path.name in KEPT or DATABASE.search(path.name)]
    assert len(private) > 2
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_what_a_run_wrote_is_no_page_of_the_server(ran):
    """A browser that is shown a log or an output takes it for what it is called, and runs nothing of it."""
    wes, _, run, log = ran
    (listed,) = wes.get(f"/runs/{run}/outputs").json()["outputs"]
    for url, disposition in [(log["run_log"]["stderr"], None), (listed["url"], "attachment; filename*=UTF-8''borrowed.json")]:
        answer = requests.get(url, auth=wes.credentials.requests, timeout=60)
        assert answer.ok and answer.history, "it was redirected"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert answer.headers.get("Content-Disposition") == disposition
        assert not answer.headers["Content-Type"].startswith("text/html")
    for path in ["/service-info", "/runs", f"/runs/{run}", "/nothing<script>"]:
        answer = wes.get(path)
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Content-Type"] == "application/json"


def test_no_other_origin_is_let_in(ran):
    """CORS: no answer allows a page of another origin to read it, and none of its requests changes anything."""
    wes, _, run, _ = ran
    foreign = {"Origin": "https://elsewhere.example"}
    for method, path in [("OPTIONS", "/runs"), ("GET", f"/runs/{run}"), ("POST", "/runs"), ("POST", f"/runs/{run}/cancel")]:
        headers = {**foreign, "Access-Control-Request-Method": "POST"}
        answer = requests.request(method, wes.base + path, headers=headers, auth=wes.credentials.requests, timeout=60)
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")], (method, path)
        assert method != "POST" or answer.status_code == 403
