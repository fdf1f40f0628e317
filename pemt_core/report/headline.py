"""The main finding in words: the scores of the first method and the others, and how certain the differences are."""

import math
from statistics import fmean

from pemt_core.report.palette import in_order_of_k
from pemt_core.report.table import Tables, half_width


def headline(tables: Tables) -> list[str]:
    """Return, for each k, a sentence with the means over all targets, then a comparison with each other method.

    The first method is compared with the others. Differences are taken per seed, since a seed gives both methods the
    same few-shot sample.
    """
    sentences, title = [], tables.names.title
    for k in sorted(tables.means["k"].unique(), key=in_order_of_k):
        overall = [row for row in tables.overall if row["k"] == k]
        if not overall:
            sentences.append(f"No method has a result for every target with {_k(k)}, so only single targets compare.")
            continue
        first, *others = overall
        against = " and ".join(f"{_value(row)} for {title(row['method'])}" for row in others)
        start = f"{title(first['method'])} {_value(first)}" + (f" against {against}" if others else "")
        over = f"{first['targets']} target{'s' if first['targets'] > 1 else ''}"
        sentences.append(f"{start}: mean of the main metric over {over}, {_k(k)}, {_seeds(first['seeds'])}.")
        sentences += [_beside(tables, first["method"], row["method"], k) for row in others]
    return sentences


def _beside(tables: Tables, one: str, other: str, k: str) -> str:
    """Say on how many targets `one` is ahead of `other`, and their mean difference if there are several seeds."""
    seeds, title = tables.seeds, tables.names.title
    table = tables.cells[tables.cells["k"] == k].pivot(index="target", columns="method", values="mean")
    gap = (table[one] - table[other]).dropna()
    text = f"{title(one)} is ahead of {title(other)} on {(gap > 0).sum()} of {len(gap)} targets"
    text += f" and behind on {(gap < 0).sum()}" if (gap < 0).any() else ""
    scores = seeds[seeds["k"] == k].pivot_table(index=["seed", "target"], columns="method", values="score")
    both = scores[[one, other]].dropna()
    per_seed = [
        fmean(rows[one] - rows[other]) for _, rows in both.groupby("seed") if len(rows) == seeds["target"].nunique()
    ]
    half = half_width(per_seed, tables.confidence)
    if math.isnan(half):
        return f"{text}."
    mean = fmean(per_seed)
    doubt = "; this includes zero, so the seeds do not tell them apart" if abs(mean) <= half else ""
    return f"{text}. Seed by seed the difference is {_signed(mean)} ± {half:.1f}{doubt}."


def _value(row: dict[str, float]) -> str:
    return f"{row['mean']:.1f}" if math.isnan(row["half_width"]) else f"{row['mean']:.1f} ± {row['half_width']:.1f}"


def _k(k: str) -> str:
    return "all training data" if k == "full" else f"k = {k}"


def _seeds(count: int) -> str:
    return "one seed, so no interval" if count == 1 else f"{count} seeds"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
