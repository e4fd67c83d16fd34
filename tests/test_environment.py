"""tools/environment.py: installs by uv or by pip, and says in one line what is missing."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from environment_script import ROOT, SCRIPT, load_script, run_script


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
            ("ERROR: Could not find a version that satisfies it", "take another Python, such as make PYTHON="),
            ("ERROR: something new", "ERROR: something new"),
            ("ProxyError: Cannot connect to proxy", "check HTTPS_PROXY"),
            ("HINT: Windows Long Path support is not enabled", "too long for Windows: move the project to a short one"),
            ("error: The filename is too long. (os error 206)", "too long for Windows: move the project to a short"),
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

    @pytest.mark.parametrize("made_with", ["2.7", "{}.{}".format(*sys.version_info)])
    def test_another_python_does_not_take_the_place_of_the_first(self, copy, made_with):
        self.fake_python(copy, "")
        (copy / ".venv" / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {made_with}.18\n", encoding="utf-8")
        done = run_script(copy)
        assert ("going on with the Python 2.7 of .venv" in done.stdout) == (made_with == "2.7") and not done.returncode

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

    @pytest.mark.parametrize("installer", ["uv", "pip"])
    def test_what_is_installed(self, copy, installer):
        """The project as it lies there, so that an edit of a file is enough, and the files of the live page."""
        no_uv = 'case "$*" in *uv*) exit 1;; esac'
        self.fake_python(copy, f'echo "$@" >> called\n{no_uv if installer == "pip" else ""}')
        done = run_script(copy)
        assert done.returncode == 0, done.stderr
        *before, project, page = (copy / "called").read_text(encoding="utf-8").splitlines()
        assert project.startswith(f"-m {installer} ") and project.endswith(f" --editable {copy}[lab]")
        assert page == "-m vgg_course.visdom_server --assets"
        installs = [line for line in before if " install " in line and not line.endswith("pip install uv>=0.5")]
        assert all(line.endswith(("visdom>=0.2.4", "setuptools<81 wheel")) for line in installs)
        assert all(line.startswith(f"-m {installer} ") for line in installs)
        assert ("pip does it all" in done.stdout) == (installer == "pip")

    def test_uv_is_installed_where_it_is_not(self, copy):
        self.fake_python(copy, 'echo "$@" >> called\ncase "$*" in "-m uv --version") exit 1;; esac')
        assert run_script(copy).returncode == 0
        calls = (copy / "called").read_text(encoding="utf-8").splitlines()
        calls = [call for call in calls if call != "-m pip config list"]  # where that comes depends on Python's version
        assert calls[:2] == ["-m uv --version", "-m pip install uv>=0.5"] and calls.count(calls[1]) == 1
        assert calls[-2].startswith("-m uv pip install ")

    def test_where_uv_does_not_manage_pip_does(self, copy):
        self.fake_python(
            copy, 'echo "$@" >> called\ncase "$*" in *"uv pip install"*) echo no such index; exit 2;; esac'
        )
        done = run_script(copy)
        assert done.returncode == 0 and not done.stderr
        assert "uv did not manage, so pip tries it" in done.stdout
        assert "no such index" in (copy / ".venv" / "install.log").read_text(encoding="utf-8")
        project = (copy / "called").read_text(encoding="utf-8").splitlines()[-2]
        assert project == f"-m pip --disable-pip-version-check install --editable {copy}[lab]"

    def test_uv_gets_pips_settings(self, copy):
        """A school's index, say: uv itself does not read where it stands."""
        settings = r"""
            global.cert='/etc/school.pem'
            global.extra-index-url='https://one.example.org https://two.example.org'
            global.index-url='https://weak.example.org/simple'
            global.timeout='60'
            install.find-links='/wheels'
            install.index-url='https://mirror.example.org/simple'
            :env:.no-index='1'
            download.constraint='/for/another/command'
            """
        listed = "\n".join(map(str.strip, settings.strip().splitlines()))
        script = (
            f'case "$*" in *"config list") cat <<"END"\n{listed}\nEND\nexit;; esac\necho "$@" $SSL_CERT_FILE >> called'
        )
        self.fake_python(copy, script)
        assert run_script(copy).returncode == 0
        project = (copy / "called").read_text(encoding="utf-8").splitlines()[-2]
        assert project.endswith(" /etc/school.pem")
        for option in (
            "--default-index https://mirror.example.org/simple",
            "--index https://one.example.org --index https://two.example.org",
            "--find-links /wheels",
            "--no-index",
            f"--python {copy / '.venv' / 'bin' / 'python'}",
        ):
            assert f" {option} " in project, option
        words = project.replace(str(copy), "")  # in whose name, pytest-60 say, there may be anything
        assert "weak" not in words and "constraint" not in words and "60" not in words

    def test_uv_takes_what_pip_would(self, copy, monkeypatch):
        """The real uv, and a package that only the folder of pip's setting has."""
        pytest.importorskip("uv", reason="the environment was made by pip")
        monkeypatch.setenv("UV_CACHE_DIR", str(copy / "cache"))
        with zipfile.ZipFile(copy / "tiny_thing-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("tiny_thing.py", "")
            wheel.writestr(
                "tiny_thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n"
            )
            wheel.writestr("tiny_thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr("tiny_thing-1.0.dist-info/RECORD", "")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", copy / "new"], check=True)
        # uv and pip are those of these tests; the package goes into the new environment
        self.fake_python(copy, f'[ "$1" = -m ] && exec "{sys.executable}" "$@"\nexec "{copy}/new/bin/python" "$@"')
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(copy))
        script = load_script()
        for name, value in {"ROOT": copy, "PYTHON": copy / ".venv" / "bin" / "python", "LOG": copy / "log"}.items():
            monkeypatch.setattr(script, name, value)
        script.add("tiny-thing")
        assert list(copy.glob("new/lib/*/site-packages/tiny_thing.py")), (copy / "log").read_text(encoding="utf-8")
        assert "Installed 1 package" in (copy / "log").read_text(encoding="utf-8")

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
            assert process.poll() is None, process.stderr.read()
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


@pytest.mark.parametrize("machine", [("darwin", "x86_64", "macosx-13.0-x86_64"), ("win32", "ARM64", "win-arm64")])
def test_where_there_is_no_pytorch_it_is_told_before_anything_is_made(machine, tmp_path, monkeypatch):
    script = load_script()
    monkeypatch.setattr(script, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(script, "PYTHON", tmp_path / ".venv" / "python")
    monkeypatch.setattr(script.sys, "platform", machine[0])
    monkeypatch.setattr(script.platform, "machine", lambda: machine[1])
    monkeypatch.setattr(script.sysconfig, "get_platform", lambda: machine[2])
    monkeypatch.setattr(script.sys, "argv", ["environment.py", "lab"])
    with pytest.raises(SystemExit, match="environment: PyTorch has no packages for this Python"):
        script.main()
    assert not (tmp_path / ".venv").exists()


def test_no_annotation_of_the_script_needs_a_new_python():
    first = next(node for node in ast.parse(SCRIPT.read_text(encoding="utf-8")).body[1:])
    assert isinstance(first, ast.ImportFrom) and (first.module, first.names[0].name) == ("__future__", "annotations")
