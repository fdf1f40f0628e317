"""Register the best cell of every target as a model version in MLflow, and give the best version an alias.

Reads ADAPTERS/<target>/<cell> and what it was trained on; the group `models` of params.yaml sets the rule.
"""

import argparse
from pathlib import Path

from components.program import Job, add_settings, add_targets, add_tracking, new_parser, run, tracker_of
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import Register


def main(arguments: argparse.Namespace, job: Job[Register]) -> None:
    from pemt_core.steps.register import Folders, register

    folders = Folders(arguments.adapters, arguments.data, arguments.backbone, arguments.experts)
    with provenance(job.provenance) as facts:
        facts["champions"] = register(folders, job.settings, tracker_of(arguments), arguments.targets)


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "register")
    add_settings(parser)
    add_targets(parser)
    parser.add_argument("--adapters", type=Path, required=True, help="folder with one folder of cells per target")
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--experts", type=Path, required=True, help="folder that collect_experts wrote")
    parser.add_argument(
        "--recorded", type=Path, required=True, help="file that record wrote; it shows that the cells have runs"
    )
    add_tracking(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser(), Register)
