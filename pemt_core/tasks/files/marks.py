"""What a file is by its first bytes, if that is not what its ending says."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pemt_core.errors import DataError

HEAD = 4096  # bytes of a file that `check_kind` needs
TEXT, PARQUET = "UTF-8 text", "parquet"


@dataclass(frozen=True)
class _Kind:
    """A kind of file. In `remedy`, {file} is the file and {other} a name for what is made of it, both quoted."""

    name: str
    begin: re.Pattern[bytes]
    remedy: str


def _kinds(*kinds: tuple[str, bytes, str]) -> Sequence[_Kind]:
    return [_Kind(name, re.compile(begin, re.DOTALL | re.IGNORECASE), remedy) for name, begin, remedy in kinds]


_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")
_WORKBOOK = "save its sheet as CSV UTF-8"
_KINDS = _kinds(
    (PARQUET, rb"PAR1(?=[\x00-\x1f])", "name it {parquet}"),
    ("UTF-32 text", rb"\xff\xfe\0\0|\0\0\xfe\xff", "convert it: iconv -f utf-32 -t utf-8 {file} > {other}"),
    ("UTF-16 text", rb"\xff\xfe|\xfe\xff", "convert it: iconv -f utf-16 -t utf-8 {file} > {other}"),
    ("UTF-16 text", rb"([^\0]\0){4}", "convert it: iconv -f utf-16le -t utf-8 {file} > {other}"),
    ("UTF-16 text", rb"(\0[^\0]){4}", "convert it: iconv -f utf-16be -t utf-8 {file} > {other}"),
    ("compressed by gzip", rb"\x1f\x8b", "decompress it: gunzip < {file} > {other}"),
    ("compressed by bzip2", rb"BZh\d(1AY&SY|\x17rE8P\x90)", "decompress it: bunzip2 < {file} > {other}"),
    ("compressed by xz", rb"\xfd7zXZ\0", "decompress it: unxz < {file} > {other}"),
    ("compressed by zstd", rb"\x28\xb5\x2f\xfd", "decompress it: unzstd < {file} > {other}"),
    ("compressed by lz4", rb"\x04\x22\x4d\x18", "decompress it: unlz4 < {file} > {other}"),
    ("an Excel workbook", rb"PK\x03\x04.*(\[Content_Types\]\.xml|xl/)", _WORKBOOK),
    ("an OpenDocument file", rb"PK\x03\x04.*mimetypeapplication/vnd\.oasis", _WORKBOOK),
    ("a zip archive", rb"PK(\x03\x04|\x05\x06)", "unpack it: unzip {file}, and name the file in it"),
    ("an old Excel workbook", rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _WORKBOOK),
    ("a 7z archive", rb"7z\xbc\xaf\x27\x1c", "unpack it: 7z x {file}, and name the file in it"),
    ("a tar archive", rb".{257}ustar", "unpack it: tar -xf {file}, and name the file in it"),
    ("an Arrow file", rb"ARROW1\0\0", "save it as parquet"),
    ("an sqlite database", rb"SQLite format 3\0", "export its table as CSV"),
    ("a PDF", rb"%PDF-\d", "save its table as CSV"),
    ("a web page", rb"\s*<(!doctype html|html)\b", "download the file itself"),
    ("a Git LFS pointer", rb"version https://git-lfs\.", "fetch the file itself: git lfs pull"),
)  # fmt: skip


def check_kind(path: Path, expected: str) -> None:
    """Raise DataError, with a remedy, if a file is of another known kind than TEXT or PARQUET as `expected`."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    kind = next((kind for kind in _KINDS if kind.begin.match(head)), None)
    if kind is not None and kind.name != expected:
        names = {"file": path.name, "other": beside(path, "plain"), "parquet": f"{path.stem}.parquet"}
        remedy = kind.remedy.format(**{key: shlex.quote(name) for key, name in names.items()})
        raise DataError(f"{path}: is {kind.name}, expected {expected}; {remedy}")


def beside(path: Path, word: str) -> str:
    """Return a name for what a command makes of a file: x-plain.csv of x.csv, and also of x.csv.gz."""
    named = Path(path.stem) if path.suffix.lower() in _COMPRESSED else path
    return f"{named.stem}-{word}{named.suffix}"
