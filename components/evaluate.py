"""Test scores of the targets' cells; a cell whose result is still true is not scored again.

Reads ADAPTERS/<target>/<cell>, writes OUTPUT/<target>/<cell>/{result.json,predictions.jsonl}. With --plan, in a run on
a cluster, it records the results and registers the best cells at once.
"""

import argparse
from pathlib import Path

from components.executor import Outcome
from components.program import add_plan_flag, new_parser, open_tracker, run
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> Outcome:
    from pemt_core.steps.evaluate import evaluate, final_scores
    from pemt_core.steps.register import Folders, register
    from pemt_core.tracking.results import publish_results

    targets = arguments.targets or settings.tasks.targets
    with provenance(arguments.provenance) as facts:
        facts["scored"] = evaluate(
            {target: arguments.adapters / target for target in targets},
            arguments.data,
            arguments.backbone,
            arguments.experts,
            settings.evaluate,
            output_dir=arguments.output,
        )
        if arguments.plan:
            tracker = open_tracker(settings, arguments)
            publish_results(arguments.output, settings.evaluate, tracker, arguments.provenance.parent)
            register(
                Folders(arguments.adapters, arguments.data, arguments.backbone, arguments.experts),
                targets,
                settings.models,
                own_tasks=settings.own_tasks,
                prefix=settings.tracking.experiment,
                batch_size=settings.evaluate.batch_size,
                tracker=tracker,
            )
    return Outcome(metrics=final_scores(arguments.output))


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "evaluate")
    parser.add_argument("--targets", nargs="+", help="target tasks (default: all of params.yaml)")
    parser.add_argument("--adapters", type=Path, required=True, help="folder with one folder of cells per target")
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--experts", type=Path, required=True, help="folder that collect_experts wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    add_plan_flag(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
