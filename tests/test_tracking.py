"""LossTracker against the real thing: real visdom servers, killed and hung ones, real kernels, real forks."""

import contextlib
import http.server
import itertools
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from torch import nn

from vgg_course import curves, live_page, tracking, visdom_server
from vgg_course.data import Dataset, Images
from vgg_course.tracking import LossTracker, loss_tracker
from vgg_course.training import Recipe, fit

psutil = pytest.importorskip("psutil")
posix = pytest.mark.skipif(sys.platform == "win32", reason="a signal or a fork, which Windows has not")
needs_page = pytest.mark.skipif(visdom_server.find_assets() is None, reason="run: make visdom's assets first")
ROOT = Path(__file__).parents[1]
WAIT = 30  # seconds; far more than anything takes


# ------------------------------------------------------------------ servers to meet


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(check, seconds: float = WAIT):
    """``check()`` as soon as it is true; fails if it never is."""
    deadline, error = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            if value := check():
                return value
        except (ConnectionError, requests.RequestException, KeyError, ValueError) as reason:
            error = reason
        time.sleep(0.05)
    pytest.fail(f"it did not come true in {seconds} s: {error!r}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Visdom:
    """A real visdom server in a process of its own, as ``make visdom`` starts it."""

    def __init__(self, port: int | None = None) -> None:
        self.port, self.folder = port or free_port(), Path(tempfile.mkdtemp())
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "vgg_course.visdom_server", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--folder", str(self.folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        for line in self.process.stdout:
            if "visdom is ready" in line:
                return
        raise RuntimeError("no visdom server")

    def ask(self, endpoint: str, **message):
        answer = requests.post(f"http://localhost:{self.port}/{endpoint}", json=message, timeout=20)
        answer.raise_for_status()
        return answer.text

    def lines(self, window: str, env: str) -> dict[str, tuple[list, list]]:
        """The lines that a plot shows: name -> (x, y)."""
        data = json.loads(self.ask("win_data", eid=env, win=window))["content"]["data"]
        return {line["name"]: (line["x"], line["y"]) for line in data}

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.process.send_signal(getattr(signal, "SIGCONT", signal.SIGTERM))
            self.process.terminate()
            self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Door:
    """Stands before a real server, or before none, and behaves as ``mode`` says."""

    def __init__(self, target: int | None, mode: str) -> None:
        door = self
        self.target, self.mode = target, mode

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if door.mode == "silent":
                    door.released.wait(60)
                if door.mode == "closes":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf of ")
                    return self.connection.close()
                if door.mode == "trickles":
                    with contextlib.suppress(OSError):
                        for _ in range(200):
                            self.wfile.write(b"H")
                            if door.released.wait(0.3):
                                return None
                status, answer = {
                    "500": (500, b"oh"),
                    "html": (200, b"<html>"),
                    "half json": (200, b'["main", "vgg'),
                }.get(door.mode, (200, b""))
                if door.mode in ("open", "slow"):
                    time.sleep(2.0 if door.mode == "slow" else 0)
                    url = f"http://localhost:{door.target}{self.path}"
                    answer = requests.post(url, data=body, timeout=20).content
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # a client that went away
                pass

        self.released = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def visdom_at(monkeypatch):
    """``visdom_at(port)`` makes the tracker look there."""

    def at(port: int) -> None:
        monkeypatch.setenv("VISDOM_SERVER", "http://localhost")
        monkeypatch.setenv("VISDOM_PORT", str(port))

    monkeypatch.delenv("VGG_COURSE_PLOT", raising=False)
    monkeypatch.setattr(tracking, "LONGEST", tracking.SHORTEST)  # only so that the tests take less time
    at(free_port())
    return at


@pytest.fixture
def impatient(monkeypatch):
    """Wait for an answer for half a second: again only to save time."""
    monkeypatch.setattr(live_page, "TIMEOUT", (0.5, 0.5))


@pytest.fixture(autouse=True)
def nothing_stays(visdom_at):
    """Every test ends its trackers: no thread and no child of ours may be left."""
    yield
    for tracker in LossTracker._live.values():
        tracker.close()
    LossTracker._live.clear()
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "LossTracker"])
    if visdom_server._own:
        visdom_server._own.stop()
        visdom_server._own = None


@pytest.fixture(scope="module")
def shared_visdom():
    server = Visdom()
    yield server
    server.stop()


@pytest.fixture
def visdom(shared_visdom, visdom_at):
    """A real visdom server where the tracker looks for one."""
    visdom_at(shared_visdom.port)
    return shared_visdom


@pytest.fixture
def mortal(visdom_at):
    """A real visdom server that a test may kill."""
    server = Visdom()
    visdom_at(server.port)
    yield server
    server.stop()


# ------------------------------------------------------------------ a small training


EPOCHS, STEPS = 3, 20  # of 60 steps in all


