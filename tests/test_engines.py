"""The other engines, for real: outputs and tasks, failing steps, cancelling, odd names.

They are installed by `stepwes engines install`, into target/engines, which keeps them.
"""

import concurrent.futures
import json
import subprocess

import pytest
from conftest import BIN, ROOT, Server, Wes
from waiting import until


@pytest.fixture(scope="module")
def wes(engines_path, serve_only, tmp_path_factory):
    """A server that finds them."""
    options = ["--container", "none", "--max-engines", "8", "--engine-default", "toil:--maxLocalJobs=7"]
    server = Server(tmp_path_factory.mktemp("engines") / "state", *options, path=engines_path)
    yield Wes(server.start().url, server=server)
    server.stop()


def files(**documents):
    return [(name.replace("__", "."), text.encode()) for name, text in documents.items()]


WDL = """version 1.0
struct Made { File a  Int n }
workflow w {
  input { Array[String] names  File text }
  scatter (name in names) { call upper { input: name = name } }
  call count { input: text = text }
  output {
    Array[File] ups = upper.out
    Map[String, File] by_name = {"first": upper.out[0]}
    Pair[File, Int] pair = (upper.out[1], 3)
    Made made = object {a: count.out, n: count.n}
    File same = text
    Int lines = count.n
  }
}
task upper {
  input { String name }
  command <<< echo "making ~{name}" >&2; echo '~{name}' | tr a-z A-Z > 'up ~{name} #1.txt' >>>
  output { File out = "up ~{name} #1.txt" }
}
task count {
  input { File text }
  command <<< wc -l < '~{text}' > n; cp n out >>>
  output { Int n = read_int("n")  File out = "out" }
}
"""
BAD_WDL = """version 1.0
workflow w { call bad }
task bad { command <<< echo it is broken >&2; exit 7 >>> output { String s = read_string(stdout()) } }
"""
GATE_WDL = """version 1.0
workflow w { input { String gate  String marker } call wait { input: gate = gate, marker = marker } }
task wait {
  input { String gate  String marker }
  command <<< exec /bin/sh -c 'while [ ! -e "$1" ]; do sleep 0.1; done' ~{marker} '~{gate}' >>>
  output { Int n = 1 }
}
"""
CWL = """cwlVersion: v1.2
class: Workflow
requirements: {ScatterFeatureRequirement: {}}
inputs: {words: "string[]"}
steps:
  upper: {run: upper.cwl, scatter: text, in: {text: words}, out: [out]}
outputs: {parts: {type: "File[]", outputSource: upper/out}}
"""
UPPER_CWL = """cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'echo "$0" | tr a-z A-Z']
inputs: {text: {type: string, inputBinding: {position: 1}}}
stdout: up ü.txt
outputs: {out: stdout}
"""
BAD_CWL = """cwlVersion: v1.2
class: CommandLineTool
baseCommand: [sh, -c, 'echo it is broken >&2; exit 7']
inputs: {}
outputs: {}
"""
SMK = """rule all:
    input: expand("results/{name}.txt", name=config["names"])
rule upper:
    output: "results/{name}.txt"
    log: "logs/{name}.log"
    shell: "echo making >{log:q}; echo {wildcards.name:q} | tr a-z A-Z > {output:q}"
"""
BAD_SMK = 'rule all:\n    shell: "echo it is broken >&2; exit 7"\n'
GATE_SMK = """rule all:
    shell: "exec /bin/sh -c 'while [ ! -e \\"$1\\" ]; do sleep 0.1; done' {config[marker]} {config[gate]:q}"
"""
PY = """import json, pathlib
from toil.common import Toil
from toil.job import Job

def make(job, folder, who):
    pathlib.Path(folder, "made by us.txt").write_text(who)

def whole(job):
    return 3

if __name__ == "__main__":
    parser = Job.Runner.getDefaultArgumentParser()
    parser.add_argument("--greeting", default="none")
    options = parser.parse_args()
    params = json.load(open("wes_inputs.json"))
    with Toil(options) as toil:
        root = Job.wrapJobFn(whole)
        root.addChildJobFn(make, str(pathlib.Path.cwd()), options.greeting + " " + params["who"])
        print(toil.start(root))
"""
BAD_PY = """from toil.common import Toil
from toil.job import Job

def bad(job):
    raise ValueError("it is broken")

if __name__ == "__main__":
    options = Job.Runner.getDefaultArgumentParser().parse_args()
    with Toil(options) as toil:
        toil.start(Job.wrapJobFn(bad))
"""
GATE_PY = """import json, subprocess
from toil.common import Toil
from toil.job import Job

def wait(job, params):
    script = 'while [ ! -e "$1" ]; do sleep 0.1; done'
    subprocess.check_call(["/bin/sh", "-c", script, params["marker"], params["gate"]])

if __name__ == "__main__":
    options = Job.Runner.getDefaultArgumentParser().parse_args()
    with Toil(options) as toil:
        toil.start(Job.wrapJobFn(wait, json.load(open("wes_inputs.json"))))
"""


