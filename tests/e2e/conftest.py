"""A real JupyterLab on a copy of the notebooks, and a real browser."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the next lines, however pytest was asked to import
sys.path.insert(0, str(Path(__file__).parent))
from drawn import PATIENCE, POINTS
from ports import free_port

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    *("--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-gpu"),
]
# Errors in the console that are not of our making: Lab asks its server for what is not installed, such as a language
# server, and for news; offline the badge of the head cannot be had.
LABS_OWN = ("/lab/api/", "/lsp/", "/api/", "/favicon.ico", "/static/favicons/")
OFFLINE = ("https://colab.research.google.com/assets/colab-badge.svg",)
NOT_BLANK = "document.body.innerText.trim().length + document.querySelectorAll('svg, img').length"
IMAGES = "[...document.querySelectorAll('.jp-Notebook img')].filter((image) => !image.src.includes('colab-badge'))"


def browser_options() -> dict:
    """How to start Chromium: the system's own, if it has one; otherwise Playwright takes what it has downloaded."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return {"args": [*FLAGS, *sandbox], **({"executable_path": path} if path else {})}


def without_browser(reason: str) -> None:
    """Skip the test; where CI counts on the browser, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium: the system's, or the one that Playwright has downloaded."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        without_browser("Playwright is not installed: pip install -e .[test]")
    options = browser_options()
    with sync_playwright() as playwright:
        if not Path(options.get("executable_path", playwright.chromium.executable_path)).exists():
            without_browser("no Chromium on this machine: python -m playwright install chromium")
        browser = playwright.chromium.launch(timeout=PATIENCE, **options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where screenshots go: ``VGG_COURSE_SCREENSHOTS``, or a temporary folder."""
    folder = Path(os.environ.get("VGG_COURSE_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Lab:
    """A JupyterLab that serves a folder of notebooks, and what lies beside it, as tools/lab.py does."""

    def __init__(self, folder: Path, home: Path, **environ: str) -> None:
        self.folder, self.port, self.token = folder, free_port(), "for-the-test"
        places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
        env = {**os.environ, **{name: str(home / name.lower()) for name in places}, **environ}
        env["TMPDIR"] = str(home / "tmp")  # what a kernel that is killed leaves there goes with the rest
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        # The notebooks import the package of this checkout, wherever their copy is.
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip", "localhost", "--port", str(self.port)]
        command += [f"--IdentityProvider.token={self.token}", "--ServerApp.port_retries=0", "--allow-root"]
        command += [f"--FileContentsManager.preferred_dir={folder.name}"]
        settings = {
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page, seen or not
            "docmanager-extension/plugin": {"autosave": False},  # the tests save, one time after the other
        }
        for name, values in settings.items():
            file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values), encoding="utf-8")
        env["JUPYTERLAB_SETTINGS_DIR"] = str(home / "settings")
        self.log = (home / "lab.log").open("w", encoding="utf-8")
        self.process = subprocess.Popen(command, cwd=folder.parent, env=env, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError):
                self.ask("status")
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = (home / "lab.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"JupyterLab did not start: {said[-2000:]}")
            time.sleep(0.2)

    def ask(self, what: str, method: str = "GET"):
        request = urllib.request.Request(
            f"http://localhost:{self.port}/api/{what}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
            return json.loads(body) if body else None

    def end_kernels(self) -> None:
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # it ends its kernels and goes
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab on a copy of ``notebooks/``, with settings, data and runtime files of its own."""
    folder, home = tmp_path_factory.mktemp("lab") / "notebooks", tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "GLOSSARY.md", folder.parent)
    for file in folder.glob("*.ipynb"):  # solved, and without the stored outputs
        notebook = json.loads(file.read_text(encoding="utf-8"))
        solve(notebook)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
        file.write_text(json.dumps(notebook), encoding="utf-8")
    if os.environ["VGG_COURSE_DATASET"] != "digits":  # asked for by hand
        (folder.parent / "data").symlink_to(ROOT / "data")
    lab = Lab(folder, home, VGG_COURSE_PLOT="auto", VISDOM_PORT=str(free_port()))
    yield lab
    lab.stop()


def solve(notebook: dict) -> None:
    """Put the folded solutions in the place of ``answer = None``, as a learner would who copies them."""
    prose = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    found = re.findall(r"<summary>Solution ([\d.]+)</summary>\s*```python\n(.*?)```", prose, flags=re.S)
    solutions = dict(found)
    assert len(solutions) == len(found) >= 5
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and (exercise := re.search(r'^check\("([\d.]+)"', source, flags=re.M)):
            assert re.search(r"^answer = None", source, flags=re.M), source
            solution = solutions.pop(exercise[1])
            cell["source"] = re.sub(r"^answer = None.*$", lambda _: solution, source, flags=re.M)  # noqa: B023
    assert not solutions, f"no cell checks {', '.join(solutions)}"


def expected(cell: dict) -> bool:
    """Whether the cell shows an error on purpose."""
    return "raises-exception" in cell["metadata"].get("tags", [])


class Notebook:
    """A notebook that is open in a browser's page."""

    def __init__(self, page, lab: Lab, name: str) -> None:
        self.page, self.lab, self.name, self.errors = page, lab, name, []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self.hear)
        # A workspace of its own: nothing is restored from the test before.
        workspace = f"{name.removesuffix('.ipynb')}-{time.monotonic_ns()}"
        page.goto(
            f"http://localhost:{lab.port}/lab/workspaces/{workspace}/tree/{lab.folder.name}/{name}?token={lab.token}"
        )
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=180_000)

    def hear(self, message) -> None:
        """Note an error in the browser's console, but for those of Lab itself, and of an image of another host."""
        where = message.location["url"]
        labs_own = where.startswith(tuple(f"http://localhost:{self.lab.port}{path}" for path in LABS_OWN))
        if message.type == "error" and not (labs_own or where in OFFLINE or "ResizeObserver" in message.text):
            self.errors.append(f"{message.text} ({where})")

    def frames(self) -> list:
        """The frames in the page: none of them is blank."""
        found = self.page.frames[1:]
        for frame in found:  # it may still be loading
            frame.wait_for_function(f"() => {NOT_BLANK}", timeout=PATIENCE)
        return found

    def images(self) -> int:
        """How many images of ours the notebook shows; each of them is there."""
        self.page.wait_for_function(f"() => {IMAGES}.every((image) => image.complete)", timeout=60_000)
        assert self.page.evaluate(f"{IMAGES}.filter((image) => !image.naturalWidth).map((image) => image.src)") == []
        return self.page.evaluate(f"{IMAGES}.length")

    def run_all(self) -> None:
        deadline = time.monotonic() + 90
        while not any(s["path"] == f"{self.lab.folder.name}/{self.name}" for s in self.lab.ask("sessions")):
            accept = self.page.locator(".jp-Dialog .jp-mod-accept")  # "Select kernel", in a notebook that names none
            if accept.count():
                accept.first.click()
            self.page.wait_for_timeout(100)
            assert time.monotonic() < deadline, "Lab has started no kernel"
        self.page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').first.wait_for(timeout=180_000)
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.locator('li[data-command="runmenu:run-all"]').click()

    def live_plot(self, seconds: float):
        """The frame of the visdom page below a cell, once it shows a plot."""
        from playwright.sync_api import Error  # without Playwright these tests are skipped

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for frame in self.page.frames:
                with contextlib.suppress(Error):  # JupyterLab may draw the output anew, with another frame
                    if "/env/vgg_course" in frame.url and frame.evaluate(POINTS):
                        assert frame in self.frames()
                        return frame
            self.page.wait_for_timeout(200)
        raise TimeoutError(f"no live plot in {seconds:g} s; frames: {[frame.url for frame in self.page.frames]}")

    def plot_grows(self, appears: float = 120, apart: float = 1.5, seconds: float = 120) -> list[int]:
        """The number of points in the live plot, read three times while it grows; fewer where the cell has ended."""
        from playwright.sync_api import Error  # without Playwright these tests are skipped

        with self.kernel_in_turns():
            frame = self.live_plot(appears)
            frame.frame_element().scroll_into_view_if_needed()
            counts, deadline = [frame.evaluate(POINTS)], time.monotonic() + seconds
            with contextlib.suppress(Error):  # the frame goes with the run
                while len(counts) < 3 and time.monotonic() < deadline:
                    self.page.wait_for_timeout(1000 * apart)
                    count = frame.evaluate(POINTS)
                    if count > counts[-1]:
                        counts.append(count)
        return counts

    @contextlib.contextmanager
    def kernel_in_turns(self):
        """Once the kernel has started a visdom server, it rests four fifths of the time.

        A training of a few seconds would else be over before a browser that has to wait for a processor has drawn it.
        """
        kernel, over = self.kernel(), threading.Event()

        def take_turns() -> None:
            while not over.wait(0.1):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if any("visdom_server" in " ".join(child.cmdline()) for child in kernel.children()):
                        kernel.suspend()
                        over.wait(0.4)
                        kernel.resume()

        thread = threading.Thread(target=take_turns)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def kernel(self) -> psutil.Process:
        """The process in which the notebook's cells run."""
        path = f"{self.lab.folder.name}/{self.name}"
        name = next(session["kernel"]["id"] for session in self.lab.ask("sessions") if session["path"] == path)
        processes = psutil.Process(self.lab.process.pid).children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # some are very short
                if f"kernel-{name}.json" in " ".join(process.cmdline()):
                    return process
        raise RuntimeError(f"the kernel of {self.name} has no process")

    def wait_until_done(self, seconds: float) -> None:
        """Until each code cell has been run, or one has failed: the stored outputs were taken away before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.page.locator('.jp-Notebook-ExecutionIndicator[data-status="busy"]').count():
                self.page.wait_for_timeout(500)  # looking is cheap, saving is not
                continue
            cells = [c for c in self.saved()["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
            failed = [o for c in cells for o in c["outputs"] if o["output_type"] == "error" and not expected(c)]
            if failed or all(cell["execution_count"] for cell in cells):
                return
        raise TimeoutError(f"{self.name} was not done in {seconds:g} s")

    def is_written(self, answer) -> bool:
        return answer.request.method == "PUT" and f"/{self.name}" in answer.url

    def saved(self) -> dict:
        """The notebook as Lab saves it now: its server answers when the file is whole.

        Lab drops a save, and says nothing, while it still makes the checkpoint of the last one: it is asked again.
        """
        from playwright.sync_api import TimeoutError as Late  # without Playwright these tests are skipped

        deadline = time.monotonic() + 60
        while True:
            try:
                with self.page.expect_response(self.is_written, timeout=2000):
                    self.page.keyboard.press("ControlOrMeta+s")
                break
            except Late:
                assert time.monotonic() < deadline, f"Lab does not save {self.name}"
        return json.loads((self.lab.folder / self.name).read_text(encoding="utf-8"))


@pytest.fixture
def open_notebook(lab, browser):
    """``open_notebook(name)`` opens a notebook in Lab; afterwards its kernel is ended."""
    contexts = []

    def open_it(name: str) -> Notebook:
        context = browser.new_context(viewport={"width": 1300, "height": 900})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        return Notebook(context.new_page(), lab, name)

    yield open_it
    for context in contexts:
        context.close()
    lab.end_kernels()
