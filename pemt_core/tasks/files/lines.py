"""The decoded lines of a text file."""

import shlex
from collections.abc import Generator
from pathlib import Path

from pemt_core.errors import DataError

LONGEST_LINE = 16 * 2**20  # bytes; a longer one means missing line ends or an unclosed quote


def lines_of(path: Path) -> Generator[str, None, None]:
    """Yield the lines of a UTF-8 file with their line ends, without a byte order mark.

    Raises DataError, with the line's number, if a line is not UTF-8 or is longer than LONGEST_LINE.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            place = f"{path}, line {number}"
            if len(line) > LONGEST_LINE:
                raise DataError(f"{place}: longer than {LONGEST_LINE:,} bytes; are its line ends missing?")
            yield _decoded(line, "utf-8-sig" if number == 1 else "utf-8", place, path)


def _decoded(line: bytes, encoding: str, place: str, path: Path) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: byte {error.start + 1} of the line, {error.object[error.start]:#04x}, is not UTF-8; save the "
            f"file as UTF-8, or convert it, for example: iconv -f cp1252 -t utf-8 {shlex.quote(path.name)}"
        ) from error
