"""Provenance: the RO-Crates of real runs, held against the profile by roc-validator."""

import hashlib
import json
import os
import pathlib
import subprocess
import urllib.parse
import zipfile

import pytest
from conftest import BIN, ROOT, workflow
from test_engines import BAD_SMK, BAD_WDL, SMK, WDL, files, submit, wes  # noqa: F401

VALIDATOR = pathlib.Path(os.environ.get("STEPWES_CRATE", ROOT / ".venv-crate")) / "bin/python"
TEXT = b"one\ntwo\nthree\n"
COUNT = [workflow("count.cwl"), workflow("tools/upper.cwl"), workflow("tools/count.cwl"), ("in/a text.txt", TEXT)]
COUNT_PARAMS = json.dumps({"text": {"class": "File", "location": "in/a%20text.txt"}})


@pytest.fixture(scope="session")
def issues():
    """What roc-validator finds wrong with crates."""
    if not VALIDATOR.exists():
        pytest.skip(f"{VALIDATOR} is missing: make .venv-crate, or name another by STEPWES_CRATE")

    def call(*paths):
        done = subprocess.run([VALIDATOR, ROOT / "tests/validate_crate.py", *paths], capture_output=True, text=True, timeout=300)
        assert done.returncode in (0, 1) and not done.stderr, done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def counted(service):
    run_id = service.run("count.cwl", COUNT, workflow_params=COUNT_PARAMS, workflow_engine_parameters='{"--relax-path-checks": null}')
    return service.complete(run_id)


def stepwes(service, *arguments, check=True):
    done = subprocess.run(
        [str(BIN), *map(str, arguments)], capture_output=True, text=True, timeout=300, env={**os.environ, **service.environment()},
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def told(service, log, path):
    """The metadata that the API answers, also in a file."""
    answer = service.get(f"/runs/{log['run_id']}/ro-crate")
    assert answer.status_code == 200, answer.text
    path.write_bytes(answer.content)
    return entities(answer.json())


def entities(metadata):
    return {entity["@id"]: entity for entity in metadata["@graph"]}


def links(entity, name):
    return [link["@id"] for link in entity.get(name, [])]


def test_the_api_tells_of_a_complete_run_by_url(service, counted, issues, tmp_path):
    crate = told(service, counted, tmp_path / "complete.json")
    assert issues(tmp_path / "complete.json") == ""
    url = f"{service.base}/runs/{counted['run_id']}"
    main = crate["./"]["mainEntity"]["@id"]
    assert main == f"{url}/attachments/count.cwl" and service.requests_get(main) == workflow("count.cwl")[1]
    run = crate["#run"]
    assert run["instrument"]["@id"] == main and run["actionStatus"]["@id"].endswith("/CompletedActionStatus")
    assert run["startTime"] <= run["endTime"] and crate["#engine"]["name"] == "cwltool"
    (read,) = links(run, "object")
    assert service.requests_get(read) == TEXT and links(crate["#input/text"], "workExample") == [read]
    upper, *_ = links(crate["#output/upper"], "workExample")
    assert service.requests_get(upper) == TEXT.upper() and upper in links(run, "result")
    assert crate[upper]["sha1"] == hashlib.sha1(TEXT.upper()).hexdigest()
    assert len(links(crate["#output/counts"], "workExample")) == 3
    assert [crate[task]["name"] for task in links(crate["./"], "mentions") if task.startswith("#task/")] == ["upper", "count"]


def test_the_api_tells_of_a_failed_run_why_it_failed(service, issues, tmp_path):
    log = service.ended(service.run("fail.cwl", [workflow("fail.cwl")]))
    crate = told(service, log, tmp_path / "failed.json")
    assert issues(tmp_path / "failed.json") == ""
    assert crate["#run"]["actionStatus"]["@id"].endswith("/FailedActionStatus")
    assert "exited with code 1" in crate["#run"]["error"]


def test_a_run_that_goes_on_has_no_crate_yet(service, gate):
    run_id = service.gated(gate)
    answer = service.get(f"/runs/{run_id}/ro-crate")
    assert answer.status_code == 404 and "has ended" in answer.json()["msg"]
    gate.open()
    service.complete(run_id)


def test_a_crate_is_written_with_its_files(service, counted, issues, tmp_path):
    said = stepwes(service, "ro-crate", counted["run_id"], "--dir", tmp_path / "crate").stderr
    assert said.startswith("11 files, "), said
    stepwes(service, "ro-crate", counted["run_id"], "--zip", tmp_path / "crate.zip")
    assert issues(tmp_path / "crate", tmp_path / "crate.zip") == ""
    folder = tmp_path / "crate"
    crate = entities(json.loads((folder / "ro-crate-metadata.json").read_text()))
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"ro-crate-metadata.json"}
    assert {urllib.parse.unquote(part) for part in links(crate["./"], "hasPart")} == there
    assert (folder / "outputs/upper case.txt").read_bytes() == TEXT.upper()
    assert b"Final process status is success" in (folder / "logs/stderr").read_bytes()
    with zipfile.ZipFile(tmp_path / "crate.zip") as archive:
        assert archive.testzip() is None and set(archive.namelist()) == there | {"ro-crate-metadata.json"}
        assert archive.read("outputs/upper case.txt") == TEXT.upper()


