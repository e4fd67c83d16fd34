"""In notebooks: the frame, the picture below the cell, Colab, a proxy, real kernels."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from ports import free_port
from servers import PATIENTLY, ROOT, WAIT, Visdom, check_gone, eventually, is_free, needs_page, posix
from small_run import check_drawn, check_same, train

from vgg_course import curves, live_page, own_server, visdom_server
from vgg_course.tracking import LossTracker


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
    tracker.overlay("later", {"train_loss": ([1], [0.3])})  # also when it has been closed
    assert shell.shown[-1][1]["image/png"] != curve["image/png"] and curve in dict(shell.shown).values()


def test_a_picture_that_cannot_be_drawn_fails_no_cell(shell, monkeypatch, capsys):
    monkeypatch.setenv("VGG_COURSE_PLOT", "inline")

    def no_latex(*_):
        raise RuntimeError("no latex")

    with LossTracker("broken") as tracker:
        monkeypatch.setattr(curves, "picture_of", no_latex)
        tracker(0, {"loss": 1.0})
    assert capsys.readouterr().out.splitlines()[-1] == "no picture of 'broken': RuntimeError('no latex')"


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
def test_colab(works, shell, alone, on_colab, capsys):
    """Not run on Colab itself: tests/conftest.py has a stand-in for its module, with the documented function."""
    asked = on_colab("" if works else "no frames today")
    tracker = LossTracker("colab")
    page = requests.get(f"http://localhost:{own_server._own.port}/", timeout=60).text
    assert "USE_POLLING = ('True'" in page  # websockets do not pass there
    for host in ("colab.research.google.com", "localhost:8080", "x-8097-colab.googleusercontent.com"):  # its proxy's
        headers = {"Host": host, "Origin": "https://x-8097-colab.googleusercontent.com"}
        url = f"http://localhost:{own_server._own.port}/env_state"
        assert requests.post(url, json={}, headers=headers, timeout=60).status_code == 200, host
    check_same(train(tracker), alone)
    tracker.close()
    assert asked == [(own_server._own.port, "/env/vgg_course_colab")]
    assert ("Colab does not show the page" in capsys.readouterr().out) == (not works)
    assert "image/png" in shell.shown[-1][1]


@needs_page
def test_behind_jupyter_server_proxy_the_path_is_the_proxys(shell, monkeypatch):
    monkeypatch.setattr(live_page.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
    tracker = LossTracker("proxied")
    port = own_server._own.port
    assert tracker._page.path == f"/user/me/proxy/absolute/{port}/env/vgg_course_proxied"
    assert requests.get(tracker._page.url, timeout=60).status_code == 200
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
        assert requests.post(url, json={}, headers=headers, timeout=60).status_code == status, host
    assert requests.post(url, json={}, timeout=60).status_code == 200


@pytest.fixture
def kernel(visdom_at, tmp_path, monkeypatch):
    """A real kernel, and a function that runs a cell in it: its text output and its displays."""
    manager_module = pytest.importorskip("jupyter_client.manager")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    manager, client = manager_module.start_new_kernel(cwd=str(ROOT), startup_timeout=300)
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


START = f"""{PATIENTLY}
from vgg_course import own_server
from vgg_course.tracking import LossTracker
tracker = LossTracker("kernel")
tracker(0, {{"loss": 1.0}})
own = own_server._own
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
    kernel.client.wait_for_ready(timeout=300)
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
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "n.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    eventually(lambda: is_free(int((tmp_path / "server").read_text(encoding="utf-8"))))
