"""Links in Markdown files and notebooks: files and headings exist. `python tests/test_links.py` lists those outside."""

import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = (".", ".github", "benchmarks", "data", "data/runs", "docs", "notebooks", "tests", "vgg_course/*")
FILES = sorted({file for name in FOLDERS for end in ("md", "ipynb") for file in ROOT.glob(f"{name}/*.{end}")})
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|\b(?:href|src)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", flags=re.M)
CODE = re.compile(r"```.*?```|~~~.*?~~~|``.+?``|`[^`\n]*`", flags=re.S)


def markdown(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return text


def links(file: Path) -> list[str]:
    return [match[1] or match[2] for match in LINK.finditer(CODE.sub("", markdown(file)))]


def anchors(file: Path) -> set[str]:
    """The names of the headings: as GitHub makes them, and as Jupyter does."""
    text = re.sub(r"```.*?```", "", markdown(file), flags=re.S)
    names, seen = set(re.findall(r'\b(?:id|name)="([^"]+)"', text)), {}
    for heading in HEADING.findall(text):
        heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = seen[name] = seen.get(name, -1) + 1
        names |= {f"{name}-{count}" if count else name, heading.replace(" ", "-")}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(file):
    for link in links(file):
        parts = urlsplit(link)
        if parts.scheme in ("http", "https"):
            assert parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1"), link
            assert parts.hostname and " " not in link, link
        elif parts.scheme not in ("mailto", "data", "attachment"):
            assert not parts.scheme, f"{link}: what is {parts.scheme}:?"
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert target.is_relative_to(ROOT.resolve()), f"{link} leads out of the repository"
            assert target.exists(), f"{link}: there is no {target.name}"
            if parts.fragment and target.suffix in (".md", ".ipynb"):
                assert unquote(parts.fragment) in anchors(target), f"{link}: no such heading in {target.name}"


def test_what_is_found(tmp_path):
    """The finder itself: links in all their forms, none in code, and the names of headings."""
    file = tmp_path / "a.md"
    file.write_text(
        '# Two `words`, here!\n\n[a](b.md#c) ![d [e]](f%20g.png "title") [![h](i.svg)](https://j.org)\n'
        '<img src="k.png"> `[no](link)`\n\n```\n[no](link)\n# no heading\n```\n\n## Twice\n## Twice\n',
        encoding="utf-8",
    )
    assert set(links(file)) >= {"b.md#c", "f%20g.png", "k.png"}
    assert "link" not in links(file)
    assert anchors(file) >= {"two-words-here", "twice", "twice-1", "Two-words,-here!"}
    assert "no-heading" not in anchors(file)


def test_workflows_run_targets_that_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for file in [*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"(?:`|run: |^    )make ([a-z][\w-]*)", file.read_text(encoding="utf-8"), flags=re.M):
            assert target in targets, f"{file.name}: make {target}"


if __name__ == "__main__":
    outside: dict[str, list[str]] = {}
    for file in FILES:
        for link in links(file):
            if link.startswith("http"):
                outside.setdefault(link, []).append(file.relative_to(ROOT).as_posix())
    for link, places in sorted(outside.items()):
        print(link, "in", ", ".join(sorted(set(places))))
