"""Place the labels of many marks so that none covers another, a mark or the frame."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from pemt_core.report.palette import SOFT, TEXT

FONT_SIZE = 9  # points
MARK = 6  # pixels from a mark's centre to its edge
RADII = (9, 15, 24, 36, 50, 66, 84, 105, 130, 160)  # pixels from a mark to its label
LEADER = 15  # a label that is farther away has a line to its mark
ANGLES = (0, 180, 35, 145, 325, 215, 90, 270)  # degrees, the preferred ones first


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
    taken = [box for mark in marks for box in _boxes_of(axes, mark)]
    frame = axes.get_window_extent()
    for mark in sorted(marks, key=lambda mark: -mark.y):
        x, y = axes.transData.transform((mark.x, mark.y))
        weight = "bold" if mark.bold else "normal"
        label = axes.annotate(
            mark.text, (mark.x, mark.y), (0, 0), textcoords="offset pixels", fontsize=FONT_SIZE, color=TEXT,
            fontweight=weight, va="center", ha="center",
        )  # fmt: skip
        size = label.get_window_extent()
        radius, dx, dy = min(
            _candidates(size.width, size.height),
            key=lambda place: _cost(_box(x + place[1], y + place[2], size), taken, frame) + place[0] / 1000,
        )
        label.set_position((dx, dy))
        if radius > LEADER:
            arrow = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": MARK * 0.72}
            label.remove()
            label = axes.annotate(
                mark.text, (mark.x, mark.y), (dx, dy), textcoords="offset pixels", fontsize=FONT_SIZE, color=TEXT,
                fontweight=weight, va="center", ha="center", arrowprops=arrow,
            )  # fmt: skip
        taken.append(_box(x + dx, y + dy, size))


def _candidates(width: float, height: float) -> Iterator[tuple[float, float, float]]:
    """Yield radius and offset of a label's centre, the nearest first."""
    for radius in RADII:
        for angle in ANGLES:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            yield radius, radius * cos + width / 2 * _side(cos), radius * sin + height / 2 * _side(sin)


def _side(direction: float) -> float:
    return 0.0 if abs(direction) < 0.1 else math.copysign(1.0, direction)


def _box(x: float, y: float, size: Bbox) -> Bbox:
    return Bbox.from_bounds(x - size.width / 2, y - size.height / 2, size.width, size.height)


def _boxes_of(axes: Axes, mark: Labelled) -> list[Bbox]:
    """What a mark and its bar cover, in pixels."""
    x, y = axes.transData.transform((mark.x, mark.y))
    low, high = (axes.transData.transform((mark.x, end))[1] for end in (mark.low, mark.high))
    return [Bbox.from_bounds(x - MARK, y - MARK, 2 * MARK, 2 * MARK), Bbox.from_extents(x - 1, low, x + 1, high)]


def _cost(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """The area in square pixels that a label would share with others or lose outside the frame."""
    inside = Bbox.intersection(box, frame)
    outside = box.width * box.height - (inside.width * inside.height if inside else 0.0)
    shared = [Bbox.intersection(box, other) for other in taken]
    return 10 * outside + sum(part.width * part.height for part in shared if part)
