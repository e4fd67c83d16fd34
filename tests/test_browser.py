"""The browser of tests/e2e: the system's or Playwright's own; without one the tests are skipped, but not in CI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
E2E = Path(__file__).with_name("e2e")
TEST = """\
def test_with_a_browser(browser):
    assert browser.version

def test_options():
    from conftest import browser_options
    assert browser_options()["args"] and "executable_path" not in browser_options()
"""


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 passed, 1 skipped"), ("true", "1 passed, 1 error")])
def test_where_there_is_none(ci, outcome, tmp_path):
    """With nothing in PATH, and nothing where Playwright puts what it downloads."""
    for file in (E2E / "conftest.py", E2E / "drawn.py", E2E.with_name("ports.py")):
        shutil.copy(file, tmp_path)
    (tmp_path / "test_it.py").write_text(TEST, encoding="utf-8")
    nothing = {"PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path), "CI": ci}
    nothing["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # a faster start
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "--color=no",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, env={**os.environ, **nothing}, capture_output=True, text=True
    )
    assert outcome in done.stdout, done.stdout + done.stderr
    assert "no Chromium on this machine: python -m playwright install chromium" in done.stdout
