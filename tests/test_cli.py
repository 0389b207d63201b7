"""The `stepwes` command as a person uses it."""

import base64
import hashlib
import http.server
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import threading
import time

import pytest
from conftest import BIN, ROOT, until

WORKFLOWS = ROOT / "tests/workflows"
# cwltool takes names with blanks only so.
RELAXED = "--engine-option=--relax-path-checks"


@pytest.fixture
def stepwes(service, tmp_path):
    """Runs a command against the shared server; gives the finished process."""

    def call(*arguments, check=True, env=(), **more):
        done = subprocess.run(
            [str(BIN), *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=tmp_path,
            env={**os.environ, **service.environment(), **dict(env)}, **more,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return call


class Foreign:
    """A WES of our making: what it answers to each request in turn, the last answer for ever."""

    RUN = "/runs/r1"

    def __init__(self):
        self.answers, self.seen, self.queries, self.lock = {}, [], {}, threading.Lock()
        foreign = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                path, _, query = self.path.removeprefix("/ga4gh/wes/v1").partition("?")
                with foreign.lock:
                    foreign.queries[self.command, path] = query
                    foreign.seen.append((self.command, path, self.headers, body))
                    answers = foreign.answers.get((self.command, path)) or [(404, {"msg": "no such thing"})]
                    answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if callable(answer):
                    answer(self)
                    return
                status, content, *headers = answer
                self.reply(status, content, *headers)

            do_GET = do_POST = answer

            def reply(self, status, content, headers=()):
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": len(content), **dict(headers)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.runs(["RUNNING", "COMPLETE"])

    def runs(self, states, **log):
        """One run that goes through these states, with these fields besides."""
        log = {"run_id": "r1", "state": states[-1], "run_log": {}, "outputs": {"said": "hello"}, **log}
        self.answers |= {
            ("POST", "/runs"): [(200, {"run_id": "r1"})],
            ("GET", "/runs/r1"): [(200, log)],
            ("GET", "/runs/r1/status"): [(200, {"run_id": "r1", "state": state}) for state in states],
            ("GET", "/runs/r1/tasks"): [(200, {"task_logs": [], "next_page_token": ""})],
        }

    def hands_out(self, **files):
        """The run's output files; gives the answers to each one's download."""
        entries = [
            {"path": path, "location": f"s3://b/{path}", "url": f"{self.url}/files/{number}", "size": len(content),
             "checksum": f"sha1${hashlib.sha1(content).hexdigest()}"}
            for number, (path, content) in enumerate(files.items())
        ]
        self.answers["GET", "/runs/r1/outputs"] = [(200, {"outputs": entries, "next_page_token": ""})]
        for number, content in enumerate(files.values()):
            self.answers["GET", f"/files/{number}"] = [(200, content)]

    def asked(self, method, path):
        return [(headers, body) for *request, headers, body in self.seen if request == [method, path]]


def breaks(handler):
    """An answer that never comes: the connection is closed."""
    handler.close_connection = True


@pytest.fixture
def foreign():
    foreign = Foreign()
    thread = threading.Thread(target=foreign.server.serve_forever)
    thread.start()
    yield foreign
    foreign.server.shutdown()
    foreign.server.server_close()
    thread.join()


@pytest.fixture
def inputs(tmp_path):
    """An inputs file beside nothing that it names."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a text.txt").write_text("one\ntwo\n")
    path = tmp_path / "in.yml"
    path.write_text("text:\n  class: File\n  path: data/a text.txt\n")
    return path


def test_run_attaches_watches_and_downloads(stepwes, inputs, tmp_path):
    done = stepwes("run", WORKFLOWS / "count.cwl", inputs, "--outdir", "out", RELAXED)
    outputs = json.loads(done.stdout)
    assert pathlib.Path(outputs["upper"]["path"]).read_text() == "ONE\nTWO\n"
    assert (tmp_path / "out/counts/deep/bytes").read_text() == "8\n"
    assert "COMPLETE" in done.stderr and "2 of 2 tasks done" in done.stderr


def test_run_without_a_server_brings_its_own(inputs, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPWES_")}
    done = subprocess.run(
        [str(BIN), "run", WORKFLOWS / "count.cwl", inputs, "--outdir", "out", "--json", RELAXED],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["state"] == "COMPLETE" and answer["exit_code"] == 0
    assert pathlib.Path(answer["outputs"]["upper"]["path"]).exists()
    log = tmp_path / ".stepwes/server.log"
    assert [json.loads(line)["level"] for line in log.read_text().splitlines()]


def test_run_ends_as_the_engine_did_and_says_why(stepwes):
    done = stepwes("run", WORKFLOWS / "fail.cwl", check=False)
    assert done.returncode == 1
    assert "EXECUTOR_ERROR" in done.stderr and "reason:" in done.stderr and "it is broken" in done.stderr


def test_run_ends_with_the_engines_code_also_when_it_is_no_common_one(tmp_path):
    (tmp_path / "unsupported.cwl").write_text(
        "cwlVersion: v1.2\nclass: CommandLineTool\nrequirements: {DockerRequirement: {dockerPull: debian}}\n"
        "inputs: {}\noutputs: []\nbaseCommand: 'true'\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPWES_")}
    done = subprocess.run(
        [str(BIN), "run", "unsupported.cwl", "--container", "none"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment,
    )
    assert done.returncode == 33, done.stderr


def test_run_follows_the_engines_log(service, gate, tmp_path):
    (tmp_path / "in.json").write_text(gate.params())
    process = subprocess.Popen(
        [str(BIN), "run", "-f", WORKFLOWS / "gate.cwl", "in.json"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, **service.environment()},
    )
    read_until(process.stderr.fileno(), b"started gate-")
    assert gate.processes(), "the line is shown while the tool still waits"
    gate.open()
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 0 and b"Final process status is success" in stderr and json.loads(stdout)["said"]


def test_submit_then_everything_that_reads(stepwes, inputs):
    run_id = stepwes("submit", WORKFLOWS / "count.cwl", inputs, "--tag", "who=me", RELAXED).stdout.strip()
    assert "Final process status is success" in stepwes("logs", "-f", run_id).stdout
    status = stepwes("status", run_id).stdout
    assert status.startswith("COMPLETE") and "who=me" in status
    assert json.loads(stepwes("status", run_id, "--json").stdout)["state"] == "COMPLETE"
    listed = stepwes("list", "-n", "5").stdout
    assert re.search(rf"{run_id}\s+COMPLETE.*who=me", listed)
    filters = ["--tag", "who=me", "--after", "2026-01-01"]
    assert run_id in stepwes("list", *filters, "--state", "complete", "--type", "cwl", "--engine", "cwltool").stdout
    for other in (["--state", "QUEUED"], ["--tag", "who=you"], ["--type", "WDL"], ["--before", "2026-01-01"]):
        assert run_id not in stepwes("list", *filters, *other).stdout
    assert json.loads(stepwes("list", "--json", "-n", "1").stdout)[0]["run_id"]
    assert "upper case.txt" in stepwes("outputs", run_id).stdout
    assert json.loads(stepwes("logs", "--stdout", run_id).stdout)["upper"]["class"] == "File"
    assert "cwltool" in stepwes("info").stdout
    assert json.loads(stepwes("info", "--json").stdout)["workflow_type_versions"]["CWL"]


def test_cancel_waits_until_it_is_gone(stepwes, service, gate):
    run_id = service.gated(gate)
    assert "CANCELED" in stepwes("cancel", "--wait", run_id).stdout
    assert gate.processes() == []


def read_until(descriptor, text, seconds=180):
    """Reads until `text` has come, or everything when it is None; gives what came."""
    shown, end = b"", time.monotonic() + seconds
    while text is None or text not in shown:
        ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
        assert ready, f"waited {seconds} s in vain for {text!r} after {shown!r}"
        try:
            piece = os.read(descriptor, 4096)
        except OSError:
            # A terminal that nobody writes to any more.
            piece = b""
        if not piece:
            assert text is None, f"{text!r} did not come: {shown!r}"
            break
        shown += piece
    return shown


def on_a_terminal(arguments, cwd, server=()):
    """A command on a terminal, with the environment that leads it to a server; gives its process and our end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPWES_")}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(BIN), *map(str, arguments)], cwd=cwd, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE,
        env=environment | dict(server), start_new_session=True,
    )
    os.close(theirs)
    return process, ours


def interactive(service, gate, tmp_path, keys, *more):
    """`run` on a terminal, interrupted, then answered."""
    (tmp_path / "in.json").write_text(gate.params())
    process, ours = on_a_terminal(["run", WORKFLOWS / "gate.cwl", "in.json", *more], tmp_path, service.environment() if service else ())
    until(gate.processes, "the tool runs")
    process.send_signal(signal.SIGINT)
    read_until(ours, b"Cancel the run?")
    os.write(ours, keys)
    return process, ours


def drained(process, terminal):
    """Reads the terminal until the process has ended."""
    shown = read_until(terminal, None).decode()
    process.stdout.close()
    return process.wait(120), shown


def test_an_interrupt_asks_and_a_yes_cancels(service, gate, tmp_path):
    code, shown = drained(*interactive(service, gate, tmp_path, b"y\n"))
    assert code == 130 and "CANCELED" in shown
    assert gate.processes() == []


def test_an_interrupt_asks_and_leave_leaves_it_running(service, gate, tmp_path):
    code, shown = drained(*interactive(service, gate, tmp_path, b"l\n"))
    run_id = re.search(r"stepwes status (\S+)`", shown).group(1)
    assert code == 130 and gate.processes()
    gate.open()
    service.complete(run_id)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.cwl"], "missing.cwl does not exist"),
        (["run", "workflow.xyz"], "cannot be told"),
        (["status", "01890a5d-ac96-774b-bcce-b302099a8057"], "does not exist"),
        (["list", "--url", "http://127.0.0.1:9"], "no server answers"),
        (["list", "--user", "nobody"], "no password"),
    ],
)
def test_an_error_says_what_is_wrong_and_then_what_to_do(stepwes, arguments, said):
    done = stepwes(*arguments, check=False)
    assert done.returncode == 1
    assert said in done.stderr and "hint:" in done.stderr and not done.stdout


