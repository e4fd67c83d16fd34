"""Draw the pictures of notebook 03: ``python notebooks/figures/draw_03.py`` writes the SVG files beside it."""

from draw_01_02 import BLUE, GREEN, INK, ORANGE, box, text, write


def line(x1, y1, x2, y2, color=INK):
    """A straight arrow from one point to another, level or upright."""
    sign = 1 if x2 + y2 > x1 + y1 else -1
    if y1 == y2:
        head = f"M{x2 - 9 * sign} {y2 - 5} L{x2} {y2} L{x2 - 9 * sign} {y2 + 5} Z"
        x2 -= 8 * sign
    else:
        head = f"M{x2 - 5} {y2 - 9 * sign} L{x2} {y2} L{x2 + 5} {y2 - 9 * sign} Z"
        y2 -= 8 * sign
    shaft = f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{color}" stroke-width="2"/>'
    return f'{shaft}<path d="{head}" fill="{color}"/>'


def part(x, y, width, name, shape, fill):
    return [
        box(x, y, width, 56, fill, INK, 1.2),
        text(x + width / 2, y + 24, name, 15, weight="bold"),
        text(x + width / 2, y + 44, shape, 14),
    ]


def step(x, y, number, words, color):
    return [
        f'<circle cx="{x}" cy="{y - 5}" r="11" fill="{color}"/>',
        text(x, y, number, 14, "white", weight="bold"),
        text(x + 17, y, words, 14, anchor="start"),
    ]


def training_step():
    """The flow of a batch: to the loss in solid lines, back to the weights in a dashed one."""
    amber, green, deep_sky = "#A86F00", "#00724F", "#2A7AA8"
    parts = [
        *part(4, 60, 116, "images", "100×3×32×32", "white"),
        *part(150, 60, 98, "network", "weights", "#D7ECF8"),
        *part(280, 60, 92, "logits", "100×10", "white"),
        *part(404, 60, 108, "loss", "one number", "#FBE3B0"),
        *part(404, 180, 108, "labels", "100", "white"),
        *part(119, 240, 160, "gradients", "one for each weight", "white"),
        line(120, 88, 150, 88),
        line(248, 88, 280, 88),
        line(372, 88, 404, 88),
        line(458, 180, 458, 116),
        *step(206, 42, 1, "model(images)", BLUE),
        *step(360, 42, 2, "cross-entropy", BLUE),
        f'<path d="M416 116 L416 146 L384 146 L384 268 L289 268" fill="none" {stroke(ORANGE)}/>',
        f'<path d="M288 263 L279 268 L288 273 Z" fill="{ORANGE}"/>',
        *step(300, 292, 4, "loss.backward()", amber),
        line(199, 240, 199, 116, GREEN),
        *step(216, 182, 5, "optimizer.step()", green),
        line(60, 268, 119, 268, deep_sky),
        *step(20, 226, 3, "zero_grad()", deep_sky),
        text(8, 250, "empties them", 14, anchor="start"),
    ]
    write("training_step.svg", 520, 316, "A training step: the flow of a batch", parts)


def server(x, title, pages):
    """A plot server as a frame with its pages in it: for each page its name and the windows on it."""
    parts = [box(x, 62, 170, 190, "white", INK, 1.2), text(x + 85, 50, title, 15, weight="bold")]
    for (name, windows), y in zip(pages.items(), (76, 164), strict=False):
        height = 164 if len(pages) == 1 else 76
        parts += [box(x + 10, y, 150, height, "#D7ECF8", INK, 1.2), text(x + 85, y + 20, f"page {name}", 14)]
        for window, top in zip(windows, (y + 28, y + 100), strict=False):
            parts += [box(x + 35, top, 100, 38, "white", INK, 1.2), text(x + 85, top + 24, window, 14)]
    return parts


def pages():
    """Two runs on the page that everybody gets, and on a page each."""
    parts = [
        *server(64, "everybody on main", {"main": ("Anna's loss", "your loss")}),
        *server(342, "a page for each run", {"anna/deep": ("Anna's loss",), "you/first": ("your loss",)}),
        text(34, 190, "close(", 14),
        text(34, 226, '"main")', 14),
        line(30, 202, 74, 202, ORANGE),
        f'<path d="M99 104 L199 142 M199 104 L99 142" {stroke(ORANGE)}/>',
        text(300, 190, "close(", 14),
        text(294, 226, '"you/first")', 14),
        line(304, 202, 352, 202, ORANGE),
    ]
    write("plot_pages.svg", 520, 268, "A plot server: one page for all, or a page for each run", parts)


def stroke(color):
    return f'stroke="{color}" stroke-width="2" stroke-dasharray="7 4"'


if __name__ == "__main__":
    training_step()
    pages()
