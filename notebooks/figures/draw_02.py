"""Draw the picture of notebook 02: ``python notebooks/figures/draw_02.py`` writes ``batch_flow.svg`` beside it."""

from draw_01_02 import BLUE, GREEN, INK, ORANGE, arrow, box, text, write

PINK = "#CC79A7"
D = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
LANE, TOP = 62, 72  # pixels: the height of an image's lane, and where the first one begins


def stages():
    """What is there after each block and each linear layer: (its name, channels or numbers, side or None)."""
    found, channels, side = [("input", 3, 224)], 3, 224
    for entry in D:
        if entry == "M":
            side //= 2
            found.append((f"block {len(found)}", channels, side))
        else:
            channels = entry
    rows = [("flatten", channels * side * side), ("linear", 4096), ("linear", 4096), ("linear", 1000)]
    return found + [(name, count, None) for name, count in rows]


def batch_flow():
    """Four images go through VGG-16: height = side of the maps (4 pixels = 1), width = channels (8 = 1 pixel)."""
    parts, x, below = [], 104, TOP + 4 * LANE + 26
    names = ("images", "channels", "height", "width")
    parts += [text(8, below + 24 * k, name, 17, anchor="start", weight="bold") for k, name in enumerate(names)]
    for k, color in enumerate((BLUE, ORANGE, GREEN, PINK)):
        parts.append(text(8, TOP + (k + 0.5) * LANE + 5, f"image {k + 1}", 17, color, "start", "bold"))
    rows = [[] for _ in names]
    for name, count, side in stages():
        width = max(count / 8, 2) if side else count / 400
        column = max(width, 62 if name == "flatten" else 52)
        for k, color in enumerate((BLUE, ORANGE, GREEN, PINK)):
            middle, height = TOP + (k + 0.5) * LANE, side / 4 if side else 2
            parts.append(box(x + (column - width) / 2, middle - height / 2, width, max(height, 1.75), color, INK, 0.5))
        if name != "input":
            parts.append(arrow(x - 18, TOP - 12, x + 6))
        parts += [text(x + column / 2, 24 + 20 * k, word, 17) for k, word in enumerate(name.split())]
        for row, number in zip(rows, (4, count, *((side, side) if side else ())), strict=False):
            row.append((x + column / 2, f"{number:,}"))
        x += column + 12
    for k, row in enumerate(rows):
        parts += [text(centre, below + 24 * k, number, 17, BLUE if k == 0 else INK) for centre, number in row]
    write("batch_flow.svg", int(x), below + 86, "A batch of four images goes through VGG-16", parts)


if __name__ == "__main__":
    batch_flow()
