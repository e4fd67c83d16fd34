"""Forks, and the ends of a process: no thread, no server and no point is left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from servers import PATIENTLY, ROOT, WAIT, Door, Visdom, check_gone, eventually, needs_page, posix

from vgg_course.tracking import LossTracker

psutil = pytest.importorskip("psutil")


@posix
@needs_page
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
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
        list(range(8)), num_workers=2, multiprocessing_context="fork", collate_fn=lambda _: tracker(-1, {"loss": 0})
    )
    assert len(list(loader)) == 8
    tracker.close()
    lines = visdom.lines(f"loss {tracker._token}", tracker._page.env)
    assert lines == {"training, each step": (list(range(200)), [float(step) for step in range(200)])}


SCRIPT = """
import os, signal, sys, time
from vgg_course import own_server
from vgg_course.tracking import LossTracker
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would ignore Ctrl-C
tracker = LossTracker("ends", mode={mode!r})
tracker(0, {{"loss": 1.0}})
own = own_server._own
print("PORT", own.port if own else 0, own.process.pid if own else 0, own.folder if own else "-", flush=True)
{end}
"""


def start_script(end: str, mode: str = "visdom") -> subprocess.Popen:
    code = PATIENTLY + SCRIPT.format(end=end, mode=mode)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def its_server(process: subprocess.Popen) -> tuple[int, int, Path]:
    """Wait until the script says where its server is: port, process id, folder."""
    for line in process.stdout:
        if line.startswith("PORT"):
            _, port, pid, folder = line.split()
            assert int(port), "its server did not start in time"
            return int(port), int(pid), Path(folder)
    raise RuntimeError(process.communicate()[1])


ENDS = ["pass", "raise RuntimeError('in a cell')", "sys.exit(3)", "os._exit(0)"]
SIGNALS = {
    "time.sleep(300)": ["SIGKILL", "SIGINT", "SIGTERM"],
    "os.fork() or time.sleep(300); time.sleep(300)": ["SIGKILL"],
}


@needs_page
def test_our_server_ends_with_us():
    ends = [(end, None) for end in ENDS]
    if sys.platform != "win32":
        ends += [(end, name) for end, names in SIGNALS.items() for name in names]
    processes, servers = [], []
    try:
        for end, _ in ends:  # one by one: all at once, on an old machine, none has its server in time
            processes.append(start_script(end))
            servers.append(its_server(processes[-1]))
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
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=300, cwd=ROOT
        )
        assert done.returncode == 0 and done.stderr == ""
    finally:
        door.close()


@needs_page
def test_points_at_the_very_end_of_a_script_are_drawn(visdom):
    code = "from vgg_course.tracking import LossTracker\nt = LossTracker('end')\nfor i in range(50): t(i, {'loss': i})"
    subprocess.run([sys.executable, "-c", PATIENTLY + code], timeout=300, check=True, cwd=ROOT)
    windows = json.loads(visdom.ask("win_data", eid="vgg_course_end", win=None))
    assert [window["content"]["data"][0]["x"] for window in windows.values()] == [list(range(50))]


@posix
@needs_page
def test_a_server_under_nohup_outlives_its_terminal():
    ignored = (signal.SIGHUP, signal.SIGTERM)  # nohup ignores the first; a child inherits that
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        server = Visdom()
    finally:
        for number, how in zip(ignored, before, strict=True):
            signal.signal(number, how)
    try:
        server.process.send_signal(signal.SIGHUP)
        assert "main" in server.ask("env_state")
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1)
        server.process.terminate()  # but it can be ended
        assert server.process.wait(WAIT) == 0
    finally:
        server.stop()
