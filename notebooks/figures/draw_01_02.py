"""Draw the pictures of notebooks 01 and 02: ``python notebooks/figures/draw_01_02.py`` writes the SVG files beside it.

Only the standard library is needed. The background is white, so that the pictures read well on a dark page too.
"""

from pathlib import Path

BLUE, ORANGE, GREEN, SKY, GREY, INK = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#DDDDDD", "#222222"
IMAGE = [[1, 0, 2, 8, 9], [1, 1, 1, 9, 8], [1, 1, 2, 8, 8], [0, 2, 1, 9, 9], [1, 0, 1, 8, 9]]
FILTER = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]


def text(x, y, words, size=15, color=INK, anchor="middle", weight="normal"):
    style = f'font-size="{size}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{words}</text>'


def box(x, y, width, height, fill="white", stroke=INK, line=1.0):
    size = f'width="{width:g}" height="{height:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} fill="{fill}" stroke="{stroke}" stroke-width="{line:g}"/>'


def arrow(x1, y, x2):
    head = f'<path d="M{x2 - 9:g} {y - 5:g} L{x2:g} {y:g} L{x2 - 9:g} {y + 5:g} Z" fill="{INK}"/>'
    return f'<line x1="{x1:g}" y1="{y:g}" x2="{x2 - 8:g}" y2="{y:g}" stroke="{INK}" stroke-width="1.5"/>{head}'


def write(name, width, height, title, parts):
    body = "\n".join([f"<title>{title}</title>", box(0, 0, width, height, stroke="none"), *parts])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    file = Path(__file__).with_name(name)
    file.write_text(f'{head} font-family="DejaVu Sans, Arial, sans-serif">\n{body}\n</svg>\n', encoding="utf-8")


def table(x, y, cell, rows, fills):
    """A grid of numbers; ``fills`` maps (row, column) to a colour. A number that is None stays blank."""
    parts = []
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            parts.append(box(x + j * cell, y + i * cell, cell, cell, fills.get((i, j), "white"), "#888888"))
            if number is not None:
                parts.append(text(x + (j + 0.5) * cell, y + (i + 0.5) * cell + 5, f"{number}".replace("-", "−")))
    return parts


def convolved(top, left):
    return sum(IMAGE[top + i][left + j] * FILTER[i][j] for i in range(3) for j in range(3))


def conv_window():
    """Three steps of the 3x3 window over a 5x5 image."""
    cell, parts, seen = 30, [], {}
    for step, (top, left) in enumerate([(0, 0), (0, 1), (2, 2)]):
        seen |= {(i, j): convolved(i, j) for i in range(3) for j in range(3) if (i, j) <= (top, left)}
        y = 40 + step * 180
        window = {(top + i, left + j): "#FBE3B0" for i in range(3) for j in range(3)}
        parts += [text(20, y + 80, ("1st", "2nd", "9th")[step], 14, anchor="start"), *table(60, y, cell, IMAGE, window)]
        parts.append(box(60 + left * cell, y + top * cell, 3 * cell, 3 * cell, "none", ORANGE, 3.5))
        parts += [text(240, y + 83, "×", 26), *table(270, y + cell, cell, FILTER, {})]
        parts += [text(414, y + 64, "sum", 14), arrow(382, y + 75, 446)]
        rows = [[seen.get((i, j)) for j in range(3)] for i in range(3)]
        parts += table(470, y + cell, cell, rows, {(top, left): "#BBDDF2"})
        parts.append(box(470 + left * cell, y + cell + top * cell, cell, cell, "none", BLUE, 3.5))
    parts += [text(135, 26, "image, 5×5", 15), text(315, 56, "filter, 3×3"), text(515, 56, "result, 3×3")]
    write("conv_window.svg", 600, 570, "A 3x3 filter moves over a 5x5 image", parts)


def stacked_3x3():
    """A cut through two 3x3 layers beside one 5x5 layer: both reach five pixels."""
    cell, parts = 40, []
    for x, rows, name in [(50, [1, 3, 5], "two 3×3 layers"), (380, [1, 5], "one 5×5 layer")]:
        step = 200 / (len(rows) - 1)
        for level, count in enumerate(rows):
            y, left = 60 + level * step, x + (5 - count) * cell / 2
            if level + 1 < len(rows):
                wide, below = rows[level + 1], y + step
                start, half = x + (5 - wide) * cell / 2, (wide - count) * cell / 2
                for k in range(count):
                    a, b = left + k * cell, start + k * cell
                    points = f"{a},{y + cell} {a + cell},{y + cell} {b + cell + 2 * half},{below} {b},{below}"
                    parts.append(f'<polygon points="{points}" fill="{SKY}" fill-opacity="0.22" stroke="{BLUE}"/>')
            fill = ORANGE if level == 0 else SKY if level + 1 < len(rows) else GREY
            parts += [box(left + k * cell, y, cell, cell, fill) for k in range(count)]
        parts.append(text(x + 2.5 * cell, 36, name, 17, weight="bold"))
    parts += [text(315, 85, "output", 16), text(315, 185, "between", 16), text(315, 285, "input", 16)]
    write("stacked_3x3.svg", 630, 320, "Two 3x3 layers reach as far as one 5x5 layer", parts)


def vgg16_blocks():
    """VGG-16 to scale: height = side of the maps in pixels, 16 channels = 1 pixel of width."""
    blocks, x, parts, middle = [(224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3), (14, 512, 3)], 50, [], 150
    for side, channels, count in blocks:
        start = x
        for _ in range(count):
            parts.append(box(x, middle - side / 2, channels / 16, side, SKY, BLUE, 0.8))
            x += channels / 16 + 4
        centre = (start + x - 4) / 2
        low = {224: 286, 112: 228, 56: 202, 28: 188, 14: 181}[side]
        parts += [text(centre, low, f"conv {channels}", 17), text(centre, low + 20, f"{side}×{side}", 17)]
        x += 26
        parts.append(box(x - 16, middle - side / 4, max(channels / 16, 2), side / 2, ORANGE, INK, 0.6))
        x += channels / 16 + 14
    for k, units in enumerate((4096, 4096, 1000)):
        y = 44 + 18 * k
        parts += [box(300, y + 0.5, units / 16, 1, GREEN, "none"), text(564, y + 7, f"{units:,}", 17, anchor="start")]
    parts.append(text(300, 28, "three linear layers, one pixel high", 17, anchor="start"))
    legend = [(SKY, "convolution, ReLU", 190), (ORANGE, "max pool", 400), (GREEN, "linear", 530)]
    for color, word, left in legend:
        parts += [box(left, 279, 14, 14, color), text(left + 20, 292, word, 17, anchor="start")]
    write("vgg16_blocks.svg", 640, 320, "VGG-16 to scale", parts)


if __name__ == "__main__":
    conv_window()
    stacked_3x3()
    vgg16_blocks()
