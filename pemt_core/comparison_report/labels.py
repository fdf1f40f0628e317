"""Place the labels of many marks so that none covers another, a mark or the frame."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from pemt_core.report.palette import SOFT, TEXT

FONT_SIZE = 9  # points
MARK = 8  # pixels from a mark's centre to its edge, with some room
RADII = (9, 16, 24, 34, 46, 60, 76, 94, 114, 136, 160, 190, 220)  # pixels from a mark to its label
STEPS = 12  # places at which a line to a label is looked at
CROSSING = 40.0  # the cost of crossing a mark, in square pixels of a covered one
LEADER = 9  # a label that is farther away has a line to its mark
ANGLES = (0, 180, 35, 145, 325, 215, 90, 270, 15, 165, 345, 195, 60, 120, 300, 240)  # degrees, the preferred first

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


@dataclass(frozen=True)
class Labelled:
    """A mark in the units of the axes, with the bar through it, and its label."""

    x: float
    y: float
    text: str
    low: float  # ends of the vertical bar; both y without one
    high: float
    bold: bool = False


def place_labels(axes: Axes, marks: Sequence[Labelled]) -> None:
    """Label each mark; call it when the layout is final. Higher marks choose first.

    A label without a free place takes the one where it covers least.
    """
    of_mark = {mark: _boxes_of(axes, mark) for mark in marks}
    taken = [box for boxes in of_mark.values() for box in boxes]
    frame: Box = axes.get_window_extent().extents
    per_pixel = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    for mark in sorted(marks, key=lambda mark: -mark.y):
        x, y = axes.transData.transform((mark.x, mark.y))
        label = axes.annotate(
            mark.text, (mark.x, mark.y), (0, 0), textcoords="offset points", fontsize=FONT_SIZE, color=TEXT,
            fontweight="bold" if mark.bold else "normal", va="center", ha="center",
        )  # fmt: skip
        size = label.get_window_extent()
        radius, dx, dy = min(
            _candidates(size.width, size.height),
            key=lambda place: (
                _cost(_box(x + place[1], y + place[2], size), taken, frame)
                + _crossed((x, y), place, size, [box for other in marks if other is not mark for box in of_mark[other]])
                + place[0] / 10
            ),
        )
        label.set_position((dx * per_pixel, dy * per_pixel))
        if radius > LEADER:
            start, end = _ends(dx, dy, size)
            line = [axes.transData.inverted().transform((x + px, y + py)) for px, py in (start, end)]
            axes.plot(*zip(*line, strict=True), color=SOFT, linewidth=0.6, zorder=1.5, scalex=False, scaley=False)
        taken.append(_box(x + dx, y + dy, size))


def _ends(dx: float, dy: float, size: Bbox) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ends of the line from a mark's edge to its label, whose centre is at (dx, dy), in pixels from the mark."""
    x = max(dx - size.width / 2, min(0.0, dx + size.width / 2))
    y = max(dy - size.height / 2, min(0.0, dy + size.height / 2))
    length = math.hypot(x, y) or 1.0
    return (x / length * MARK, y / length * MARK), (x, y)


def _crossed(at: tuple[float, float], place: tuple[float, float, float], size: Bbox, others: Sequence[Box]) -> float:
    """A cost for every box of another mark that the line to a label crosses."""
    radius, dx, dy = place
    if radius <= LEADER:
        return 0.0
    (x0, y0), (x1, y1) = _ends(dx, dy, size)
    points = [(at[0] + x0 + (x1 - x0) * step / STEPS, at[1] + y0 + (y1 - y0) * step / STEPS) for step in range(STEPS)]
    return CROSSING * sum(any(b[0] <= x <= b[2] and b[1] <= y <= b[3] for x, y in points) for b in others)


def _candidates(width: float, height: float) -> Iterator[tuple[float, float, float]]:
    """Yield radius and offset of a label's centre, the nearest first."""
    for radius in RADII:
        for angle in ANGLES:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            yield radius, radius * cos + width / 2 * _side(cos), radius * sin + height / 2 * _side(sin)


def _side(direction: float) -> float:
    return 0.0 if abs(direction) < 0.1 else math.copysign(1.0, direction)


def _box(x: float, y: float, size: Bbox) -> Box:
    return x - size.width / 2, y - size.height / 2, x + size.width / 2, y + size.height / 2


def _boxes_of(axes: Axes, mark: Labelled) -> list[Box]:
    """What a mark and its bar cover."""
    x, y = axes.transData.transform((mark.x, mark.y))
    low, high = (axes.transData.transform((mark.x, end))[1] for end in (mark.low, mark.high))
    return [(x - MARK, y - MARK, x + MARK, y + MARK), (x - 1, low, x + 1, high)]


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """The area in square pixels that a label would share with others or lose outside the frame."""
    outside = _shared(box, box) - _shared(box, frame)
    return 10 * outside + sum(_shared(box, other) for other in taken)


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
