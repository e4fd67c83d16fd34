"""The site is built from the checkout and looked at in a browser: narrow and wide, light and dark."""

import html
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from drawn import PATIENCE

pytest.importorskip("myst_nb", reason="the site's packages are not installed: pip install -e .[site]")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CONTRAST = "color-contrast"
AXE = """async (options) => (await axe.run({resultTypes: ["violations"], ...options})).violations
    .filter((found) => ["serious", "critical"].includes(found.impact))
    .map((found) => `${found.id}: ${found.nodes.map((node) => node.html.slice(0, 120)).slice(0, 3).join("; ")}`)"""
# Of words that look alike one is enough: the contrast of all of a long page takes seconds. Alike are those that lie in
# the same elements with the same classes; every second row of a table has a colour of its own.
ONCE = """() => {
    const look = (part) => [part.tagName, part.className, part.getAttribute("style"), part.rowIndex % 2].join(" ");
    const seen = new Set();
    for (const words of [...document.body.querySelectorAll("*")].reverse()) {
        if (words.children.length || !words.textContent.trim()) continue;
        const path = [];
        for (let part = words; part; part = part.parentElement) path.push(look(part));
        if (seen.has(path.join())) words.remove();
        seen.add(path.join());
    }
}"""
OPEN = "document.querySelectorAll('details').forEach((solution) => (solution.open = true))"
BROKEN = "[...document.images].filter((image) => !image.naturalWidth || !image.alt).map((image) => image.src)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The site, built without a warning (one would fail the build)."""
    target = tmp_path_factory.mktemp("site")
    environment, work = {**os.environ, "PYTHONPATH": str(ROOT)}, []
    torch = ["-c", "import torch"]
    for command in (torch, [ROOT / "tools" / "build_site.py", target], torch):
        before = os.times()
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        after = os.times()
        work.append(after.children_user + after.children_system - before.children_user - before.children_system)
    # Work, not time: against what the import of torch costs on the same machine, before and after, where 8 to 10 times
    # as much were seen. Windows does not tell the work of a process that has ended.
    assert os.name == "nt" or work[1] < 12 * (work[0] + work[2]) / 2, work
    return target / "html"


@pytest.fixture(scope="module")
def pages(folder) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.html"))


@pytest.fixture(scope="module")
def url(folder):
    """Where the site is served for the time of these tests."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def open_page(browser, url):
    """``open_page(width)``: a browser's page that lists in ``trouble`` errors and requests to other hosts."""
    contexts = []

    def open_it(width: int):
        size, clipboard = {"width": width, "height": 900}, ["clipboard-read", "clipboard-write"]
        contexts.append(browser.new_context(viewport=size, base_url=url, permissions=clipboard))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.trouble = []
        page.on("pageerror", lambda error: page.trouble.append(str(error)))
        page.on("console", lambda text: page.trouble.append(text.text) if text.type == "error" else None)
        page.on("request", lambda asked: page.trouble.append(asked.url) if not is_ours(asked.url) else None)
        return page

    def is_ours(asked: str) -> bool:
        return asked.startswith((url, "data:"))

    yield open_it
    for context in contexts:
        context.close()


def test_each_notebook_and_each_module_has_a_page(pages):
    modules = [file.stem for file in (ROOT / "vgg_course").glob("[!_]*.py")]
    wanted = [f"notebooks/{file.stem}.html" for file in NOTEBOOKS] + [f"reference/{name}.html" for name in modules]
    wanted += ["docs/in_class.html", "CONTRIBUTING.html", "GLOSSARY.html", "index.html", "search.html"]
    assert set(wanted) <= set(pages)