def train(tracker=None, at=None, pause: float = 0.0):
    """Train a small network; ``at`` does things before a step. Returns the history and the weights."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (STEPS * 16, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = pixels.float().mean((1, 2, 3)).gt(127.5).long()
    images = Images(pixels, labels, ("dark", "bright"), "random", (0.5,) * 3, (0.29,) * 3)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))

    def track(step, values):
        if at and "epoch" not in values and step in at:
            at[step]()
        time.sleep(pause)
        if tracker:
            tracker(step, values)

    recipe = Recipe(epochs=EPOCHS, batch_size=16, lr=0.05, precision="fp32", device="cpu", channels_last=False)
    history = fit(model, Dataset(images, images, images, "random"), recipe, track, progress=False)
    return history, model.state_dict()


@pytest.fixture(scope="module")
def alone():
    """The same training without a tracker."""
    return train()


def check_same(run, alone) -> None:
    (history, weights), (wanted, wanted_weights) = run, alone
    assert len(history.batch_loss) == EPOCHS * STEPS
    for name in ("batch_loss", "train_loss", "validation_loss", "validation_accuracy"):
        assert getattr(history, name) == getattr(wanted, name)
    assert all(torch.equal(weights[name], wanted_weights[name]) for name in wanted_weights)


def check_drawn(server: Visdom, tracker: LossTracker, history) -> None:
    """The page shows every point of the run once, in order."""
    env, token = tracker._page.env, tracker._token
    ends, epochs = [STEPS * epoch - 1 for epoch in range(1, EPOCHS + 1)], list(range(1, EPOCHS + 1))
    wanted = {
        "loss": {
            "training, each step": (list(range(EPOCHS * STEPS)), history.batch_loss),
            "training, mean of the epoch": (ends, history.train_loss),
            "validation": (ends, history.validation_loss),
        },
        "accuracy": {"validation": (epochs, history.validation_accuracy)},
        "learning rate": {"learning rate": (list(range(EPOCHS * STEPS)), history.batch_learning_rate)},
    }
    eventually(lambda: {window: server.lines(f"{window} {token}", env) for window in wanted} == wanted)


# ------------------------------------------------------------------ the table: the server


@needs_page
def test_a_server_that_is_there_is_found(visdom, alone, capsys):
    tracker = LossTracker("found")
    assert f"http://localhost:{visdom.port}/env/vgg_course_found" in capsys.readouterr().out
    run = train(tracker)
    check_same(run, alone)
    check_drawn(visdom, tracker, run[0])
    tracker.close()
    assert capsys.readouterr() == ("", "")
    assert set(json.loads(visdom.ask("win_data", eid="main", win=None))) == set()  # nothing in the others' place


@needs_page
def test_no_server_then_one_comes_later(visdom_at, alone, capsys):
    port, later = free_port(), []
    visdom_at(port)
    tracker = LossTracker("late")
    run = train(tracker, {25: lambda: later.append(Visdom(port))}, pause=0.02)
    try:
        check_same(run, alone)
        eventually(lambda: tracker._page)
        check_drawn(later[0], tracker, run[0])
        tracker.close()
        said = capsys.readouterr()
        assert said.err == ""
        first, *rest = said.out.splitlines()
        assert "no visdom server answers" in first
        assert [line for line in rest if "epoch" not in line] == [
            f"a visdom server has come: the plot is also at {tracker._page.url}"
        ]
    finally:
        later[0].stop()


@pytest.mark.parametrize("mode", ["silent", "500", "html", "half json", "closes", "trickles"])
def test_a_server_that_is_no_use_from_the_start(mode, visdom_at, alone, capsys, impatient):
    door = Door(None, mode)
    try:
        visdom_at(door.port)
        tracker = LossTracker("useless")
        check_same(train(tracker), alone)
        tracker.close()
        said = capsys.readouterr()
        assert said.err == "" and "a line for each epoch" in said.out
        assert len(said.out.splitlines()) == 1 + EPOCHS
    finally:
        door.close()


def test_a_port_that_accepts_and_never_answers(visdom_at, alone, capsys, impatient):
    with socket.create_server(("127.0.0.1", 0)) as listening:  # the system accepts; nobody ever reads
        visdom_at(listening.getsockname()[1])
        tracker = LossTracker("deaf")
        check_same(train(tracker), alone)
        tracker.close()
    assert len(capsys.readouterr().out.splitlines()) == 1 + EPOCHS


def test_another_program_at_the_port(visdom_at, alone, capsys, tmp_path):
    handler = lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        visdom_at(other.server_address[1])
        tracker = LossTracker("other")
        check_same(train(tracker), alone)
        other.shutdown()
    assert "no visdom server" in capsys.readouterr().out.splitlines()[0]


@needs_page
@pytest.mark.parametrize("mode", ["silent", "500", "html", "half json", "closes", "trickles"])
def test_a_server_that_goes_bad_in_the_middle(mode, visdom, visdom_at, alone, capsys, impatient):
    door = Door(visdom.port, "open")
    try:
        visdom_at(door.port)
        tracker = LossTracker("bad")
        run = train(tracker, {10: lambda: setattr(door, "mode", mode)}, pause=0.02)
        check_same(run, alone)
        if mode != "trickles":  # which holds on for longer than a test should
            eventually(lambda: tracker._lost)
        door.mode = "open"
        door.released.set()
        check_drawn(visdom, tracker, run[0])
        eventually(lambda: not tracker._lost)
        tracker.close()
        said = capsys.readouterr()
        assert said.err == "" and len(said.out.splitlines()) <= 3  # found, lost, back
    finally:
        door.close()


@needs_page
def test_a_slow_server(visdom, visdom_at, alone, capsys):
    door = Door(visdom.port, "slow")  # 2 s for each answer
    try:
        visdom_at(door.port)
        tracker = LossTracker("slow")
        run = train(tracker)
        check_same(run, alone)
        check_drawn(visdom, tracker, run[0])
        door.mode = "open"
        tracker.close()
        assert len(capsys.readouterr().out.splitlines()) == 1
    finally:
        door.close()


@needs_page
def test_killed_and_started_again_empty(mortal, alone, capsys):
    tracker = LossTracker("killed")
    at = {20: mortal.kill, 40: mortal.start}
    run = train(tracker, at, pause=0.03)
    check_same(run, alone)
    check_drawn(mortal, tracker, run[0])
    eventually(lambda: not tracker._lost)
    tracker.close()
    said = capsys.readouterr()
    assert said.err == ""
    states = [line.partition(": ")[2] for line in said.out.splitlines()[1:]]
    assert states == [
        f"no visdom server answers at http://localhost:{mortal.port}; the points are kept until it is back",
        "the server is back and has the whole curve",
    ]


@needs_page
def test_a_server_that_is_replaced_while_nothing_is_sent(mortal, alone):
    tracker = LossTracker("replaced")
    run = train(tracker)
    check_drawn(mortal, tracker, run[0])
    mortal.kill()
    mortal.start()
    check_drawn(mortal, tracker, run[0])  # without another point


@posix
@needs_page
def test_a_server_that_is_stopped_and_goes_on(mortal, alone, capsys, impatient):
    tracker = LossTracker("stopped")
    run = train(tracker, {10: lambda: mortal.process.send_signal(signal.SIGSTOP)}, pause=0.02)
    check_same(run, alone)
    eventually(lambda: tracker._lost)
    mortal.process.send_signal(signal.SIGCONT)
    check_drawn(mortal, tracker, run[0])


@needs_page
def test_our_own_server_killed_comes_back_where_it_was(alone, capsys):
    tracker = LossTracker("own", mode="visdom")
    server = visdom_server._own
    url = tracker._page.url
    run = train(tracker, {20: server.process.kill}, pause=0.02)
    check_same(run, alone)
    eventually(lambda: visdom_server._own is not server and tracker._page.has(f"loss {tracker._token}"))
    assert tracker._page.url == url
    assert not Path(server.folder).exists()


@needs_page
def test_port_taken_by_someone_else(visdom_at):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "vgg_course.visdom_server", "--port", str(port)],
            capture_output=True, text=True, timeout=WAIT, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 1 and f"port {port} of 127.0.0.1 is taken" in done.stdout
        assert len(done.stdout.strip().splitlines()) <= 2  # 0.2.4 says "It's Alive!" too early
        visdom_at(port)
        tracker = LossTracker("elsewhere", mode="visdom")
        assert tracker._page.port != port
        tracker._page.check()


@needs_page
def test_a_server_whose_disk_is_gone(visdom_at, alone):
    server = Visdom()
    folder = server.folder
    try:
        visdom_at(server.port)
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        folder.rmdir()
        folder.write_text("a file where visdom wants to write")  # root may write where others may not
        assert (
            requests.post(f"http://localhost:{server.port}/save", json={"data": ["main"]}, timeout=9).status_code == 500
        )
        tracker = LossTracker("full")
        run = train(tracker)
        check_same(run, alone)
        check_drawn(server, tracker, run[0])
    finally:
        folder.unlink()
        server.stop()


def test_no_room_for_our_own_server(monkeypatch, alone, capsys, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    tracker = LossTracker("no room", mode="visdom")
    check_same(train(tracker), alone)
    out = capsys.readouterr().out
    assert "no server of its own" in out.splitlines()[0] and len(out.splitlines()) == 1 + EPOCHS


def test_no_assets_no_page(monkeypatch, alone, capsys):
    monkeypatch.setattr(visdom_server, "find_assets", lambda: None)
    tracker = LossTracker("no page", mode="visdom")
    check_same(train(tracker), alone)
    assert "the files of visdom's page are missing" in capsys.readouterr().out


# ------------------------------------------------------------------ the table: the values


@needs_page
def test_values_that_are_not_finite_are_gaps(visdom):
    tracker = LossTracker("gaps")
    values = [1.0, math.nan, 2.0, math.inf, 3.0, -math.inf, 4.0, 10**400, 5.0]
    for step, value in enumerate(values):
        tracker(step, {"loss": value})
    tracker.close()
    steps, drawn = visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"]
    assert steps == list(range(9))
    assert drawn == [1.0, None, 2.0, None, 3.0, None, 4.0, None, 5.0]


@needs_page
def test_every_kind_of_number(visdom):
    tracker = LossTracker("kinds")
    values = [
        1e308, -1e308, torch.tensor(0.5), torch.tensor([0.25]), torch.tensor([[2.0]], dtype=torch.bfloat16), 3,
        np.float32(0.125), np.array(4), torch.tensor(7), True, torch.tensor(1.5, requires_grad=True),
    ]  # fmt: skip
    if torch.cuda.is_available():
        values.append(torch.tensor([0.75], device="cuda"))
    for step, value in enumerate(values):
        tracker(torch.tensor(step), {"loss": value, "validation_loss": None})
    tracker.close()
    lines = visdom.lines(f"loss {tracker._token}", tracker._page.env)
    assert lines == {
        "training, each step": (
            list(range(len(values))),
            [float(getattr(value, "detach", lambda v=value: v)()) for value in values],
        )
    }


def test_a_tensor_on_a_device_is_read_by_the_drawing_thread_from_a_copy():
    waiting = torch.tensor([1.0], device="meta")  # a device whose values cannot be read: reading it would fail here
    kept = curves.number("loss", waiting)
    assert isinstance(kept, torch.Tensor) and kept is not waiting


def test_a_tensor_of_several_elements_is_refused():
    tracker = LossTracker("shape", mode="log")
    with pytest.raises(ValueError, match=r"loss must be a single number, not a tensor of shape \(2, 3\)"):
        tracker(0, {"loss": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="mode is 'page'"):
        LossTracker("shape", mode="page")


@needs_page
def test_steps_out_of_order_repeated_negative(visdom):
    tracker = LossTracker("order")
    for step, value in [(0, 1.0), (5, 2.0), (3, 3.0), (5, 4.0), (-2, 5.0), (-7, 6.0), (3, 7.0)]:
        tracker(step, {"loss": value})
    tracker.close()
    lines = visdom.lines(f"loss {tracker._token}", tracker._page.env)
    assert lines["training, each step"] == ([-7, -2, 0, 3, 5], [6.0, 5.0, 1.0, 7.0, 4.0])


@needs_page
def test_200_000_points(visdom):
    tracker = LossTracker("long")
    for step in range(200_000):
        value = {77_777: 99.0, 123_456: -5.0}.get(step, math.sin(step / 1000))
        tracker(step, {"loss": value})
        assert len(tracker._queue) <= 1_001
    tracker.close()
    assert len(tracker._curves["loss"].buckets) <= curves.MAX_BUCKETS
    x, y = eventually(
        lambda: (
            (line := visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"])[0][-1] > 199_000
            and line
        )
    )
    assert 1_000 < len(x) <= 5_000 and x == sorted(set(x))
    assert y[x.index(77_777)] == 99.0 and y[x.index(123_456)] == -5.0
    assert max(b - a for a, b in itertools.pairwise(x)) < 1_000  # thinned evenly
    assert all(abs(v - math.sin(s / 1000)) < 1e-9 for s, v in zip(x, y, strict=True) if s not in (77_777, 123_456))


def test_200_000_points_while_the_drawing_thread_is_stuck(visdom, visdom_at):
    door = Door(visdom.port, "open")
    visdom_at(door.port)
    tracker = LossTracker("stuck")
    door.mode = "silent"
    try:
        for step in range(200_000):
            tracker(step, {"loss": float(step % 1000)})
            assert len(tracker._queue) <= 1_001
        assert len(tracker._curves["loss"].points()[0]) <= 5_000
    finally:
        door.close()


def test_a_short_curve_loses_nothing():
    curve = curves.Curve()
    for step in range(3_000):
        curve.add(step, float(step * 7 % 13) if step % 50 else math.nan)
    steps, values = curve.points()
    assert steps == list(range(3_000))
    assert values == [float(step * 7 % 13) if step % 50 else None for step in steps]


def test_a_thinned_curve_keeps_extremes_and_gaps():
    curve = curves.Curve()
    for step in range(100_000):
        curve.add(step, math.nan if step % 2 else float(step == 50_000))
    steps, values = curve.points()
    assert len(steps) <= 5_000 and 1.0 in values and None in values


NAMES = {
    "slash": "a/b", "blanks": " two  words ", "hangul": "한국어", "emoji": "🦊 run", "long": "x" * 300,
    "long hangul": "가" * 300, "script": "<script>alert(1)</script>",
    "quotes": "it's \"q\" \\ `", "url": "a?b#c%20&d+e:*|",
    "empty": "", "dots": "../..", "control": "a\nb\x00c", "surrogate": "a\udc80b",
}  # fmt: skip


@needs_page
def test_run_names(visdom):
    envs = {}
    for name in NAMES.values():
        with LossTracker(name) as tracker:
            tracker(0, {"loss": 1.0})
        envs[name] = tracker._page.env
        assert visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"] == ([0], [1.0])
        assert requests.get(tracker._page.url, timeout=9).status_code == 200
    assert len(set(envs.values())) == len(NAMES)
    assert set(json.loads(visdom.ask("env_state"))) >= {"main", *envs.values()}
    assert envs["한국어"] == "vgg_course_한국어"
    for env in envs.values():
        assert not set(env) & set("/\\<>'\"`?#%&+:*|\n\x00") and len(env.encode()) < 120
    assert json.loads(visdom.ask("save", data=list(envs.values()))) == list(envs.values())  # each is a file name too


def test_names_that_become_alike_stay_apart():
    assert len({live_page.env_name(name) for name in ("a/b", "a_b", "a?b", "a b", " a b")}) == 5


# ------------------------------------------------------------------ runs


@needs_page
def test_the_same_run_again_replaces_its_plot(visdom, alone):
    with LossTracker("again") as tracker:
        train(tracker)
        tracker.figure("extra", live_page.Figure(figsize=(2, 2)))
    with LossTracker("again") as tracker:  # the cell is run again
        for step in range(3):
            tracker(step, {"loss": 9.0})
    windows = json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None))
    assert [window.partition(" ")[0] for window in windows] == ["loss"]
    assert visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"][0] == [0, 1, 2]
    with tracker:  # only the training is run again, with the same tracker
        run = train(tracker)
    check_same(run, alone)
    check_drawn(visdom, tracker, run[0])
    for step in range(5):
        tracker(step, {"loss": 8.0})
    tracker.close()
    assert visdom.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"] == (
        [0, 1, 2, 3, 4],
        [8.0] * 5,
    )
    windows = json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None))
    assert [window.partition(" ")[0] for window in windows] == ["loss"]


@needs_page
def test_several_runs_over_each_other(visdom):
    for name, rate in (("one <b>", 1.0), ("two", 2.0)):
        with LossTracker(name) as tracker:
            for step in range(4):
                tracker(step, {"loss": rate * step})
            tracker(3, {"epoch": 1, "train_loss": rate, "validation_loss": rate, "validation_accuracy": 0.5})
            tracker.overlay("one <b>") if name == "two" else None
    tracker.overlay("recorded", {"validation_accuracy": ([1, 2], [0.1, 0.2])})
    with pytest.raises(ValueError, match="there is no run 'three' here, only 'one <b>', 'two'"):
        tracker.overlay("three")
    tracker(4, {"loss": 8.0})
    tracker.close()
    env = tracker._page.env
    assert list(visdom.lines(f"loss {tracker._token}", env)) == [
        "training, each step", "training, mean of the epoch", "validation",
        "one &lt;b&gt;: training, mean of the epoch", "one &lt;b&gt;: validation",
    ]  # fmt: skip
    assert visdom.lines(f"accuracy {tracker._token}", env)["recorded: validation"] == ([1, 2], [0.1, 0.2])


@needs_page
def test_images_and_figures(visdom):
    tracker = LossTracker("pictures")
    tracker.images(torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8), torch.zeros(20).long(), ["<cat>"])
    tracker.figure("confusion matrix", live_page.Figure(figsize=(4, 2)))
    eventually(lambda: len(json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None))) == 2)
    tracker(0, {"loss": 1.0, "learning_rate": 0.1})
    tracker(0, {"epoch": 1, "validation_accuracy": 0.5})
    tracker.close()
    windows = json.loads(visdom.ask("win_data", eid=tracker._page.env, win=None))  # in the order of the page
    titles = ["loss", "accuracy", "learning rate", "confusion matrix", "first batch"]
    assert [window.rpartition(" ")[0] for window in windows] == titles
    for title in ("first batch", "confusion matrix"):
        window = json.loads(visdom.ask("win_data", eid=tracker._page.env, win=f"{title} {tracker._token}"))
        assert window["title"] == title and window["content"]["src"].startswith("data:image/png;base64,")
    LossTracker("pictures", mode="log").figure("nowhere", live_page.Figure())  # no page: nothing to do


@needs_page
def test_two_processes_with_one_run_name_have_two_plots(visdom):
    code = "from vgg_course.tracking import LossTracker\nwith LossTracker('same') as t: t(0, {'loss': %s})"
    processes = [subprocess.Popen([sys.executable, "-c", code % value], cwd=ROOT) for value in (1.0, 2.0)]
    assert [process.wait(WAIT) for process in processes] == [0, 0]
    windows = json.loads(visdom.ask("win_data", eid="vgg_course_same", win=None))
    assert sorted(window["content"]["data"][0]["y"] for window in windows.values()) == [[1.0], [2.0]]


@needs_page
def test_the_lectures_function_works_unchanged(mortal, capsys):
    tracker = LossTracker("lecture")
    loss_tracker(tracker, torch.Tensor([0.7]), torch.Tensor([30]))
    tracker.close()
    assert mortal.lines(f"loss {tracker._token}", tracker._page.env)["training, each step"] == (
        [30],
        [pytest.approx(0.7)],
    )
    # and with a window that the lecture's own code has opened in "main"
    plot = {"type": "scatter", "mode": "lines", "name": "1", "x": [0], "y": [0.0]}
    mortal.ask("events", win="theirs", eid="main", data=[plot], layout={}, opts={"title": "loss_tracker"})
    loss_tracker("theirs", torch.Tensor([0.5]), torch.Tensor([30]))
    loss_tracker("theirs", torch.Tensor([math.inf]), torch.Tensor([60]))
    assert mortal.lines("theirs", "main") == {"1": ([0, 30.0, 60.0], [0.0, 0.5, None])}
    capsys.readouterr()
    mortal.kill()
    for step in range(3):
        loss_tracker("theirs", torch.Tensor([0.5]), torch.Tensor([step]))
    assert capsys.readouterr().out.splitlines() == [
        f"loss_tracker: no visdom server answers at http://localhost:{mortal.port}"
    ]


def test_a_script_logs_a_line_for_each_epoch(alone, capsys):
    with LossTracker("script") as tracker:
        history = train(tracker)[0]
    said = capsys.readouterr()
    _, *lines = said.out.splitlines()
    assert said.err == "" and len(lines) == EPOCHS
    assert lines[1] == (
        f"script: epoch 2, train_loss {history.train_loss[1]:.4g}, validation_loss {history.validation_loss[1]:.4g}, "
        f"validation_accuracy {history.validation_accuracy[1]:.4g}"
    )


def test_off_is_off(alone, capsys, monkeypatch):
    monkeypatch.setenv("VGG_COURSE_PLOT", "off")
    tracker = LossTracker("nothing")
    check_same(train(tracker), alone)
    assert capsys.readouterr().out == "plot of 'nothing': off (asked for off)\n" and tracker._thread is None


@pytest.mark.parametrize(
    ("server", "port", "wanted"),
    [
        (None, None, ("http://localhost", 8097, "")), ("", "", ("http://localhost", 8097, "")),
        ("http://there:9000/visdom/", None, ("http://there", 9000, "/visdom")),
        ("there", "81", ("http://there", 81, "")),
        ("https://[::1]", "x", ("https://[::1]", 8097, "")),
    ],
)  # fmt: skip
def test_where_the_environment_says_to_look(server, port, wanted, monkeypatch):
    for name, value in (("VISDOM_SERVER", server), ("VISDOM_PORT", port)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert visdom_server.address() == wanted


# ------------------------------------------------------------------ forks, ends and doors


@posix
@needs_page
def test_a_fork_neither_hangs_nor_doubles_points(visdom):
    tracker = LossTracker("fork")
    for step in range(200):
        tracker(step, {"loss": float(step)})
        if step % 50 == 10:
            child = os.fork()
            if child == 0:
                try:
                    for again in range(300):
                        tracker(again, {"loss": -1.0})
                    tracker.close()
                    with LossTracker("of the child", mode="log") as own:
                        own(0, {"loss": 1.0})
                finally:
                    os._exit(0)
            eventually(lambda: os.waitpid(child, os.WNOHANG)[0] == child)  # noqa: B023
    loader = torch.utils.data.DataLoader(
        list(range(8)), num_workers=2, collate_fn=lambda items: tracker(-1, {"loss": 0})
    )
    assert len(list(loader)) == 8
    tracker.close()
    lines = visdom.lines(f"loss {tracker._token}", tracker._page.env)
    assert lines == {"training, each step": (list(range(200)), [float(step) for step in range(200)])}


SCRIPT = """
import os, signal, sys, time
from vgg_course import visdom_server
from vgg_course.tracking import LossTracker
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would ignore Ctrl-C
tracker = LossTracker("ends", mode={mode!r})
tracker(0, {{"loss": 1.0}})
own = visdom_server._own
print("PORT", own.port if own else 0, own.process.pid if own else 0, own.folder if own else "-", flush=True)
{end}
"""


def start_script(end: str, mode: str = "visdom") -> subprocess.Popen:
    code = SCRIPT.format(end=end, mode=mode)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def its_server(process: subprocess.Popen) -> tuple[int, int, Path]:
    """Wait until the script says where its server is: port, process id, folder."""
    for line in process.stdout:
        if line.startswith("PORT"):
            _, port, pid, folder = line.split()
            return int(port), int(pid), Path(folder)
    raise RuntimeError(process.communicate()[1])


def check_gone(port: int, pid: int, folder: Path, seconds: float = 10) -> None:
    eventually(lambda: is_free(port) and not psutil.pid_exists(pid) and not folder.exists(), seconds)


ENDS = ["pass", "raise RuntimeError('in a cell')", "sys.exit(3)", "os._exit(0)"]
SIGNALS = {
    "time.sleep(60)": ["SIGKILL", "SIGINT", "SIGTERM"],
    "os.fork() or time.sleep(60); time.sleep(60)": ["SIGKILL"],
}


@needs_page
def test_our_server_ends_with_us():
    ends = [(end, None) for end in ENDS]
    if sys.platform != "win32":
        ends += [(end, name) for end, names in SIGNALS.items() for name in names]
    processes = [start_script(end) for end, _ in ends]
    try:
        servers = [its_server(process) for process in processes]
        for (end, name), process, server in zip(ends, processes, servers, strict=True):
            forks = []
            if "fork" in end:
                eventually(lambda: len(psutil.Process(process.pid).children()) == 2)  # noqa: B023
                forks = [child for child in psutil.Process(process.pid).children() if child.pid != server[1]]
            if name:
                process.send_signal(getattr(signal, name))
            process.wait(WAIT)
            check_gone(*server)
            for child in forks:  # a fork of ours has the same pipe, and may live on
                assert child.is_running()
                child.kill()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_no_thread_keeps_a_process_alive():
    door = Door(None, "silent")
    try:
        environ = {**os.environ, "VISDOM_PORT": str(door.port)}
        code = SCRIPT.format(end="", mode="auto")
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, cwd=ROOT
        )
        assert done.returncode == 0 and done.stderr == ""
    finally:
        door.close()


@needs_page
def test_points_at_the_very_end_of_a_script_are_drawn(visdom):
    code = "from vgg_course.tracking import LossTracker\nt = LossTracker('end')\nfor i in range(50): t(i, {'loss': i})"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True, cwd=ROOT)
    windows = json.loads(visdom.ask("win_data", eid="vgg_course_end", win=None))
    assert [window["content"]["data"][0]["x"] for window in windows.values()] == [list(range(50))]


@needs_page
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no second loopback address")
def test_our_server_listens_on_the_loopback_address_only():
    port = LossTracker("local", mode="visdom")._page.port
    addresses = {
        tuple(c.laddr) for c in psutil.Process(visdom_server._own.process.pid).net_connections() if c.status == "LISTEN"
    }
    assert addresses == {("127.0.0.1", port)}


@needs_page
def test_foreign_pages_are_refused():
    websocket = pytest.importorskip("websocket")
    tracker = LossTracker("door", mode="visdom")
    port = tracker._page.port
    own, foreign = f"http://localhost:{port}", "http://evil.example"
    for path in ("socket", "vis_socket"):
        for origin in (foreign, "http://localhost:1", "null"):
            with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
                websocket.create_connection(f"ws://localhost:{port}/{path}", origin=origin, timeout=9)
        websocket.create_connection(f"ws://localhost:{port}/{path}", origin=own, timeout=9).close()
    for headers in ({"Origin": foreign}, {"Host": f"evil.example:{port}"}, {"Origin": foreign, "Host": "evil.example"}):
        assert requests.post(f"{own}/env_state", json={}, headers=headers, timeout=9).status_code == 403
        assert requests.get(f"{own}/", headers=headers, timeout=9).status_code == 403
    assert requests.post(f"{own}/env_state", json={}, headers={"Origin": own}, timeout=9).status_code == 200


@needs_page
def test_the_page_has_all_its_files_and_their_licences():
    page = LossTracker("files", mode="visdom")._page
    text = requests.get(page.url, timeout=9).text
    static = visdom_server.find_assets()
    names = [name for files in visdom_server.ASSETS.values() for name in files.values()]
    assert "js/plotly-plotly.min.js" in text
    for name in names:
        answer = requests.get(f"{page.address}/static/{name}", timeout=9)
        assert answer.status_code == 200 and answer.content == (static / name).read_bytes()
    if static == visdom_server.assets_folder() / "static" and (static.parent / "licenses").exists():
        for package in visdom_server.ASSETS:
            assert list((static.parent / "licenses" / package.replace("@", "-")).iterdir())
    assert visdom_server.install_assets().endswith(str(static))  # a second time: nothing to do


@pytest.fixture
def empty_environment(monkeypatch, tmp_path):
    """As if the page's files had never been fetched, with visdom's own download out of reach."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    pristine = tmp_path / "visdom" / "static"
    pristine.mkdir(parents=True)
    (pristine / "index.html").write_text("a page")
    monkeypatch.setattr(visdom_server.visdom, "__file__", str(pristine.parent / "__init__.py"))
    return tmp_path


