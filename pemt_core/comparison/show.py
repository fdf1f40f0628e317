"""What `pemt compare` prints before it trains, and instead of it with --dry-run."""

from collections.abc import Iterable, Sequence

from pemt_core.comparison.experiments import Experiment, Experiments
from pemt_core.comparison.forecast import ColumnForecast, Forecast
from pemt_core.comparison.paper import LAUNCH, PEAKS, SHARE, PaperForecast


def show_experiments(experiments: Experiments) -> str:
    """A line for each experiment, with the error of a file that is none, then files that are ignored."""
    lines = {name: each.definition.about for name, each in experiments.items()}
    lines |= {name: f"error: {error}" for name, error in experiments.broken.items()}
    width = max(map(len, lines), default=0)
    return "\n".join(
        [*(f"{name.ljust(width)}  {lines[name]}" for name in sorted(lines)), *experiments.ignored.values()]
    )


def show_forecast(experiment: Experiment, forecast: Forecast) -> str:
    """Cells by column and target, and about how long they take."""
    states = ("at least there", "at most to train") if forecast.unchecked else ("there", "to train")
    head = ("method", "cells", *states, "configurations", "steps", "core time")
    columns = [(name, *_counts(each)) for name, each in forecast.columns.items()]
    targets = [(n, f"{all_}", f"{all_ - left}", f"{left}") for n, (all_, left) in forecast.targets.items()]
    cells = sum(each.cells for each in forecast.columns.values())
    missing = sum(each.missing for each in forecast.columns.values())
    stages = [f"stage 1 of {name}: {left} of {all_} sources to make" for name, (all_, left) in forecast.sources.items()]
    if forecast.source_seconds:
        stages.append(f"time of stage 1: about {duration(forecast.source_seconds)} of one core *")
    return "\n".join(
        [
            f"{experiment.name}: {experiment.definition.title}",
            *stages,
            "",
            *_table([head, *columns]),
            "",
            *_table([("target", "cells", *states), *targets]),
            "",
            _left(forecast, cells, missing),
            _time(forecast, missing),
            _memory(forecast),
        ]
    )


def _left(forecast: Forecast, cells: int, missing: int) -> str:
    if not forecast.unchecked:
        return f"{cells} cells, {cells - missing} there, {missing} to train"
    return (
        f"{cells} cells, at most {missing} to train: {forecast.unchecked} of these exist, and whether they are kept is "
        "unknown until stage 1 is made or checked"
    )


def _counts(each: ColumnForecast) -> tuple[str, ...]:
    if not each.missing:
        return f"{each.cells}", f"{each.cells}", "0", "", "", ""
    time = "unknown" if each.seconds is None else f"{duration(each.seconds)}{'' if each.measured else ' *'}"
    counts = each.cells, each.cells - each.missing, each.missing
    return (*(f"{count}" for count in counts), f"{each.configurations:,}", f"{each.steps:,}", time)


def _time(forecast: Forecast, missing: int) -> str:
    if not missing:
        return "time: nothing to train"
    if forecast.seconds is None:
        return "time: unknown before there is a backbone"
    probed = [name for name, each in forecast.columns.items() if each.missing and not each.measured]
    origin = "measured on cells that are there"
    if probed:
        origin = "* from a probe of some steps with random inputs on this machine"
        origin += "" if len(probed) == len(forecast.columns) else "; the others measured on cells that are there"
    total, workers = duration(forecast.seconds), forecast.workers
    scoring = duration((forecast.scoring_seconds or 0) / forecast.workers)
    return f"time: about {total} with {workers} workers, {scoring} of it for scoring, stage 1 not counted ({origin})"


def _memory(forecast: Forecast) -> str:
    if forecast.peak_memory_mib is None:
        return "memory: unknown before a cell is trained"
    return f"memory: a training adds at most {forecast.peak_memory_mib:,} MiB to a worker, by the cells that are there"


def show_paper(experiment: Experiment, forecast: PaperForecast) -> str:
    """GPU hours in the paper's setting."""
    rows = [(name, *(f"{hours[device]:,.1f}" for device in PEAKS)) for name, hours in forecast.columns.items()]
    sources = ("stage 1", *(f"{forecast.sources[device]:,.1f}" for device in PEAKS))
    sums = (forecast.sources[device] + sum(each[device] for each in forecast.columns.values()) for device in PEAKS)
    return "\n".join(
        [
            f"{experiment.name}: {experiment.definition.title}, in the paper's setting",
            f"{forecast.cells} cells, {forecast.configurations:,} configurations",
            "",
            *_table([("GPU hours", *PEAKS), sources, *rows, ("all", *(f"{each:,.1f}" for each in sums))]),
            "",
            f"An estimate by the model of docs/scale.md, with {SHARE:.0%} of the peak and {LAUNCH * 1e6:g} us per "
            "operator. Nothing of this is measured",
        ]
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Columns as wide as their widest cell; all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(each.rjust(width) for each, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