def test_serve_says_why_it_cannot_start(tmp_path, foreign):
    taken = foreign.url.split(":")[2]
    done = subprocess.run([str(BIN), "serve", "--port", taken, "--dir", tmp_path / "s"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and taken in done.stderr and "hint:" in done.stderr
    (tmp_path / "file").write_text("")
    done = subprocess.run([str(BIN), "serve", "--dir", tmp_path / "file"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "file" in done.stderr and "hint:" in done.stderr
    done = subprocess.run([str(BIN), "serve", "--host", "0.0.0.0", "--dir", tmp_path / "s"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "stepwes token create" in done.stderr and "--auth none" in done.stderr
    done = subprocess.run([str(BIN), "serve", "--retention-days", "36501"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--retention-days" in done.stderr
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"drs.example.org": "secret"}')
    for rights, content, told in [(0o640, None, "chmod 600"), (0o600, '{"https://drs.example.org": "secret"}', "host alone"), (0o600, "secret", "JSON object")]:
        tokens.write_text(content or tokens.read_text())
        tokens.chmod(rights)
        done = subprocess.run([str(BIN), "serve", "--drs-tokens", tokens], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and told in done.stderr and "secret" not in done.stderr, done.stderr


def test_an_interrupt_at_the_question_ends_the_command_at_once(service, gate, tmp_path):
    process, ours = interactive(service, gate, tmp_path, b"")
    process.send_signal(signal.SIGINT)
    code, shown = drained(process, ours)
    run_id = re.search(r"stepwes status (\S+)`", shown).group(1)
    assert code == 130 and gate.processes()
    gate.open()
    service.complete(run_id)


def test_a_run_that_is_left_is_told_as_json(service, gate, tmp_path):
    process, ours = interactive(service, gate, tmp_path, b"l\n", "--json")
    read_until(ours, None)
    answer = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 130 and answer["state"] == "RUNNING"
    gate.open()
    service.complete(answer["run_id"])


def test_a_run_left_to_an_embedded_server_is_found_by_its_folder(gate, tmp_path):
    code, shown = drained(*interactive(None, gate, tmp_path, b"l\n"))
    assert code == 130 and "stepwes serve --dir .stepwes" in shown and "stepwes status" not in shown
    subprocess.run([str(BIN), "serve", "--stop-runs", "--dir", ".stepwes"], cwd=tmp_path, check=True, timeout=120, capture_output=True)
    assert gate.processes() == []


def test_an_interrupt_in_a_download_ends_it_and_leaves_nothing_half_done(foreign, tmp_path):
    (tmp_path / "x.cwl").write_text("class: Workflow\n")
    begun, over = threading.Event(), threading.Event()

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 500)
        begun.set()
        over.wait(120)
        handler.close_connection = True

    foreign.hands_out(**{"x": b"x" * 1000})
    foreign.answers["GET", "/files/0"] = [endless]
    process, ours = on_a_terminal(["run", "x.cwl", "--outdir", "out"], tmp_path, {"STEPWES_URL": foreign.url})
    assert begun.wait(60)
    process.send_signal(signal.SIGINT)
    code, shown = drained(process, ours)
    over.set()
    assert code == 130 and "stepwes status r1" in shown
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def against(foreign, tmp_path):
    """Runs a command against the server of our making."""
    (tmp_path / "x.cwl").write_text("class: Workflow\n")

    def call(*arguments, env=(), **more):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STEPWES_")}
        return subprocess.run(
            [str(BIN), *arguments], capture_output=True, text=True, timeout=120, cwd=tmp_path,
            env={**environment, "STEPWES_URL": foreign.url, **dict(env)}, **more,
        )

    return call


def test_another_wes_keeps_the_files_and_run_prints_where(against, foreign):
    foreign.runs(["QUEUED", *["RUNNING"] * 6, "COMPLETE"])
    done = against("run", "x.cwl")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"said": "hello"} and "warning" in done.stderr
    assert 0 < len(foreign.asked("GET", "/runs/r1/tasks")) < len(foreign.asked("GET", "/runs/r1/status"))
    done = against("outputs", "r1")
    assert done.returncode == 1 and "does not list output files" in done.stderr and "hint:" in done.stderr


# API Gateway's, for a function that ended without an answer.
GAVE_UP = (500, {"message": "Internal Server Error"})


def test_a_passing_failure_ends_nothing(against, foreign):
    busy = (503, {"msg": "busy"}, {"Retry-After": "0"})
    foreign.answers["POST", "/runs"] = [busy, busy, (200, {"run_id": "r1"})]
    foreign.answers["GET", "/runs/r1/status"][1:1] = [breaks, busy, (502, b"bad gateway"), (429, b""), (504, b""), GAVE_UP]
    foreign.answers["GET", "/runs/r1"].insert(0, busy)
    done = against("run", "x.cwl")
    assert done.returncode == 0, done.stderr
    keys = {headers["Idempotency-Key"] for headers, _ in foreign.asked("POST", "/runs")}
    assert len(keys) == 1 and None not in keys and len(foreign.asked("POST", "/runs")) == 3
    against("submit", "x.cwl")
    assert foreign.asked("POST", "/runs")[3][0]["Idempotency-Key"] not in keys


def test_a_submission_that_may_have_arrived_is_repeated_only_under_a_key_of_ones_own(against, foreign):
    foreign.answers["POST", "/runs"] = [GAVE_UP, (200, {"run_id": "r1"})]
    done = against("submit", "x.cwl")
    assert done.returncode == 1 and not done.stdout and "may have been submitted" in done.stderr
    foreign.seen.clear()
    foreign.answers["POST", "/runs"] = [breaks, (504, b""), (200, {"run_id": "r1"})]
    done = against("submit", "x.cwl")
    (asked,) = foreign.asked("POST", "/runs")
    assert done.returncode == 1 and not done.stdout
    assert f"--idempotency-key {asked[0]['Idempotency-Key']}" in done.stderr
    foreign.answers["POST", "/runs"] = [breaks, GAVE_UP, (200, {"run_id": "r1"})]
    assert against("submit", "x.cwl", "--idempotency-key", "mine").stdout == "r1\n"
    assert [headers["Idempotency-Key"] for headers, _ in foreign.asked("POST", "/runs")[1:]] == ["mine"] * 3


def test_credentials_go_to_the_server_that_they_are_for_and_to_no_other(against, foreign):
    other = Foreign()
    threading.Thread(target=other.server.serve_forever, daemon=True).start()
    other.answers["GET", "/log"] = [(200, b"logged\n")]
    foreign.runs(["COMPLETE"], run_log={"stderr": f"{other.url}/log"})
    done = against("logs", "r1", "--token", "secret")
    other.server.shutdown()
    assert done.stdout == "logged\n"
    assert other.asked("GET", "/log")[0][0]["Authorization"] is None
    assert foreign.asked("GET", "/runs/r1")[0][0]["Authorization"] == "Bearer secret"


def test_an_error_after_the_submission_names_the_run(against, foreign):
    foreign.answers["GET", "/runs/r1/status"] = [(500, {"msg": "it broke"})]
    done = against("run", "x.cwl")
    assert done.returncode == 1 and "it broke" in done.stderr and "stepwes status r1" in done.stderr


def test_large_outputs_are_fetched_from_where_the_run_says(against, foreign):
    url = f"{foreign.url}/large.json"
    foreign.runs(["COMPLETE"], outputs={"outputs.json": {"class": "File", "location": "s3://b/k", "url": url, "size": 9}})
    foreign.answers["GET", "/large.json"] = [(200, {"run_id": "r1", "outputs": {"large": [1, 2]}, "files": []})]
    assert json.loads(against("run", "x.cwl", "--no-download").stdout) == {"large": [1, 2]}


def test_a_failed_runs_log_is_read_from_its_end(against, foreign):
    log = {"exit_code": 3, "stderr": f"{foreign.url}/log"}
    foreign.runs(["EXECUTOR_ERROR"], run_log=log)
    foreign.answers["GET", "/log"] = [(206, b"cut off\nthe end\n")]
    done = against("run", "x.cwl")
    assert done.returncode == 3 and "the end" in done.stderr
    assert [headers["Range"] for headers, _ in foreign.asked("GET", "/log")] == ["bytes=-65536"]


def test_following_survives_a_new_attempt_and_a_server_without_ranges(against, foreign):
    foreign.runs([*["RUNNING"] * 4, "COMPLETE"], run_log={"stderr": f"{foreign.url}/log"})

    def no_more(total):
        return (416, b"", {"Content-Range": f"bytes */{total}"})

    foreign.answers["GET", "/log"] = [
        (200, b"first try\n"), no_more(10), no_more(2), (200, b"a\n"), no_more(2),
        (200, b"a\nb\n"), (200, b"a\nb\nc\n"), (200, b"a\nb\nc\n"),
    ]
    done = against("logs", "-f", "r1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "first try\na\nb\nc\n" and "starts again" in done.stderr


def test_a_log_that_breaks_off_goes_on_where_it_did(against, foreign):
    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "8")
        handler.end_headers()
        handler.wfile.write(b"one\n")
        handler.close_connection = True

    foreign.runs(["COMPLETE"], run_log={"stderr": f"{foreign.url}/log"})
    foreign.answers["GET", "/log"] = [half, (206, b"two\n"), (416, b"")]
    assert against("logs", "r1").stdout == "one\ntwo\n"
    assert [headers["Range"] for headers, _ in foreign.asked("GET", "/log")] == [None, "bytes=4-", "bytes=8-"]


def test_each_file_is_tried_again_and_names_do_not_collide(against, foreign, tmp_path):
    long = "y" * 250
    foreign.hands_out(**{"x": b"one", "x.part": b"two", long: b"three", "z" * 255: b"four"})
    foreign.answers["GET", "/files/0"] = [(200, b"eno"), (200, b"one")]
    done = against("outputs", "r1", "--outdir", "out")
    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {"x": "one", "x.part": "two", long: "three", "z" * 255: "four"}
    foreign.answers["GET", "/files/1"] = [(200, b"bad")]
    done = against("outputs", "r1", "--outdir", "again")
    assert done.returncode == 1 and "x.part" in done.stderr
    assert not [path.name for path in (tmp_path / "again").iterdir() if path.name.startswith(".")]


def test_cancel_tries_every_run_and_reports_each(against, foreign):
    for run in ["r1", "r2"]:
        foreign.answers["POST", f"/runs/{run}/cancel"] = [(200, {"run_id": run})]
        foreign.answers["GET", f"/runs/{run}/status"] = [(200, {"run_id": run, "state": "CANCELING"})]
    done = against("cancel", "r1", "gone", "r2")
    assert done.returncode == 1 and "gone" in done.stderr
    assert done.stdout.splitlines() == ["CANCELING r1", "CANCELING r2"]
    done = against("cancel", "r1", "gone", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and answer[0]["state"] == "CANCELING" and answer[1]["error"]


BASIC = "Basic " + base64.b64encode(b"me:a:b").decode()


@pytest.mark.parametrize(
    ("flags", "variables", "sent"),
    [
        (["--token", "t"], {}, "Bearer t"),
        ([], {"STEPWES_TOKEN": "t"}, "Bearer t"),
        (["--user", "me:a:b"], {}, BASIC),
        ([], {"STEPWES_USER": "me:a:b"}, BASIC),
        (["--token", "t"], {"STEPWES_USER": "me:a:b"}, "Bearer t"),
        (["--user", "me:a:b"], {"STEPWES_TOKEN": "t"}, BASIC),
        ([], {"STEPWES_TOKEN": "", "STEPWES_USER": ""}, None),
    ],
)
def test_credentials_reach_the_server_by_flag_and_by_environment(against, foreign, flags, variables, sent):
    done = against("status", "r1", *flags, env=variables)
    assert done.returncode == 0, done.stderr
    assert [headers["Authorization"] for headers, _ in foreign.asked("GET", "/runs/r1")] == [sent]


def test_an_empty_url_is_none_and_a_proxy_is_not_asked_for_this_machine(against):
    done = against("status", "r1", env={"STEPWES_URL": ""})
    assert done.returncode == 1 and "no WES server is named" in done.stderr
    nobody = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    done = against("status", "r1", env=nobody)
    assert done.returncode == 0, done.stderr


def closed_pipe():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_a_closed_pipe_ends_a_command_quietly(foreign, tmp_path):
    foreign.runs(["COMPLETE"], run_log={"stderr": f"{foreign.url}/log"})
    foreign.answers["GET", "/log"] = [(200, b"x\n" * 200_000), (416, b"")]
    for arguments in [["logs", "r1"], ["status", "r1"], ["info", "--json"]]:
        foreign.answers["GET", "/service-info"] = [(200, {})]
        stdout = closed_pipe()
        done = subprocess.run([str(BIN), *arguments, "--url", foreign.url], stdout=stdout, stderr=subprocess.PIPE, timeout=60)
        os.close(stdout)
        assert (done.returncode, done.stderr) == (141, b""), arguments


def test_a_closed_standard_error_does_not_end_a_server(tmp_path):
    stderr = closed_pipe()
    process = subprocess.Popen(
        [str(BIN), "serve", "--port", "0", "--dir", tmp_path / "s", "--json"],
        stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, "STEPWES_LOG": "trace"},
    )
    os.close(stderr)
    try:
        url = json.loads(read_until(process.stdout.fileno(), b"}", 60))["url"]
        run = [str(BIN), "run", WORKFLOWS / "fail.cwl", "--url", url]
        done = subprocess.run(run, capture_output=True, timeout=60)
        assert done.returncode == 1 and b"EXECUTOR_ERROR" in done.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        assert process.wait(60) == 0


def test_a_closed_standard_error_does_not_end_a_run(foreign, tmp_path):
    (tmp_path / "x.cwl").write_text("class: Workflow\n")
    stderr = closed_pipe()
    done = subprocess.run([str(BIN), "run", "-f", "x.cwl", "--url", foreign.url], stdout=subprocess.PIPE, stderr=stderr, cwd=tmp_path, timeout=60)
    os.close(stderr)
    assert done.returncode == 0 and json.loads(done.stdout) == {"said": "hello"}


def test_json_is_one_value_on_standard_output(stepwes, inputs, service, gate):
    run_id = json.loads(stepwes("submit", WORKFLOWS / "count.cwl", inputs, "--json", RELAXED).stdout)["run_id"]
    assert service.complete(run_id)
    assert "success" in json.loads(stepwes("logs", run_id, "--json").stdout)["stderr"]
    files = json.loads(stepwes("outputs", run_id, "--outdir", "out", "--json").stdout)
    assert "upper case.txt" in {file["path"] for file in files}
    failed = stepwes("run", WORKFLOWS / "fail.cwl", "--json", check=False)
    answer = json.loads(failed.stdout)
    assert failed.returncode == 1 and answer["state"] == "EXECUTOR_ERROR" and answer["system_logs"]
    waiting = service.gated(gate)
    answer = json.loads(stepwes("cancel", "--wait", "--json", waiting).stdout)
    assert answer == [{"run_id": waiting, "state": "CANCELED"}]


def test_output_files_are_downloaded_when_asked_for(stepwes, inputs, tmp_path):
    outputs = json.loads(stepwes("run", WORKFLOWS / "count.cwl", inputs, "--no-download", RELAXED).stdout)
    location = outputs["upper"]["location"]
    assert location.startswith("s3://") and not list(tmp_path.glob("**/upper case.txt"))
    run_id = re.search(r"/outputs/([^/]+)/", location).group(1)
    stepwes("outputs", run_id, "--outdir", "out")
    assert (tmp_path / "out/upper case.txt").read_text() == "ONE\nTWO\n"
    assert (tmp_path / "out/counts/deep/bytes").read_text() == "8\n"
