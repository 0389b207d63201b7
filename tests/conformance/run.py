#!/usr/bin/env python3
"""The conformance tests of CWL, each submitted through the API with its files as attachments.

    make conformance SUITE=/path/to/cwl-v1.2

The suite is a checkout of https://github.com/common-workflow-language/cwl-v1.2; it is not shipped. cwltest runs its tests by
wes-runner, against a `stepwes serve` without containers of this script's own. `--beside` runs the same tests by the same
cwltool alone, and names every test that ends otherwise.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from conftest import BIN, ROOT, Server  # noqa: E402

# The server's states when the engine had its say; anything else of a failed test is ours.
BY_ENGINE = {"COMPLETE", "EXECUTOR_ERROR"}


def cwltest(suite, folder, name, given, tool, *arguments, **environment):
    """Runs the suite's tests by a tool; gives their results by id: passed, failed or unsupported."""
    report = folder / f"{name}.xml"
    command = [str(ROOT / ".venv-conformance/bin/cwltest"), "--test", str(suite / "conformance_tests.yaml"), "--tool", str(tool),
               "-j", str(given.jobs), "--timeout", str(given.timeout), "--junit-xml", str(report)]
    command += ["-s", given.tests] if given.tests else []
    command += ["--tags", given.tags] if given.tags else []
    with (folder / f"{name}.log").open("wb") as log:
        subprocess.run([*command, "--", *arguments], stdout=log, stderr=log, cwd=suite, env={**os.environ, **environment})
    if not report.exists():
        sys.exit(f"error: cwltest did not come to its end: {folder / name}.log says why")
    # The report takes a test that ended well and should not have for one that passed; the log does not.
    log = (folder / f"{name}.log").read_text()
    names = dict(re.findall(r"^Test \[(\d+)/\d+\] (\S+): ", log, re.MULTILINE))
    failed = {names[number] for number in re.findall(r"^Test (\d+) (?:failed|timed out): ", log, re.MULTILINE)}
    results = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        test = case.get("file")
        results[test] = "unsupported" if case.find("skipped") is not None else "failed" if test in failed else "passed"
    return results


@contextlib.contextmanager
def served(given, folder):
    if given.url:
        yield given.url
        return
    options = ["--container", "none", "--max-engines", str(given.jobs)]
    server = Server(folder / "server/state", *options)
    server.folder.parent.mkdir()
    try:
        yield server.start().url.removesuffix("/ga4gh/wes/v1")
    finally:
        server.stop()


def say(results, what):
    counts = [f"{sum(ended == kind for ended in results.values())} {kind}" for kind in ("passed", "failed", "unsupported")]
    print(f"{what}: {', '.join(counts)} of {len(results)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=pathlib.Path, help="a checkout of the suite")
    parser.add_argument("--engine", default="cwltool", help="cwltool or toil")
    parser.add_argument("--url", help="a server that is there already")
    parser.add_argument("--beside", action="store_true", help="run the same tests by cwltool alone, and compare")
    parser.add_argument("--jobs", "-j", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one test")
    parser.add_argument("--tests", "-s", help="ids of tests, separated by commas")
    parser.add_argument("--tags", help="tags of tests, separated by commas")
    parser.add_argument("--folder", type=pathlib.Path, help="where logs and reports go")
    given = parser.parse_args()
    suite = given.suite.resolve()
    if not (suite / "conformance_tests.yaml").exists():
        sys.exit(f"error: {suite} is no checkout of the suite: it has no conformance_tests.yaml")
    folder = (given.folder or pathlib.Path(tempfile.mkdtemp(prefix="stepwes-conformance-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    records = folder / "runs.jsonl"
    records.unlink(missing_ok=True)

    with served(given, folder) as url:
        through = cwltest(suite, folder, "through-wes", given, HERE / "wes-runner", "--engine", given.engine,
                          STEPWES_URL=url, STEPWES_BIN=str(BIN), STEPWES_RECORD=str(records))
    say(through, f"{given.engine} through WES")
    differ = []
    if given.beside:
        alone = cwltest(suite, folder, "alone", given, "cwltool", "--no-container", "--disable-color")
        say(alone, "cwltool alone")
        differ = sorted(name for name in through if through[name] != alone.get(name))
        for name in differ:
            print(f"  {name}: {alone.get(name)} alone, {through[name]} through WES")
    for name, ended in through.items():
        if ended != "passed":
            print(f"  {ended}: {name}")
    # A test that should fail passes by whatever fails: a request that never came to an engine is not what is tested.
    refused = [run for run in map(json.loads, records.read_text().splitlines()) if run["state"] not in BY_ENGINE]
    for run in refused:
        print(f"  not by the engine: {run['workflow']} {run['inputs'] or ''}: {(run['reasons'] or [run['said']])[-1].strip()}")
    print(f"logs and reports: {folder}")
    sys.exit(bool(differ or refused or not given.beside and "failed" in through.values()))


if __name__ == "__main__":
    main()
