"""Resolve params.yaml and its recipe into the settings of every other step, one JSON text each.

Writes OUTPUT/<step>.json, OUTPUT/train_source/<source>.json and OUTPUT/transfer/<target>.json. On a cluster, it reads
--run instead and returns the texts to Kubeflow as parameters. Elsewhere, it prints them if there is no --output.
"""

import argparse
import json
from pathlib import Path

from components.command import add_params
from components.executor import Executor, Outcome
from components.program import add_rerun, new_parser, run_program
from pemt_core.paths import OutputFolder
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import load_settings, parse_run
from pemt_core.settings.inputs import check_inputs
from pemt_core.steps.plan import make_plan


def main(arguments: argparse.Namespace, executor: Executor | None) -> Outcome:
    with provenance(arguments.provenance):
        settings = parse_run(arguments.run) if arguments.run else load_settings(arguments.params)
        folder = Path() if arguments.run else arguments.params.parent
        plan = make_plan(settings, folder, arguments.rerun)
        if not (arguments.output and plan.reads_as_before(arguments.output)):
            check_inputs(settings, folder)
        if arguments.output:
            plan.write(arguments.output)
    if executor is None and arguments.output is None:
        print(json.dumps(plan.parameters(), indent=2, ensure_ascii=False))
    return Outcome(parameters=plan.parameters())


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "plan")
    add_params(parser)
    parser.add_argument("--run", metavar="JSON", help="content of params.yaml and a run's choices, instead of --params")
    add_rerun(parser)
    parser.add_argument("--output", type=OutputFolder, help="folder to write")
    return parser


if __name__ == "__main__":
    run_program(main, make_parser())
