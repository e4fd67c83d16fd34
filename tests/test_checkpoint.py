"""Runs that are cut off, by every means, go on to the same bits; a write that fails loses nothing."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from vgg_course import checkpoint as checkpoints
from vgg_course.checkpoint import previous, read, write
from vgg_course.training import SCHEDULES, fit

sys.path.insert(0, str(Path(__file__).parent))  # for the next line, however pytest was asked to import
from resume_run import RECIPE, build, cut_off, digest, stop

SCRIPT = Path(__file__).parent / "resume_run.py"
STEPS = 10  # in an epoch
posix = pytest.mark.skipif(sys.platform == "win32", reason="a signal that Windows has not")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole():
    """The digest of a run that nobody cut off."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, data = build()
    result = digest(model, fit(model, data, RECIPE, progress=False))
    torch.set_num_threads(threads)
    return result


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs" / "a run.pt"


# ------------------------------------------------------------------ the same bits


def test_a_checkpoint_changes_nothing(whole, file):
    model, data = build()
    assert digest(model, fit(model, data, RECIPE, checkpoint=file, checkpoint_minutes=0, progress=False)) == whole
    assert sorted(path.name for path in file.parent.iterdir() if path.suffix != ".lock") == [
        "a run.pt",
        "a run.pt.previous",
    ]


@pytest.mark.parametrize("minutes", [0, 5])  # after every step; after every epoch
@pytest.mark.parametrize("at", [0, 4, 9, 10, 17, 29])
def test_cut_off_between_two_checkpoints(at, minutes, whole, file, capsys):
    for how in (stop, None):
        model, data = build()
        tracker = cut_off(at, how) if how else None
        history = fit(model, data, RECIPE, tracker, checkpoint=file, checkpoint_minutes=minutes, progress=False)
        assert history.interrupted == (how is not None)
    assert digest(model, history) == whole
    kept = at if minutes == 0 else at // STEPS * STEPS
    assert (f"epoch {kept // STEPS + 1}, step {kept % STEPS}" in capsys.readouterr().out) == (kept > 0)


def test_cut_off_many_times(whole, file):
    seed = random.randrange(10**6)
    print("seed", seed)
    rng, history = random.Random(seed), None
    while history is None or history.interrupted:
        model, data = build()
        tracker = cut_off(len(history.batch_loss) + rng.randint(0, 6) if history else 3, stop)
        history = fit(model, data, RECIPE, tracker, checkpoint=file, checkpoint_minutes=0, progress=False)
    assert digest(model, history) == whole


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=posix)])
def test_a_signal_ends_the_run_after_its_step(name, whole, file, capsys):
    """It is kept although no checkpoint was due: nothing is lost at all."""
    received, number = [], getattr(signal, name)
    before = signal.signal(number, lambda *_: received.append(name))
    try:
        model, data = build()
        tracker = cut_off(14, lambda: signal.raise_signal(number))
        history = fit(model, data, RECIPE, tracker, checkpoint=file, progress=False)
        assert history.interrupted and len(history.batch_loss) == 15
        assert received == (["SIGTERM"] if name == "SIGTERM" else [])  # passed on; Ctrl-C has had its effect
        signal.raise_signal(number)
        assert received[-1] == name  # the former handler is back
    finally:
        signal.signal(number, before)
    assert "stopping after this step" in capsys.readouterr().out
    model, data = build()
    assert digest(model, fit(model, data, RECIPE, checkpoint=file, progress=False)) == whole
    assert "epoch 2, step 5" in capsys.readouterr().out


@posix
def test_an_error_after_sigterm_is_told_first(file, monkeypatch):
    def fails(*_):
        monkeypatch.setattr(signal, "raise_signal", lambda _: pytest.fail("the end of the process hides it"))
        raise RuntimeError("no memory")

    monkeypatch.setattr(checkpoints, "write", fails)
    model, data = build()
    with pytest.raises(RuntimeError, match="no memory"):
        fit(model, data, RECIPE, cut_off(3, lambda: signal.raise_signal(signal.SIGTERM)), checkpoint=file)


