"""The decoded lines of a text file."""

import re
import shlex
from collections.abc import Generator
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

from pemt_core.errors import DataError
from pemt_core.tasks.files.marks import TEXT, beside, check_kind

LONGEST_LINE = 16 * 2**20  # bytes; a longer one means missing line ends or an unclosed quote
_UNQUOTED_END = re.compile(rb'(?:[^"\r\n]|"[^"]*")*+(?:\r*\n|\r)')
_ANY_END = re.compile(rb"\r*\n|\r")
_MARK = "\ufeff"
_MARK_BYTES = _MARK.encode().decode("latin-1")


def lines_of(path: Path) -> Generator[str, None, None]:
    """Yield the lines of a UTF-8 file with their line ends, without a byte order mark before any of them.

    Lines end in LF or CRLF; if the first one ends in CR, others may end in any of the three. Raises DataError if the
    file is not text, and with the line's number if a line is not UTF-8, holds a NUL or is longer than LONGEST_LINE.
    """
    check_kind(path, TEXT)
    with path.open("rb") as file:
        end = _line_end(file)
        file.seek(0)
        number, text = 0, TextIOWrapper(file, "latin-1", newline=end)  # a character for each byte
        while line := text.readline(LONGEST_LINE + 1):
            number += 1
            place = f"{path}, line {number}"
            if len(line) > LONGEST_LINE:
                raise DataError(f"{place}: longer than {LONGEST_LINE:,} bytes; are its line ends missing?")
            whole = line.removeprefix(_MARK_BYTES).encode("latin-1")  # joined files have a mark at each beginning
            yield _decoded(whole, place, path).lstrip(_MARK)  # some programs write it twice


def _line_end(file: BinaryIO) -> str:
    """Return what ends lines by the first line: LF, or "" for any line break if it ends in CR, as on old Macs."""
    head = file.read(LONGEST_LINE)
    first = _UNQUOTED_END.match(head) or _ANY_END.search(head)
    return "" if first is not None and first[0].endswith(b"\r") else "\n"


def _decoded(line: bytes, place: str, path: Path) -> str:
    file, other = shlex.quote(path.name), shlex.quote(beside(path, "plain"))
    if (nul := line.find(0)) >= 0:
        raise DataError(
            f"{place}: byte {nul + 1} of the line is NUL; if the file is UTF-16, convert it: iconv -f "
            f"utf-16{'le' if nul % 2 else 'be'} -t utf-8 {file} > {other}; otherwise it is damaged: export it again"
        )
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: byte {error.start + 1} of the line, {error.object[error.start]:#04x}, is not UTF-8; save the "
            f"file as UTF-8, or convert it, for example: iconv -f cp1252 -t utf-8 {file} > {other}"
        ) from error