def stand_in_for_npm(folder: Path, monkeypatch, leave_out: str = "") -> None:
    """A program ``npm`` whose packages hold what is asked for; those named in ``leave_out`` are empty."""
    code = f"""#!{sys.executable}
import io, sys, tarfile
sys.path.insert(0, {str(ROOT)!r})
from vgg_course.visdom_server import ASSETS
folder = sys.argv[sys.argv.index("--pack-destination") + 1]
for package in sys.argv[sys.argv.index(folder) + 1:]:
    with tarfile.open(f"{{folder}}/{{package.replace('@', '-')}}.tgz", "w:gz") as archive:
        for name in [] if package == {leave_out!r} else [*ASSETS[package], "LICENSE", "../../outside", "other.js"]:
            member = tarfile.TarInfo(f"package/{{name}}")
            member.size = len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
"""
    (folder / "bin").mkdir()
    (folder / "bin" / "npm").write_text(code)
    (folder / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)


@posix
def test_the_pages_files_come_from_npm_where_visdoms_download_fails(empty_environment, monkeypatch):
    stand_in_for_npm(empty_environment, monkeypatch)
    assert "fetched from npm" in visdom_server.install_assets()
    static = visdom_server.find_assets()
    assert static == visdom_server.assets_folder() / "static" and (static / "index.html").read_text() == "a page"
    for package, files in visdom_server.ASSETS.items():
        assert all((static / place).read_text() == name for name, place in files.items())
        assert (static.parent / "licenses" / package.replace("@", "-") / "LICENSE").exists()
    assert not [path for path in empty_environment.rglob("*") if path.name in ("outside", "other.js")]
    assert [path.name for path in static.parents[1].iterdir()] == [static.parent.name]  # nothing half done
    assert "are there" in visdom_server.install_assets()


