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
from pemt_core.report.names import MethodNames
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> Outcome:
    from pemt_core.artifacts.result import load_results
    from pemt_core.report.cost import read_processes
    from pemt_core.report.origin import Origin, num_parameters_of
    from pemt_core.report.table import Tables
    from pemt_core.steps.plan import planned_cells
    from pemt_core.steps.record import record
    from pemt_core.steps.report import report
    from pemt_core.tracking.gather import gather

    tracker, left = open_tracker(settings, arguments), arguments.provenance.parent
    source_dirs = [arguments.sources / task for task in settings.tasks.sources] if arguments.sources else []
    failed: list[str] = []
    with provenance(arguments.provenance):
        if arguments.gather:
            failed = gather(planned_cells(settings), settings.evaluate, tracker, results_dir=arguments.scores)
        results = load_results(arguments.scores)
        tables = Tables.of(results, names_of(settings), settings.report.confidence, settings.tasks.targets, failed)
        num_parameters = num_parameters_of(arguments.backbone) if arguments.backbone else None
        processes = read_processes(left, [*settings.tasks.targets, *(folder.name for folder in source_dirs)])
        origin = Origin(settings.prepare, settings.backbone, num_parameters, processes, source_dirs)
        means = report(tables, origin, settings.report.layer_groups, arguments.output)
        record(tables, arguments.scores, source_dirs, settings.report, tracker, left)
        if arguments.page:
            shutil.copyfile(arguments.output / "table.md", arguments.page)
    return Outcome(metrics=means)


def names_of(settings: Settings) -> MethodNames:
    """What the report calls the methods."""
    one_less = {f"without_{source}": f"PEMT without the source {source}" for source in settings.tasks.sources}
    control = "stage 2 without sources: target prompt, target adapters and layer norms alone"
    return MethodNames({"pemt": "PEMT"}, {"control": control, **one_less})


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
