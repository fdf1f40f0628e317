"""The best cell of every target as a version of a model in MLflow's registry, the best version under an alias.

Reads ADAPTERS/<target>/<cell> and what it was trained on; `models` in params.yaml has the rule.
"""

import argparse
from pathlib import Path

from components.program import new_parser, open_tracker, run
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    from pemt_core.steps.register import Folders, register

    with provenance(arguments.provenance) as facts:
        facts["champions"] = register(
            Folders(arguments.adapters, arguments.data, arguments.backbone, arguments.experts),
            settings.tasks.targets,
            settings.models,
            own_tasks=settings.own_tasks,
            prefix=settings.tracking.experiment,
            batch_size=settings.evaluate.batch_size,
            tracker=open_tracker(settings, arguments),
        )


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "register")
    parser.add_argument("--adapters", type=Path, required=True, help="folder with one folder of cells per target")
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--experts", type=Path, required=True, help="folder that collect_experts wrote")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
