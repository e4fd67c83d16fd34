"""Several processes, one training: real processes, started by torchrun, on the CPU with gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vgg_course.checkpoint import read
from vgg_course.distributed import Team

SCRIPT = Path(__file__).with_name("ddp_run.py")
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")


def run(folder: Path, processes: int, *more: str, steps: int = 99) -> subprocess.CompletedProcess:
    folder.mkdir(exist_ok=True)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*(start if processes > 1 else [sys.executable]), str(SCRIPT), str(folder), str(steps), *more]
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # much faster
    environ = {**unmeasured, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("alone")
    done = run(folder, 1)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "result.pt", weights_only=True)


def same(a: dict, b: dict) -> None:
    for name, value in a["model"].items():
        assert torch.allclose(value, b["model"][name], rtol=0, atol=1e-5), name
    assert torch.allclose(torch.tensor(a["loss"]), torch.tensor(b["loss"]), rtol=0, atol=1e-4)


def test_two_processes_learn_what_one_learns(alone, tmp_path):
    done = run(tmp_path, 2)
    assert done.returncode == 0, done.stderr
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    assert len(result["loss"]) == result["seen"] == 20
    assert result["loss"][-1] < result["loss"][0]
    same(alone, result)


def test_a_killed_rank_ends_the_run_with_one_message_and_another_number_of_processes_goes_on(alone, tmp_path):
    done = run(tmp_path, 2, "--kill", "1", steps=7)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "SAID BY" in line]
    assert len(said) == 1 and "has lost the others" in said[0] and "goes on from the checkpoint" in said[0], done.stderr
    assert read(tmp_path / "run.pt")["step"] == 7
    again = run(tmp_path, 1)
    assert again.returncode == 0 and "going on from" in again.stdout, again.stdout + again.stderr
    same(alone, torch.load(tmp_path / "result.pt", weights_only=True))


def test_alone_a_team_changes_nothing():
    team, model, value = Team(torch.device("cpu")), torch.nn.Linear(2, 2), torch.tensor(3.0)
    images, labels = torch.zeros(5, 3, 4, 4), torch.zeros(5)
    assert team.first and team.wrap(model) is model and team.mean(value) is value and team.weight(5, 5) == 1
    shared = team.share(images, labels)
    assert torch.equal(shared[0], images) and torch.equal(shared[1], labels)
    assert team.agree({"model": model}, (1, 2)) == (1, 2)


def test_shares_are_the_whole_batch(monkeypatch):
    images, labels = torch.zeros(5, 3, 4, 4), torch.arange(5)
    shares, weights = [], []
    for rank in (0, 1):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        team = Team(torch.device("cpu"))
        _, share = team.share(images, labels)
        shares += share.tolist()
        weights.append(team.weight(len(share), 5))
    assert sorted(shares) == labels.tolist() and sum(weights) == 2
    with pytest.raises(ValueError, match="a batch of 1 cannot be shared by 2 processes"):
        team.share(images[:1], labels[:1])
