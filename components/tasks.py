"""List all tasks in a table, or show one in full. `listed` tells which of them params.yaml runs."""

import argparse
import json
from typing import Any

from components.command import add_json, add_params, explained, run
from pemt_core.settings import Settings, load_settings
from pemt_core.tasks import HubDataset, Task, get_task, known_tasks

COLUMNS = ("name", "suite", "listed", "metric", "labels", "splits", "dataset")


def main(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.params)
    known = known_tasks(settings.own_tasks, arguments.params.parent, settings.prepare.label_words)
    chosen = [get_task(arguments.name, known)] if arguments.name else list(known.values())
    described = [describe(task, settings) for task in chosen]
    if arguments.json:
        print(json.dumps(described[0] if arguments.name else described, indent=2, ensure_ascii=False))
    elif arguments.name:
        print(page(described[0]))
    else:
        print(table(described))


def describe(task: Task, settings: Settings) -> dict[str, Any]:
    """Return a task's record as plain values, with the lists of the settings that contain it."""
    lists = {"source": settings.tasks.sources, "target": settings.tasks.targets}
    parts = {role: f"{portion.split} ({portion.share.value})" for role, portion in task.splits.roles.items()}
    return {
        "name": task.name,
        "suite": task.suite,
        "description": task.description,
        "dataset": str(task.dataset),
        "revision": (task.dataset.revision or None) if isinstance(task.dataset, HubDataset) else None,
        "labels": task.labels and list(task.labels),
        "columns": list(task.conversion.inputs),
        "metrics": list(task.metrics),
        "splits": {"rule": task.splits.name, **parts},
        "generation_length": task.generation_length,
        "listed": [role for role, names in lists.items() if task.name in names],
    }


def page(record: dict[str, Any]) -> str:
    """Format one task, with one fact per line."""
    first, *others = record["metrics"]
    parts = [f"{role}: {part}" for role, part in record["splits"].items()]
    facts = {
        "suite": record["suite"],
        "description": record["description"],
        "dataset": record["dataset"] + (f", {record['revision']}" if record["revision"] else ""),
        "columns": ", ".join(record["columns"]),
        "labels": ", ".join(record["labels"] or ["none: free text or a score"]),
        "metrics": ", ".join([f"{first} (main)", *others]),
        "splits": ", ".join(parts),
        "answers": f"{record['generation_length']} tokens at most",
        "params.yaml": ", ".join(record["listed"]) or "not listed",
    }
    return "\n".join([record["name"], *(f"  {name:12} {fact}" for name, fact in facts.items())])


def table(records: list[dict[str, Any]]) -> str:
    """Format the tasks as a table with one row each."""
    rows = [COLUMNS, *(cells(record) for record in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def cells(record: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    listed, labels = ", ".join(record["listed"]) or "-", "/".join(record["labels"] or "-")
    return (
        record["name"],
        record["suite"],
        listed,
        record["metrics"][0],
        labels,
        record["splits"]["rule"],
        record["dataset"],
    )


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "tasks")
    parser.add_argument("name", nargs="?", metavar="TASK", help="task to show (default: list all)")
    add_params(parser)
    add_json(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
