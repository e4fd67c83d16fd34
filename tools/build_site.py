"""Build the site: `python tools/build_site.py [FOLDER]`, by default into build/site; open its html/index.html.

The pages are the README, the notebooks with the outputs that they store (none is run), the glossary, the docstrings,
and the texts for teachers and contributors. Their sources are put together in FOLDER/source first, with the few changes
that a page on the web needs; nothing is fetched. What a build before left in FOLDER's `source`, `doctrees` and `html`
is removed, and nothing else in it.
"""

import argparse
import json
import re
import shutil
import tomllib
from pathlib import Path
from urllib.parse import unquote

from sphinx.cmd.build import build_main

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
# The modules in the order in which a reader wants them; those that are not named here follow.
FIRST = ["vgg", "data", "training", "recipes", "checkpoint", "speed", "evaluation", "plots", "tracking", "runs"]
# Texts that are pages too; each keeps its place, so that links between them stay as they are.
TEXTS = [ROOT / "GLOSSARY.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "in_class.md"]
WIDGET = "application/vnd.jupyter.widget-view+json"
INDEX = """
```{{toctree}}
:caption: Notebooks
:hidden:

{notebooks}
GLOSSARY
```

```{{toctree}}
:caption: About the course
:hidden:

In class <docs/in_class>
Contributing <CONTRIBUTING>
The code on GitHub <{repository}>
```

```{{toctree}}
:caption: Reference
:hidden:

{modules}
```
"""
MODULE = """# `{name}`

```{{eval-rst}}
.. automodule:: vgg_course.{name}
   :ignore-module-all:
```
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the website of the course.")
    usual = ROOT / "build" / "site"
    parser.add_argument("folder", type=Path, nargs="?", default=usual, help="default: build/site")
    folder = parser.parse_args().folder.resolve()
    source, ours = folder / "source", folder / ".vgg_course_site"
    made = [folder / name for name in ("source", "doctrees", "html")]  # not all of FOLDER: it may be a home
    if folder != usual and not ours.exists() and (others := [str(path) for path in made if path.exists()]):
        raise SystemExit(f"build_site: {', '.join(others)} is not of a build of ours: take another folder")
    folder.mkdir(parents=True, exist_ok=True)
    ours.touch()
    for old in made:
        shutil.rmtree(old, ignore_errors=True)
    write_source(source)
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--fresh-env", "--conf-dir", str(ROOT / "docs")]
    failed = build_main([*options, "--doctree-dir", str(folder / "doctrees"), str(source), str(folder / "html")])
    if failed:
        raise SystemExit(failed)
    print(f"the site: {folder / 'html' / 'index.html'}")


def write_source(source: Path) -> None:
    """All that Sphinx reads: ``index.md``, ``notebooks/*.ipynb``, ``reference/*.md`` and the pictures."""
    pictures = ROOT / "notebooks" / "figures"
    shutil.copytree(pictures, source / "notebooks" / "figures", ignore=shutil.ignore_patterns("*.md", "*.py"))
    (source / "reference").mkdir()
    shutil.copytree(
        ROOT / "docs", source / "docs", ignore=shutil.ignore_patterns("*.py", "*.css", "*.js", "__pycache__")
    )
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for file in notebooks:
        notebook = json.loads(file.read_text(encoding="utf-8"))
        for_the_web(notebook)
        (source / "notebooks" / file.name).write_text(json.dumps(notebook), encoding="utf-8")
    found = sorted(file.stem for file in (ROOT / "vgg_course").glob("[!_]*.py"))
    modules = sorted(found, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    for name in modules:
        (source / "reference" / f"{name}.md").write_text(MODULE.format(name=name), encoding="utf-8")
    toctrees = INDEX.format(
        notebooks="\n".join(f"{short_title(file)} <notebooks/{file.stem}>" for file in notebooks),
        modules="\n".join(f"reference/{name}" for name in modules),
        repository=REPOSITORY,
    )
    for file in TEXTS:
        text = links(file.read_text(encoding="utf-8"), file.parent)
        (source / file.relative_to(ROOT)).write_text(text, encoding="utf-8")
    readme = buttons((ROOT / "README.md").read_text(encoding="utf-8"))
    (source / "index.md").write_text(links(readme, ROOT) + toctrees, encoding="utf-8")


def short_title(notebook: Path) -> str:
    """``01 Layers`` of the heading ``# 01 Layers: what a VGG is made of``."""
    heading = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()[0]
    return heading.removeprefix("# ").split(":")[0]


def for_the_web(notebook: dict) -> None:
    """Change a notebook in place, where a page differs from Jupyter."""
    notebook["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = links(buttons(source), ROOT / "notebooks")
        else:
            cell["metadata"]["mystnb"] = {"image": {"alt": cell["metadata"].get("alt", "")}}
            cell["outputs"] = [widget_note(output) for output in cell["outputs"]]
            if "interact(" in source:  # no notebook stores a widget
                cell["outputs"].append(widget_note({"data": {WIDGET: {}}}))


def buttons(text: str) -> str:
    """Colab's badge is a picture on another host: a link that looks like a button does the same."""
    return re.sub(r"\[!\[([^\]]*)\]\([^)]*colab-badge.svg\)\]\(([^)]*)\)", r"[\1](\2){.button}", text)


def links(text: str, folder: Path) -> str:
    """Links of a file in ``folder`` to files that have no page here lead to the repository."""

    def better(match: re.Match) -> str:
        file = (folder / match[1]).resolve()
        if file == ROOT / "README.md":
            return match[0].replace("README.md", "index.md")
        pictures = file.parent in (ROOT / "docs", ROOT / "notebooks" / "figures")
        own = file.suffix == ".ipynb" or file in TEXTS or pictures
        if own or not file.is_relative_to(ROOT) or not file.exists():
            return match[0]
        kind = "tree" if file.is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{file.relative_to(ROOT).as_posix()}"

    def place(match: re.Match) -> str:  # Jupyter keeps capitals and signs in the name of a heading
        name = re.sub(r"[^\w-]", "", unquote(match[2]).lower())
        return f"]({match[1]}#{name})"

    text = re.sub(r"\]\(((?:[^)#:\s]+\.ipynb)?)#([^)\s]+)\)", place, text)
    return re.sub(r"\]\(([^)#:\s]+)", better, text)


def widget_note(output: dict) -> dict:
    """A widget needs a kernel: the page says what stands there in a notebook that runs. A progress bar is left out."""
    if WIDGET not in output.get("data", {}):
        return output
    text = "".join(output["data"].get("text/plain", ""))
    note = "" if "%|" in text else "<p class='note'>In the running notebook, you move sliders here.</p>"
    return {"output_type": "display_data", "metadata": {}, "data": {"text/html": note}}


if __name__ == "__main__":
    main()
