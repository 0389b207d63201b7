"""Small campaigns: runs while calls of AWS go wrong, and while the server and engines are killed. `make chaos` plays large ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BIN

sys.path.append(str(Path(__file__).parent / "chaos"))

from campaign import run  # noqa: E402


@pytest.mark.parametrize("seed", [1, 2])
def test_every_run_ends_as_it_should_though_a_fifth_of_all_calls_goes_wrong(tmp_path, serve_only, seed):
    campaign, wrong = run(tmp_path, seed=seed, runs=50)
    assert not wrong, "\n".join(wrong)
    # Of each service something went wrong, and in each way.
    faults = campaign.faults()
    services, kinds = ({name.split(": ")[at] for name in faults} for at in (0, 1))
    assert services == {"apigateway", "dynamodb", "ecs", "lambda", "metadata", "s3", "states", "sts"}, faults
    assert len(kinds) == 13, faults


def test_no_run_is_lost_when_the_server_and_engines_are_killed_again_and_again(tmp_path, serve_only):
    campaign, wrong = run(tmp_path, seed=3, runs=20, percent=0, kills=10, real=10)
    assert not wrong, "\n".join(wrong)
    assert campaign.killed["server"] and campaign.killed["engine"], campaign.killed


def test_kills_and_faults_together(tmp_path, serve_only):
    campaign, wrong = run(tmp_path, seed=4, runs=20, percent=10, kills=5)
    assert not wrong, "\n".join(wrong)
    assert campaign.faults() and sum(campaign.killed.values()) >= 5


@pytest.mark.parametrize("text, said", [("x", "the seed"), ("1:95", "the rate"), ("1,sqs=3", "none of the services")])
def test_a_seed_that_cannot_be_read_is_told(tmp_path, serve_only, text, said):
    done = subprocess.run([BIN, "serve", "--dir", tmp_path / "state", "--chaos", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said in done.stderr, done
    assert not (tmp_path / "state").exists()
