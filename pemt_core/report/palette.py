"""What all figures of a report share: a colour per method, a line and a marker per k, and a light frame."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from pemt_core.artifacts.result import CellResult, sort_key

# Okabe and Ito's palette without its yellow, which vanishes on white: tells apart under all common colour blindness.
# Grey makes as many as pemt, control and six sources left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
ON_DARK = {"#000000": "#FFFFFF"}  # what would vanish on a dark page
LINES = ("-", "--", ":", "-.")
MARKERS = ("D", "o", "s", "^")
DASHES = ("none", "5 3", "1.5 2.5", "6 2 1.5 2")  # LINES in SVG
SHAPES = (  # in SVG, one per method around (0, 0): on the page a method is told by its shape too
    "M-4.2,0a4.2,4.2 0 1,0 8.4,0a4.2,4.2 0 1,0 -8.4,0Z",
    "M0,-5.4L5.4,0L0,5.4L-5.4,0Z",
    "M-3.9,-3.9H3.9V3.9H-3.9Z",
    "M0,-5L4.8,3.6H-4.8Z",
    "M0,5L4.8,-3.6H-4.8Z",
    "M-1.6,-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
    "M-5,0L-2.5,-4.3H2.5L5,0L2.5,4.3H-2.5Z",
    "M-5,-2H5V2H-5Z",
)


@dataclass(frozen=True)
class Style:
    """How one method at one k looks in every figure."""

    label: str
    colour: str
    line: str
    marker: str
    method: int  # place in COLOURS and SHAPES
    k: int  # place in LINES, MARKERS and DASHES


Series = dict[tuple[str, str], Style]  # (method, k) to its style, in the order of legends


def series_of(results: Sequence[CellResult]) -> Series:
    """The (method, k) pairs of `results` by method, then k with "full" first; styles repeat after 8 methods, 4 k."""
    ordered = sorted(results, key=lambda result: (result.method, result.k != "full", sort_key(result)))
    names = list(dict.fromkeys((result.method, str(result.k)) for result in ordered))
    methods = list(dict.fromkeys(method for method, _ in names))
    ks = sorted({k for _, k in names}, key=lambda k: 0 if k == "full" else int(k))
    return {
        (method, k): Style(
            f"{method}, k={k}",
            COLOURS[methods.index(method) % len(COLOURS)],
            LINES[ks.index(k) % len(LINES)],
            MARKERS[ks.index(k) % len(MARKERS)],
            methods.index(method) % len(COLOURS),
            ks.index(k) % len(LINES),
        )
        for method, k in names
    }


def drop_frame(axes: Axes) -> None:
    """Keep the two axis lines that carry numbers, and a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
