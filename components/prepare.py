"""Convert the datasets of all tasks to text pairs, and build their corpus, tokenizer and statistics.

Writes OUTPUT/<task>/{task.json,train,validation,test.parquet}, also for the source `joint` if it is listed,
OUTPUT/corpus.parquet, OUTPUT/tokenizer/ and OUTPUT/statistics.json. With --pin, it only writes the hub's newest commits
into the task records.
"""

import argparse
from pathlib import Path

from components.program import Job, add_settings, new_parser, run
from pemt_core.paths import OutputFolder
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import Prepare
from pemt_core.tasks import get_task, known_tasks


def main(arguments: argparse.Namespace, job: Job[Prepare]) -> None:
    from pemt_core.steps.prepare import pin, prepare

    settings = job.settings
    known = known_tasks(settings.own_tasks, Path(), settings.prepare.label_words)
    tasks = [get_task(name, known) for name in settings.tasks]
    if arguments.pin:
        pin(tasks)
        return
    with provenance(job.provenance, source=settings.prepare.source) as facts:
        facts["revisions"] = prepare(
            tasks, settings.prepare, settings.tokenizer, joined=settings.joined, output_dir=arguments.output
        )


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "prepare")
    add_settings(parser)
    parser.add_argument("--output", type=OutputFolder, required=True, help="folder to write")
    parser.add_argument("--pin", action="store_true", help="only pin the newest commits of the datasets")
    return parser


if __name__ == "__main__":
    run(main, make_parser(), Prepare)
