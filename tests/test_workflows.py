"""Whole workflows through each engine: the folders of tests/workflows that have an expected.json, which says

- `type`, `version`, `workflow` (a URL reference), `params`, and `parameters` for the engine: the request, to which every
  other file of the folder is attached;
- `engines`: those that run it, each with what differs for it;
- `state` (COMPLETE), `exit_code` (0), a part of the `reason` of a failure, and parts of the `log`;
- `outputs`, the whole output object, in which a File is known by what is said of it, its `contents` above all; or `files`,
  of engines without an object: all of them, each with its contents;
- `tasks`: the name and exit code of each, sorted, or with `more_tasks` some of them (Toil has jobs of its own);
- `container`: whether steps run in containers, of the stand-in for Singularity.
"""

import concurrent.futures
import hashlib
import json

import pytest
from conftest import ROOT, Server, Wes

FOLDER = ROOT / "tests/workflows"
CASES = {
    f"{path.parent.name}-{engine}": {"folder": path.parent, "engine": engine, **told, **told["engines"][engine]}
    for path in sorted(FOLDER.glob("*/expected.json"))
    for told in [json.loads(path.read_text())]
    for engine in told["engines"]
}


@pytest.fixture(scope="module")
def bare(engines_path, serve_only, tmp_path_factory):
    """A server without containers."""
    # They start slowly, and mostly wait.
    server = Server(tmp_path_factory.mktemp("workflows") / "state", "--container", "none", "--max-engines", "6", path=engines_path)
    yield Wes(server.start().url, server=server)
    server.stop()


@pytest.fixture(scope="module")
def runs(bare, request):
    """Every case that was asked for, all at once; those in containers when they are asked for."""
    asked = {item.callspec.params["case"] for item in request.session.items if item.fspath == request.node.fspath and hasattr(item, "callspec")}
    ids = {name: submit(bare, CASES[name]) for name in CASES if name in asked and not CASES[name].get("container")}
    with concurrent.futures.ThreadPoolExecutor(len(ids) or 1) as pool:
        logs = dict(zip(ids, pool.map(lambda run_id: bare.ended(run_id, 400), ids.values())))
    return {name: (bare, log) for name, log in logs.items()}


def submit(wes, case):
    folder = case["folder"]
    attached = [
        (path.relative_to(folder).as_posix(), path.read_bytes())
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "expected.json"
    ]
    return wes.run(
        case["workflow"], attached, workflow_type=case["type"], workflow_type_version=case["version"],
        workflow_engine=case["engine"], workflow_params=json.dumps(case["params"]),
        workflow_engine_parameters=json.dumps(case.get("parameters", {})), tags=json.dumps({"case": folder.name}),
    )


class Outputs:
    """What a run made, by location; each file is fetched once and held against what is listed of it."""

    def __init__(self, wes, run_id):
        self.wes, self.listed = wes, wes.get(f"/runs/{run_id}/outputs").json()["outputs"]
        self.by_location = {entry["location"]: entry for entry in self.listed}

    def content(self, entry):
        content = self.wes.requests_get(entry["url"])
        assert len(content) == entry["size"] and f"sha1${hashlib.sha1(content).hexdigest()}" == entry["checksum"], entry
        return content

    def files(self):
        return {entry["path"]: self.content(entry).decode() for entry in self.listed}

    def check(self, told, found, where):
        """Holds a part of the output object against what is told of it."""
        if isinstance(told, dict) and told.get("class") in ("File", "Directory"):
            assert found["class"] == told["class"], where
            if told["class"] == "File":
                entry = self.by_location[found["location"]]
                assert (found["size"], found["checksum"]) == (entry["size"], entry["checksum"]), where
                if "contents" in told:
                    assert self.content(entry).decode() == told["contents"], where
            else:
                assert found["location"].startswith("s3://"), where
            for name in told.keys() - {"class", "contents"}:
                if name in ("secondaryFiles", "listing"):
                    told_of, found_in = (sorted(each[name], key=lambda one: one["basename"]) for each in (told, found))
                    assert [one["basename"] for one in found_in] == [one["basename"] for one in told_of], where
                    self.check(told_of, found_in, f"{where}/{name}")
                else:
                    assert found[name] == told[name], where
        elif isinstance(told, dict):
            assert isinstance(found, dict) and found.keys() == told.keys(), (where, found)
            for name in told:
                self.check(told[name], found[name], f"{where}/{name}")
        elif isinstance(told, list):
            assert isinstance(found, list) and len(found) == len(told), (where, found)
            for number, (one, other) in enumerate(zip(told, found)):
                self.check(one, other, f"{where}/{number}")
        else:
            assert found == told, where


@pytest.mark.parametrize("case", CASES)
def test_a_workflow_gives_what_it_should(case, runs, request):
    told = CASES[case]
    if told.get("container"):
        wes = request.getfixturevalue("contained")
        log = wes.ended(submit(wes, told), 300)
    else:
        wes, log = runs[case]
    run_id, run_log = log["run_id"], log["run_log"]
    stderr = wes.get(f"/runs/{run_id}/logs/stderr").text
    assert log["state"] == told.get("state", "COMPLETE"), (run_log, stderr)
    assert run_log["exit_code"] == told.get("exit_code", 0)
    assert run_log["start_time"] <= run_log["end_time"] and run_log["cmd"]
    if log["state"] == "COMPLETE":
        assert told.get("reason") is None
    else:
        assert told["reason"] in run_log["system_logs"][-1], run_log
        assert "Traceback" not in run_log["system_logs"][-1], run_log
    for text in told.get("log", []):
        assert text in stderr
    outputs = Outputs(wes, run_id)
    if "outputs" in told:
        outputs.check(told["outputs"], log["outputs"], "")
    if "files" in told:
        assert outputs.files() == told["files"]
        assert {entry["path"] for entry in log["outputs"]["files"]} == told["files"].keys()
    check_tasks(told, wes.get(f"/runs/{run_id}/tasks", params={"page_size": 100}).json()["task_logs"])
    assert not list(wes.server.folder.rglob(f"stepwes-{run_id}-*")), "the work folder is gone"


def check_tasks(told, tasks):
    assert len({task["id"] for task in tasks}) == len(tasks)
    for task in tasks:
        assert task["end_time"], task
        assert not task["start_time"] or task["start_time"] <= task["end_time"], task
    ended = sorted(([task["name"], task.get("exit_code")] for task in tasks), key=lambda task: (task[0], task[1] or 0))
    if told.get("more_tasks"):
        for task in told["tasks"]:
            assert task in ended, ended
            ended.remove(task)
    elif "tasks" in told:
        assert ended == told["tasks"]