def test_the_front_page(folder):
    """The film of the README, its buttons without a picture of another host, and the way to the texts."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<img alt="[^"]{80,}" src="_images/live_plot.gif" width="560"', text)
    assert text.count("colab.research.google.com") == len(NOTEBOOKS) and "colab-badge" not in text
    assert 'href="docs/in_class.html"' in text and 'href="CONTRIBUTING.html#set-up"' in text
    assert 'href="../index.html#setting-up"' in (folder / "docs" / "in_class.html").read_text(encoding="utf-8")


def test_what_stands_for_a_widget(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    from build_site import WIDGET, widget_note

    view = {WIDGET: {"model_id": "1"}, "text/plain": ["interactive(children=(IntSlider(value=1), Output()))"]}
    output = {"output_type": "display_data", "metadata": {}, "data": view}
    assert "sliders" in widget_note(output)["data"]["text/html"]
    bar = {**output, "data": {**view, "text/plain": ["  0%|          | 0/12 [00:00<?, ?batch/s]"]}}
    assert widget_note(bar)["data"] == {"text/html": ""}
    plain = {"output_type": "stream", "name": "stdout", "text": "12"}
    assert widget_note(plain) is plain


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_page_shows_what_the_notebook_stores(folder, file):
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    text = (folder / "notebooks" / f"{file.stem}.html").read_text(encoding="utf-8")
    shown = [html.unescape(alt) for alt in re.findall(r'<img alt="([^"]*)"', text)]
    drawn = [c["metadata"]["alt"] for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert drawn and [alt for alt in shown if alt in drawn] == drawn
    solutions = sum("".join(cell["source"]).count("<details>") for cell in cells)
    assert text.count("<details>") == text.count("</details>") == solutions >= 5
    assert f"colab.research.google.com/github/vgg-course/vgg-course/blob/main/notebooks/{file.name}" in text
    assert "colab-badge" not in text
    assert "jupyter.widget-view" not in text
    sliders = sum("interact(" in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert text.count("you move sliders here") == sliders


def test_links_lead_to_pages_and_to_places_on_them(folder, pages):
    texts = {page: (folder / page).read_text(encoding="utf-8") for page in pages}
    for page, text in texts.items():
        for target in re.findall(r'<(?:a|img|link|script)\b[^>]*?\s(?:href|src)="([^"]+)"', text):
            parts = urlsplit(html.unescape(target))
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            file = (folder / page).parent / unquote(parts.path) if parts.path else folder / page
            assert file.is_file(), f"{page}: {target}"
            name = file.resolve().relative_to(folder.resolve()).as_posix()
            if parts.fragment and name in texts:
                assert f'id="{parts.fragment}"' in texts[name], f"{page}: {target}"


def test_links_to_the_repository_lead_to_files(folder, pages):
    start = "https://github.com/vgg-course/vgg-course"
    found = {
        target
        for page in pages
        for target in re.findall(rf'"{start}/\w+/main/([^"#]+)', (folder / page).read_text(encoding="utf-8"))
    }
    assert "data/README.md" in found
    assert [target for target in found if not (ROOT / target).exists()] == []


def test_types_defaults_and_the_words_about_them(folder):
    text = (folder / "reference" / "training.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]+>", "", text))
    source = (ROOT / "vgg_course" / "training.py").read_text(encoding="utf-8")
    first_line = source.removeprefix('"""').splitlines()[0].replace("`", "")
    assert text.index(first_line) < text.index("vgg_course.training.fit(")
    assert re.search(r"vgg_course\.training\.fit\(\s*model: Module,", text)
    everything = " ".join(file.read_text(encoding="utf-8") for file in (folder / "reference").glob("*.html"))
    assert "how often the network sees every training image" in everything  # the comment behind Recipe.epochs
    assert "lambda&gt;" not in everything


def test_the_page_of_the_network_has_its_three_parts(folder):
    """``__all__`` of vgg.py is the lecture's, without ``cfg`` and ``make_layers``; the page is for readers."""
    text = (folder / "reference" / "vgg.html").read_text(encoding="utf-8")
    for name in ("cfg", "make_layers", "VGG", "VGG.forward", "vgg16_bn"):
        assert f'id="vgg_course.vgg.{name}"' in text, name
    assert "Should be overridden by all subclasses" not in text