def submit(wes, kind, version, engine, url, attachments, params=None, **fields):
    return wes.run(
        url, attachments, workflow_type=kind, workflow_type_version=version, workflow_engine=engine,
        workflow_params=params if isinstance(params, str) else json.dumps(params or {}), **fields,
    )


@pytest.fixture(scope="module")
def runs(wes):
    """Every run that is not cancelled, all at once: engines start slowly, and mostly wait."""
    cases = {
        "wdl": ("WDL", "1.0", None, "main.wdl", files(main__wdl=WDL) + [("in/a text.txt", b"1\n2\n")],
                {"names": ["a b", "ü"], "text": "in/a text.txt"}),
        "bad wdl": ("WDL", "1.0", "miniwdl", "a%3A%20b%20%23.wdl",
                    [("a: b #.wdl", BAD_WDL.encode())]),
        "cwl": ("CWL", "v1.2", "toil", "main.cwl", files(main__cwl=CWL, upper__cwl=UPPER_CWL), {"words": ["a", "b"]}),
        "bad cwl": ("CWL", "v1.2", "toil", "bad.cwl", files(bad__cwl=BAD_CWL)),
        "smk": ("SMK", "9", None, "Snakefile", files(Snakefile=SMK), {"names": ["a b", "ü#1"]}),
        "bad smk": ("SMK", "9", None, "a%20b.smk", [("a b.smk", BAD_SMK.encode())]),
        "py": ("PY", "3.11", None, "w%20f.py", [("w f.py", PY.encode())], {"who": "you"}),
        "bad py": ("PY", "3.11", "toil", "w.py", [("w.py", BAD_PY.encode())]),
        "toil wdl": ("WDL", "1.0", "toil", "main.wdl", files(main__wdl=BAD_WDL)),
    }
    more = {
        "py": {"workflow_engine_parameters": '{"--greeting": "hello there", "--logLevel": "DEBUG", "--disableChaining": true}'},
        "bad cwl": {"workflow_engine_parameters": '{"--retryCount": 0, "--outdir=/elsewhere": null}'},
        "bad py": {"workflow_engine_parameters": '{"--retryCount": "0", "--jobStore": "mine/store"}'},
    }
    ids = {name: submit(wes, *case, **more.get(name, {})) for name, case in cases.items()}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(ids, pool.map(lambda run_id: wes.ended(run_id, 300), ids.values())))


def complete(wes, log):
    assert log["state"] == "COMPLETE", (log, wes.get(f"/runs/{log['run_id']}/logs/stderr").text)
    return log


def content(wes, log):
    listing = wes.get(f"/runs/{log['run_id']}/outputs").json()["outputs"]
    return {entry["path"]: wes.requests_get(entry["url"]) for entry in listing}


