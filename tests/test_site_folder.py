"""tools/build_site.py: of the folder that it is given, only what a build has made is made anew."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def build(monkeypatch):
    """Call it with a folder: the script's ``main``, without Sphinx itself, which tests/e2e/test_site.py runs."""
    spec = importlib.util.spec_from_file_location("build_site_script", ROOT / "tools" / "build_site.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "build_main", lambda options: 0)

    def build_it(folder: Path) -> None:
        monkeypatch.setattr(sys, "argv", ["build_site.py", str(folder)])
        script.main()

    return build_it


def test_what_else_is_in_the_folder_stays(tmp_path, build):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    build(tmp_path)
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "of_the_build_before.html").write_text("old", encoding="utf-8")
    build(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".vgg_course_site", "mine.txt", "source"]


def test_a_folder_of_that_name_that_no_build_has_made_stays(tmp_path, build):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"source is not of a build of ours: take another folder"):
        build(tmp_path)
    assert (tmp_path / "source" / "thesis.tex").exists()


def test_a_word_that_is_no_folder_builds_nothing(tmp_path, build, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        build(Path("--help"))
    assert ended.value.code == 0 and "default: build/site" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
