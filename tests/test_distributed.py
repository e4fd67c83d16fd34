"""Several processes, one training: real processes, started by torchrun, on the CPU with gloo."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path

import ddp_run
import pytest
import torch
from ports import free_port
from torch import distributed, nn

from vgg_course import training
from vgg_course.checkpoint import read
from vgg_course.data import load_dataset
from vgg_course.distributed import Team
from vgg_course.training import FAST, Recipe, fit
from vgg_course.vgg import VGG, make_layers

SCRIPT = Path(__file__).with_name("ddp_run.py")
NO_TORCHRUN = "torchrun needs libuv, which PyTorch's packages for Windows lack"
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")


def run(folder: Path, processes: int, *more: str, steps: int = 99) -> subprocess.CompletedProcess:
    folder.mkdir(exist_ok=True)
    if processes > 1 and sys.platform == "win32":
        pytest.skip(NO_TORCHRUN)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*(start if processes > 1 else [sys.executable]), str(SCRIPT), str(folder), str(steps), *more]
    return subprocess.run(command, env=environ(), capture_output=True, text=True, timeout=240)


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(autouse=True)
def folder_of_logs(tmp_path, monkeypatch):
    """torchrun leaves a folder in the system's place for temporary files: here that is one which pytest takes away."""
    (tmp_path / "logs").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "logs"))
    yield
    shutil.rmtree(tmp_path / "logs", ignore_errors=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("alone")
    done = run(folder, 1)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "result.pt", weights_only=True)


def same(a: dict, b: dict) -> None:
    for name, value in a["model"].items():
        assert torch.allclose(value, b["model"][name], rtol=0, atol=1e-7), name
    assert torch.allclose(torch.tensor(a["loss"]), torch.tensor(b["loss"]), rtol=0, atol=1e-4)


def test_two_processes_learn_what_one_learns(alone, tmp_path):
    """In their third training, as of one who compares seeds in a script."""
    done = run(tmp_path, 2, "--third")
    assert done.returncode == 0, done.stderr
    result = torch.load(tmp_path / "result.pt", weights_only=True)
    assert len(result["loss"]) == result["seen"] == 20
    assert result["loss"][-1] < result["loss"][0]
    same(alone, result)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_with_one_message_and_another_number_of_processes_goes_on(rank, alone, tmp_path):
    """Also where the first one is killed, which keeps the checkpoint."""
    done = run(tmp_path, 2, "--kill", str(rank), steps=7)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if f"SAID BY {1 - rank}" in line]
    assert len(said) == 1 and "has lost the others" in said[0] and "goes on from the checkpoint" in said[0], done.stderr
    assert read(tmp_path / "run.pt")["step"] == 7
    again = run(tmp_path, 1)
    assert again.returncode == 0 and "going on from" in again.stdout, again.stdout + again.stderr
    same(alone, torch.load(tmp_path / "result.pt", weights_only=True))


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C goes to a group of processes, which Windows has not")
def test_ctrl_c_is_kept_and_the_same_command_goes_on(tmp_path):
    """torchrun passes it on to all processes; no checkpoint was due. As in a terminal, its whole group is told."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import pathlib, time
            from dataclasses import replace
            from torch import nn
            from vgg_course.data import load_dataset
            from vgg_course.training import Recipe, fit

            def slowly(step, values):
                if not going.exists() and step == 3:
                    going.touch()
                if wait and step == 3:
                    for _ in range(1200):
                        time.sleep(0 if told.exists() else 0.1)
                time.sleep(wait)

            going, told = pathlib.Path("going"), pathlib.Path("told")
            wait = 0 if going.exists() else 0.1
            model, data = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), load_dataset("digits", verbose=False)
            data = replace(data, train=data.train.subset(slice(0, 300)))
            recipe = Recipe(epochs=1, batch_size=3, lr=1e-5, precision="fp32", device="cpu")
            fit(model, data, recipe, slowly, checkpoint="run.pt", progress=False)
            """),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    settings = {"cwd": tmp_path, "env": environ(), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **settings)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "going").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        (tmp_path / "told").touch()
        said = process.communicate(timeout=300)[0]
    finally:
        process.kill()
        process.communicate()
    assert "stopping after this step" in said, said
    step = read(tmp_path / "run.pt")["step"]
    again = subprocess.run(command, timeout=240, **settings)
    assert step > 3 and f"going on from run.pt: epoch 1, step {step}" in again.stdout, again.stdout
    assert again.returncode == 0 and read(tmp_path / "run.pt")["epoch"] == 1, again.stdout