def test_wide_light_and_dark(open_page, pages, screenshots):
    page = open_page(1280)
    page.add_init_script(path=axe())
    for name in pages:
        page.emulate_media(color_scheme="light")
        page.goto(name)
        page.evaluate(OPEN)
        page.trouble += [f"{name}: {found}" for found in page.evaluate(BROKEN)]
        page.trouble += [f"{name}: {found}" for found in page.evaluate(AXE, {"rules": {CONTRAST: {"enabled": False}}})]
        for theme, found in contrast(page, "light", "dark"):
            page.trouble += [f"{name}, {theme}: {one}" for one in found]
            page.screenshot(path=screenshots / f"site {name.replace('/', ' ')} {theme}.png")
    assert not page.trouble, "\n".join(page.trouble)


def test_narrow(open_page, pages, screenshots):
    page = open_page(400)
    page.add_init_script(path=axe())
    for name, theme in zip(pages, cycle(("light", "dark"))):  # a narrow page has no colours of its own
        page.emulate_media(color_scheme="light")
        page.goto(name)
        page.evaluate(OPEN)
        page.trouble += [f"{name}: {one}" for one in page.evaluate(AXE, {"rules": {CONTRAST: {"enabled": False}}})]
        width = page.evaluate("document.documentElement.scrollWidth")
        page.trouble += [f"{name} is {width} pixels wide"] if width > 400 else []
        page.screenshot(path=screenshots / f"site {name.replace('/', ' ')} narrow.png")
        page.trouble += [f"{name}, {theme}, narrow: {one}" for _, found in contrast(page, theme) for one in found]
    assert not page.trouble, "\n".join(page.trouble)


def contrast(page, *themes: str) -> Iterator[tuple[str, list[str]]]:
    """What is hard to read in these themes; afterwards the page has lost most of its words."""
    page.evaluate(ONCE)
    for theme in themes:
        page.emulate_media(color_scheme=theme)
        yield theme, page.evaluate(AXE, {"runOnly": {"type": "rule", "values": [CONTRAST]}})


def axe() -> Path:
    package = pytest.importorskip("axe_playwright_python", reason="for the check of accessibility")
    return Path(package.__file__).parent / "axe.min.js"


@pytest.mark.parametrize("width", [1280, 400])
def test_a_visit(open_page, width, screenshots):
    """From the front page to a notebook, a solution, a copied cell, the dark theme, and a search."""
    page = open_page(width)
    page.goto("")
    page.get_by_role("main").get_by_role("link", name="01 Layers").first.click()
    page.wait_for_url("**/notebooks/01_layers.html")  # also for its scripts
    solution = page.locator("details").first
    assert not solution.locator(".highlight").first.is_visible()
    solution.locator("summary").click()
    assert solution.locator(".highlight").first.is_visible()
    assert page.locator("button.copybtn").count() > 20
    cell = page.locator("div.cell_input").nth(1)
    cell.hover()
    cell.locator("button.copybtn").click()
    cells = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))["cells"]
    second = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][1]
    assert page.evaluate("navigator.clipboard.readText()").strip() == second.strip()
    colour, colours = "getComputedStyle(document.body).backgroundColor", set()
    for _ in range(3):  # light, dark, and what the system says
        page.locator(".theme-toggle:visible").first.click()
        colours.add(page.evaluate(colour))
    assert len(colours) == 2
    if width == 400:
        page.locator("label[for=__navigation]:visible").first.click()
        page.wait_for_timeout(500)  # the navigation slides in
    page.get_by_placeholder("Search").fill("receptive field")
    page.get_by_placeholder("Search").press("Enter")
    page.locator("#search-results li a", has_text="02 VGG from cfg").first.wait_for()  # they come one after the other
    page.screenshot(path=screenshots / f"site search {width}.png")
    page.locator("#search-results li a", has_text="02 VGG from cfg").first.click()
    page.wait_for_url("**/notebooks/02_vgg_from_cfg.html*")
    assert page.locator("span.highlighted").count() or "receptive field" in page.locator("article").inner_text()
    assert not page.trouble
