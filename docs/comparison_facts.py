"""What the cells of the committed experiments show about how they were made, in sentences for docs/comparison.md."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

import pandas as pd

CELL = ["target", "method", "variant", "k", "seed"]
Rows = Mapping[str, pd.DataFrame]  # by experiment


def rows_in(folder: Path, names: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """rows.csv of every experiment that has one."""
    paths = {name: folder / name / "rows.csv" for name in names}
    return {name: pd.read_csv(path) for name, path in paths.items() if path.is_file()}


def core_hours(rows: pd.DataFrame) -> float:
    """Hours of one core that training the cells took, over all their configurations; stage 1 is not in it."""
    return float(rows["seconds"].sum()) / 3600


def targets(rows: Rows) -> str:
    """How many targets the experiments have: "17 targets (9 in `ablations`)"."""
    counts = {name: each["target"].nunique() for name, each in rows.items()}
    (usual, _), *_ = Counter(counts.values()).most_common()
    others = [f"{count} in `{name}`" for name, count in counts.items() if count != usual]
    return f"{usual} targets ({', '.join(others)})" if others else f"{usual} targets"


def gap(rows: pd.DataFrame, one: str, other: str) -> float:
    """The mean of a method minus that of another, in points, over the cells that both have."""
    first, second = (rows[rows["method"] == method] for method in (one, other))
    both = first.merge(second, on=["target", "k", "seed"])
    return float((both["score_x"] - both["score_y"]).mean())


def last_steps(rows: pd.DataFrame) -> str:
    """In how many cells of each method the checkpoint that validation chose is the last one."""
    last = rows["best_step"].max()
    shares = rows.assign(last=rows["best_step"] == last).groupby("method")["last"].mean().sort_values(kind="stable")
    named = ", ".join(f"`{name}` {share:.0%}".replace("%", " %") for name, share in reversed(list(shares.items())))
    return (
        f"Every method has the same {last} steps. The best step is the last one in this share of the cells: {named}. "
        "Where it is high, as for most methods that train a prompt alone, further steps may add points: read those "
        "results as lower bounds."
    )


def other_grids(rows: pd.DataFrame, grids: Mapping[str, Sequence[float]]) -> str:
    """The methods whose learning rates are not those that `grids` has for them now; empty if there is none."""
    texts = []
    for method, trials in rows.groupby("method", sort=False)["trials"].first().items():
        tried = sorted({float(trial.rpartition(" ")[2]) for trial in json.loads(trials)})
        if tried and method in grids and tried != sorted(grids[method]):
            texts.append(f"`{method}` with {_rates(tried)} (now {_rates(sorted(grids[method]))})")
    return f"Other learning rates have been found since; here are {', '.join(texts)}." if texts else ""


def _rates(rates: Sequence[float]) -> str:
    return " and ".join(f"{rate:g}" for rate in rates)


def origin(rows: Rows) -> str:
    """Which experiments have equal cells, to the last bit of their tensors, and how far those of others differ."""
    groups = _groups(rows)
    within = [
        f"within {_listed(group)}" if len(group) > 1 else f"{_listed(group)} has no such cells" for group in groups
    ]
    equal = f"Cells that experiments have in common have equal tensors, to the last bit, {', and '.join(within)}"
    if len(groups) == 1:
        return f"{equal}: these have the same source adapters."
    wholes = [pd.concat(rows[name] for name in group).drop_duplicates(CELL) for group in groups]
    pairs = pd.concat([one.merge(other, on=CELL) for one, other in combinations(wholes, 2)], ignore_index=True)
    gaps = (pairs["score_x"] - pairs["score_y"]).abs()
    widest = pairs.iloc[int(gaps.argmax())]
    return (
        f"{equal}: each of these groups has its own source adapters, trained on another machine. Rounding differs "
        f"between processors, and training amplifies it: between groups, the {len(pairs)} cells in common differ by "
        f"{gaps.mean():.1f} points in the mean and by {gaps.max():.1f} at most (`{widest['method']}` on "
        f"{widest['target']}, k = {widest['k']}). Compare methods within a section, or within a group."
    )


def _groups(rows: Rows) -> list[list[str]]:
    """The experiments, together if they have equal cells."""
    groups: list[list[str]] = []
    for name in rows:
        joined = [group for group in groups if any(_share_cells(rows[name], rows[other]) for other in group)]
        groups = [group for group in groups if group not in joined] + [[*chain.from_iterable(joined), name]]
    return groups


def _share_cells(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether all cells that two experiments have in common have the same trained tensors."""
    common = one.merge(other, on=CELL)
    return len(common) > 0 and bool((common["artifact_x"] == common["artifact_y"]).all())


def _listed(names: list[str]) -> str:
    marked = [f"`{name}`" for name in names]
    return " and ".join([", ".join(marked[:-1]), marked[-1]] if len(marked) > 1 else marked)
