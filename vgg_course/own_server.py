"""This process's own visdom server: a child process that ends with it, however it ends.

Its page is shown below a notebook's cell where nobody runs a server for all notebooks. What runs in the child is
``visdom_server.py``.
"""

import atexit
import contextlib
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from vgg_course import visdom_server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class OwnServer:
    """A visdom server of this process's own: a child that ends with it, even if it is killed. See ``own``."""

    def __init__(self, base_url: str, polling: bool, port: int | None = None) -> None:
        self.port, self.pid = port or _free_port(), os.getpid()
        self.base_url = base_url.format(port=self.port)
        self.folder = tempfile.mkdtemp(prefix="vgg_course_visdom_")
        # The file by its path (-P: without its folder among the modules), for the package may be known to us alone.
        command = [sys.executable, "-P", visdom_server.__file__, "--child", f"--base-url={self.base_url}"]
        command += ["--port", str(self.port), "--folder", self.folder, *(["--polling"] if polling else [])]
        # A session of its own: a notebook's stop button sends Ctrl-C to the whole group of the kernel.
        apart = {"creationflags": 0x08000200} if sys.platform == "win32" else {"start_new_session": True}
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, **apart
            )
        except OSError:  # no process to be had
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        assert self.process.stdin and self.process.stdout  # they are pipes
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        # A forked child (a DataLoader's worker) must not keep the server alive by holding the pipe too.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.stdin.close)

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        """Return when it listens. Raises ``RuntimeError`` with its reason if it ends, or says nothing in time."""
        said: queue.Queue[str] = queue.Queue()

        def listen() -> None:
            with self.stdout:
                for line in self.stdout:
                    said.put(line)
            said.put("FAILED it ended at once")

        threading.Thread(target=listen, daemon=True).start()
        deadline, line = time.monotonic() + seconds, ""
        while not line.startswith(("READY", "FAILED")):  # visdom says other things too
            try:
                line = said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = f"FAILED it was not ready in {seconds:g} s"
            except BaseException:  # the stop button
                self.stop()
                raise
        if line.startswith("FAILED"):
            self.stop()
            raise RuntimeError(line.removeprefix("FAILED").strip())

    def stop(self) -> None:
        """End it now. Does nothing in a fork of the process that started it."""
        if os.getpid() != self.pid:
            return
        with contextlib.suppress(OSError):
            self.stdin.close()  # the gentle way: it tidies up and goes
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)  # for one that was killed


_own: OwnServer | None = None
_own_lock = threading.Lock()


@atexit.register
def _stop() -> None:
    """At the end of the process: after the trackers, registered later, have sent it their last points."""
    if _own:
        _own.stop()


def own(base_url: str = "", polling: bool = False) -> OwnServer:
    """This process's own server, started at the first call. ``{port}`` in ``base_url`` stands for its port.

    One that was killed is started again where it was, so that open pages find it. Raises ``RuntimeError`` with the
    reason if it cannot be started.
    """
    global _own
    with _own_lock:
        mine = _own if _own and _own.pid == os.getpid() else None
        if mine and mine.process.poll() is None:
            return mine
        if mine:
            mine.stop()  # it was killed: tidy up after it
        if visdom_server.find_assets() is None:
            raise RuntimeError("the files of visdom's page are missing (python -m vgg_course.visdom_server --assets)")
        for port in (mine.port if mine else None, None):
            try:
                server = OwnServer(base_url, polling, port)
                server.wait_until_ready()
            except (OSError, RuntimeError) as error:  # no process to be had; or its port was taken by someone faster
                reason = error
            else:
                _own = server
                return server
        raise RuntimeError(f"a visdom server did not start: {reason}")
