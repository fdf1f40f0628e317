"""Stage 1 for one source task: source adapters and task prompt on the frozen backbone.

Writes OUTPUT/{adapter.safetensors,adapter.json,training.json}. A killed run resumes from --checkpoints.
"""

import argparse
from pathlib import Path

from components.program import add_training_flags, new_parser, open_tracker, run
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    from pemt_core.steps.train_source import train_source

    tracker = open_tracker(settings, arguments)
    with provenance(arguments.provenance):
        train_source(
            arguments.data,
            arguments.backbone,
            settings.train_source_for(arguments.source),
            answer=settings.evaluate.answer,
            output_dir=arguments.output,
            checkpoint_dir=arguments.checkpoints,
            open_run=tracker.open_run,
        )


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "train_source")
    parser.add_argument("--source", required=True, help="source task")
    parser.add_argument("--data", type=Path, required=True, help="the task's folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    add_training_flags(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
