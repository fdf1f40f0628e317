"""List the methods of params.yaml: name, kind, sources, and the exact number of parameters each trains for a target.

A target's prompt has one vector per token of its description, so the count has a fixed part and a part per token. If
the backbone is a folder, which has a tokenizer, the range over the targets of params.yaml is shown too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from components.command import add_json, add_params, explained, run
from pemt_core.errors import SettingsError
from pemt_core.methods import Method
from pemt_core.methods.count import TrainedParameters, trained_parameters
from pemt_core.settings import Settings, load_settings
from pemt_core.tasks import get_task, known_tasks


def main(arguments: argparse.Namespace) -> None:
    settings, folder = load_settings(arguments.params), arguments.params.parent
    backbone = arguments.backbone or settings.backbone.name
    if settings.backbone.kind == "scratch" and not arguments.backbone:
        backbone = "backbone"
        if not (folder / backbone).is_dir():
            raise SettingsError(f"{folder / backbone}: no such folder; `dvc repro backbone` creates it")
    described = describe(settings, backbone, folder)
    print(json.dumps(described, indent=2, ensure_ascii=False) if arguments.json else table(described))


def describe(settings: Settings, backbone: str, folder: Path) -> dict[str, Any]:
    """Describe all methods and what they train on this backbone."""
    from pemt_core.backbone.shapes import backbone_of_shapes

    place = folder / backbone if (folder / backbone).is_dir() else Path(backbone)
    model = backbone_of_shapes(str(place) if place.is_dir() else backbone)
    tokens = prompt_tokens(settings, place, folder) if place.is_dir() else {}

    imported = imported_ranks(settings, model, folder)

    def count_of(method: Method) -> TrainedParameters:
        stage_1 = settings.train_source
        return trained_parameters(method, model, settings.sources, stage_1.rank, stage_1.prompt.length, imported)

    rows = []
    for name in settings.methods:
        method, by_target = settings.method(name), {}
        sources, count = settings.sources_of(name, method), count_of(method)
        for target, number in tokens.items():
            of_target = settings.methods_for(target).get(name, method)
            by_target[target] = (count if of_target == method else count_of(of_target)).with_prompt(number)
        rows.append(
            {
                "name": name,
                "kind": method.kind,
                "about": method.about(settings.sources),
                "sources": sources,
                "trained_parameters": count.fixed,
                "per_prompt_token": count.per_prompt_token,
                "by_target": by_target,
            }
        )
    return {"backbone": backbone, "parameters": model.num_parameters(), "methods": rows}


def imported_ranks(settings: Settings, model: Any, folder: Path) -> dict[str, dict[str, int]]:
    """Return the ranks of the imported LoRAs whose folders are here, by layer; others count like stage 1's adapters."""
    from pemt_core.lora.reader import lora_ranks

    folders = {name: folder / source.adapter for name, source in settings.imported_sources.items()}
    return {name: lora_ranks(adapter, model) for name, adapter in folders.items() if adapter.is_dir()}


def prompt_tokens(settings: Settings, backbone: Path, folder: Path) -> dict[str, int]:
    """Return the number of tokens in each target's description, for this backbone's tokenizer."""
    from pemt_core.backbone.text_ids import description_ids
    from pemt_core.backbone.tokenizer import load_tokenizer

    tokenizer, known = load_tokenizer(str(backbone)), known_tasks(settings.own_tasks, folder)
    texts = {target: get_task(target, known).description for target in settings.tasks.targets}
    return {target: len(description_ids(tokenizer, text)) for target, text in texts.items()}


def table(described: dict[str, Any]) -> str:
    """Format the methods as a table with one row each."""
    rows = [("method", "kind", "trained parameters", "of backbone", "sources")]
    for each in described["methods"]:
        counts = list(each["by_target"].values())
        exact, per_token = f"{each['trained_parameters']:,}", each["per_prompt_token"]
        exact += f" + {per_token:,} per prompt token" if per_token else ""
        known = f" ({min(counts):,} to {max(counts):,})" if counts and per_token else ""
        share = 100 * (max(counts) if counts else each["trained_parameters"]) / described["parameters"]
        rows.append((each["name"], each["kind"], exact + known, f"{share:.2f} %", ", ".join(each["sources"]) or "none"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"on {described['backbone']}, {described['parameters']:,} parameters"])


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "methods")
    parser.add_argument(
        "--backbone",
        metavar="FOLDER|NAME",
        help="folder, or name such as t5-base (default: the one in params.yaml)",
    )
    add_params(parser)
    add_json(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
