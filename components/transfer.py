"""Stage 2 for one target task: every method, few-shot k and seed of params.yaml.

Writes OUTPUT/<method>-k<k>-seed<seed>/{adapter.safetensors,adapter.json,training.json}. A killed run resumes from
--checkpoints.
"""

import argparse
from pathlib import Path

from components.program import add_plan_flag, add_training_flags, new_parser, open_tracker, run
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    from pemt_core.steps.transfer import transfer

    tracker = open_tracker(settings, arguments)
    with provenance(arguments.provenance) as facts:
        done = transfer(
            arguments.data,
            arguments.backbone,
            arguments.experts,
            settings.transfer_for(arguments.target),
            answer=settings.evaluate.answer,
            output_dir=arguments.output,
            checkpoint_dir=arguments.checkpoints,
            open_run=tracker.open_run,
            workers=arguments.workers,
        )
        facts.update(workers=done.workers, workers_memory_mib=done.workers_memory_mib)


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "transfer")
    parser.add_argument("--target", required=True, help="target task")
    parser.add_argument("--data", type=Path, required=True, help="the task's folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--experts", type=Path, required=True, help="folder that collect_experts wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    add_training_flags(parser)
    add_plan_flag(parser)
    parser.add_argument("--workers", type=int, help="trainings at a time (default: as many as suit the machine)")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
