"""tools/environment.py takes the small PyTorch where that will do, and says which."""

import contextlib
import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from environment_script import load_script

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a question on Linux only")


class Torch:
    """The script as a module, in an empty project, where only a note is taken of what is to be installed."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.script = load_script()
        self.venv, self.calls, self.fails = folder / ".venv", [], False
        monkeypatch.setattr(self.script, "VENV", self.venv)
        monkeypatch.setattr(self.script, "PATIENCE", 30)  # a busy machine answers late
        monkeypatch.setattr(self.script, "add", self.add)
        monkeypatch.setattr(self.script, "PYTHON", Path(sys.executable))  # whose pip tells its settings
        monkeypatch.setattr(self.script, "has_nvidia_driver", lambda: False)
        for name in ("VGG_COURSE_TORCH", "PIP_INDEX_URL", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # no settings of this machine
        self.monkeypatch = monkeypatch

    def add(self, *packages: str, index: str | None = None) -> None:
        self.calls.append((index, *packages))
        if self.fails:
            raise SystemExit("environment: the package index has no fitting package")

    def index(self, url: str) -> str:
        self.monkeypatch.setattr(self.script, "CPU_INDEX", url)
        return url


@pytest.fixture
def torch(tmp_path, monkeypatch):
    return Torch(tmp_path, monkeypatch)


@contextlib.contextmanager
def server(page: bytes, code: int = 200):
    """A package index on this machine; yields its address and the paths that it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/whl/cpu", asked
        httpd.shutdown()
        thread.join()


PAGE = b'<a href="/whl/cpu/torch-2.14.1%2Bcpu-cp311-cp311-linux_x86_64.whl">torch-2.14.1+cpu</a>'
NEEDS = ("torch>=2.6", "torchvision>=0.21")


@LINUX
class TestWhichTorch:
    def test_the_index_for_the_processor_answers(self, torch, capsys):
        with server(PAGE) as (url, asked):
            torch.index(url)
            torch.script.install_torch()
        assert asked == ["/whl/cpu/torch/"]
        assert torch.calls == [(url, *NEEDS)]
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "without CUDA" in said and "VGG_COURSE_TORCH=plain" in said

    @pytest.mark.parametrize(("page", "code"), [(b"<h1>Welcome to our hotel</h1>", 200), (PAGE, 403), (PAGE, 404)])
    def test_something_else_answers(self, torch, capsys, page, code):
        with server(page, code) as (url, _):
            torch.index(url)
            torch.script.install_torch()
        assert torch.calls == []
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "does not answer" in said and "VGG_COURSE_TORCH=cpu" in said

    def test_nobody_answers_in_time(self, torch, capsys):
        torch.monkeypatch.setattr(torch.script, "pip_settings", dict)  # pip takes its time to tell them
        torch.monkeypatch.setattr(torch.script, "PATIENCE", 1)
        with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes the call and says nothing
            torch.index(f"http://127.0.0.1:{silent.getsockname()[1]}")
            asking = threading.Thread(target=torch.script.install_torch, daemon=True)
            asking.start()
            asking.join(120)
            assert not asking.is_alive()
        assert torch.calls == [] and "does not answer" in capsys.readouterr().out

    def test_the_look_up_of_the_name_hangs(self, torch, monkeypatch):
        over, ended = threading.Event(), []

        def hang(*_, **__):
            over.wait(60)
            ended.append(True)
            raise OSError

        monkeypatch.setattr(torch.script, "PATIENCE", 1)
        monkeypatch.setattr(torch.script.urllib.request, "urlopen", hang)
        monkeypatch.setattr(torch.script, "pip_settings", dict)  # pip takes its time to tell them
        torch.script.install_torch()
        assert not ended and torch.calls == []  # it went on while the look-up still hung
        over.set()

    def test_it_answers_but_has_nothing_for_this_machine(self, torch, capsys):
        torch.fails = True
        with server(PAGE) as (url, _):
            torch.index(url)
            torch.script.install_torch()
        assert "the plain package instead (environment: the package index has no fitting" in capsys.readouterr().out

    def test_asked_for_by_name_it_is_never_replaced(self, torch, monkeypatch, capsys):
        monkeypatch.setenv("VGG_COURSE_TORCH", "cpu")
        torch.fails = True
        with server(PAGE) as (url, asked):
            torch.index(url)
            with pytest.raises(SystemExit, match="no fitting package"):
                torch.script.install_torch()
        assert asked == [] and torch.calls == [(url, *NEEDS)]
        assert capsys.readouterr().out == ""

    def test_another_index(self, torch, monkeypatch):
        monkeypatch.setenv("VGG_COURSE_TORCH", "https://download.pytorch.org/whl/cu128")
        torch.script.install_torch()
        assert torch.calls == [("https://download.pytorch.org/whl/cu128", *NEEDS)]

    def test_a_word_that_is_none(self, torch, monkeypatch):
        monkeypatch.setenv("VGG_COURSE_TORCH", "cuda")
        with pytest.raises(SystemExit, match="VGG_COURSE_TORCH is 'cuda', but it must be auto, cpu, plain or"):
            torch.script.install_torch()

    @pytest.mark.parametrize("why", ["plain", "driver", "own index", "offline", "it is there"])
    def test_nobody_is_asked(self, torch, monkeypatch, capsys, why):
        if why == "plain":
            monkeypatch.setenv("VGG_COURSE_TORCH", "plain")
        elif why == "driver":
            monkeypatch.setattr(torch.script, "has_nvidia_driver", lambda: True)
        elif why == "own index":
            monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.org/simple")
        elif why == "offline":
            monkeypatch.setenv("PIP_NO_INDEX", "1")
        else:
            (torch.venv / "lib" / "python3.12" / "site-packages" / "torch").mkdir(parents=True)
        with server(PAGE) as (url, asked):
            torch.index(url)
            torch.script.install_torch()
        assert asked == [] and torch.calls == [] and capsys.readouterr().out == ""


@LINUX
def test_an_nvidia_driver_is_found_by_its_program(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load_script().has_nvidia_driver()
