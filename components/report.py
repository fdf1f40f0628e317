"""Write tables, figures and a page of all results.

Reads SCORES/<target>/<cell>/result.json, writes OUTPUT/{table.csv,table.md,summary.json,*.png,report.html,...}. The
last step of a cluster run receives no files: with --run, it fetches the run's results from tracking into SCORES,
records the parent runs, and lists what failed.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.executor import Executor, Outcome
from components.program import add_rerun, new_parser, open_tracker, run_program
from pemt_core.errors import SettingsError
from pemt_core.paths import OutputFile, OutputFolder
from pemt_core.provenance.provenance import provenance
from pemt_core.settings import parse_run
from pemt_core.settings.steps import Report, read_step

if TYPE_CHECKING:
    from pemt_core.report.table import Tables


def main(arguments: argparse.Namespace, executor: Executor | None) -> Outcome:
    with provenance(arguments.provenance):
        if arguments.run:
            settings, tables = fetch(arguments)
        elif arguments.settings:
            settings = read_step(Report, arguments.settings, "report")
            tables = tables_of(settings, arguments.scores)
        else:
            raise SettingsError("--settings is missing: expected the file that plan wrote for this step")
        means = write(settings, tables, arguments)
        if arguments.page:
            shutil.copyfile(arguments.output / "table.md", arguments.page)
    return Outcome(metrics=means)


def fetch(arguments: argparse.Namespace) -> tuple[Report, "Tables"]:
    """Fetch the results of a cluster run from its tracking store, and record their parent runs there."""
    from pemt_core.steps.plan import make_plan
    from pemt_core.steps.record import record
    from pemt_core.tracking.gather import gather

    plan = make_plan(parse_run(arguments.run), Path(), arguments.rerun)
    tracker = open_tracker(plan.tracking, None, must_answer=True)
    failed = gather(plan.cells, plan.evaluate.evaluate, tracker, results_dir=arguments.scores)
    tables = tables_of(plan.report, arguments.scores, failed)
    record(tables, arguments.scores, [], plan.report.report, tracker, arguments.provenance.parent)
    return plan.report, tables


def tables_of(settings: Report, scores: Path, failed: Sequence[str] = ()) -> "Tables":
    """Build the tables of the results in `scores`; `failed` has a sentence for each missing result."""
    from pemt_core.artifacts.result import load_results
    from pemt_core.report.names import MethodNames
    from pemt_core.report.table import Tables

    names = MethodNames.of(settings.methods)
    return Tables.of(load_results(scores), names, settings.report.confidence, settings.targets, failed)


def write(settings: Report, tables: "Tables", arguments: argparse.Namespace) -> dict[str, float]:
    """Write the report and return the means over all targets by method and k."""
    from pemt_core.report.cost import read_processes
    from pemt_core.report.origin import Origin
    from pemt_core.steps.report import report

    sources = [arguments.sources / source for source in settings.sources] if arguments.sources else []
    processes = read_processes(arguments.provenance.parent, [*settings.targets, *settings.sources])
    origin = Origin(settings.prepare, settings.backbone, arguments.backbone, processes, sources)
    return report(tables, origin, settings.report.layer_groups, arguments.output)


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "report")
    parser.add_argument("--settings", metavar="FILE|JSON", help="settings that plan wrote for this step")
    parser.add_argument("--run", metavar="JSON", help="content of params.yaml and a cluster run's choices")
    add_rerun(parser)
    parser.add_argument("--scores", type=Path, required=True, help="folder that evaluate wrote")
    parser.add_argument("--sources", type=Path, help="folder with one adapter per source, to show them too")
    parser.add_argument("--backbone", type=Path, help="folder of the backbone, to show its size")
    parser.add_argument("--output", type=OutputFolder, required=True, help="folder to write")
    parser.add_argument("--page", type=OutputFile, help="file for a copy of table.md")
    return parser


if __name__ == "__main__":
    run_program(main, make_parser())
