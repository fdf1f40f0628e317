"""The project's code as syntax trees: which module imports which, and what a program reads. No code is executed."""

import ast
from functools import cache
from pathlib import Path

from pemt_core.provenance import code

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("pemt_core", "components", "pipelines")


def modules(package: str) -> list[str]:
    """The dotted names of a package and all its modules; empty if the package does not exist."""
    files = sorted((REPOSITORY / package).rglob("*.py"))
    return [".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__") for path in files]


def path_of(module: str) -> Path:
    """The file of one of the project's modules, relative to the repository's root."""
    return code.path_of(module).relative_to(REPOSITORY)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((REPOSITORY / path_of(module)).read_text())


def imported_by(module: str) -> frozenset[str]:
    """Every module that `module` imports, also inside functions, except imports for type checkers only."""
    return code.read_source(code.path_of(module)).imports


@cache
def closure(module: str) -> frozenset[Path]:
    """The project's files that importing `module` and calling all its functions can load, its file included."""
    found: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in found or name.split(".")[0] not in PACKAGES:
            continue
        found.add(name)
        pending += imported_by(name)
        pending += [name.rpartition(".")[0]] if "." in name else []  # a package's __init__ runs first
    return frozenset(path_of(name) for name in found)


def is_only_docstring(path: Path) -> bool:
    """Whether a file holds nothing but its docstring."""
    body = ast.parse((REPOSITORY / path).read_text()).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def attributes_of(tree: ast.AST, name: str) -> set[str]:
    """The attributes that code reads from a variable: {"a", "b.c"} for `name.a` and `name.b.c`."""
    paths = {path for node in ast.walk(tree) if (path := _dotted(node)) and path.startswith(f"{name}.")}
    inner = {path.removeprefix(f"{name}.") for path in paths}
    return {path for path in inner if not any(other.startswith(f"{path}.") for other in inner)}


def function_in(module: str, name: str) -> ast.FunctionDef:
    """The function called `name` in a module."""
    return next(node for node in tree_of(module).body if isinstance(node, ast.FunctionDef) and node.name == name)


def _dotted(node: ast.AST) -> str | None:
    """The text of `a.b.c` for a chain of attributes of a variable."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr}"
    return None
