"""Stage 1 for one source task: train source adapters and task prompt on the frozen backbone.

Writes OUTPUT/{adapter.safetensors,adapter.json,training.json}, and the same files of a prompt that is trained alone to
OUTPUT/prompt if the settings have one. An interrupted run resumes from --checkpoints, which also keeps the results of
finished trainings: these are not repeated.
"""

import argparse
from pathlib import Path

from components.program import Job, add_settings, add_training, new_parser, run, tracker_of
from pemt_core.paths import OutputFolder
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import TrainSource


def main(arguments: argparse.Namespace, job: Job[TrainSource]) -> None:
    from pemt_core.steps.train_source import train_source

    tracker = tracker_of(arguments)
    with provenance(job.provenance) as facts:
        done = train_source(
            arguments.data,
            arguments.backbone,
            job.settings.train_source,
            source=job.settings.source,
            answer=job.settings.answer,
            output_dir=arguments.output,
            checkpoint_dir=arguments.checkpoints,
            open_run=tracker.open_run,
            prompt=job.settings.prompt,
        )
        facts["trained"] = done.trained


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "train_source")
    add_settings(parser)
    parser.add_argument("--data", type=Path, required=True, help="the task's folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--output", type=OutputFolder, required=True, help="folder to write")
    add_training(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser(), TrainSource)
