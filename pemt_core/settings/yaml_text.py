"""Add a key or an item to the text of a YAML file, with its layout and comments, which dumping would lose."""

from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, SequenceNode

from pemt_core.schema.flow import flow

_WIDTH = 120  # a longer line is broken


def with_key(text: str, group: str, key: str, value: Any) -> str:
    """Append `key: value` to the file's mapping `group`. Raises KeyError if there is no such mapping."""
    node = _node_at(text, (group,))
    if not isinstance(node, MappingNode):
        raise KeyError(group)
    if node.value and node.flow_style:
        return _with_flow(text, node, f"{flow(key)}: {flow(value)}")
    if node.value:
        return _with_lines(text, _end(node), _lines(key, value, node.value[0][0].start_mark.column))
    # lines below replace {}; a comment next to it stays in its column
    begin, end = node.start_mark.index, node.end_mark.index
    rest = text[end:].partition("\n")[0]
    before = text[:begin] + " " * (end - begin) if rest.strip() else text[:begin].rstrip(" ")
    return _with_lines(before + text[end:], len(before), _lines(key, value, 2))


def with_item(text: str, path: Sequence[str], item: str) -> str:
    """Append `item` to the list at `path`. Raises KeyError if there is no such list."""
    node = _list_at(text, path)
    if node.flow_style:
        return _with_flow(text, node, flow(item))
    indent = " " * node.value[0].start_mark.column
    return _with_lines(text, _end(node), [f"{indent[:-2]}- {flow(item)}"])


def with_list(text: str, path: Sequence[str], items: Sequence[str]) -> str:
    """Replace the list at `path` by `items`. Raises KeyError if there is no such list."""
    node = _list_at(text, path)
    begin = node.start_mark.index
    if node.flow_style:
        return text[:begin] + flow(list(items)) + text[_end(node) :]
    start_of_line = text.rfind("\n", 0, begin)  # of the first "- item"; its key is in the line before
    return f"{text[:start_of_line]} {flow(list(items))}{text[_end(node) :]}"


def _node_at(text: str, path: Sequence[str]) -> Any:
    """Return the node at `path`."""
    node = YAML(typ="safe", pure=True).compose(text)
    for part in path:
        pairs = node.value if isinstance(node, MappingNode) else []
        found = [value for key, value in pairs if key.value == part]
        if not found:
            raise KeyError(".".join(path))
        node = found[0]
    return node


def _list_at(text: str, path: Sequence[str]) -> Any:
    node = _node_at(text, path)
    if not isinstance(node, SequenceNode):
        raise KeyError(".".join(path))
    return node


def _end(node: Any) -> int:
    """Return the index after a node's last character, before blank lines and comments that follow."""
    while isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    return int(node.end_mark.index)


def _with_flow(text: str, node: Any, added: str) -> str:
    """Append `added` to a collection in brackets."""
    if not node.value:
        place = node.start_mark.index + 1
        return text[:place] + added + text[place:]
    last = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    place = last.end_mark.index
    return f"{text[:place]}, {added}{text[place:]}"


def _with_lines(text: str, place: int, lines: Sequence[str]) -> str:
    """Insert `lines` below the line that contains `place`."""
    end = text.find("\n", place)
    end = len(text) if end < 0 else end
    return text[:end] + "".join(f"\n{line}" for line in lines) + (text[end:] or "\n")


def _lines(key: str, value: Any, indent: int) -> list[str]:
    """Format `key: value` as one line, or as a line per key of the value if that is too long."""
    one = f"{' ' * indent}{flow(key)}: {flow(value)}"
    if len(one) <= _WIDTH or not isinstance(value, Mapping):
        return [one]
    inner_lines = [f"{' ' * (indent + 2)}{flow(name)}: {flow(inner)}" for name, inner in value.items()]
    return [f"{' ' * indent}{flow(key)}:", *inner_lines]
