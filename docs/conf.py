"""Settings of Sphinx for the site, see tools/build_site.py. No page asks another host for anything."""

import ast
import re
import tomllib
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vgg_course"
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]

project = "vgg_course"
copyright = "the authors of vgg_course. MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "sphinx_copybutton"]

myst_enable_extensions = ["attrs_inline", "dollarmath", "html_image"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # else scripts from two other hosts

autodoc_default_options = {"members": True, "member-order": "bysource", "undoc-members": True, "no-value": True}
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "vgg_course"
html_favicon = "favicon.svg"
html_static_path = ["style.css", "keyboard.js"]
html_css_files = ["style.css"]
html_js_files = [("keyboard.js", {"defer": "defer"})]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_math_renderer = "mathml"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (math, None), (math, None))
    app.connect("builder-inited", read_comments)
    app.connect("html-page-context", name_levels, priority=900)  # after the theme


def math(writer, node) -> None:
    """A formula as MathML, which browsers draw themselves."""
    display = "inline" if isinstance(node, nodes.math) else "block"
    writer.body.append(latex2mathml.converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def name_levels(app, page, template, context, doctree) -> None:
    """The captions in the navigation are headings: screen readers want to know of which level."""
    tree = context["furo_navigation_tree"]
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def linkcode_resolve(domain: str, info: dict) -> str | None:
    """Where the code stands that a page describes."""
    module = info["module"]
    _, first, last = ModuleAnalyzer.for_module(module).find_tags().get(info["fullname"], (None, 0, 0))
    return f"{REPOSITORY}/blob/main/{module.replace('.', '/')}.py#L{first}-L{last}" if first else None


def read_comments(app) -> None:
    """Take the comment behind a field, or above a public constant, for its docstring."""
    for file in PACKAGE.glob("[!_]*.py"):
        analyzer = ModuleAnalyzer.for_module(f"vgg_course.{file.stem}")
        analyzer.analyze()
        lines = ["", *file.read_text(encoding="utf-8").splitlines()]
        tree = ast.parse("\n".join(lines[1:]))
        for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
            for node in owner.body:
                target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
                comment = comment_of(node, lines, above=owner is tree) if isinstance(target, ast.Name) else ""
                if comment and not target.id.startswith("_"):
                    text = [re.sub(r"([*|`_\\])", r"\\\1", comment), ""]
                    text += [":meta hide-value:", ""] if any(isinstance(n, ast.Lambda) for n in ast.walk(node)) else []
                    analyzer.attr_docs.setdefault((getattr(owner, "name", ""), target.id), text)


def comment_of(node: ast.stmt, lines: list[str], above: bool) -> str:
    """The comment of a statement as one line; ``lines`` counts from 1."""
    found = []
    if above:
        at = node.lineno - 1
        while lines[at].startswith("# "):
            found.insert(0, lines[at])
            at -= 1
    elif behind := re.search(r"#.*", lines[node.end_lineno][node.end_col_offset :]):
        found, at = [behind[0]], node.end_lineno + 1
        while at < len(lines) and lines[at].lstrip().startswith("# "):
            found.append(lines[at])
            at += 1
    return " ".join(line.strip().removeprefix("#").strip() for line in found)
