"""From the bytes of a text file to its lines."""

import shlex
from collections.abc import Generator
from pathlib import Path

from pemt_core.errors import DataError

LONGEST_LINE = 16 * 2**20  # bytes: a longer one is a file without line ends, or with a quote that is never closed


def lines_of(path: Path) -> Generator[str, None, None]:
    """The lines of a UTF-8 file with their ends, without the byte order mark that some programs put first.

    DataError, with the line, where one is not UTF-8 or longer than LONGEST_LINE.
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
            f"file as UTF-8, or convert it, as with: iconv -f cp1252 -t utf-8 {shlex.quote(path.name)}"
        ) from error
