"""tools/build_site.py: of the folder that it is given, only what a build has made is made anew."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
ROOT = Path(__file__).parent.parent


def test_what_else_is_in_the_folder_stays(tmp_path, monkeypatch):
    for name in ("mine.txt", "html/of_the_build_before.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("build_site_script", ROOT / "tools" / "build_site.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "build_main", lambda options: 0)  # Sphinx itself: see tests/e2e/test_site.py
    monkeypatch.setattr(sys, "argv", ["build_site.py", str(tmp_path)])
    script.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "source"]
