"""The project's code as syntax trees: which module imports which, and what a program reads. Nothing is executed."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("pemt_core", "components", "pipelines")


def modules(package: str) -> list[str]:
    """The dotted names of a package and of all modules in it; none where there is no such package yet."""
    files = sorted((REPOSITORY / package).rglob("*.py"))
    return [".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__") for path in files]


def path_of(module: str) -> Path:
    """The file of a module of the project, from the repository's root."""
    relative = Path(*module.split("."))
    return relative / "__init__.py" if (REPOSITORY / relative).is_dir() else relative.with_suffix(".py")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((REPOSITORY / path_of(module)).read_text())


def imported_by(module: str) -> set[str]:
    """Every module that `module` names in an import, in functions too, but not those for type checkers alone."""
    names: set[str] = set()
    for node in _running_nodes(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{module} has a relative import"
            names.add(node.module)
            names |= {inner for alias in node.names if _is_module(inner := f"{node.module}.{alias.name}")}
    return names


@cache
def closure(module: str) -> frozenset[Path]:
    """The files of the project that importing `module` and running all its functions can load, itself included."""
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
    """Whether a file holds nothing but text about it."""
    body = ast.parse((REPOSITORY / path).read_text()).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def attributes_of(tree: ast.AST, name: str) -> set[str]:
    """What is read of a variable: {"a", "b.c"} for code with `name.a` and `name.b.c`."""
    paths = {path for node in ast.walk(tree) if (path := _dotted(node)) and path.startswith(f"{name}.")}
    inner = {path.removeprefix(f"{name}.") for path in paths}
    return {path for path in inner if not any(other.startswith(f"{path}.") for other in inner)}


def function_in(module: str, name: str) -> ast.FunctionDef:
    """The function called `name` of a module."""
    return next(node for node in tree_of(module).body if isinstance(node, ast.FunctionDef) and node.name == name)


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from _running_nodes(node)


def _is_module(name: str) -> bool:
    relative = REPOSITORY / Path(*name.split("."))
    return relative.with_suffix(".py").is_file() or (relative / "__init__.py").is_file()


def _dotted(node: ast.AST) -> str | None:
    """The text of `a.b.c`, for a chain of attributes of a variable."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr}"
    return None
