"""Runs by the thousand while everything goes wrong, and then a look at each of them.

`stepwes serve --chaos SEED:PERCENT` lets its calls of AWS fail, be lost, come late, come twice and break in the middle;
its functions die at their calls. A campaign submits runs to it, some twice at once under one key, some of which fail,
and some of which are cancelled; it may also kill the server and engine tasks (`kill -9`). Its clients do what clients
should: they ask again after no answer, 429 and 5xx.

In the end each run must have ended as it should, once, by a history that the table of states allows; an idempotency
key must have made one run; the counts must be those of the runs; no engine may have begun twice for an attempt, nor
after finished work; and no process, temporary file, execution or task may be left.

A seed says what is submitted, which calls go wrong and how, and when what is killed. The same seed is the same
campaign but for what time decides, such as how often a client has to ask.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

import requests

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

from conftest import TERMINAL, Server, answers  # noqa: E402

STAND_IN = pathlib.Path(__file__).with_name("cwltool.sh")
HELLO = b"cwlVersion: v1.2\nclass: CommandLineTool\ninputs: {}\nbaseCommand: [printf, hello]\nstdout: said.txt\noutputs: {said: stdout}\n"
# docs/architecture.md, "The state table".
LEGAL = {
    None: {"QUEUED"},
    "QUEUED": {"INITIALIZING", "SYSTEM_ERROR", "CANCELING"},
    "INITIALIZING": {"RUNNING", "EXECUTOR_ERROR", "INITIALIZING", "PREEMPTED", "SYSTEM_ERROR", "CANCELING"},
    "RUNNING": {"COMPLETE", "EXECUTOR_ERROR", "INITIALIZING", "PREEMPTED", "SYSTEM_ERROR", "CANCELING"},
    "CANCELING": {"CANCELED"},
}
# How long nothing may change before a campaign is given up, in seconds: longer than the state machine's longest pause.
STALLED = 900
# How often the engine of one run is killed at most: a run has three attempts.
KILLS_OF_A_RUN = 2


def is_engine(process):
    """Whether the process of this folder below /proc runs stepwes-engine."""
    try:
        return (process / "exe").readlink().name == "stepwes-engine"
    except OSError:
        return False


class Run:
    """One run to be: what is submitted, and what must become of it."""

    def __init__(self, seed, number, real):
        chance = random.Random(f"{seed}/run/{number}")
        kind = chance.random()
        self.number, self.key, self.run_id, self.error = number, f"chaos-{number}", None, None
        self.twice, self.pause = chance.random() < 0.15, chance.random()
        self.ends = "COMPLETE" if kind < 0.8 else "EXECUTOR_ERROR" if kind < 0.9 else "CANCELED"
        self.real = real and self.ends == "COMPLETE" and number % real == 0
        self.work = chance.uniform(0, 0.4)

    def workflow(self, log):
        if self.real:
            return HELLO
        work = {
            "COMPLETE": f"sleep {self.work:.2f}\nprintf hello > \"$outdir/said.txt\"\n"
            "printf '{\"said\": {\"class\": \"File\", \"location\": \"file://%s/said.txt\"}}' \"$outdir\"\n",
            "EXECUTOR_ERROR": "echo 'this run is to fail' >&2\nexit 1\n",
            "CANCELED": "exec sleep 600\n",
        }
        return f"# {self.number}\necho \"$outdir\" >> '{log}'\n{work[self.ends]}".encode()


class Campaign:
    """A server, its clients, and whoever kills it."""

    def __init__(self, folder, seed, runs, percent=20, kills=0, engines=8, at_once=40, real=0):
        self.folder, self.seed, self.percent, self.kills = pathlib.Path(folder), seed, percent, kills
        self.at_once, self.killed, self.lives = at_once, collections.Counter(), 0
        self.runs, self.least, self.real = [], runs, real
        self.trouble = None
        self.log, self.over = self.folder / "engines.log", threading.Event()
        self.log.touch()
        programs = self.folder / "bin"
        programs.mkdir()
        stand_in = programs / "cwltool"
        stand_in.write_text(STAND_IN.read_text().replace("REAL", shutil.which("cwltool") or "false"))
        stand_in.chmod(0o755)
        self.server = Server(
            self.folder / "state", "--max-engines", str(engines), "--sandbox", "none",
            path=f"{programs}:{os.environ['PATH']}",
        )
        self.calm = list(self.server.options)

    # The server.

    def start(self):
        self.lives += 1
        # Each life has a seed of its own: else the first calls of each would meet the same faults.
        chaos = ["--chaos", f"{self.seed + 1000 * (self.lives - 1)}:{self.percent}"] if self.percent else []
        self.server.options = [*self.calm, *chaos]
        with self.server.log.open("ab") as log:
            self.server.process = subprocess.Popen(
                self.server.command(), stdout=log, stderr=log, cwd=self.folder, env=self.server.environment
            )

    def engines(self):
        """The engine tasks: pid by run."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and is_engine(entry):
                    # Its child is an engine as well, until it has become cwltool.
                    parent = re.search(r"(?m)^PPid:\t(\d+)", (entry / "status").read_text())[1]
                    environment = dict(pair.split("=", 1) for pair in (entry / "environ").read_text(errors="replace").split("\0") if "=" in pair)
                    if environment.get("STEPWES_WORK_DIR", "").startswith(f"{self.server.folder}/") and not is_engine(entry.parent / parent):
                        found[environment["STEPWES_RUN_ID"]] = int(entry.name)
            except OSError:
                continue
        return found

    def kill(self):
        try:
            self.kill_again_and_again()
        except Exception as error:
            self.trouble = repr(error)

    def kill_again_and_again(self):
        chance, of_run = random.Random(f"{self.seed}/kills"), collections.Counter()
        while sum(self.killed.values()) < self.kills and not self.over.is_set():
            self.over.wait(chance.uniform(0.02, 2))
            victims = chance.choice(["server", "server", "engine", "engine", "both"])
            if victims != "server":
                engines = {run: pid for run, pid in self.engines().items() if of_run[run] < KILLS_OF_A_RUN}
                for run in sorted(engines)[: 1 if victims == "engine" else None]:
                    try:
                        os.kill(engines[run], signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    of_run[run] += 1
                    self.killed["engine"] += 1
            if victims != "engine":
                self.server.kill()
                self.killed["server"] += 1
                time.sleep(chance.choice([0, 0, 0.3, 1]))
                self.start()

    # The clients.

    def ask(self, method, path, expected=(200,), **more):
        """Asks until there is an answer; gives it. 429 and 5xx are none."""
        while True:
            try:
                answer = requests.request(method, self.server.url + path, timeout=60, **more)
                if answer.status_code not in (429, 500, 503, 504):
                    assert answer.status_code in expected, (method, path, answer.status_code, answer.text)
                    return answer.json()
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                pass
            assert not self.over.wait(0.2), "the campaign is over"

    def submit(self, run):
        form = {"workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "main.cwl", "workflow_params": "{}"}
        parts = [(name, (None, value)) for name, value in form.items()]
        parts.append(("workflow_attachment", ("main.cwl", run.workflow(self.log))))
        return self.ask("POST", "/runs", files=parts, headers={"Idempotency-Key": run.key})["run_id"]

    def client(self, run):
        try:
            ids, others = [], []
            if run.twice:
                others = [threading.Thread(target=lambda: ids.append(self.submit(run)))]
                others[0].start()
            ids.append(self.submit(run))
            for other in others:
                other.join()
            assert len(set(ids)) == 1, f"one key, two runs: {ids}"
            run.run_id = ids[0]
            if run.ends == "CANCELED":
                self.over.wait(run.pause * 3 if run.number % 2 else 0)
                self.ask("POST", f"/runs/{run.run_id}/cancel")
        except Exception as error:
            run.error = repr(error)

    def unfinished(self):
        """How many runs there are that have not ended."""
        counts = self.ask("GET", "/service-info")["system_state_counts"]
        return sum(number for state, number in counts.items() if state not in TERMINAL)

    def play(self):
        """Submits everything, and waits until everything has ended."""
        began = time.monotonic()
        self.start()
        killer = threading.Thread(target=self.kill)
        killer.start()
        try:
            clients, number = [], 0
            ended, changed = -1, time.monotonic()
            while True:
                clients = [client for client in clients if client.is_alive()]
                going_on = self.unfinished()
                # As long as there is something to be killed, there is something going on.
                more = number < self.least or killer.is_alive()
                while more and going_on + len(clients) < self.at_once:
                    self.runs.append(Run(self.seed, number, self.real))
                    clients.append(threading.Thread(target=self.client, args=[self.runs[-1]]))
                    clients[-1].start()
                    number, going_on = number + 1, going_on + 1
                    more = number < self.least or killer.is_alive()
                submitted = sum(run.run_id is not None for run in self.runs)
                if not more and not clients and going_on == 0:
                    break
                if submitted - going_on != ended:
                    ended, changed = submitted - going_on, time.monotonic()
                assert time.monotonic() - changed < STALLED, f"nothing has changed for {STALLED} s: {self.report()}"
                time.sleep(0.3)
        finally:
            self.over.set()
            killer.join()
        self.seconds = time.monotonic() - began

    # The look at what came of it.

    def look(self):
        """What is wrong, in lines."""
        if self.trouble:
            yield f"nobody was killed any more: {self.trouble}"
        # Executions that have just recorded their run's end, and effects that come late.
        self.settle(lambda: not self.rows("executions", "status = 'RUNNING'") and not self.engines())
        yield from self.stop()
        items = self.table()
        runs = {key: value for (key, sort), value in items.items() if sort == "RUN"}
        # Where functions died, the next server removes what was staged for nobody.
        if self.strays(runs):
            self.percent = 0
            self.start()
            self.settle(lambda: answers(f"{self.server.url}/service-info") and not self.strays(runs))
            yield from self.stop()
        yield from self.look_at_runs(items, runs)
        yield from self.look_at_engines(runs)
        yield from self.look_for_remains(runs)

    def settle(self, done):
        """Waits for what must come about; if it does not, that is found afterwards."""
        end = time.monotonic() + 120
        while time.monotonic() < end and not done():
            time.sleep(0.3)

    def stop(self):
        self.server.process.send_signal(signal.SIGTERM)
        if code := self.server.process.wait(60):
            yield f"the server ended with {code}"

    def strays(self, runs):
        """The folders of objects that are of no run."""
        bucket = self.server.folder / "s3/runs"
        return [path for kind in ("requests", "work", "outputs", "results") for path in bucket.glob(f"{kind}/*") if path.name not in runs]

    def rows(self, table, condition):
        with sqlite3.connect(f"file:{self.server.folder}/aws.sqlite?mode=ro", uri=True, timeout=30) as ledger:
            return ledger.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()[0]

    def table(self):
        """The items of the run table by their keys, each a dictionary of plain values."""
        with sqlite3.connect(f"file:{self.server.folder}/dynamodb.sqlite?mode=ro", uri=True) as tables:
            rows = [json.loads(item) for (item,) in tables.execute("SELECT item_json FROM stepwes")]
        items = [{name: next(iter(value.values())) for name, value in item.items()} for item in rows]
        return {(item["PK"].removeprefix("RUN#"), item["SK"]): item for item in items}

    def look_at_runs(self, items, runs):
        yield from (f"{run.key}: {run.error}" for run in self.runs if run.error)
        asked = {run.run_id: run for run in self.runs if run.run_id}
        yield from (f"{run_id} is a run that nobody has" for run_id in runs.keys() - asked.keys())
        yield from (f"{run_id} is lost" for run_id in asked.keys() - runs.keys())
        counts = collections.Counter()
        for (key, _), shard in items.items():
            if key == "COUNTS":
                counts.update({state: int(number) for state, number in shard.items() if state not in ("PK", "SK")})
        counts = {state: number for state, number in counts.items() if number}
        there = dict(collections.Counter(run["state"] for run in runs.values()))
        if counts != there:
            yield f"the counts are {counts}, the runs {there}"
        for run_id, item in runs.items():
            history = sorted((int(event["version"]), event) for (key, sort), event in items.items() if key == run_id and sort.startswith("EVENT#"))
            states = [event["to"] for _, event in history]
            if [version for version, _ in history] != list(range(1, len(history) + 1)) or states[-1:] != [item["state"]]:
                yield f"{run_id} is {item['state']}, its history {states}"
            for before, after in zip([None, *states], states):
                if after not in LEGAL.get(before, ()):
                    yield f"{run_id} went from {before} to {after}"
            if (run := asked.get(run_id)) and run.ends != item["state"]:
                yield f"{run_id} ({run.key}) is {item['state']}, and should be {run.ends}: {item.get('system_logs')}"
            if item["state"] == "COMPLETE":
                yield from self.look_at_outputs(run_id)

    def look_at_outputs(self, run_id):
        bucket = self.server.folder / "s3/runs"
        try:
            said = json.loads((bucket / f"results/{run_id}/outputs.json").read_text())["outputs"]["said"]
            content = (bucket / said["location"].removeprefix("s3://runs/")).read_text()
        except (OSError, ValueError, LookupError) as error:
            yield f"{run_id} is COMPLETE without its outputs: {error!r}"
            return
        if content != "hello":
            yield f"{run_id} said {content!r}"

    def look_at_engines(self, runs):
        # A run works in one folder, whichever attempt it is: its engine has begun so often.
        began = collections.Counter(re.search(r"/stepwes-([0-9a-f-]{36})/", line)[1] for line in self.log.read_text().splitlines())
        for run_id, times in began.items():
            attempts = int(runs[run_id]["attempt"])
            if times > attempts:
                yield f"{run_id}: its engine began {times} times in {attempts} attempts"
            for attempt in range(1, min(times, attempts)):
                path = self.server.folder / f"s3/runs/work/{run_id}/{attempt}/result.json"
                if path.exists() and json.loads(path.read_text())["outcome"] != "STOPPED":
                    yield f"{run_id}: attempt {attempt} had finished its work, and there was another one"

    def look_for_remains(self, runs):
        if left := self.rows("executions", "status = 'RUNNING'"):
            yield f"{left} executions go on"
        if left := self.rows("tasks", "stopped_at IS NULL"):
            yield f"{left} tasks have not stopped"
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and int(entry.name) != os.getpid():
                    told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                    if f"{self.server.folder}/".encode() in told:
                        yield f"process {entry.name} is left: {(entry / 'cmdline').read_bytes()}"
            except OSError:
                continue
        state = self.server.folder
        kept = re.compile(r"(tasks/[0-9a-f]{32}/(alive|exit\.json|log)|s3/\.tmp/journal/.*|s3/\.meta/.*)")
        for path in state.rglob("*"):
            name = str(path.relative_to(state))
            if path.is_file() and name.startswith(("tasks/", "s3/.")) and not kept.fullmatch(name):
                yield f"the file {name} is left"
            if path.is_file() and path.suffix == ".tmp":
                yield f"the temporary file {name} is left"
            if path.is_dir() and re.fullmatch("tasks/[^/]*/work", name):
                yield f"the folder {name} is left"
        yield from (f"{path.parent.name}/{path.name} is of no run" for path in self.strays(runs))

    def faults(self):
        """The faults that were injected, by service and kind."""
        counted = collections.Counter()
        for line in self.server.log.read_text(errors="replace").splitlines():
            if "a fault is injected" in line:
                fields = json.loads(line)
                counted[f"{fields['service']}: {fields['fault']}"] += 1
        return counted

    def report(self):
        return {"runs": len(self.runs), "submitted": sum(run.run_id is not None for run in self.runs), "killed": dict(self.killed)}


def run(folder, **settings):
    """Plays a campaign; what is wrong afterwards, in lines."""
    campaign = Campaign(folder, **settings)
    try:
        campaign.play()
        return campaign, list(campaign.look())
    finally:
        if campaign.server.process.poll() is None:
            campaign.server.kill()
        for pid in campaign.engines().values():
            os.kill(pid, signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="a campaign played again (any)")
    parser.add_argument("--runs", type=int, default=1000, help="how many runs at least (1000)")
    parser.add_argument("--percent", type=int, default=20, help="how many calls of a hundred go wrong (20)")
    parser.add_argument("--kills", type=int, default=0, help="how often the server or an engine is killed (0)")
    parser.add_argument("--real", type=int, default=0, help="every how manieth run is a real one, by cwltool (0: none)")
    parser.add_argument("--engines", type=int, default=8, help="how many engines work at once (8)")
    parser.add_argument("--at-once", type=int, default=40, help="how many runs go on at once (40)")
    settings = vars(parser.parse_args())
    print(f"seed {settings['seed']}", flush=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="stepwes-chaos-"))
    campaign, wrong = run(folder, **settings)
    faults = campaign.faults()
    kinds = collections.Counter()
    for name, number in faults.items():
        kinds[name.split(": ")[1]] += number
    print(f"{len(campaign.runs)} runs in {campaign.seconds:.0f} s, {sum(faults.values())} faults, killed: {dict(campaign.killed)}")
    for name, number in kinds.most_common():
        print(f"{number:8} {name}")
    if wrong:
        print(f"{len(wrong)} wrong; see {folder}")
        for line in wrong:
            print(f"  {line}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
