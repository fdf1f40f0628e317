"""Read YAML 1.2, as DVC does, within bounds: nothing takes long, and every error is one line with its place.

Of YAML's types, those that JSON also has are accepted: no dates, sets or binary data, and only text as keys.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from pemt_core.errors import SettingsError, cut, shown
from pemt_core.schema.values import DEEPEST, MOST_CHARACTERS, MOST_VALUES, check_values, read_text

MOST_BYTES = 2**17  # what fits into an argument of a process, by which Kubeflow passes it; seconds for ruamel.yaml

_TOO_DEEP = f"nested too deeply: expected at most {DEEPEST} groups and lists within one another"
_TAG = "tag:yaml.org,2002:"
_TEXT, _DATE, _MERGE = f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}merge"
_TYPES = {_TEXT, _MERGE, *(f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "map", "seq"))}


def read_yaml(path: Path) -> Any:
    """Read a file of settings. Raises SettingsError, naming it, if it is missing, unreadable or out of bounds."""
    return parse_yaml(read_text(path, MOST_BYTES), str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """Parse a document of settings; None if it is empty. Raises SettingsError, naming `origin`, line and column."""
    if len(text) > MOST_BYTES:
        raise SettingsError(f"{origin}: has more than {MOST_BYTES:,} characters, the most that settings may have")
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer, yaml.Constructor = _Composer, _Constructor
    try:
        root = yaml.compose(text)
        if root is None:
            return None
        _check(root)
        values = yaml.constructor.construct_document(root)
    except YAMLError as error:
        raise SettingsError(f"{origin}: not readable as YAML: {_line(error)}") from error
    except (ValueError, OverflowError) as error:  # of a character's number
        place = f"line {yaml.reader.line + 1}, column {yaml.reader.column + 1}"
        raise SettingsError(f"{origin}: not readable as YAML: {place}: {cut(str(error))}") from error
    check_values(values, origin)
    return values


class _Composer(Composer):
    """ruamel's, which stops where the text is nested too deeply."""

    depth = -1

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ComposerError(problem=_TOO_DEEP, problem_mark=self.parser.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Constructor(SafeConstructor):
    """ruamel's, whose errors all have a place in the file."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError) as error:
            kind = str(node.tag).removeprefix(_TAG)
            raise ConstructorError(
                problem=f"{shown(node.value)} is not readable as {kind} ({cut(str(error))})",
                problem_mark=node.start_mark,
            ) from error


class _Extent(NamedTuple):
    """What a node expands to."""

    values: int
    characters: int


def _check(root: Node) -> None:
    """Check types, keys, and what aliases expand to. Raises ConstructorError."""
    extents: dict[int, _Extent] = {}
    open_nodes: set[int] = set()

    def extent(node: Node) -> _Extent:
        if id(node) in open_nodes:
            raise _error(node, "an alias of this value is within it")
        if id(node) not in extents:
            _check_type(node)
            open_nodes.add(id(node))
            inner = [extent(each) for each in _inner(node)]
            open_nodes.remove(id(node))
            own = len(node.value) if isinstance(node, ScalarNode) else 0
            found = _Extent(1 + sum(each.values for each in inner), own + sum(each.characters for each in inner))
            if found.values > MOST_VALUES or found.characters > MOST_CHARACTERS:
                limits = f"{MOST_VALUES:,} values or {MOST_CHARACTERS:,} characters"
                raise _error(node, f"more than {limits}, after aliases are expanded")
            extents[id(node)] = found
        return extents[id(node)]

    extent(root)


def _inner(node: Node) -> Iterator[Node]:
    """Yield the nodes directly in a collection, keys included."""
    if isinstance(node, MappingNode):
        for pair in node.value:
            yield from pair
    elif not isinstance(node, ScalarNode):
        yield from node.value


def _check_type(node: Node) -> None:
    tag = str(node.tag)
    if tag == _DATE:
        raise _error(node, f"{cut(node.value)} is a date in YAML; for a text, put it in quotes")
    if tag not in _TYPES:
        raise _error(node, f"the type {shown(tag.removeprefix(_TAG))} has no place in settings")
    for key, _ in node.value if isinstance(node, MappingNode) else ():
        if not isinstance(key, ScalarNode):
            raise _error(key, "a group or list as a key; expected text")
        if str(key.tag) not in (_TEXT, _MERGE):
            kind = str(key.tag).removeprefix(_TAG)
            raise _error(key, f"the key {cut(key.value)} is of the type {kind}; for a text, put it in quotes")


def _error(node: Node, problem: str) -> ConstructorError:
    return ConstructorError(problem=problem, problem_mark=node.start_mark)


def _line(error: YAMLError) -> str:
    """Describe an error on one line: its place, and what is wrong."""
    if not isinstance(error, MarkedYAMLError):
        return cut(" ".join(str(error).split()), 300)
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    context = f"{error.context}, " if error.context and error.problem else ""
    return place + cut(" ".join(f"{context}{error.problem or error.context}".split()), 300)