@posix
def test_without_the_pages_files_the_reason_is_told(empty_environment, monkeypatch):
    with monkeypatch.context() as without_npm:
        without_npm.setenv("PATH", str(empty_environment))
        with pytest.raises(RuntimeError, match="there is no npm"):
            visdom_server.install_assets()
    stand_in_for_npm(empty_environment, monkeypatch, leave_out="sjcl@1.0.7")
    with pytest.raises(RuntimeError, match="other files"):
        visdom_server.install_assets()
    (empty_environment / "bin" / "npm").write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    with pytest.raises(RuntimeError, match="nor did npm: no such registry"):
        visdom_server.install_assets()
    assert visdom_server.find_assets() is None and not list(visdom_server.assets_folder().parent.iterdir())
    monkeypatch.setattr(sys, "argv", ["visdom_server", "--assets"])
    with pytest.raises(SystemExit):
        visdom_server.main()


# ------------------------------------------------------------------ notebooks


class Shell:
    """What live_page asks of IPython in a kernel, and a record of what is shown."""

    kernel, cell = object(), "first"

    def __init__(self) -> None:
        self.shown: list[tuple[str, dict]] = []

    def get_parent(self) -> dict:
        return {"header": {"msg_id": self.cell}}

    def publish(self, data, metadata=None, transient=None, update=False, **_) -> None:
        display = transient["display_id"]
        if update:
            assert display in dict(self.shown)
        self.shown = [(name, old) for name, old in self.shown if name != display or not update]
        self.shown.append((display, data))


