"""The matrix of methods by targets: each method's difference from the reference, on a scale from worse to better."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from pemt_core.comparison_report.claims import signed
from pemt_core.comparison_report.study import Study
from pemt_core.report.expert_table import contrast
from pemt_core.report.palette import SOFT, TEXT, page_colours

SHADES = 11  # odd, so that no difference has its own colour
_WORSE, _NONE, _BETTER = (179, 88, 6), (247, 247, 247), (33, 102, 172)  # ends of ColorBrewer's RdBu and PuOr
STRONGEST = 10.0  # points: more has the same colour, or one poor method would leave the others without
FLOOR_MARK = "†"  # after a target where every method scores like a constant answer or a guess


@dataclass(frozen=True)
class Matrix:
    """Differences in points, NaN where a method has no result; the row of the reference has its scores."""

    rows: list[str]  # columns of the comparison, the reference first, then best first
    titles: list[str]
    targets: list[str]
    values: np.ndarray  # rows, targets
    scale: float  # points: the difference with the strongest colour

    def shade(self, value: float) -> int:
        """Return the index among `colours`."""
        share = max(-1.0, min(1.0, value / self.scale))
        return round((share + 1) / 2 * (SHADES - 1))


def matrix_of(study: Study) -> Matrix:
    """Arrange a study's differences from the reference."""
    lines = [study.reference, *study.others]
    differences = [[study.difference(line.column, target) for target in study.targets] for line in lines]
    values = np.array([[np.nan if each is None else each for each in row] for row in differences])
    scores = [study.cells.get((study.compared.reference, target)) for target in study.targets]
    strongest = np.nanquantile(np.abs(values[1:]), 0.9) if len(lines) > 1 and not np.isnan(values[1:]).all() else 1.0
    values[0] = [np.nan if cell is None else cell.mean for cell in scores]
    return Matrix(
        rows=[line.column for line in lines],
        titles=[line.title for line in lines],
        targets=study.targets,
        values=values,
        scale=min(STRONGEST, max(1.0, float(strongest))),
    )


def colours() -> list[tuple[str, str]]:
    """Return background and text colour of each shade, from worse to better than the reference."""
    found = []
    for shade in range(SHADES):
        position = 2 * shade / (SHADES - 1) - 1
        end = _BETTER if position > 0 else _WORSE
        mixed = [round(a + (b - a) * abs(position)) for a, b in zip(_NONE, end, strict=True)]
        background = "#" + "".join(f"{channel:02x}" for channel in mixed)
        found.append((background, max(("#000000", "#ffffff"), key=lambda text: contrast(text, background))))
    return found


@page_colours
def draw_matrix(study: Study, matrix: Matrix) -> Figure:
    """Draw the matrix as a table of coloured cells with values; marked targets are grey in the header."""
    rows, columns = matrix.values.shape
    longest = max(map(len, matrix.titles))
    left, top = 0.075 * longest + 0.3, 0.085 * (max(map(len, matrix.targets)) + 2) + 0.15
    note = f"points minus {matrix.titles[0]}, whose scores are in the first row"
    note += f"; {FLOOR_MARK} every method at a constant answer or chance" if study.floors else ""
    width, height = max(left + 0.47 * columns + 0.15, 0.075 * len(note) + 0.2), top + 0.25 * rows + 0.45
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, 0.4 / height, 0.47 * columns / width, 0.25 * rows / height))
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    shades = colours()
    for row, column in np.ndindex(rows, columns):
        value = float(matrix.values[row, column])
        first, missing = row == 0, np.isnan(value)
        background, text = ("#ffffff", SOFT) if first or missing else shades[matrix.shade(value)]
        axes.fill_between([column + 0.02, column + 0.98], row + 0.04, row + 0.96, color=background, linewidth=0)
        shown = "–" if missing else f"{value:.1f}" if first else signed(value)
        axes.text(column + 0.5, row + 0.53, shown, ha="center", va="center", fontsize=8, color=text,
                  fontweight="bold" if first else "normal")  # fmt: skip
    marked = [f"{target} {FLOOR_MARK}" if target in study.floors else target for target in matrix.targets]
    axes.set_xticks(np.arange(columns) + 0.5, marked, rotation=90, fontsize=9)
    axes.set_yticks(np.arange(rows) + 0.5, matrix.titles, fontsize=9, color=TEXT)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelcolor=TEXT)
    for tick, target in zip(axes.get_xticklabels(), matrix.targets, strict=True):
        tick.set_color(SOFT if target in study.floors else TEXT)
    axes.spines[:].set_visible(False)
    figure.text(0.1 / width, 0.12 / height, note, fontsize=8, color=SOFT)
    return figure
