"""What every other step of a run on a cluster is to do: its settings as one JSON text each.

Reads --settings with all of params.yaml, or the file itself, and --choices. Gives the plan to Kubeflow as parameters,
and prints it where no one else asks.
"""

import argparse
import json

from components.executor import Outcome
from components.program import add_choices, new_parser, run
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> Outcome:
    from pemt_core.steps.plan import make_plan

    with provenance(arguments.provenance):
        plan = make_plan(settings).parameters()
    if arguments.executor is None:
        print(json.dumps(plan, indent=2, ensure_ascii=False))
    return Outcome(parameters=plan)


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "plan")
    add_choices(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