@pytest.fixture
def shell(monkeypatch):
    """The process looks like a notebook's kernel."""
    functions = pytest.importorskip("IPython.core.display_functions")
    shell = Shell()
    monkeypatch.setattr(live_page, "notebook", lambda: shell)
    monkeypatch.setattr(functions, "publish_display_data", shell.publish)
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return shell


def test_inline_in_a_notebook(shell, alone, capsys, monkeypatch):
    monkeypatch.setenv("VGG_COURSE_PLOT", "inline")
    with LossTracker("inline $x$") as tracker:
        shell.cell = "second"
        check_same(train(tracker, pause=0.02), alone)
        tracker(60, {"loss": math.nan, "another": 1.0})
    assert capsys.readouterr() == ("plot of 'inline $x$': below the cell (asked for inline)\n", "")
    (_, moved), (_, curve) = shell.shown
    assert moved["text/plain"] == "The plot is below a later cell."
    assert curve["image/png"].startswith("iVBOR") and "last: loss nan, learning_rate" in curve["text/plain"]


@needs_page
def test_a_page_in_a_notebook(shell, alone, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/03.ipynb")
    tracker = LossTracker("<i>page")
    ((_, frame),) = shell.shown
    url = tracker._page.url
    assert url in frame["text/html"] and frame["text/plain"] == f"live plot: {url}" and "<i>" not in frame["text/html"]
    check_same(train(tracker), alone)
    assert live_page.window_token() == tracker._token
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/05.ipynb")
    assert live_page.window_token() != tracker._token
    tracker.close()
    ((_, picture),) = shell.shown
    assert set(picture) == {"image/png", "text/plain"}


@needs_page
def test_no_server_in_a_notebook_is_inline_until_one_comes(shell, visdom_at, alone, monkeypatch):
    visdom_at(port := free_port())
    with monkeypatch.context() as context:
        context.setattr(visdom_server, "find_assets", lambda: None)
        tracker = LossTracker("inline first")
    run = train(tracker)
    check_same(run, alone)
    eventually(lambda: "image/png" in shell.shown[-1][1])
    server = Visdom(port)
    try:
        eventually(lambda: tracker._page)
        check_drawn(server, tracker, run[0])
    finally:
        server.stop()


@needs_page
@pytest.mark.parametrize("works", [True, False])
def test_colab(works, shell, alone, monkeypatch, capsys):
    """Not run on Colab itself: a stand-in for its module, with the documented function."""
    asked = []

    def serve(port, path="/", height="400"):
        asked.append((port, path))
        if not works:
            raise RuntimeError("no frames today")

    module = types.ModuleType("google.colab.output")
    module.serve_kernel_port_as_iframe = serve
    for name in ("google", "google.colab"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.colab.output", module)
    tracker = LossTracker("colab")
    page = requests.get(f"http://localhost:{visdom_server._own.port}/", timeout=9).text
    assert "USE_POLLING = ('True'" in page  # websockets do not pass there
    check_same(train(tracker), alone)
    tracker.close()
    assert asked == [(visdom_server._own.port, "/env/vgg_course_colab")]
    assert ("Colab does not show the page" in capsys.readouterr().out) == (not works)
    assert "image/png" in shell.shown[-1][1]


@needs_page
def test_behind_jupyter_server_proxy_the_path_is_the_proxys(shell, monkeypatch):
    monkeypatch.setattr(live_page.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
    tracker = LossTracker("proxied")
    port = visdom_server._own.port
    assert tracker._page.path == f"/user/me/proxy/absolute/{port}/env/vgg_course_proxied"
    assert requests.get(tracker._page.url, timeout=9).status_code == 200
    url = f"{tracker._page.address}{tracker._page.base_url}/env_state"
    for host, origin, status in (
        ("hub.example", "https://hub.example", 200),  # the proxy hands on what the browser has asked for
        ("127.0.0.2:8888", "http://127.0.0.2:8888", 200),
        (f"localhost:{port}", f"http://localhost:{port}", 200),
        ("hub.example", "https://evil.example", 403),
        (f"evil.example:{port}", f"http://evil.example:{port}", 403),  # a name that leads to 127.0.0.1
        ("evil.example:x", "http://evil.example:x", 403),
    ):
        headers = {"Host": host, "Origin": origin}
        assert requests.post(url, json={}, headers=headers, timeout=9).status_code == status, host
    assert requests.post(url, json={}, timeout=9).status_code == 200


@pytest.fixture
def kernel(visdom_at, tmp_path, monkeypatch):
    """A real kernel, and a function that runs a cell in it: its text output and its displays."""
    manager_module = pytest.importorskip("jupyter_client.manager")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    manager, client = manager_module.start_new_kernel(cwd=str(ROOT), startup_timeout=60)
    outputs = []

    def run(code: str, wait: bool = True) -> str:
        outputs.clear()
        if not wait:
            client.execute(code)
            return ""
        client.execute_interactive(code, output_hook=outputs.append, timeout=WAIT)
        return "".join(o["content"]["text"] for o in outputs if o["msg_type"] == "stream")

    run.manager, run.client, run.outputs = manager, client, outputs
    yield run
    client.stop_channels()
    if manager.is_alive():
        manager.shutdown_kernel(now=True)


START = """
from vgg_course import visdom_server
from vgg_course.tracking import LossTracker
tracker = LossTracker("kernel")
tracker(0, {"loss": 1.0})
own = visdom_server._own
print("PORT", own.port, own.process.pid, own.folder)
"""


def server_of(run) -> tuple[int, int, Path]:
    said = run(START)
    assert "a visdom server of its own" in said and "http://localhost:" in said
    assert [o["msg_type"] for o in run.outputs if o["msg_type"] == "display_data"] == ["display_data"]
    _, port, pid, folder = said[said.index("PORT") :].split()
    return int(port), int(pid), Path(folder)


@posix
@needs_page
def test_a_kernel_that_is_interrupted_restarted_killed(kernel):
    server = server_of(kernel)
    kernel("raise RuntimeError('in a cell')")
    kernel("import time\nfor step in range(1000):\n    tracker(step, {'loss': 1.0}); time.sleep(0.05)", wait=False)
    time.sleep(1)
    kernel.manager.interrupt_kernel()
    kernel("1")
    assert not is_free(server[0])  # the stop button ends the training, not the page
    kernel.manager.restart_kernel(now=True)  # Jupyter kills the kernel with SIGKILL
    check_gone(*server)
    kernel.client.wait_for_ready(timeout=60)
    server = server_of(kernel)
    os.kill(kernel.manager.provisioner.process.pid, signal.SIGKILL)
    check_gone(*server)


@needs_page
def test_nbval_leaves_nothing(tmp_path, visdom_at):
    pytest.importorskip("nbval")
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": [], "id": "a"}
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{START}\nopen('server', 'w').write(str(own.port))"
    cells = [{**cell, "source": code, "metadata": {"tags": ["nbval-ignore-output"]}}, {**cell, "id": "b", "source": ""}]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "n.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout
    eventually(lambda: is_free(int((tmp_path / "server").read_text())), 10)