def tasks(wes, log):
    return wes.get(f"/runs/{log['run_id']}/tasks").json()["task_logs"]


def stderr(wes, log):
    return wes.requests_get(log["run_log"]["stderr"]).decode()


def failed(log):
    assert log["state"] == "EXECUTOR_ERROR", log
    return log["run_log"]["system_logs"][-1]


def test_the_engines_are_reported_with_their_versions(wes):
    info = wes.get("/service-info").json()
    versions = {name: found["workflow_engine_version"] for name, found in info["workflow_engine_versions"].items()}
    assert versions["miniwdl"] == ["1.16.0"] and versions["toil"] == ["9.6.0"] and versions["snakemake"] == ["9.27.1"]
    assert versions["nextflow"] == [] and "NFL" not in info["workflow_type_versions"]
    options = [each for each in info["default_workflow_engine_parameters"] if each["name"].startswith("--")]
    assert options == [{"name": "--maxLocalJobs", "type": "string", "default_value": "7"}]
    assert info["workflow_type_versions"]["WDL"]["workflow_type_version"] == ["draft-2", "1.0", "1.1"]


def test_engines_and_versions_that_are_not_there_are_refused_with_what_is(wes):
    def told(**fields):
        answer = wes.submit("w", [("w", b"")], **fields)
        assert answer.status_code == 400, answer.text
        return answer.json()["msg"]

    assert "supported: 1.16.0" in told(
        workflow_type="WDL", workflow_type_version="1.0", workflow_engine="miniwdl", workflow_engine_version="0.1")
    assert "supported: miniwdl, toil" in told(
        workflow_type="WDL", workflow_type_version="1.0", workflow_engine="cromwell")
    assert "supported: CWL, WDL, PY, SMK, NFL" in told(workflow_type="GALAXY", workflow_type_version="1")


def test_an_engine_that_is_known_but_not_installed_says_how_to_install_it(wes):
    log = wes.ended(submit(wes, "NFL", "DSL2", None, "main.nf", [("main.nf", b"workflow {}\n")]))
    assert log["state"] == "SYSTEM_ERROR"
    assert "nextflow is not installed: " in log["run_log"]["system_logs"][-1]


def test_miniwdl_gives_the_output_object_with_files_in_s3(wes, runs):
    log = complete(wes, runs["wdl"])
    outputs = log["outputs"]
    first, second = outputs["w.ups"]
    assert first["class"] == "File" and first["location"].startswith("s3://") and first["size"] == 4
    assert first["location"].endswith("/ups/0/up a b #1.txt") and second["basename"] == "up ü #1.txt"
    assert outputs["w.by_name"]["first"]["checksum"] == first["checksum"]
    assert outputs["w.pair"]["left"]["checksum"] == second["checksum"] and outputs["w.pair"]["right"] == 3
    assert outputs["w.made"]["n"] == 2 and outputs["w.made"]["a"]["size"] == 2
    assert outputs["w.same"]["size"] == 4 and outputs["w.lines"] == 2
    assert content(wes, log)["ups/0/up a b #1.txt"] == b"A B\n"
    assert "making a b" in stderr(wes, log)


def test_miniwdl_s_tasks_have_names_times_commands_and_exit_codes(wes, runs):
    told = tasks(wes, runs["wdl"])
    assert sorted((task["name"], task["exit_code"]) for task in told) == [("count", 0), ("upper", 0), ("upper", 0)]
    assert all(task["start_time"] <= task["end_time"] for task in told)
    assert any("making a b" in task["cmd"][-1] for task in told)
    assert len({task["id"] for task in told}) == 3


def test_a_failing_wdl_task_has_its_exit_code_and_reason_in_a_file_of_any_name(wes, runs):
    reason = failed(runs["bad wdl"])
    assert runs["bad wdl"]["run_log"]["exit_code"] == 7
    assert "task bad" in reason and "exit status 7" in reason
    assert [(task["name"], task["exit_code"]) for task in tasks(wes, runs["bad wdl"])] == [("bad", 7)]
    assert "it is broken" in stderr(wes, runs["bad wdl"])


