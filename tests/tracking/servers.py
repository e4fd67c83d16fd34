"""Servers for the tracker to meet: real ones, and a door before one that behaves badly."""

import contextlib
import http.server
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import requests
from ports import PATIENT, free_port

from vgg_course import visdom_server

posix = pytest.mark.skipif(sys.platform == "win32", reason="a signal or a fork, which Windows has not")
needs_page = pytest.mark.skipif(visdom_server.find_assets() is None, reason="run: make visdom's assets first")
ROOT = Path(__file__).parents[2]
WAIT = 120  # seconds; far more than anything takes, also on an old machine with other work to do
PATIENTLY = f"""
from vgg_course import live_page, tracking
live_page.TIMEOUT, tracking.LAST = {PATIENT}, {WAIT}
"""  # how the code of another process begins


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
        answer = requests.post(f"http://localhost:{self.port}/{endpoint}", json=message, timeout=60)
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
                    door.released.wait(600)
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
                    "late html": (200, b"\n<!doctype html>"),
                    "half json": (200, b'["main", "vgg'),
                }.get(door.mode, (200, b""))
                if door.mode in ("open", "slow"):
                    time.sleep(2.0 if door.mode == "slow" else 0)
                    url = f"http://localhost:{door.target}{self.path}"
                    answer = requests.post(url, data=body, timeout=60).content
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


def check_gone(port: int, pid: int, folder: Path, seconds: float = WAIT) -> None:
    """A server of ours has ended, and its folder is gone."""
    psutil = pytest.importorskip("psutil")
    eventually(lambda: is_free(port) and not psutil.pid_exists(pid) and not folder.exists(), seconds)
