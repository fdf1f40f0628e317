"""Run an experiment of experiments/: train and score the cells that are not there, then compare the methods.

Writes OUTPUT/EXPERIMENT/{report.html,paragraph.md,table.md,table.csv,...}. All experiments share the data, backbone,
source adapters, cells and scores below OUTPUT. A run that was stopped goes on. docs/comparing.md explains the files.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from functools import cache

from components.command import add_params, explained, run, worker_count
from components.program import open_tracker
from pemt_core.comparison.experiments import Experiment, Experiments, find_experiment, read_experiments
from pemt_core.errors import SettingsError
from pemt_core.interruption import Interrupted
from pemt_core.paths import OutputFolder
from pemt_core.tracking import Tracker

PAPER, REAL = "paper", "real"  # below OUTPUT

logger = logging.getLogger(__name__)


def main(arguments: argparse.Namespace) -> None:
    experiments = read_experiments(arguments.params, paper=arguments.paper, real=arguments.real)
    if arguments.list:
        from pemt_core.comparison.show import show_experiments

        print(show_experiments(experiments))
        return
    if arguments.name is None:
        raise SettingsError("which experiment? expected its name; --list lists them")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        for task, reason in experiments.lacking.items():
            logger.warning("skipped: %s: %s", task, reason)
        experiment = find_experiment(arguments.name, experiments)
        for error in experiments.broken.values():
            logger.warning("skipped, also in what experiments share: %s", error)
        compare(experiment, experiments, arguments)
    except Interrupted as stopped:
        sys.stderr.write(f"{stopped}\n")
        raise


def compare(experiment: Experiment, experiments: Experiments, arguments: argparse.Namespace) -> None:
    """Plan, forecast, and run an experiment unless only its forecast is asked for."""
    from pemt_core.comparison.folders import Folders
    from pemt_core.comparison.forecast import forecast
    from pemt_core.comparison.paper import paper_forecast
    from pemt_core.comparison.plan import Choice, plan_comparison
    from pemt_core.comparison.progress import hide_loading
    from pemt_core.comparison.run import Comparison
    from pemt_core.comparison.show import show_forecast, show_paper

    hide_loading()
    project = arguments.params.parent
    form = PAPER if arguments.paper else "" if arguments.real is None else REAL
    folders = Folders(arguments.output / form)
    choice = Choice(arguments.targets or (), arguments.k or (), arguments.seeds or ())
    plan = plan_comparison(experiment, experiments, choice, project)
    if arguments.paper:
        print(show_paper(experiment, paper_forecast(plan)))
    else:
        where = {"project": project, "checkpoints": arguments.checkpoints, "workers": arguments.workers}
        print(show_forecast(experiment, forecast(plan, folders, **where)))
    if arguments.dry_run:
        return
    tracker_of = trackers(experiment)
    comparison = Comparison(plan, folders, project, arguments.checkpoints, arguments.workers, tracker_of)
    for line in comparison.run():
        print(line)


def trackers(experiment: Experiment) -> Callable[[str], Tracker]:
    """A function that connects to the tracking experiment of a variant, once for each."""
    from pemt_core.comparison.recording import tracking_experiment

    @cache
    def of(variant: str) -> Tracker:
        named = {"experiment": tracking_experiment(experiment.name, variant)}
        return open_tracker(experiment.settings.tracking.model_copy(update=named), None)

    return of


def few_shot(text: str) -> int | str:
    """Parse a value of --k."""
    if text == "full" or text.isdecimal():
        return text if text == "full" else int(text)
    raise argparse.ArgumentTypeError(f"'{text}': expected full, or a number of rows per class")


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "compare")
    parser.add_argument("name", nargs="?", metavar="EXPERIMENT", help="name of a file in experiments/")
    parser.add_argument("--list", action="store_true", help="list the experiments")
    parser.add_argument("--dry-run", action="store_true", help="only print the cells, and an estimate of the time")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--paper", action="store_true", help="the form for the paper's setting: T5-base, all data")
    help_text = (
        "the form for real language: SmolLM2, and the datasets of a folder in the hub's layout (hub: of the hub)"
    )
    forms.add_argument("--real", metavar="FOLDER", help=help_text)
    parser.add_argument("--targets", nargs="+", metavar="TASK", help="only these targets")
    parser.add_argument("--k", nargs="+", type=few_shot, help="only these k")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these seeds")
    help_text = "how many trainings run, and cells are scored, at a time (default: what suits the machine)"
    parser.add_argument("--workers", type=worker_count, help=help_text)
    parser.add_argument(
        "--output", type=OutputFolder, default=OutputFolder("comparison"), help="folder (default: comparison)"
    )
    help_text = "folder of states to resume from (default: checkpoints)"
    parser.add_argument("--checkpoints", type=OutputFolder, default=OutputFolder("checkpoints"), help=help_text)
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