def test_toil_runs_cwl_with_outputs_and_its_jobs_as_tasks(wes, runs):
    log = complete(wes, runs["cwl"])
    cmd = log["run_log"]["cmd"]
    assert cmd[0] == "toil-cwl-runner" and "--clean=onSuccess" in cmd and "--maxLocalJobs=7" in cmd
    parts = log["outputs"]["parts"]
    assert [part["basename"] for part in parts] == ["up ü.txt", "up ü.txt"]
    assert all(part["location"].startswith("s3://") and part["size"] == 2 for part in parts)
    assert sorted(content(wes, log).values()) == [b"A\n", b"B\n"]
    names = {task["name"]: task["exit_code"] for task in tasks(wes, log)}
    assert names["main.cwl.0.upper.cwl"] == 0 and names["main.cwl.1.upper.cwl"] == 0


def test_a_failing_tool_of_toil_has_its_reason(wes, runs):
    assert "[job bad.cwl] exited with status: 7" in failed(runs["bad cwl"])
    assert runs["bad cwl"]["run_log"]["exit_code"] == 1
    assert not any(word.startswith("--outdir=/elsewhere") for word in runs["bad cwl"]["run_log"]["cmd"])
    assert [task["exit_code"] for task in tasks(wes, runs["bad cwl"])] == [1]


def test_snakemake_s_outputs_are_what_it_made(wes, runs):
    log = complete(wes, runs["smk"])
    assert content(wes, log) == {
        "results/a b.txt": b"A B\n", "results/ü#1.txt": "ü#1\n".encode(), "logs/a b.log": b"making\n",
        "logs/ü#1.log": b"making\n",
    }
    listed = {entry["path"]: entry for entry in log["outputs"]["files"]}
    assert listed["results/a b.txt"]["location"].endswith("/results/a b.txt") and listed["results/a b.txt"]["size"] == 4
    told = tasks(wes, log)
    assert sorted(task["name"] for task in told) == ["all", "upper", "upper"] and told[-1]["name"] == "all"
    assert all(task["exit_code"] == 0 and task["start_time"] <= task["end_time"] for task in told)
    assert "tr a-z A-Z" in told[0]["cmd"][-1]


def test_a_failing_rule_has_its_exit_code_and_reason(wes, runs):
    assert failed(runs["bad smk"]).endswith("rule all failed: exit status 7")
    assert runs["bad smk"]["run_log"]["exit_code"] == 1
    assert [(task["name"], task["exit_code"]) for task in tasks(wes, runs["bad smk"])] == [("all", 7)]


def test_a_workflow_in_python_gets_its_own_options_and_the_job_store_last(wes, runs):
    log = complete(wes, runs["py"])
    cmd = log["run_log"]["cmd"]
    assert cmd[:2] == ["python", "w f.py"] and cmd[-1].startswith("file:/")
    assert "--greeting=hello there" in cmd and "--clean=onSuccess" in cmd
    assert content(wes, log) == {"made by us.txt": b"hello there you"}
    assert {task["name"]: task["exit_code"] for task in tasks(wes, log)} == {"whole": 0, "make": 0}


def test_a_failing_job_in_python_has_its_reason_and_a_named_job_store_is_the_run_s_own(wes, runs):
    assert "ValueError: it is broken" in failed(runs["bad py"])
    cmd = runs["bad py"]["run_log"]["cmd"]
    assert cmd[-1].startswith(f"file:{wes.server.folder}") and "--clean=onSuccess" not in cmd


def test_toil_without_containers_says_what_wdl_needs(runs):
    assert "engine miniwdl" in failed(runs["toil wdl"])


