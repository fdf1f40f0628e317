"""The code that a result depends on: a module, every module of pemt_core that it imports, and data files beside them.

Imports are read from the source, including those in functions; nothing is imported. Imports by a computed name cannot
be seen, so callers name these modules too.
"""

import ast
import hashlib
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

PACKAGE = "pemt_core"
ROOT = Path(__file__).parents[2]  # holds the package; in a checkout, components and pipelines too

# Files and folders whose code does not affect results, and why. Their imports do not count either.
WITHOUT_EFFECT = {
    "pemt_core/__init__.py": "the version",
    "pemt_core/artifacts/files.py": "writes what it is given; its hashes are themselves part of every key",
    "pemt_core/artifacts/run_info.py": "names tracking runs",
    "pemt_core/artifacts/staging.py": "part of files.py",
    "pemt_core/errors.py": "texts of errors",
    "pemt_core/interruption.py": "ends a program",
    "pemt_core/provenance": "describes how a result came about, beside the result",
    "pemt_core/schema": "checks values, which are inputs themselves",
    "pemt_core/settings": "checks values, which are inputs themselves",
    "pemt_core/tracking": "shows results",
    "pemt_core/training/run.py": "shows a training",
}

_WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """The part of a module that counts: its imports, and its text without comments, docstrings and blank lines."""

    imports: frozenset[str]
    text: bytes


@cache
def code_hash(*modules: str) -> str:
    """A hash of the code behind the results of `modules`, such as "pemt_core.steps.transfer".

    It does not depend on the Python version, the location of pemt_core, comments or docstrings.
    """
    digest = hashlib.sha256()
    for path in code_files(*modules):
        content = read_source(path).text if path.suffix == ".py" else path.read_bytes()
        if content:  # a file that holds only a docstring does not count
            digest.update(b"%s\0%d\0%s" % (path.relative_to(ROOT).as_posix().encode(), len(content), content))
    return digest.hexdigest()


def code_files(*modules: str) -> list[Path]:
    """The files that `code_hash` covers: `modules`, what they import of pemt_core, and those packages' data files.

    The modules named here count even if WITHOUT_EFFECT lists them. Raises ModuleNotFoundError if one does not exist.
    """
    found: dict[str, Path] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        path = path_of(name)
        if name in found or (name not in modules and _is_without_effect(path)):
            continue
        found[name] = path
        loaded = {name.rpartition(".")[0], *read_source(path).imports}  # a package's __init__ runs first
        pending += [module for module in loaded if module.split(".")[0] == PACKAGE]
    folders = {path.parent for path in found.values()}
    return sorted({*found.values(), *(file for folder in folders for file in folder.iterdir() if _is_data(file))})


def path_of(module: str) -> Path:
    """The file of a module. Raises ModuleNotFoundError if there is none."""
    place = ROOT.joinpath(*module.split("."))
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    raise ModuleNotFoundError(f"there is no module '{module}' in {ROOT}")


@cache
def read_source(path: Path) -> Source:
    """Parse a file. Its `imports` include other packages, but not what only type checkers import."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, str(path))
    imports: set[str] = set()
    for statement in _running_statements(tree):
        if isinstance(statement, ast.Import):
            imports |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            if not statement.module or statement.level:
                raise SyntaxError(f"{path}:{statement.lineno}: a relative import; expected the module's full name")
            inner = {f"{statement.module}.{alias.name}" for alias in statement.names}
            imports |= {statement.module, *(name for name in inner if _is_module(name))}
    return Source(frozenset(imports), _without_words(text, tree))


def _is_without_effect(path: Path) -> bool:
    relative = path.relative_to(ROOT)
    return any(part.as_posix() in WITHOUT_EFFECT for part in (relative, *relative.parents))


def _is_data(file: Path) -> bool:
    return file.is_file() and file.suffix != ".py" and not file.name.startswith(".")


def _is_module(name: str) -> bool:
    try:
        return path_of(name).is_file()
    except ModuleNotFoundError:
        return False


def _running_statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements in `node` but those that only type checkers see."""
    blocks = ("body", "handlers", "cases", "orelse", "finalbody")
    for block in ("orelse",) if _is_for_type_checkers(node) else blocks:
        for inner in getattr(node, block, ()):
            yield inner
            yield from _running_statements(inner)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _without_words(text: str, tree: ast.Module) -> bytes:
    """Remove comments, docstrings and blank lines by their positions, which are the same in every Python version.

    Positions of `ast` count bytes. Blank lines in strings stay.
    """
    lines = text.encode().split(b"\n")
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row = token.start[0] - 1
            lines[row] = lines[row].removesuffix(token.string.encode()).rstrip()
    docstrings: list[ast.stmt] = []
    in_strings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            docstrings.append(node.body[0])
        elif isinstance(node, ast.Constant | ast.JoinedStr):
            in_strings.update(_rows_begun_in(node))
    for docstring in docstrings:
        first, last = docstring.lineno - 1, (docstring.end_lineno or 0) - 1
        lines[last] = lines[first][: docstring.col_offset] + lines[last][docstring.end_col_offset :]
        for row in range(first, last):
            lines[row] = b""
        in_strings.difference_update(_rows_begun_in(docstring))
    return b"\n".join(line for row, line in enumerate(lines) if row in in_strings or line.strip())


def _rows_begun_in(node: ast.expr | ast.stmt) -> range:
    """The lines, counted from 0, that begin inside `node`."""
    return range(node.lineno, node.end_lineno or node.lineno)
