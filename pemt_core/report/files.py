"""Write the files of a report all or none, and reproducibly: the same numbers give the same bytes."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pemt_core.artifacts.files import atomic_file
from pemt_core.artifacts.staging import sync

DOTS_PER_INCH = 150
ROUNDING = 1e-12  # a smaller number is the difference of equal points


def write_files(directory: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write texts, as UTF-8, and bytes by file name. All are on the disk before the first replaces an earlier file."""
    with ExitStack() as written:
        for name, content in contents.items():
            temporary = written.enter_context(atomic_file(Path(directory) / name))
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            sync(temporary)


def csv(frame: pd.DataFrame) -> str:
    """Return `frame` without its index; missing values are empty fields.

    Numbers have six decimals, or six digits if that would lose some, as of a small p or learning rate.
    """
    return str(frame.to_csv(index=False, float_format=_decimal, lineterminator="\n"))


def _decimal(number: Any) -> str:
    text = f"{number:.6f}"
    is_lossy = ROUNDING < abs(number) < 1e-3 and not math.isclose(float(text), number, rel_tol=1e-6)
    return f"{number:.6g}" if is_lossy else text


def png(figure: Figure, max_width: float = math.inf) -> bytes:
    """Return `figure` as the bytes of a PNG file, at most `max_width` pixels wide.

    The metadata are left out, since they would contain matplotlib's version.
    """
    drawn = BytesIO()
    dots_per_inch = min(DOTS_PER_INCH, max_width / figure.get_figwidth())
    figure.savefig(drawn, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return drawn.getvalue()
