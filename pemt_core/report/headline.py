"""The main finding in words, from the numbers: what the method reached against the others, and how sure that is."""

import math
from statistics import fmean

import pandas as pd

from pemt_core.report.heat_map import SHOWN
from pemt_core.report.table import ALL, half_width, rows_of

TITLES = {SHOWN: "PEMT"}


def headline(seeds: pd.DataFrame, cells: pd.DataFrame, means: pd.DataFrame, confidence: float) -> list[str]:
    """For each k one sentence with the means over all targets, then sentences on what they rest on.

    Takes the frames of `pemt_core.report.table`. The difference of two methods is taken seed by seed, since a seed
    gives both the same few-shot sample.
    """
    sentences = []
    for k in sorted(means["k"].unique(), key=lambda k: (k != "full", k if k == "full" else int(k))):
        found = means[(means["k"] == k) & (means["suite"] == ALL) & means["mean"].notna()]
        overall = sorted(rows_of(found), key=lambda row: row["method"] != SHOWN)
        if not overall:
            sentences.append(f"No method has a result for every target with {_k(k)}: only single targets compare.")
            continue
        first, *others = overall
        against = " and ".join(f"{_value(row)} for {_title(row['method'])}" for row in others)
        start = f"{_title(first['method'])} {_value(first)}" + (f" against {against}" if others else "")
        over = f"{first['targets']} target{'s' if first['targets'] > 1 else ''}"
        sentences.append(f"{start}: mean of the main metric over {over}, {_k(k)}, {_seeds(first['seeds'])}.")
        sentences += [_beside(seeds, cells, first["method"], row["method"], k, confidence) for row in others]
    return sentences


def _beside(seeds: pd.DataFrame, cells: pd.DataFrame, one: str, other: str, k: str, confidence: float) -> str:
    """On how many targets `one` is ahead of `other`, and their difference over seeds where there are several."""
    table = cells[cells["k"] == k].pivot(index="target", columns="method", values="mean")
    gap = (table[one] - table[other]).dropna()
    text = f"{_title(one)} is ahead of {_title(other)} on {(gap > 0).sum()} of {len(gap)} targets"
    text += f" and behind on {(gap < 0).sum()}" if (gap < 0).any() else ""
    scores = seeds[seeds["k"] == k].pivot_table(index=["seed", "target"], columns="method", values="score")
    both = scores[[one, other]].dropna()
    per_seed = [
        fmean(own[one] - own[other]) for _, own in both.groupby("seed") if len(own) == seeds["target"].nunique()
    ]
    half = half_width(per_seed, confidence)
    if math.isnan(half):
        return f"{text}."
    mean = fmean(per_seed)
    doubt = "; this includes zero, so the seeds do not tell them apart" if abs(mean) <= half else ""
    return f"{text}. Seed by seed the difference is {_signed(mean)} ± {half:.1f}{doubt}."


def _title(method: str) -> str:
    return TITLES.get(method, method)


def _value(row: dict[str, float]) -> str:
    return f"{row['mean']:.1f}" if math.isnan(row["half_width"]) else f"{row['mean']:.1f} ± {row['half_width']:.1f}"


def _k(k: str) -> str:
    return "all training data" if k == "full" else f"k = {k}"


def _seeds(count: int) -> str:
    return "one seed, so no interval" if count == 1 else f"{count} seeds"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
