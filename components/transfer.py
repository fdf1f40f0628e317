"""Stage 2 for one target task: train a cell for every method, few-shot k and seed, except those that are still valid.

Writes OUTPUT/<method>-k<k>-seed<seed>/{adapter.safetensors,adapter.json,training.json}. An interrupted run resumes from
--checkpoints.
"""

import argparse
from pathlib import Path

from components.command import OutputFolder
from components.program import Job, add_settings, add_training, new_parser, run, tracker_of
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import Transfer


def main(arguments: argparse.Namespace, job: Job[Transfer]) -> None:
    from pemt_core.steps.transfer import transfer

    tracker = tracker_of(arguments)
    with provenance(job.provenance) as facts:
        done = transfer(
            arguments.data,
            arguments.backbone,
            arguments.experts,
            job.settings,
            output_dir=arguments.output,
            checkpoint_dir=arguments.checkpoints,
            open_run=tracker.open_run,
            workers=arguments.workers,
        )
        facts |= {"trained": [cell.name for cell in done.trained], "workers": done.workers}
        facts["workers_memory_mib"] = done.workers_memory_mib


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "transfer")
    add_settings(parser)
    parser.add_argument("--data", type=Path, required=True, help="the task's folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--experts", type=Path, required=True, help="folder that collect_experts wrote")
    parser.add_argument(
        "--output", type=OutputFolder, required=True, help="folder to write; cells in it that are still valid are kept"
    )
    add_training(parser)
    parser.add_argument("--workers", type=int, help="number of parallel trainings (default: what suits the machine)")
    return parser


if __name__ == "__main__":
    run(main, make_parser(), Transfer)