def test_ctrl_c_twice_ends_it_at_once(file):
    model, data = build()
    twice = cut_off(14, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    history = fit(model, data, RECIPE, twice, checkpoint=file, progress=False)
    assert history.interrupted and read(file)["step"] == 0


@posix
def test_killed_at_random_moments(whole, file):
    """SIGKILL, at whatever moment, until the run is through. benchmarks/resume.py does it 25 times."""
    seed = random.randrange(10**6)
    print("seed", seed)
    rng, out, kills = random.Random(seed), "", 0
    while "done" not in out:
        process = subprocess.Popen([sys.executable, str(SCRIPT), str(file)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline().strip() == "ready"
        if kills < 3:
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            kills += 1
        out = process.communicate(timeout=120)[0]
    assert out.split()[-1] == whole


def test_a_complete_run_is_loaded_and_not_trained_again(whole, file, capsys):
    for _ in range(2):
        model, data = build()
        history = fit(model, data, RECIPE, checkpoint=file, progress=False)
        assert digest(model, history) == whole


def test_the_tracker_gets_the_whole_curve(file):
    model, data = build()
    fit(model, data, RECIPE, cut_off(14, stop), checkpoint=file, checkpoint_minutes=0, progress=False)
    told: list[tuple] = []
    model, data = build()
    fit(model, data, RECIPE, lambda *point: told.append(point), checkpoint=file, progress=False)
    assert [step for step, values in told if "loss" in values] == list(range(3 * STEPS))
    assert [(step, values["epoch"]) for step, values in told if "epoch" in values] == [(9, 1), (19, 2), (29, 3)]


def test_the_time_before_the_cut_counts(file):
    """An epoch that was cut off in its middle has taken what both of its parts took, and no more."""

    def slow_then_cut_off(step, values):
        time.sleep(0.4 if step == 3 else 0)
        if step == 5:
            stop()

    started = time.perf_counter()
    for tracker in (slow_then_cut_off, None):
        model, data = build()
        history = fit(model, data, RECIPE, tracker, checkpoint=file, checkpoint_minutes=0, progress=False)
    assert history.seconds[0] > 0.4 and sum(history.seconds) < time.perf_counter() - started
    assert history.images_per_second[0] < 300 / 0.4


def test_more_epochs(file, capsys):
    """From the first step on with the rates of a run that was so long from the start."""
    model, data = build()
    fit(model, data, RECIPE, checkpoint=file, progress=False)
    model, data = build()
    history = fit(model, data, replace(RECIPE, epochs=5), checkpoint=file, progress=False)
    assert len(history.train_loss) == 5 and len(history.batch_loss) == 5 * STEPS
    rates = [RECIPE.lr * SCHEDULES["linear"](step, STEPS, 5) for step in range(3 * STEPS, 5 * STEPS)]
    assert history.batch_learning_rate[3 * STEPS :] == rates
    assert "had 3 epochs, this one has 5: the schedule 'linear' goes on" in capsys.readouterr().out


@pytest.mark.parametrize(("before", "after"), [("fp32", "bf16"), ("fp32", "fp16"), ("fp16", "fp32")])
def test_another_precision_may_go_on(before, after, file, capsys):
    model, data = build()
    fit(model, data, replace(RECIPE, precision=before), cut_off(14, stop), checkpoint=file, progress=False)
    model, data = build()
    history = fit(model, data, replace(RECIPE, precision=after), checkpoint=file, progress=False)
    assert len(history.train_loss) == 3
    assert f"precision was {before!r} and is {after!r}" in capsys.readouterr().out


def test_a_setting_that_the_file_does_not_know_is_the_default(file):
    """A checkpoint of an older version of the course goes on, unless the run asks for what there was not then."""
    model, data = build()
    fit(model, data, RECIPE, cut_off(14, stop), checkpoint=file, progress=False)
    state = {k: v for k, v in read(file).items() if k not in ("scale", "network")}
    write(file, state | {"recipe": {k: v for k, v in state["recipe"].items() if k not in ("shift", "compile")}})
    model, data = build()
    with pytest.raises(ValueError, match="shift was 2 and is 3"):
        fit(model, data, replace(RECIPE, shift=3), checkpoint=file, progress=False)
    assert len(fit(model, data, RECIPE, checkpoint=file, progress=False).train_loss) == 3


def test_from_a_gpu_to_this_machine(file, capsys):
    """What a GPU has written has the same tensors; only the settings say where it was."""
    model, data = build()
    fit(model, data, RECIPE, cut_off(14, stop), checkpoint=file, progress=False)
    state = read(file)
    write(file, state | {"recipe": state["recipe"] | {"device": "cuda", "precision": "bf16"}, "cuda_rng": []})
    model, data = build()
    assert len(fit(model, data, RECIPE, checkpoint=file, progress=False).train_loss) == 3
    assert "device was 'cuda' and is 'cpu': the numbers will differ a little" in capsys.readouterr().out


def test_the_generators_of_gpus_are_kept_as_many_as_there_are(file, monkeypatch):
    """Of two GPUs with a generator each, on a machine that has one. This one may have none: they are stand-ins."""
    brought_back: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.tensor([1]), torch.tensor([2])])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: brought_back.extend(map(int, states)))
    for count, wanted in ((2, [1, 2]), (1, [1, 2, 1])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        model, data = build()
        fit(model, data, RECIPE, cut_off(14, stop), checkpoint=file, checkpoint_minutes=0, progress=False)
        fit(model, data, RECIPE, cut_off(16, stop), checkpoint=file, checkpoint_minutes=0, progress=False)
        assert brought_back == wanted
        file.unlink()


def test_its_size(file):
    model, data = build()
    model.classifier[0] = nn.Linear(16, 50_000)
    model.classifier[3] = nn.Linear(50_000, 10)
    fit(model, data, replace(RECIPE, epochs=1, batch_size=300), checkpoint=file, progress=False)
    assert file.stat().st_size <= 3.2 * sum(p.numel() * 4 for p in model.parameters())


# ------------------------------------------------------------------ writing


def test_a_write_that_fails_loses_nothing(file, monkeypatch, capsys, whole):
    model, data = build()
    fit(model, data, RECIPE, cut_off(14, stop), checkpoint=file, progress=False)
    good = file.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    model, data = build()
    assert digest(model, fit(model, data, RECIPE, checkpoint=file, progress=False)) == whole  # trained to its end
    assert file.read_bytes() == good and not list(file.parent.glob("*.tmp"))
    assert "could not be written (No space left on device): training goes on" in capsys.readouterr().out


def test_cut_off_while_writing(file, whole, monkeypatch):
    model, data = build()
    fit(model, data, RECIPE, cut_off(24, stop), checkpoint=file, progress=False)
    file.with_name(f"{file.name}.tmp").write_bytes(b"half a check")
    file.unlink()  # as between the two renames
    assert previous(file).exists()
    model, data = build()
    assert digest(model, fit(model, data, RECIPE, checkpoint=file, progress=False)) == whole


def test_the_second_rename_fails(tmp_path, monkeypatch):
    file = tmp_path / "a.pt"
    write(file, {"number": 1})
    real, calls = os.replace, []

    def fails_the_second_time(*names):
        calls.append(names)
        if len(calls) == 2:
            raise OSError(errno.EIO, "a bad disk")
        real(*names)

    monkeypatch.setattr(os, "replace", fails_the_second_time)
    with pytest.raises(OSError, match="a bad disk"):
        write(file, {"number": 2})
    assert read(file) == {"number": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no folder that not even root may write to")
@pytest.mark.parametrize("name", ["/proc/a.pt", "/proc/new/a.pt"])  # or made
def test_a_folder_that_cannot_be_written_to(name, capsys, whole):
    model, data = build()
    history = fit(model, data, RECIPE, checkpoint=name, progress=False)
    assert digest(model, history) == whole
    assert "training goes on" in capsys.readouterr().out


def test_names_that_cannot_be(tmp_path):
    model, data = build()
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file in it"):
        fit(model, data, RECIPE, checkpoint=tmp_path, progress=False)
    (tmp_path / "text").write_text("mine", encoding="utf-8")
    with pytest.raises(NotADirectoryError, match="text is a file"):
        fit(model, data, RECIPE, checkpoint=tmp_path / "text" / "a.pt", progress=False)
    for wrong in (-1, "5", None, True):
        with pytest.raises(ValueError, match="checkpoint_minutes"):
            fit(model, data, RECIPE, checkpoint=tmp_path / "a.pt", checkpoint_minutes=wrong, progress=False)
    assert (tmp_path / "text").read_text(encoding="utf-8") == "mine" and not (tmp_path / "a.pt").exists()


def test_a_second_training_on_the_same_checkpoint_is_refused(file, whole):
    model, data = build()
    second = []

    def start():
        done = subprocess.run([sys.executable, str(SCRIPT), str(file)], capture_output=True, text=True, timeout=120)
        second.append(done.stderr)

    assert digest(model, fit(model, data, RECIPE, cut_off(5, start), checkpoint=file, progress=False)) == whole
    assert f"BlockingIOError: another training is writing to {file}" in second[0]
    assert fit(*build(), RECIPE, checkpoint=file, progress=False)  # the lock is gone


def test_what_holds_a_checkpoint_is_no_handler_of_a_thread(file):
    """In a thread there are no signals: the run goes on all the same."""
    import threading

    model, data = build()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(fit(model, data, RECIPE, checkpoint=file, progress=False)), daemon=True
    )
    thread.start()
    thread.join(60)
    assert len(found[0].train_loss) == 3


def test_a_drive_without_locks(file, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", no_locks)
    model, data = build()
    assert len(fit(model, data, RECIPE, checkpoint=file, progress=False).train_loss) == 3
