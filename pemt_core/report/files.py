"""Write the files of a report atomically and reproducibly: the same numbers give the same bytes."""

import math
from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pemt_core.artifacts.files import atomic_file

DOTS_PER_INCH = 150


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write `frame` without its index; missing values are empty fields, numbers have six decimals."""
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def write_figure(path: Path, figure: Figure) -> None:
    """Write `figure` as PNG."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(png(figure))


def png(figure: Figure, max_width: float = math.inf) -> bytes:
    """Return `figure` as the bytes of a PNG file, at most `max_width` pixels wide.

    The metadata are left out, since they would contain matplotlib's version.
    """
    drawn = BytesIO()
    dots_per_inch = min(DOTS_PER_INCH, max_width / figure.get_figwidth())
    figure.savefig(drawn, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return drawn.getvalue()
