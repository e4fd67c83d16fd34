"""LossTracker against real visdom servers: present, late, deaf, slow, killed, full."""

import http.server
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import requests
import torch
from ports import free_port
from servers import ROOT, WAIT, Door, Visdom, eventually, needs_page, posix
from small_run import EPOCHS, check_drawn, check_same, train

from vgg_course import live_page, own_server, tracking, visdom_server
from vgg_course.tracking import LossTracker


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


def test_python_3_12_starts_no_thread_while_it_ends(monkeypatch):
    def too_late(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", too_late)
    with pytest.raises(ConnectionError, match="interpreter shutdown"):
        live_page.find("x")


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
def test_a_server_that_goes_bad_in_the_middle(mode, visdom, visdom_at, alone, capsys, monkeypatch):
    door = Door(visdom.port, "open")

    def go_bad(impatient) -> None:
        impatient.setattr(live_page, "TIMEOUT", (0.5, 0.5))  # from now on: a slow machine keeps a good server
        door.mode = mode

    try:
        visdom_at(door.port)
        tracker = LossTracker("bad")
        with monkeypatch.context() as impatient:
            run = train(tracker, {10: lambda: go_bad(impatient)}, pause=0.02)
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

    def start() -> None:
        eventually(lambda: tracker._lost)
        mortal.start()

    at = {20: mortal.kill, 40: start}
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
def test_a_server_that_comes_back_empty_before_a_picture_has_moved(mortal):
    tracker = LossTracker("picture first")
    tracker.images(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2).long())
    eventually(lambda: "first batch" in tracker._sent and tracker._page.has(tracker._sent["first batch"]))
    mortal.kill()
    mortal.start()
    tracker(0, {"loss": 1.0})
    eventually(lambda: tracker._page.has(f"loss {tracker._token}"))
    tracker.close()


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
def test_a_server_that_is_stopped_and_goes_on(mortal, alone, capsys, monkeypatch):
    tracker = LossTracker("stopped")

    def stop(impatient) -> None:
        impatient.setattr(live_page, "TIMEOUT", (0.5, 0.5))
        mortal.process.send_signal(signal.SIGSTOP)

    with monkeypatch.context() as impatient:
        run = train(tracker, {10: lambda: stop(impatient)}, pause=0.02)
        check_same(run, alone)
        eventually(lambda: tracker._lost)
    mortal.process.send_signal(signal.SIGCONT)
    check_drawn(mortal, tracker, run[0])


@needs_page
def test_our_own_server_killed_comes_back_where_it_was(alone, capsys):
    tracker = LossTracker("own", mode="visdom")
    server = own_server._own
    url = tracker._page.url
    run = train(tracker, {20: server.process.kill}, pause=0.02)
    check_same(run, alone)
    eventually(lambda: own_server._own is not server and tracker._page.has(f"loss {tracker._token}"))
    assert tracker._page.url == url
    assert not Path(server.folder).exists()


@needs_page
def test_port_taken_by_someone_else(visdom_at, monkeypatch):
    find = live_page.find

    def find_soon(env):
        with monkeypatch.context() as impatient:
            impatient.setattr(live_page, "TIMEOUT", (0.5, 0.5))
            return find(env)

    monkeypatch.setattr(live_page, "find", find_soon)
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
        folder.write_text("a file where visdom wants to write", encoding="utf-8")  # root may write where others may not
        assert (
            requests.post(f"http://localhost:{server.port}/save", json={"data": ["main"]}, timeout=60).status_code
            == 500
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


def test_an_address_that_is_none_and_a_folder_that_is_gone(monkeypatch, alone, capsys, tmp_path):
    monkeypatch.setenv("VISDOM_SERVER", "http://[::1")

    def gone():
        raise FileNotFoundError

    monkeypatch.setattr(live_page.os, "getcwd", gone)
    tracker = LossTracker("nowhere")
    check_same(train(tracker), alone)
    for step in range(2):
        tracking.append_to_window("theirs", step, 0.5)
    first, *rest = capsys.readouterr().out.splitlines()
    assert "a line for each epoch (VISDOM_SERVER is no address" in first
    assert [line for line in rest if "epoch" not in line] == [
        "loss_tracker: VISDOM_SERVER is no address (Invalid IPv6 URL)"
    ]


def test_a_folder_whose_name_is_no_utf8(monkeypatch, alone):
    monkeypatch.setattr(live_page.os, "getcwd", lambda: "b\udce9")  # as Python reads the byte E9
    with LossTracker("odd folder", mode="log") as tracker:
        check_same(train(tracker), alone)


@pytest.mark.parametrize("mode", ["html", "late html", "trickles"])
def test_the_lectures_function_at_a_server_that_is_no_use(mode, visdom_at, monkeypatch, capsys):
    in_time = live_page._in_time  # only the whole answer has a short time, not each of its bytes
    monkeypatch.setattr(live_page, "_in_time", lambda page, ask, _: in_time(page, ask, 1.0))
    door = Door(None, mode)
    try:
        visdom_at(door.port)
        for step in range(3):
            tracking.append_to_window("theirs", step, 0.5)
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("loss_tracker: what ") and str(door.port) in line
    finally:
        door.close()
        tracking._silent.clear()


def test_the_lectures_function_and_a_host_that_cannot_be(monkeypatch, capsys):
    monkeypatch.setenv("VISDOM_SERVER", "http://a..b")
    for step in range(3):
        tracking.append_to_window("theirs", step, 0.5)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("loss_tracker: no visdom server answers at http://a..b:")
    tracking._silent.clear()


def test_no_assets_no_page(monkeypatch, alone, capsys):
    monkeypatch.setattr(visdom_server, "find_assets", lambda: None)
    tracker = LossTracker("no page", mode="visdom")
    check_same(train(tracker), alone)
    assert "the files of visdom's page are missing" in capsys.readouterr().out
