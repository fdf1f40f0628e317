"""Stage 2 for the targets in the settings: train a cell for every method, few-shot k and seed that is not there.

Writes OUTPUT/<target>/<method>-k<k>-seed<seed>/{adapter.safetensors,adapter.json,training.json}. An interrupted run
resumes from --checkpoints.
"""

import argparse
from pathlib import Path

from components.program import Job, add_settings, add_training, new_parser, run, tracker_of
from pemt_core.paths import OutputFolder
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import Transfers


def main(arguments: argparse.Namespace, job: Job[Transfers]) -> None:
    from pemt_core.steps.transfer import TargetTransfer, transfer

    tracker = tracker_of(arguments)
    with provenance(job.provenance) as facts:
        done = transfer(
            [
                TargetTransfer(each, arguments.data / each.target, arguments.output / each.target)
                for each in job.settings.targets
            ],
            arguments.backbone,
            arguments.experts,
            checkpoint_dir=arguments.checkpoints,
            open_run=tracker.open_run,
            workers=arguments.workers,
        )
        facts |= {"trained": [f"{cell.task}/{cell.name}" for cell in done.trained], "workers": done.workers}
        facts["workers_memory_mib"] = done.workers_memory_mib


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "transfer")
    add_settings(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--experts", type=Path, required=True, help="folder that collect_experts wrote")
    parser.add_argument(
        "--output",
        type=OutputFolder,
        required=True,
        help="folder to write; cells of the targets that are still valid are kept",
    )
    add_training(parser)
    parser.add_argument("--workers", type=int, help="number of parallel trainings (default: what suits the machine)")
    return parser


if __name__ == "__main__":
    run(main, make_parser(), Transfers)