def test_wdl_runs_in_containers_by_both_engines_alike(contained):
    attached = [("main.wdl", WDL.encode()), ("in/a text.txt", b"1\n2\n")]
    params = {"w.names": ["a b", "c"], "w.text": "in/a text.txt"}
    ids = [submit(contained, "WDL", "1.0", engine, "main.wdl", attached, params) for engine in ("miniwdl", "toil")]
    for run_id in ids:
        log = complete(contained, contained.ended(run_id, 300))
        outputs = log["outputs"]
        assert [made["basename"] for made in outputs["w.ups"]] == ["up a b #1.txt", "up c #1.txt"]
        assert outputs["w.made"]["a"]["size"] == 2 and outputs["w.made"]["n"] == 2
        assert outputs["w.by_name"]["first"]["location"].startswith("s3://")
        ended = {task["name"]: task["exit_code"] for task in tasks(contained, log)}
        assert ended.get("count", ended.get("w.count.command")) == 0, ended


@pytest.mark.parametrize("kind", ["WDL", "CWL", "SMK", "PY"])
def test_a_cancelled_run_leaves_no_process(wes, gate, kind):
    case = {
        "WDL": ("WDL", "1.0", "miniwdl", "w.wdl", [("w.wdl", GATE_WDL.encode())]),
        "CWL": ("CWL", "v1.2", "toil", "gate.cwl", [("gate.cwl", (ROOT / "tests/workflows/gate.cwl").read_bytes())]),
        "SMK": ("SMK", "9", None, "Snakefile", [("Snakefile", GATE_SMK.encode())]),
        "PY": ("PY", "3.11", None, "w.py", [("w.py", GATE_PY.encode())]),
    }[kind]
    run_id = submit(wes, *case, gate.params())
    until(lambda: gate.processes() or wes.state(run_id) != "RUNNING" and wes.state(run_id) in ("EXECUTOR_ERROR", "COMPLETE"),
          "the workflow's tool runs")
    assert gate.processes(), wes.log(run_id)
    until(lambda: tasks(wes, wes.log(run_id)), "the task is seen while it runs")
    assert wes.post(f"/runs/{run_id}/cancel").status_code == 200
    log = wes.ended(run_id)
    assert log["state"] == "CANCELED" and gate.processes() == []
    work = list((wes.server.folder / "s3/runs/work" / run_id).rglob("*"))
    assert work and not list(wes.server.folder.rglob(f"stepwes-{run_id}"))


def test_the_command_tells_the_type_and_attaches_what_a_wdl_imports(wes, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/tasks.wdl").write_text(
        'version 1.1\ntask say { input { String what } command <<< echo ~{what} > said >>> output { File said = "said" } }\n')
    (tmp_path / "main.wdl").write_text(
        'version 1.1\nimport "lib/tasks.wdl" as tasks\n'
        "workflow w { input { String what } call tasks.say { input: what = what } output { File said = say.said } }\n")
    (tmp_path / "inputs.yaml").write_text("what: hello\n")
    done = subprocess.run(
        [str(BIN), "run", "main.wdl", "inputs.yaml", "--url", wes.root, "--outdir", "out", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/said/said").read_text() == "hello\n"
    assert f'"path": "{tmp_path}/out/said/said"' in done.stdout


def test_installing_again_does_nothing_and_the_list_shows_what_is_there(installed):
    home = ROOT / "target/engines-home"
    again = subprocess.run(
        [str(BIN), "engines", "install", "miniwdl", "--json", "--dir", str(home)], capture_output=True, text=True, timeout=60)
    assert json.loads(again.stdout)["engines"] == [{"name": "miniwdl", "version": "1.16.0", "new": False}]
    shown = subprocess.run(
        [str(BIN), "engines", "--json", "--dir", str(home)], capture_output=True, text=True, timeout=120)
    found = {(one["name"], one["workflow_type"]): one for one in json.loads(shown.stdout)["engines"]}
    assert found["toil", "PY"]["version"] == "9.6.0" and found["toil", "PY"]["program"] == f"{installed}/toil"
    assert found["nextflow", "NFL"]["program"] is None
