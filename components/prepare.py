"""Datasets of all tasks in params.yaml to text pairs, with their corpus, tokenizer and statistics.

Writes OUTPUT/<task>/{task.json,train,validation,test.parquet}, OUTPUT/corpus.parquet, OUTPUT/tokenizer/ and
OUTPUT/statistics.json. With --pin it writes the hub's newest commits into the records instead, and stops.
"""

import argparse
from pathlib import Path

from components.program import new_parser, run
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import Settings
from pemt_core.tasks import get_task, known_tasks


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    from pemt_core.steps.prepare import pin, prepare

    known = known_tasks(settings.own_tasks, arguments.params.parent)
    tasks = [get_task(name, known) for name in (*settings.tasks.sources, *settings.tasks.targets)]
    if arguments.pin:
        pin(tasks)
        return
    with provenance(arguments.provenance, source=settings.prepare.source) as facts:
        facts["revisions"] = prepare(tasks, settings.prepare, settings.backbone, output_dir=arguments.output)


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "prepare")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--pin", action="store_true", help="pin the datasets' newest commits, prepare nothing")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
