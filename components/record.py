"""Record all results in tracking: one run per source and cell, and a parent run per method and k.

Reads SCORES/<target>/<cell>/result.json, writes OUTPUT, a list of what has a run. With --plan, in a branch of a cluster
run, it records only the branch's cells and stores their results for the report.
"""

import argparse
from pathlib import Path

from components.program import Job, add_settings, add_tracking, new_parser, run, tracker_of
from pemt_core.artifacts.files import write_json
from pemt_core.paths import OutputFile
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import Record


def main(arguments: argparse.Namespace, job: Job[Record]) -> None:
    from pemt_core.artifacts.result import load_results
    from pemt_core.report.names import MethodNames
    from pemt_core.report.table import Tables
    from pemt_core.steps.record import record, recorded_cells
    from pemt_core.tracking.results import publish_results

    settings, tracker, left = job.settings, tracker_of(arguments), arguments.provenance.parent
    with provenance(job.provenance):
        results = load_results(arguments.scores)
        if arguments.plan:
            publish_results(results, arguments.scores, settings.evaluate, tracker, left)
        else:
            sources = [arguments.sources / source for source in settings.sources] if arguments.sources else []
            names = MethodNames.of(settings.methods)
            tables = Tables.of(results, names, settings.report.confidence, settings.targets)
            record(tables, arguments.scores, sources, settings.report, tracker, left)
        if arguments.output:
            write_json(arguments.output, recorded_cells(results))


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "record")
    add_settings(parser)
    parser.add_argument("--scores", type=Path, required=True, help="folder that evaluate wrote")
    parser.add_argument("--sources", type=Path, help="folder with one adapter per source, to record them too")
    parser.add_argument("--output", type=OutputFile, help="file to write")
    add_tracking(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser(), Record)
