"""Tables and figures of all results; tracking runs that are missing (of steps that DVC restored) are written.

Reads SCORES/<target>/<cell>/result.json, writes OUTPUT/{table.csv,table.md,summary.json,*.png,...}.
"""

import argparse
from pathlib import Path

from components.program import new_parser, open_tracker, run
from pemt_core.artifacts.provenance import provenance
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    from pemt_core.steps.report import report

    tracker = open_tracker(settings, arguments.params)
    with provenance(arguments.provenance):
        report(
            arguments.scores,
            [arguments.sources / task for task in settings.tasks.sources],
            settings.report,
            settings.tasks.targets,
            output_dir=arguments.output,
            provenance_dir=arguments.provenance.parent,
            tracker=tracker,
        )


if __name__ == "__main__":
    parser = new_parser(__doc__, "report")
    parser.add_argument("--scores", type=Path, required=True, help="folder that evaluate wrote")
    parser.add_argument("--sources", type=Path, required=True, help="folder with one adapter per source")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    run(main, parser)
