"""Make the environment in .venv: `python tools/environment.py lab`, `... test` or `... site`. Standard library only.

What can go wrong on a fresh machine (an old Python, no venv module, no network, a full disk) is said in one line.

`VGG_COURSE_TORCH` chooses the PyTorch: `cpu` (PyTorch's own index of builds for the processor), `plain` (what pip
takes by itself), or the address of another of PyTorch's indexes. `auto`, the default, is `cpu` on Linux without an
NVIDIA driver, if that index answers within a few seconds, and `plain` everywhere else.

The packages are installed by uv, which needs a third of pip's time and less; by pip where uv cannot be had or fails.
uv does not read pip's settings (the index of a school, say), so they are handed over to it.
"""

from __future__ import annotations  # so that a Python that is too old gets far enough to be told so

import argparse
import ast
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG = VENV / "install.log"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 4  # seconds for the index to answer
EXTRAS = {"lab": "lab", "test": "lab,test,site", "site": "site"}  # the tests build the site too
# pip's settings, and what uv calls them
UV_OPTIONS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}
UV_VARIABLES = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY"}
# what pip prints, and what it means
TOO_DEEP = f"the path of {ROOT} is too long for Windows: move the project to a short one, such as C:\\vgg"
CAUSES = {
    "No space left on device": "the disk is full: the environment needs 7 GB with a CUDA build of PyTorch, 2 without",
    "Errno 28": "the disk is full: the environment needs 7 GB with a CUDA build of PyTorch, 2 without",
    "Permission denied": f"{VENV} cannot be written to: change its owner, or delete it and try again",
    "Failed to establish a new connection": "no package index can be reached: get a network, or set PIP_INDEX_URL",
    "Failed to resolve": "no package index can be reached: get a network, or set PIP_INDEX_URL",
    "Could not find a version": f"the package index has no fitting package for the Python of {VENV}: delete that "
    "folder, then take another Python, such as make PYTHON=python3.12 lab",
    "Long Path": TOO_DEEP,
    "os error 206": TOO_DEEP,
    "ProxyError": "the proxy refuses: check HTTPS_PROXY",
    "ReadTimeoutError": "the package index is too slow or the network broke off: try again",
    "No module named pip": f"{VENV} is not complete: delete it and try again",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make or update the environment in .venv.")
    parser.add_argument(
        "kind", choices=list(EXTRAS), help="lab: for the notebooks; test: for the tests as well; site: for the website"
    )
    kind = parser.parse_args().kind
    stamp = VENV / f".{kind}-installed"
    # It holds the project's folder: one that was moved is installed again, and so is one whose Python is gone.
    of_here = PYTHON.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == str(ROOT)
    if of_here and stamp.stat().st_mtime > (ROOT / "pyproject.toml").stat().st_mtime:
        return
    if sys.version_info < (3, 11):  # noqa: UP036 (this file runs before any package is installed)
        stop(f"Python {sys.version.split()[0]} is too old: install 3.11 or newer, then make PYTHON=python3.11 {kind}")
    # Of this Python, not of the machine: Windows on ARM runs the x64 one.
    if sysconfig.get_platform() == "win-arm64" or (sys.platform, platform.machine()) == ("darwin", "x86_64"):
        stop(
            "PyTorch has no packages for this Python: take the x64 Python on Windows for ARM, an arm64 one on a Mac "
            "with Apple's processor, and Colab on an Intel Mac"
        )
    try:
        make_venv()
        install(kind)
        if kind == "test":
            get_chromium()
        stamp.write_text(str(ROOT), encoding="utf-8")
    except OSError as error:
        stop("the disk is full" if error.errno == 28 else str(error))
    except KeyboardInterrupt:
        stop("stopped by hand; the same command goes on from here")


def stop(message: str) -> None:
    raise SystemExit(f"{Path(__file__).stem}: {message}")


def make_venv() -> None:
    if PYTHON.exists():
        with suppress(OSError):  # only a remark
            made_with = re.search(r"^version\D*(\d+\.\d+)", (VENV / "pyvenv.cfg").read_text(encoding="utf-8"), re.M)
            here = "{}.{}".format(*sys.version_info)
            if made_with and made_with[1] != here:
                print(f"going on with the Python {made_with[1]} of {VENV.name}: for {here} delete that folder first")
        return
    print(f"making {VENV.name} with Python {sys.version.split()[0]}", flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]  # what is there has no Python any more
    try:
        made = subprocess.run(command, capture_output=True, text=True)
    except KeyboardInterrupt:
        shutil.rmtree(VENV, ignore_errors=True)  # half of it has a Python, but no pip
        raise
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        if "ensurepip" in made.stdout + made.stderr or "No module named venv" in made.stderr:
            stop("this Python has no venv module: apt-get install python3-venv (Debian, Ubuntu), then try again")
        stop(explain(made.stdout + made.stderr) or (made.stdout + made.stderr).strip().splitlines()[-1])


def install(kind: str) -> None:
    print("installing (some minutes the first time; PyTorch is the largest part)", flush=True)
    if sys.version_info < (3, 12):
        # visdom 0.2.4 is the last for 3.11. Its build wants pkg_resources, which newer setuptools left out.
        add("setuptools<81", "wheel")
        add("--no-build-isolation", "visdom>=0.2.4")
    install_torch()
    add("--editable", f"{ROOT}[{EXTRAS[kind]}]")
    # The scripts of visdom's page, for the times without a network. Without them plots are drawn in the notebook.
    subprocess.run([PYTHON, "-m", "vgg_course.visdom_server", "--assets"], cwd=ROOT, check=False)


def add(*packages: str, index: str | None = None) -> None:
    """Install packages, from ``index`` or what pip is set to: by uv, or else by pip, whose errors are explained."""
    if has_uv() and by_uv(packages, pip_settings() | ({"index-url": index} if index else {})):
        return
    pip("install", *(("--index-url", index) if index else ()), *packages)


def by_uv(packages: tuple[str, ...], settings: dict[str, str]) -> bool:
    options = ["--python", str(PYTHON), "--index-strategy", "unsafe-best-match"]  # of all indexes, as pip does
    for name, option in UV_OPTIONS.items():
        options += [part for value in settings.get(name, "").split() for part in (option, value)]
    if settings.get("no-index", "") in ("1", "true", "yes", "on"):
        options.append("--no-index")
    if sys.dont_write_bytecode:  # otherwise Python keeps what it has compiled when it needed it
        options.append("--compile-bytecode")
    variables = {variable: settings[name] for name, variable in UV_VARIABLES.items() if name in settings}
    managed = not run("uv", "pip", "install", *options, *packages, **variables)[0]
    if not managed:
        print(f"  uv did not manage, so pip tries it (what uv said: {LOG})", flush=True)
    return managed


@functools.lru_cache
def has_uv() -> bool:
    found = not run("uv", "--version")[0] or not run("pip", "install", "uv>=0.5")[0]
    if not found:
        print("  uv cannot be had here, so pip does it all, which takes longer", flush=True)
    return found


@functools.lru_cache
def pip_settings() -> dict[str, str]:
    """What pip's configuration files and ``PIP_...`` say, by the names of its options."""
    command = [PYTHON, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=ROOT)
    found = re.findall(r"^(global|install|:env:)\.([\w-]+)=(['\"].*['\"])$", listed.stdout, flags=re.MULTILINE)
    found.sort(key=lambda setting: ("global", "install", ":env:").index(setting[0]))  # the strongest last
    return {name: ast.literal_eval(value) for _, name, value in found}


def install_torch() -> None:
    """PyTorch from an index of its own, where that is wanted; otherwise it comes with everything else."""
    if any((VENV / "lib").glob("python*/site-packages/torch")):  # what there is stays
        return
    index, reason = choose_torch()
    if reason:
        print(f"  {reason}", flush=True)
    if index:
        needs = re.findall(r'"(torch(?:vision)?[<>=!~ ][^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        try:
            add(*needs, index=index)
        except SystemExit as error:
            if not reason:  # asked for by name, it is never replaced
                raise
            print(f"  that did not work, so the plain package instead ({error})", flush=True)


def choose_torch() -> tuple[str | None, str]:
    """The index to take PyTorch from (``None``: pip's own), and why, in a line."""
    wanted = os.environ.get("VGG_COURSE_TORCH", "").strip() or "auto"
    if "://" in wanted:
        return wanted, ""
    if wanted not in ("auto", "cpu", "plain"):
        stop(f"VGG_COURSE_TORCH is {wanted!r}, but it must be auto, cpu, plain or the address of a package index")
    if wanted == "cpu":
        return CPU_INDEX, ""
    own_index = not pip_settings().keys().isdisjoint(("index-url", "no-index"))
    if wanted == "plain" or not sys.platform.startswith("linux") or own_index or has_nvidia_driver():
        return None, ""
    if answers(f"{CPU_INDEX}/torch/"):
        why = "PyTorch without CUDA, 0.7 GB instead of 5.5, as there is no NVIDIA driver"
        return CPU_INDEX, f"{why} (VGG_COURSE_TORCH=plain takes the other)"
    why = f"PyTorch with CUDA, 5.5 GB: {CPU_INDEX} does not answer"
    return None, f"{why} (VGG_COURSE_TORCH=cpu insists on it, plain does not ask)"


def has_nvidia_driver() -> bool:
    places = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/nvidia-smi")
    return bool(shutil.which("nvidia-smi")) or any(map(os.path.exists, places))


def answers(url: str) -> bool:
    """Whether the index at ``url`` offers PyTorch, found out in a few seconds whatever the network does."""
    found = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as page:
                found.append(b"torch-" in page.read(1_000_000))  # and not the page of a hotel's network
        except Exception:  # whatever is wrong, it is no answer
            pass

    # In a thread, for the look-up of a name knows no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return any(found)


def pip(*arguments: str) -> None:
    code, lines = run("pip", "--disable-pip-version-check", *arguments)
    if code:
        errors = [line.strip() for line in lines if line.lower().startswith("error")]  # "error:" where a build failed
        errors = errors or [lines[-1].strip() if lines else ""]
        stop(f"{explain(''.join(lines)) or errors[-1]} (all that pip said: {LOG})")


def run(module: str, *arguments: str, **variables: str) -> tuple[int, list[str]]:
    """A module of the environment's Python: its exit code and what it said. How far it is, is printed."""
    signs = ("Collecting", "Downloading", "Installing", "Successfully", "Downloaded", "Prepared", "Installed")
    command = [str(PYTHON), "-m", module, *arguments]
    environment = {**os.environ, **variables}
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
        env=environment,
    )
    with started as process, open(LOG, "a", encoding="utf-8") as log:
        lines = []
        for line in process.stdout:
            lines.append(line)
            log.write(line)
            if line.strip().startswith(signs):
                print("  " + line.strip()[:110], flush=True)
    return process.wait(), lines


def explain(output: str) -> str | None:
    return next((meaning for sign, meaning in CAUSES.items() if sign in output), None)


def get_chromium() -> None:
    """For the tests that open a real browser: the system's, or Debian's package, or Playwright's own build."""
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return
    ways = [[str(PYTHON), "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        ways.insert(0, ["sh", "-c", "apt-get update && apt-get install --yes --no-install-recommends chromium"])
    for way in ways:
        print("getting Chromium for the browser tests: " + " ".join(way[-3:]), flush=True)
        if subprocess.run(way, capture_output=True).returncode == 0:
            return
    print("Chromium cannot be had here: the browser tests will be skipped. Install Chrome or Chromium to run them.")


if __name__ == "__main__":
    main()
