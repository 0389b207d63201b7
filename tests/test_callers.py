"""Who may call a service: tokens as clients send them, and AWS signatures."""

import base64
import hashlib
import json
import os
import pathlib
import subprocess
import threading
import urllib.parse

import pytest
import requests
from conftest import BIN, Server, Wes
from credentials import Token, signature
from test_cli import Foreign
from test_clients import by_netrc, counting, tool  # noqa: F401 (a fixture)

HELLO = ("hello.cwl", b"cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: [echo, hello]\ninputs: []\noutputs: {out: {type: stdout}}\n")


class Asking:
    """`stepwes serve --auth token`, and `stepwes token` in its folder."""

    def __init__(self, server):
        self.server = server

    def token(self, *arguments, check=True):
        done = subprocess.run(
            [str(BIN), "token", arguments[0], "--dir", str(self.server.folder), *arguments[1:]],
            capture_output=True, text=True, timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def made(self, *arguments):
        return self.token("create", *arguments).stdout.strip()

    def wes(self, token):
        return Wes(self.server.url, server=self.server, credentials=Token(token))

    def stepwes(self, *arguments, check=True, **environment):
        done = subprocess.run(
            [str(BIN), *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=self.server.folder.parent,
            env={**os.environ, "STEPWES_URL": self.server.url, **environment},
        )
        assert not check or done.returncode == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    if os.environ.get("STEPWES_TEST_URL"):
        pytest.skip("tokens are made in the folder of a server of our own: unset STEPWES_TEST_URL")
    server = Server(tmp_path_factory.mktemp("asking") / "state", "--auth", "token", "--admin-group", "admins").start()
    yield Asking(server)
    server.stop()


@pytest.fixture(scope="module")
def ada(asking):
    return asking.made("ada-laptop", "--owner", "ada", "--group", "lab")


def test_a_token_is_shown_once_and_kept_as_a_digest(asking):
    done = asking.token("create", "shown", "--owner", "s", "--group", "a", "--group", "b", "--expires-days", "2", "--description", "for this")
    token = done.stdout.strip()
    name, secret = token.split(".")
    assert name == "shown" and len(base64.urlsafe_b64decode(secret + "=")) == 32
    assert secret not in done.stderr and "not shown again" in done.stderr
    listed = asking.token("list")
    assert "shown" in listed.stdout and secret not in listed.stdout
    (shown,) = [entry for entry in json.loads(asking.token("list", "--json").stdout) if entry["name"] == "shown"]
    assert (shown["owner"], shown["groups"], shown["description"], shown["expired"]) == ("s", ["a", "b"], "for this", False)
    assert set(shown) == {"name", "owner", "groups", "created_at", "expires_at", "expired", "description"}
    assert asking.wes(token).get("/runs").ok
    folder = asking.server.folder
    for file in [*folder.glob("*.sqlite*"), *folder.glob("*.json"), asking.server.log]:
        assert secret.encode() not in file.read_bytes(), file
    made = json.loads(asking.token("create", "as-json", "--json").stdout)
    assert asking.wes(made["token"]).get("/runs").ok and made["owner"] == "as-json"


@pytest.mark.parametrize("arguments, said", [
    (["create", "Ada"], "lower-case"),
    (["create", "a.b"], "lower-case"),
    (["create", "x", "--owner", ""], "owner"),
    (["create", "x", "--group", "a,b"], "group"),
    (["create", "x", "--expires-days", "0"], "--expires-days"),
    (["create", "x", "--expires-days", "4294967295"], "--expires-days"),
    (["create", "twice"], "stepwes token revoke twice"),
    (["revoke", "nobody"], "stepwes token list"),
])
def test_what_cannot_be_done_is_said(asking, arguments, said):
    if "twice" in arguments:
        asking.made("twice")
    done = asking.token(*arguments, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and said in done.stderr, done.stderr
    assert not done.stdout


def test_a_place_that_is_none_is_said(tmp_path):
    for arguments, said in [
        (["list"], "--table"),
        (["list", "--dir", "nowhere"], "nowhere"),
        (["revoke", "x", "--dir", "nowhere"], "nowhere"),
    ]:
        done = subprocess.run([str(BIN), "token", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and said in done.stderr and "hint:" in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_bearer_and_basic_let_in_and_nothing_else_does(asking, ada):
    secret = ada.split(".")[1]
    get = lambda **more: requests.get(f"{asking.server.url}/runs", timeout=60, **more)  # noqa: E731
    assert get(headers={"Authorization": f"Bearer {ada}"}).ok
    assert get(auth=("ada-laptop", ada)).ok and get(auth=("ada-laptop", secret)).ok
    wrong = ada[:-2] + ("AA" if ada[-2:] != "AA" else "BB")
    for answer in [get(), get(auth=("ada", secret)), get(headers={"Authorization": f"Bearer {wrong}"}), get(headers={"Authorization": ada})]:
        assert answer.status_code == 401 and answer.json()["status_code"] == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer, Basic realm="stepwes"'
        assert "stepwes token create" in answer.json()["msg"] and secret not in answer.text
    assert requests.get(f"{asking.server.url}/service-info", timeout=60).ok


def test_a_refused_upload_is_told_why(asking):
    """An answer before the whole body is there must still arrive."""
    big = ("big", b"x" * (8 << 20))
    answer = Wes(asking.server.url).submit("hello.cwl", [HELLO, big])
    assert answer.status_code == 401
    assert asking.wes("nobody.x").submit("hello.cwl", [HELLO]).status_code == 401


def test_a_token_that_is_revoked_or_has_expired_lets_nobody_in(asking):
    token = asking.made("leaver", "--expires-days", "1")
    assert asking.wes(token).get("/runs").ok
    assert "lets nobody in" in asking.token("revoke", "leaver").stdout
    assert asking.wes(token).get("/runs").status_code == 401
    again = asking.made("leaver")
    assert asking.wes(again).get("/runs").ok and asking.wes(token).get("/runs").status_code == 401


def test_owners_do_not_see_one_another_and_an_administrator_sees_all(asking, ada):
    eve, root = asking.made("eve"), asking.made("root", "--group", "admins")
    mine, hers, admin = asking.wes(ada), asking.wes(eve), asking.wes(root)
    key = {"Idempotency-Key": "same"}
    run = mine.submit("hello.cwl", [HELLO], headers=key).json()["run_id"]
    assert mine.complete(run)["run_log"]["exit_code"] == 0
    for path in ["", "/status", "/tasks", "/logs/stderr", "/outputs", "/outputs.json"]:
        assert mine.get(f"/runs/{run}{path}").ok and admin.get(f"/runs/{run}{path}").ok, path
        assert hers.get(f"/runs/{run}{path}").status_code == 404, path
    assert hers.post(f"/runs/{run}/cancel").status_code == 404
    assert run not in hers.get("/runs").text and run in mine.get("/runs").text
    assert run in admin.get("/runs?owner=ada").text and run not in admin.get("/runs").text
    assert hers.get("/runs?owner=ada").status_code == 403
    other = hers.submit("hello.cwl", [HELLO], headers=key).json()["run_id"]
    assert other != run
    hers.complete(other)


def test_an_administrator_cancels_anybodys_run(asking, ada, gate):
    root = asking.made("root-2", "--group", "admins")
    run = asking.wes(ada).gated(gate)
    assert asking.wes(root).post(f"/runs/{run}/cancel").ok
    assert asking.wes(ada).ended(run)["state"] == "CANCELED"


def test_stepwes_itself_with_a_token_and_with_a_user(asking, ada, tmp_path):
    secret = ada.split(".")[1]
    (tmp_path / "hello.cwl").write_bytes(HELLO[1])
    for credentials in [["--token", ada], ["--user", f"ada-laptop:{secret}"]]:
        ran = asking.stepwes("run", tmp_path / "hello.cwl", "--outdir", tmp_path / "out", "--json", *credentials)
        assert json.loads(ran.stdout)["state"] == "COMPLETE", ran.stdout
    assert "COMPLETE" in asking.stepwes("list", STEPWES_TOKEN=ada).stdout
    admin = asking.made("root-3", "--group", "admins")
    assert "COMPLETE" in asking.stepwes("list", "--owner", "ada", "--token", admin).stdout
    assert "COMPLETE" not in asking.stepwes("list", "--token", admin).stdout
    refused = asking.stepwes("list", check=False)
    assert refused.returncode == 1 and "hint: give --token" in refused.stderr, refused.stderr
    wrong = asking.stepwes("list", "--token", f"{ada}x", check=False)
    assert wrong.returncode == 1 and secret not in wrong.stderr + wrong.stdout


@pytest.mark.skipif(
    not os.environ.get("STEPWES_TOIL"),
    reason="STEPWES_TOIL does not name an environment with Toil's client: `make test` makes one, .venv-toil",
)
def test_toil_wes_cwl_runner_sends_a_token_as_basic(asking, ada, counting):  # noqa: F811
    client = pathlib.Path(os.environ["STEPWES_TOIL"]) / "bin/toil-wes-cwl-runner"
    for password, code in [(ada.split(".")[1], 0), ("wrong", 1)]:
        done = subprocess.run(
            [client, "--wes_endpoint", asking.server.url.removesuffix("/ga4gh/wes/v1"), "count.cwl", "job.json"],
            cwd=counting, capture_output=True, text=True, timeout=600,
            env={**os.environ, "TOIL_WES_USER": "ada-laptop", "TOIL_WES_PASSWORD": password},
        )
        assert (done.returncode != 0) == code, done.stderr
    run = asking.wes(ada).get("/runs").json()["runs"][0]
    assert run["state"] == "COMPLETE"


def test_wes_client_takes_a_token_from_netrc_and_reads_with_one_as_bearer(asking, ada, counting):  # noqa: F811
    client = tool("wes-client")
    assert client, "wes-client is missing: `make test` installs it (PyPI wes-service)"
    where = urllib.parse.urlsplit(asking.server.url)
    done = subprocess.run(
        [client, f"--host={where.netloc}", f"--proto={where.scheme}",
         "--attachments=tools/upper.cwl,tools/count.cwl,text.txt", "count.cwl", "job.json"],
        cwd=counting, capture_output=True, text=True, timeout=300, env=by_netrc(counting, where, "ada-laptop", ada.split(".")[1]),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["upper"]["size"] == 8
    listed = subprocess.run(
        [client, f"--host={where.netloc}", f"--proto={where.scheme}", f"--auth=Authorization: Bearer {ada}", "--list"],
        capture_output=True, text=True, timeout=60, check=True,
    )
    assert json.loads(listed.stdout)["runs"][0]["state"] == "COMPLETE"


def test_tokens_outlive_the_server_and_are_made_without_one(tmp_path):
    server = Server(tmp_path / "state", "--auth", "token")
    asking = Asking(server)
    token = asking.made("first")
    server.start()
    try:
        assert asking.wes(token).get("/runs").ok
        server.kill()
        second = asking.made("second")
        asking.token("revoke", "first")
        server.start()
        assert asking.wes(second).get("/runs").ok and asking.wes(token).get("/runs").status_code == 401
    finally:
        server.stop()


def test_the_tokens_of_a_deployed_table_are_managed_by_its_name(asking):
    """The table of the server under test, reached as one in AWS is: by endpoint, credentials and name."""
    folder = asking.server.folder
    key = json.loads((folder / "credentials.json").read_text())["service"]
    environment = {
        **AWS, "AWS_ACCESS_KEY_ID": key["access_key_id"], "AWS_SECRET_ACCESS_KEY": key["secret_access_key"], "AWS_SESSION_TOKEN": "",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{(folder / 'internal-port').read_text().strip()}",
        # Nobody's, and no UTF-8.
        "ODD": os.fsdecode(b"\xff"),
    }

    def stepwes(*arguments, **more):
        return subprocess.run([str(BIN), "token", *arguments], capture_output=True, text=True, timeout=60,
                              cwd=folder.parent, env={**os.environ, **environment, **more})

    made = stepwes("create", "by-table", "--table", "stepwes")
    assert made.returncode == 0 and "the table stepwes" in made.stderr, made.stderr
    assert asking.wes(made.stdout.strip()).get("/runs").ok
    assert "by-table" in stepwes("list", "--table", "stepwes").stdout
    assert stepwes("revoke", "by-table", "--table", "stepwes").returncode == 0
    assert asking.wes(made.stdout.strip()).get("/runs").status_code == 401
    other = stepwes("list", "--table", "no-such-table")
    assert other.returncode == 1 and "check the table's name" in other.stderr, other.stderr
    denied = stepwes("list", "--table", "stepwes", AWS_SECRET_ACCESS_KEY="wrong")
    assert denied.returncode == 1 and "our rights" in denied.stderr and "wrong" not in denied.stderr, denied.stderr


# AWS signatures

AWS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test", "AWS_SESSION_TOKEN": "session/token==",
    "AWS_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


def verify(method, path, query, headers, body):
    """The signature of a request as it came over the wire is the one that AWS's documentation has."""
    given = dict(part.strip().split("=", 1) for part in headers["Authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(","))
    key, date, region, service, _ = given["Credential"].split("/")
    assert (key, region, service) == ("AKIDEXAMPLE", "eu-central-1", "execute-api")
    names = given["SignedHeaders"].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    canonical = "\n".join([
        method, urllib.parse.quote(path, safe="/-._~"), "&".join(sorted(query.split("&"))),
        *(f"{name}:{' '.join(headers[name].split())}" for name in names), "", ";".join(names), hashlib.sha256(body).hexdigest(),
    ])
    scope = f"{date}/{region}/{service}/aws4_request"
    assert signature(AWS["AWS_SECRET_ACCESS_KEY"], scope, headers["x-amz-date"], canonical) == given["Signature"]


@pytest.fixture
def two_servers():
    servers = Foreign(), Foreign()
    for foreign in servers:
        threading.Thread(target=foreign.server.serve_forever, daemon=True).start()
    yield servers
    for foreign in servers:
        foreign.server.shutdown()
        foreign.server.server_close()


def test_aws_signs_what_goes_to_the_server_and_nothing_that_leads_elsewhere(two_servers, tmp_path):
    foreign, elsewhere = two_servers
    run = {"run_id": "r1", "state": "COMPLETE", "run_log": {"stderr": f"{foreign.url}/ga4gh/wes/v1/runs/r1/logs/stderr", "exit_code": 0}}
    foreign.answers = {
        ("GET", "/runs"): [(200, {"runs": [], "next_page_token": ""})],
        ("POST", "/runs"): [(200, {"run_id": "r1"})],
        ("GET", "/runs/r1"): [(200, run)],
        ("GET", "/runs/r1/status"): [(200, {"run_id": "r1", "state": "COMPLETE"})],
        ("GET", "/runs/r1/logs/stderr"): [(307, b"", {"Location": f"{elsewhere.url}/ga4gh/wes/v1/log"})],
    }
    elsewhere.answers = {("GET", "/log"): [(200, b"what the engine said\n")]}
    (tmp_path / "hello.cwl").write_bytes(HELLO[1])

    def stepwes(*arguments, check=True, **environment):
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STEPWES_"))}
        done = subprocess.run([str(BIN), *arguments, "--aws", "--url", foreign.url], cwd=tmp_path, capture_output=True,
                              text=True, timeout=60, env={**plain, **environment})
        assert not check or done.returncode == 0, done.stderr
        return done

    stepwes("list", "--owner", "a b&c", **AWS)
    assert stepwes("submit", "hello.cwl", "--idempotency-key", "k", **AWS).stdout.strip() == "r1"
    assert stepwes("logs", "r1", **AWS).stdout == "what the engine said\n"
    assert {path for _, path, _, _ in foreign.seen} >= {"/runs", "/runs/r1", "/runs/r1/logs/stderr"}
    for method, path, headers, body in foreign.seen:
        query = foreign.queries.get((method, path), "")
        verify(method, f"/ga4gh/wes/v1{path}", query, headers, body)
    assert "owner=a%20b%26c" in foreign.queries["GET", "/runs"]
    assert elsewhere.seen
    told = {name.lower() for _, _, headers, _ in elsewhere.seen for name in headers}
    assert "authorization" not in told and not any(name.startswith("x-amz") for name in told), told
    without = stepwes("list", check=False, **{**AWS, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": ""})
    assert without.returncode == 1 and "AWS credentials" in without.stderr and "hint:" in without.stderr, without.stderr
    both = stepwes("list", "--token", "x", check=False)
    assert both.returncode == 2 and "--aws" in both.stderr


def test_api_gateways_refusal_is_explained(two_servers):
    foreign, _ = two_servers
    foreign.answers = {("GET", "/runs"): [(403, {"message": "Forbidden"})]}
    done = subprocess.run([str(BIN), "list", "--url", foreign.url, "--token", "ada.x"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "does not accept these credentials" in done.stderr and "revoked or expired" in done.stderr