def test_a_crate_of_a_failed_run_has_what_there_is(service, issues, tmp_path):
    log = service.ended(service.run("fail.cwl", [workflow("fail.cwl")]))
    stepwes(service, "ro-crate", log["run_id"], "--dir", tmp_path / "failed")
    assert issues(tmp_path / "failed") == ""
    assert "it is broken" in (tmp_path / "failed/logs/stderr").read_text()


def test_without_a_place_the_metadata_is_shown(service, counted):
    shown = json.loads(stepwes(service, "ro-crate", counted["run_id"]).stdout)
    assert shown == service.get(f"/runs/{counted['run_id']}/ro-crate").json()
    gone = stepwes(service, "ro-crate", "019b7d2e-8f88-7000-8000-000000000001", check=False)
    assert gone.returncode == 1 and "stepwes list" in gone.stderr


def test_other_engines_runs_are_crates_too(wes, issues, tmp_path):  # noqa: F811
    cases = {
        "wdl": ("WDL", "1.0", "miniwdl", "main.wdl", files(main__wdl=WDL) + [("in/a text.txt", b"1\n2\n")],
                {"names": ["a b", "ü"], "text": "in/a text.txt"}),
        "bad-wdl": ("WDL", "1.0", "miniwdl", "bad.wdl", files(bad__wdl=BAD_WDL)),
        "smk": ("SMK", "9", None, "Snakefile", files(Snakefile=SMK), {"names": ["a b", "ü#1"]}),
        "bad-smk": ("SMK", "9", None, "bad.smk", files(bad__smk=BAD_SMK)),
    }
    runs = {name: submit(wes, *case) for name, case in cases.items()}
    crates = {}
    for name, run_id in runs.items():
        log = wes.ended(run_id, 300)
        assert log["state"] == ("EXECUTOR_ERROR" if name.startswith("bad") else "COMPLETE"), log
        crates[name] = told(wes, log, tmp_path / f"{name}.json")
        stepwes(wes, "ro-crate", run_id, "--dir", tmp_path / name)
    assert issues(*(tmp_path / f"{name}.json" for name in runs), *(tmp_path / name for name in runs)) == ""
    wdl = crates["wdl"]
    assert wdl["#input/text"]["additionalType"] == "File" and wdl["#input/names"]["additionalType"] == "PropertyValue"
    assert len(links(wdl["#output/w.ups"], "workExample")) == 2
    assert len(links(crates["smk"]["#run"], "result")) == 4 and "output" not in crates["smk"][crates["smk"]["./"]["mainEntity"]["@id"]]
    assert "exit status 7" in crates["bad-smk"]["#run"]["error"]
