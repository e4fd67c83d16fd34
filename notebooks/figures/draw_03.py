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
        text(x + width / 2, y + 44, shape, 13),
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
        *part(14, 60, 112, "images", "100×3×32×32", "white"),
        *part(190, 60, 130, "network", "weights", "#D7ECF8"),
        *part(390, 60, 104, "logits", "100×10", "white"),
        *part(566, 60, 120, "loss", "one number", "#FBE3B0"),
        *part(566, 180, 120, "labels", "100", "white"),
        *part(170, 240, 170, "gradients", "one for each weight", "white"),
        line(126, 88, 190, 88),
        line(320, 88, 390, 88),
        line(494, 88, 566, 88),
        line(626, 180, 626, 116),
        *step(318, 42, 1, "model(images)", BLUE),
        *step(500, 42, 2, "cross-entropy", BLUE),
        f'<path d="M580 116 L580 146 L530 146 L530 268 L350 268" fill="none" {stroke(ORANGE)}/>',
        f'<path d="M349 263 L340 268 L349 273 Z" fill="{ORANGE}"/>',
        *step(372, 258, 4, "loss.backward()", amber),
        line(255, 240, 255, 116, GREEN),
        *step(276, 182, 5, "optimizer.step()", green),
        line(136, 268, 170, 268, deep_sky),
        *step(26, 264, 3, "zero_grad()", deep_sky),
        text(43, 284, "empties them", 13, anchor="start"),
    ]
    write("training_step.svg", 700, 316, "A training step: the flow of a batch", parts)


def server(x, title, pages):
    """A plot server as a frame with its pages in it: for each page its name and the windows on it."""
    parts = [box(x, 62, 200, 190, "white", INK, 1.2), text(x + 100, 50, title, 15, weight="bold")]
    for (name, windows), y in zip(pages.items(), (76, 164), strict=False):
        height = 164 if len(pages) == 1 else 76
        parts += [box(x + 12, y, 176, height, "#D7ECF8", INK, 1.2), text(x + 100, y + 20, f"page {name}", 13)]
        for window, top in zip(windows, (y + 28, y + 100), strict=False):
            parts += [box(x + 50, top, 100, 38, "white", INK, 1.2), text(x + 100, top + 24, window, 13)]
    return parts


def pages():
    """Two runs on the page that everybody gets, and on a page each."""
    parts = [
        *server(100, "everybody on main", {"main": ("Anna's loss", "your loss")}),
        *server(470, "a page for each run", {"anna/deep": ("Anna's loss",), "you/first": ("your loss",)}),
        text(44, 200, "close(", 13),
        text(44, 218, '"main")', 13),
        line(76, 206, 112, 206, ORANGE),
        f'<path d="M150 104 L250 142 M250 104 L150 142" {stroke(ORANGE)}/>',
        text(412, 200, "close(", 13),
        text(412, 218, '"you/first")', 13),
        line(452, 206, 482, 206, ORANGE),
    ]
    write("plot_pages.svg", 700, 268, "A plot server: one page for all, or a page for each run", parts)


def stroke(color):
    return f'stroke="{color}" stroke-width="2" stroke-dasharray="7 4"'


if __name__ == "__main__":
    training_step()
    pages()
