"""Tables, figures and a page of all results; tracking runs that are missing (of steps that DVC restored) are written.

Reads SCORES/<target>/<cell>/result.json, writes OUTPUT/{table.csv,table.md,summary.json,*.png,report.html,...}. With
--gather, as the last step of a run on a cluster, it fetches those results into SCORES from tracking first, and states
what failed.
"""

import argparse
import shutil
from pathlib import Path

from components.executor import Outcome
from components.program import add_choices, new_parser, open_tracker, run
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> Outcome:
    from pemt_core.steps.report import gather, report

    tracker = open_tracker(settings, arguments)
    with provenance(arguments.provenance):
        failed = gather(settings, tracker, results_dir=arguments.scores) if arguments.gather else None
        means = report(
            arguments.scores,
            [arguments.sources / task for task in settings.tasks.sources] if arguments.sources else [],
            settings.report,
            settings.tasks.targets,
            settings.prepare,
            settings.backbone,
            backbone_dir=arguments.backbone,
            output_dir=arguments.output,
            provenance_dir=arguments.provenance.parent,
            tracker=tracker,
            failed=failed,
        )
        if arguments.page:
            shutil.copyfile(arguments.output / "table.md", arguments.page)
    return Outcome(metrics=means)


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "report")
    parser.add_argument("--scores", type=Path, required=True, help="folder that evaluate wrote")
    parser.add_argument("--sources", type=Path, help="folder with one adapter per source, to record them too")
    parser.add_argument("--backbone", type=Path, help="folder of the backbone, to show its size")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--page", type=Path, help="file to write the tables to once more")
    parser.add_argument("--gather", action="store_true", help="fetch SCORES from tracking, by the settings' plan")
    add_choices(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
