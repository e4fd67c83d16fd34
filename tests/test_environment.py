"""tools/environment.py: says in one line what is missing, and takes the small PyTorch where that will do."""

import ast
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "tools" / "environment.py"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a question on Linux only")


def run_script(copy: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, copy / "tools" / "environment.py", "lab"],
        capture_output=True,
        text=True,
        env={**os.environ, "VGG_COURSE_TORCH": "plain", **environment},
        timeout=300,
    )


@pytest.fixture
def copy(tmp_path):
    """A copy of the project, so that no test touches the real environment."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="the faked commands are shell scripts")
class TestEnvironmentScript:
    def fake_python(self, copy: Path, script: str) -> None:
        python = copy / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        python.chmod(0o755)

    @pytest.mark.parametrize(
        ("said", "meaning"),
        [
            ("OSError: [Errno 28] No space left on device", "the disk is full"),
            ("NewConnectionError: Failed to establish a new connection: refused", "no package index can be reached"),
            ("Failed to resolve pypi.org\nERROR: Could not find a version", "no package index can be"),
            ("ERROR: Could not find a version that satisfies it", "no fitting package for this Python"),
            ("ERROR: something new", "ERROR: something new"),
            ("ProxyError: Cannot connect to proxy", "check HTTPS_PROXY"),
            ("ReadTimeoutError: Read timed out", "the network broke off: try again"),
            ("error: the build failed\nhint: See above", "error: the build failed"),
            ("python: No module named pip", "is not complete: delete it and try again"),
        ],
    )
    def test_what_pip_says_in_one_line(self, copy, said, meaning):
        self.fake_python(copy, f"echo '{said}'; exit 1")
        done = run_script(copy)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert meaning in done.stderr
        assert not (copy / ".venv" / ".lab-installed").exists()

    def test_a_second_call_does_nothing(self, copy):
        self.fake_python(copy, "echo called >> called")
        assert run_script(copy).returncode == 0
        calls = (copy / "called").read_text(encoding="utf-8")
        assert run_script(copy).stdout == ""
        assert (copy / "called").read_text(encoding="utf-8") == calls
        later = (copy / ".venv" / ".lab-installed").stat().st_mtime + 10
        os.utime(copy / "pyproject.toml", (later, later))
        run_script(copy)
        assert len((copy / "called").read_text(encoding="utf-8")) > len(calls)

    def test_what_is_installed(self, copy):
        """The project as it lies there, so that an edit of a file is enough, and the files of the live page."""
        self.fake_python(copy, 'echo "$@" >> called')
        assert run_script(copy).returncode == 0
        *before, project, page = (copy / "called").read_text(encoding="utf-8").splitlines()
        assert project.endswith(f"install --editable {copy}[lab]")
        assert page == "-m vgg_course.visdom_server --assets"
        assert all("visdom" in line or "setuptools<81" in line for line in before)

    def test_a_folder_that_was_moved_is_installed_again(self, copy):
        self.fake_python(copy, "echo called >> called")
        assert run_script(copy).returncode == 0
        moved = copy.rename(copy.with_name("moved"))
        (moved / "called").unlink()
        assert run_script(moved).returncode == 0 and (moved / "called").exists()

    def test_without_its_python_it_is_made_again(self, copy):
        self.fake_python(copy, "echo called >> called")
        assert run_script(copy).returncode == 0
        (copy / ".venv" / "bin" / "python").unlink()
        (copy / ".venv" / "bin" / "python").symlink_to("/gone/python")
        (copy / "venv.py").write_text("raise SystemExit('making it anew')", encoding="utf-8")
        assert "making it anew" in run_script(copy, PYTHONPATH=str(copy)).stderr

    def test_ctrl_c_while_it_is_made_leaves_no_half_of_it(self, copy):
        """As a terminal sends it, to the script and to what the script has started."""
        code = "import pathlib, time\npathlib.Path('.venv/bin').mkdir(parents=True)\n"
        (copy / "venv.py").write_text(
            f"{code}pathlib.Path('.venv/bin/python').touch()\ntime.sleep(300)", encoding="utf-8"
        )
        ctrl_c = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); runpy.run_path"
        process = subprocess.Popen(
            [sys.executable, "-c", f"{ctrl_c}('tools/environment.py', run_name='__main__')", "lab"],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while not (copy / ".venv" / "bin" / "python").exists():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert "the same command goes on from here" in process.communicate(timeout=60)[1]
        assert not (copy / ".venv").exists()

    def test_no_venv_module(self, copy):
        (copy / "venv.py").write_text(
            "raise SystemExit('The virtual environment was not created: ensurepip is not there')", encoding="utf-8"
        )
        done = run_script(copy, PYTHONPATH=str(copy))
        assert done.stderr.startswith("environment: this Python has no venv module: apt-get install python3-venv")
        assert len(done.stderr.splitlines()) == 1
        assert not (copy / ".venv").exists()


def load_script():
    """The script as a module of its own."""
    spec = importlib.util.spec_from_file_location("environment_script", ROOT / "tools" / "environment.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


class Torch:
    """The script as a module, in an empty project, with a pip that only notes what it is asked for."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.script = load_script()
        self.venv, self.calls, self.fails = folder / ".venv", [], False
        monkeypatch.setattr(self.script, "VENV", self.venv)
        monkeypatch.setattr(self.script, "PATIENCE", 1)
        monkeypatch.setattr(self.script, "pip", self.pip)
        monkeypatch.setattr(self.script, "has_nvidia_driver", lambda: False)
        for name in ("VGG_COURSE_TORCH", "PIP_INDEX_URL", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        self.monkeypatch = monkeypatch

    def pip(self, *arguments: str) -> None:
        self.calls.append(arguments)
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
        assert torch.calls == [("install", "--index-url", url, *NEEDS)]
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
        with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes the call and says nothing
            torch.index(f"http://127.0.0.1:{silent.getsockname()[1]}")
            started = time.monotonic()
            torch.script.install_torch()
        assert time.monotonic() - started < 10
        assert torch.calls == [] and "does not answer" in capsys.readouterr().out

    def test_the_look_up_of_the_name_hangs(self, torch, monkeypatch):
        def hang(*_, **__):
            time.sleep(3)
            raise OSError

        monkeypatch.setattr(torch.script.urllib.request, "urlopen", hang)
        started = time.monotonic()
        torch.script.install_torch()
        assert time.monotonic() - started < 2.5 and torch.calls == []

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
        assert asked == [] and torch.calls == [("install", "--index-url", url, *NEEDS)]
        assert capsys.readouterr().out == ""

    def test_another_index(self, torch, monkeypatch):
        monkeypatch.setenv("VGG_COURSE_TORCH", "https://download.pytorch.org/whl/cu128")
        torch.script.install_torch()
        assert torch.calls == [("install", "--index-url", "https://download.pytorch.org/whl/cu128", *NEEDS)]

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


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10"])
def test_a_python_that_is_too_old_is_told_so(version, copy):
    """By that Python itself, where there is one: it must be able to read the script."""
    places = (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")
    found = next(map(str, places), None) or shutil.which(f"python{version}")
    if found is None or subprocess.run([found, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no Python {version} here")
    done = subprocess.run([found, str(copy / "tools" / "environment.py"), "lab"], capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"environment: Python {version}" in done.stderr and "is too old" in done.stderr


def test_no_annotation_of_the_script_needs_a_new_python():
    first = next(node for node in ast.parse(SCRIPT.read_text(encoding="utf-8")).body[1:])
    assert isinstance(first, ast.ImportFrom) and (first.module, first.names[0].name) == ("__future__", "annotations")
