"""List the families of backbones: model types, where a prompt can be, what adapters attach to, and checkpoints.

Any checkpoint of these model types can be `backbone.name`. The shapes of the listed ones are known without a download,
for `pemt methods --backbone NAME`. docs/backbones.md tells how to choose.
"""

import argparse
import json
import textwrap
from typing import Any

from components.command import add_json, explained, run
from pemt_core.backbone.families import FAMILIES
from pemt_core.backbone.family import Family
from pemt_core.backbone.published import checkpoints_of

WIDTH = 120


def main(arguments: argparse.Namespace) -> None:
    described = [describe(family) for family in FAMILIES]
    if arguments.json:
        print(json.dumps(described, indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(map(page, described)))


def describe(family: Family) -> dict[str, Any]:
    """Return a family's record as plain values; `*` in a path is the number of a layer."""
    return {
        "family": family.name,
        "model_types": list(family.models),
        "layouts": list(family.layouts),
        "norm": "(1 + weight) * x / rms(x)" if family.norms.unit_offset else "weight * x / rms(x)",
        "feed_forwards": [f"{stack.layers}.*.{stack.sublayers[-1].path}.{stack.wo}" for stack in family.stacks],
        "checkpoints": {name: checkpoint.parameters for name, checkpoint in checkpoints_of(family).items()},
        "run_on": list(family.run_on),
    }


def page(described: dict[str, Any]) -> str:
    """Format one family as a paragraph."""
    checkpoints = [f"{name} ({in_short(number)})" for name, number in described["checkpoints"].items()]
    lines = {
        "model types": described["model_types"],
        "layouts": described["layouts"],
        "layer norms": [described["norm"]],
        "feed-forwards": described["feed_forwards"],
        "checkpoints": checkpoints,
        "run on": described["run_on"],
    }
    return "\n".join([described["family"], *(_wrapped(name, values) for name, values in lines.items())])


def in_short(number: int) -> str:
    """Format a number of parameters as in 223M or 2.8B."""
    return f"{number / 1e6:.0f}M" if number < 999_500_000 else f"{number / 1e9:.1f}B"


def _wrapped(name: str, values: list[str]) -> str:
    indent = " " * 17
    text = ", ".join(value.replace(" ", "\0") for value in values)  # a checkpoint and its size stay on one line
    wrapped = textwrap.fill(
        text, WIDTH, initial_indent=f"  {name:15}", subsequent_indent=indent, break_on_hyphens=False
    )
    return wrapped.replace("\0", " ")


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "backbones")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
