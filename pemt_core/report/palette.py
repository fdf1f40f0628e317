"""The style of all figures of a report: the page's colours, a colour and marker per method, a line per k, a frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pemt_core.artifacts.result import CellResult
from pemt_core.report.names import MethodNames

PAGE, TEXT, SOFT, LINE = "#ffffff", "#1b1f24", "#57606a", "#d9dee3"  # background, text, numbers and axes, grid
# Okabe and Ito's palette, which people with any common colour blindness can tell apart, without yellow, which vanishes
# on white. Grey makes eight: two methods, and six with one source left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
ON_DARK = {"#000000": "#FFFFFF"}  # colours that would vanish on a dark page
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "D", "s", "^", "v", "P", "H", "*")
DASHES = ("none", "5 3", "1.5 2.5", "6 2 1.5 2")  # LINES in SVG
SHAPES = (  # MARKERS in SVG, around (0, 0)
    "M-4.2,0a4.2,4.2 0 1,0 8.4,0a4.2,4.2 0 1,0 -8.4,0Z",
    "M0,-5.4L5.4,0L0,5.4L-5.4,0Z",
    "M-3.9,-3.9H3.9V3.9H-3.9Z",
    "M0,-5L4.8,3.6H-4.8Z",
    "M0,5L4.8,-3.6H-4.8Z",
    "M-1.6,-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
    "M-5,0L-2.5,-4.3H2.5L5,0L2.5,4.3H-2.5Z",
    "M0,-5.8L1.3,-1.8H5.5L2.1,0.7L3.4,4.7L0,2.2L-3.4,4.7L-2.1,0.7L-5.5,-1.8H-1.3Z",
)
# The colours of figures, and the variables of page.css that replace them on the page
VARIABLES = {
    PAGE: "page",
    TEXT: "text",
    SOFT: "soft",
    LINE: "line",
    **{colour.lower(): f"m{place}" for place, colour in enumerate(COLOURS)},
}
_DRAWN: dict[Any, Any] = {
    "text.color": TEXT,
    "axes.titlecolor": TEXT,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "axes.facecolor": PAGE,
    "figure.facecolor": PAGE,
    "grid.color": LINE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}
page_colours = rc_context(_DRAWN)  # decorator of functions that draw a figure


@dataclass(frozen=True)
class Style:
    """The look of one method at one k in every table and figure."""

    title: str  # the method's title, with its k if there are several
    label: str  # the method's title with its k
    colour: str
    line: str
    marker: str
    hollow: bool  # markers of every k but the first
    method: int  # place in COLOURS, MARKERS and SHAPES
    k: int  # place in LINES and DASHES

    @property
    def marks(self) -> dict[str, Any]:
        """The marker as arguments of matplotlib."""
        edge = {"markeredgecolor": self.colour, "markeredgewidth": 1.4 if self.hollow else 0.0}
        return {"marker": self.marker, "markerfacecolor": PAGE if self.hollow else self.colour, **edge}


Series = dict[tuple[str, str], Style]  # (method, k) to its style, in the order of legends


def series_of(results: Sequence[CellResult], names: MethodNames) -> Series:
    """Give each (method, k) of `results` a style, sorted by method and k, "full" first.

    Styles repeat after 8 methods and 4 k.
    """
    methods = names.ordered(result.method for result in results)
    ks = sorted({str(result.k) for result in results}, key=in_order_of_k)
    found = {(result.method, str(result.k)) for result in results}
    pairs = [(method, k) for method in methods for k in ks if (method, k) in found]
    return {(method, k): _style(names.title(method), k, methods.index(method), ks) for method, k in pairs}


def in_order_of_k(k: str) -> int:
    """Return a sort key: "full" first, then the fewest rows."""
    return 0 if k == "full" else int(k)


def _style(title: str, k: str, method: int, ks: Sequence[str]) -> Style:
    method, place = method % len(COLOURS), ks.index(k) % len(LINES)
    label = f"{title}, k={k}"
    return Style(
        title if len(ks) == 1 else label,
        label,
        COLOURS[method],
        LINES[place],
        MARKERS[method],
        place > 0,
        method,
        place,
    )


def drop_frame(axes: Axes) -> None:
    """Keep the two axis lines with numbers, and draw a faint grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)


def lay_out(figure: Figure) -> None:
    """Compute the layout once, so that it is the same in each file of the figure."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


@page_colours
def figure_without(what: str) -> Figure:
    """Return a figure that says that there is nothing to draw, since the pipeline always writes the same files."""
    figure = Figure(figsize=(5.0, 1.5))
    figure.text(0.5, 0.5, f"No {what} among the results", ha="center", va="center")
    return figure
