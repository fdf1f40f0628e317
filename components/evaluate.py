"""Score the targets' cells on their test splits, except those whose result is still valid.

Reads ADAPTERS/<target>/<cell>, writes OUTPUT/<target>/<cell>/{result.json,predictions.jsonl}.
"""

import argparse
from pathlib import Path

from components.executor import Outcome
from components.program import Job, add_settings, add_targets, new_parser, run
from pemt_core.paths import OutputFolder
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import Evaluate


def main(arguments: argparse.Namespace, job: Job[Evaluate]) -> Outcome:
    from pemt_core.steps.evaluate import evaluate, final_scores

    with provenance(job.provenance) as facts:
        facts["scored"] = evaluate(
            {target: arguments.adapters / target for target in arguments.targets or job.settings.targets},
            arguments.data,
            arguments.backbone,
            arguments.experts,
            job.settings.evaluate,
            output_dir=arguments.output,
            workers=arguments.workers,
        )
    return Outcome(metrics=final_scores(arguments.output))


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "evaluate")
    add_settings(parser)
    add_targets(parser)
    parser.add_argument("--adapters", type=Path, required=True, help="folder with one folder of cells per target")
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--experts", type=Path, required=True, help="folder that collect_experts wrote")
    parser.add_argument("--output", type=OutputFolder, required=True, help="folder to write")
    help_text = "number of cells scored at a time (default: what suits the machine)"
    parser.add_argument("--workers", type=int, help=help_text)
    return parser


if __name__ == "__main__":
    run(main, make_parser(), Evaluate)