@pytest.mark.skipif(sys.platform == "win32", reason=NO_TORCHRUN)
def test_the_command_of_the_readme(tmp_path):
    """Of a copy of the package: the checkpoint, which a run that is cut off leaves in data/runs, is in the copy too."""
    root, records = SCRIPT.parents[1], tmp_path / "data" / "runs"
    left_out = shutil.ignore_patterns("weights", "__pycache__")
    shutil.copytree(root / "vgg_course", tmp_path / "vgg_course", ignore=left_out)
    records.mkdir(parents=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, "-m", "vgg_course.runs", "digits", "--dataset", "digits", "--epochs", "1"]
    command += ["--record", str(tmp_path / "mine.json")]
    env = environ(PYTHONPATH=str(tmp_path))
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == done.stdout.count("record:") == 1, done.stdout
    record = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))
    assert (record["name"], record["dataset"], len(record["history"]["seconds"])) == ("digits", "digits", 1)
    assert list(records.iterdir()) == []


@pytest.fixture
def in_a_team(monkeypatch):
    """``in_a_team(rank)`` makes this process one of two, and gives the environment of the other."""

    def of(rank: int) -> dict[str, str]:
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        for name, value in (common | {"RANK": str(rank)}).items():
            monkeypatch.setenv(name, value)
        return environ(**common, RANK=str(1 - rank))

    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Team, "trainings", 0)  # as in the other process, which is a new one
    yield of
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Of a single process that was killed after seven steps."""
    folder = tmp_path_factory.mktemp("killed")
    run(folder, 1, "--kill", "0", steps=7)
    return folder / "run.pt"


@pytest.mark.parametrize("rank", [0, 1])
def test_from_inside_either_rank(rank, alone, checkpoint, tmp_path, monkeypatch, in_a_team):
    """As above, but this process is one of the two: the first shows and keeps, the second takes over its state."""
    shutil.copy(checkpoint, tmp_path)
    command = [str(SCRIPT), str(tmp_path), "99"]
    other = subprocess.Popen(
        [sys.executable, *command], env=in_a_team(rank), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    monkeypatch.setattr(sys, "argv", command)
    try:
        ddp_run.main()
        said = other.communicate(timeout=120)[0]
    finally:
        other.kill()
        other.communicate()
    assert other.returncode == 0, said
    assert ("going on from" in said) == (rank == 1)  # where the first one speaks
    assert not distributed.is_initialized()
    same(alone, torch.load(tmp_path / "result.pt", weights_only=True))


def test_each_process_takes_its_own_gpu(monkeypatch, in_a_team):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    in_a_team(1)
    assert Team(torch.device("mps")).device == torch.device("cpu")  # gloo cannot reach a Mac's
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ValueError, match="process 5 of this machine has no GPU of its own, for there are 4: take"):
        Team(torch.device("cuda"))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Team(torch.device("cuda")).device == torch.device("cuda", 3) and chosen == [torch.device("cuda", 3)]


def test_on_gpus_batch_norm_sees_the_whole_batch(monkeypatch, in_a_team):
    """Put together on the CPU: only running it needs GPUs."""
    monkeypatch.setattr("vgg_course.distributed.DistributedDataParallel", lambda model: model)
    in_a_team(0)
    team, norms = Team(torch.device("cpu")), []
    for device in ("cpu", "cuda"):
        team.device = torch.device(device)
        norms.append(type(team.wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))[1]))
    assert norms == [nn.BatchNorm2d, nn.SyncBatchNorm]
    network = nn.SyncBatchNorm.convert_sync_batchnorm(VGG(make_layers([4], batch_norm=True), 2, global_pool=True))
    assert len(FAST.make_optimizer(network).param_groups) == 3  # the biases of its norms still have a rate of their own


def without_connections(monkeypatch) -> None:
    """A team of a single process, which nobody waits for."""
    monkeypatch.setattr(distributed, "rendezvous", lambda method: iter([("store", 0, 2)]))
    monkeypatch.setattr(distributed, "PrefixStore", lambda prefix, store: (prefix, store))
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, **more: None)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)


def test_a_group_that_a_script_has_made_stays(monkeypatch, in_a_team):
    in_a_team(0)
    with monkeypatch.context() as theirs:
        theirs.setattr(distributed, "is_initialized", lambda: True)
        for name in ("init_process_group", "destroy_process_group"):
            theirs.setattr(distributed, name, lambda *_, **__: pytest.fail("it is theirs"))
        with Team(torch.device("cpu")):
            pass


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]"), True),
        (RuntimeError("NCCL error: remote process exited"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("a peer, but no lost one"), False),
    ],
)
def test_only_a_lost_connection_is_called_one(error, lost, monkeypatch, in_a_team):
    left = []
    without_connections(monkeypatch)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: left.append(True))
    in_a_team(0)
    kind, words = (ConnectionError, "has lost the others") if lost else (type(error), re.escape(str(error)))
    with pytest.raises(kind, match=words) as told, Team(torch.device("cpu")):
        raise error
    assert "\n" not in str(told.value) and left == ([] if lost else [True])


@pytest.mark.parametrize("stopped", [True, False])
def test_who_is_stopped_by_torchrun_has_the_time_to_say_why(stopped, monkeypatch, in_a_team):
    without_connections(monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    in_a_team(1)
    expected = pytest.raises(ConnectionError, match="rank 1 of 2 has lost the others") if stopped else nullcontext()
    with expected, Team(torch.device("cpu")):
        if stopped:
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == (signal.SIG_IGN if stopped else before)
    if stopped:
        signal.raise_signal(signal.SIGTERM)  # changes nothing any more


@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_is_for_the_first(rank, monkeypatch, in_a_team):
    without_connections(monkeypatch)
    before = signal.getsignal(signal.SIGINT)
    in_a_team(rank)
    with Team(torch.device("cpu")):
        assert signal.getsignal(signal.SIGINT) == (signal.SIG_IGN if rank else before)
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_has_dropout_of_its_own(rank, monkeypatch, in_a_team):
    in_a_team(rank)
    team = Team(torch.device("cpu"))
    monkeypatch.setattr(team, "agree", lambda parts, position: position)
    monkeypatch.setattr(team, "wrap", lambda model: model)
    recipe = Recipe(epochs=1, batch_size=10, lr=0.1, seed=5, device="cpu")
    training._Learner(nn.Linear(2, 2), recipe, 100, team).start((0, 0), None)
    assert torch.initial_seed() == 5 + rank


def test_alone_a_team_changes_nothing():
    team, model, value = Team(torch.device("cpu")), torch.nn.Linear(2, 2), torch.tensor(3.0)
    images, labels = torch.zeros(5, 3, 4, 4), torch.zeros(5)
    assert team.first and team.wrap(model) is model and team.mean(value) is value and team.weight(5, 5) == 1
    shared = team.share(images, labels)
    assert torch.equal(shared[0], images) and torch.equal(shared[1], labels)
    assert team.agree({"model": model}, (1, 2)) == (1, 2)


def test_a_last_batch_that_is_too_small_for_the_team_is_told_at_once(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    data = load_dataset("digits", verbose=False)  # 1,257 images: 3 are left by batches of 418
    for batch_size, left in ((418, 3), (314, 1), (1257, None)):
        recipe = Recipe(epochs=1, batch_size=batch_size, lr=0.1, device="cpu")
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        with monkeypatch.context() as untrained:
            untrained.setattr(Team, "__enter__", lambda team: sys.exit(9))  # it begins
            untrained.setattr(Team, "__exit__", lambda *_: None)
            with pytest.raises((ValueError, SystemExit)) as stopped:
                fit(model, data, recipe, progress=False)
        if left:
            assert f"has {left}, which 4 processes cannot share: take another batch_size" in str(stopped.value)
        else:
            assert stopped.value.code == 9


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
