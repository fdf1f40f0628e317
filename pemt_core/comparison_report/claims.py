"""The findings in words: who is best and at what cost, whether controls do as well, and each claim with its numbers."""

import math
from collections.abc import Mapping
from typing import Any, get_args

from pemt_core.comparison_report.costs import MethodCost
from pemt_core.comparison_report.study import UNREADABLE, Line, Study
from pemt_core.errors import counted
from pemt_core.report.cost import duration
from pemt_core.statistics.comparison import MethodComparison
from pemt_core.statistics.intervals import Interval
from pemt_core.statistics.verdict import Decision

UNREADABLE_MARK = "‡"  # after a method with many unreadable answers
TIED = "A target is won or lost by more than one standard error of its difference, and tied otherwise."
AS_WELL, UNDECIDED = "do as well as", "cannot be told apart from"
CONTROLS = "Controls, which should be worse,"
SAME = {"source_adapters": ("own", "permuted")}  # values of a setting that give PEMT and the same function again
EXCHANGEABLE = ("input", "static", "token")  # gates that start at zero and treat all experts alike


def headline(study: Study) -> str:
    """Say who is best and by how much."""
    best, reference = study.lines[0], study.reference
    if math.isnan(best.mean):
        return f"No method has a seed with every target{_at(study)}, so only single targets compare."
    over = f"{counted(len(study.targets), 'target')}{_at(study)}"
    tied = [line.title for line in study.lines if math.isclose(line.mean, best.mean, abs_tol=1e-9)]
    if len(tied) > 1:
        start = f"The highest mean of {over}, {best.mean:.1f} points, is that of {', '.join(tied[:-1])} and {tied[-1]}"
        return f"{start}." if reference.title in tied else f"{start}; {_mean_of(reference)}."
    start = f"The highest mean of {over} is that of {best.title}: {points(best)} points"
    if best is not reference:
        return f"{start}; {_mean_of(reference)}{_closeness(best, reference)}."
    if not study.others:
        return f"{start}."
    second = study.others[0]
    if math.isnan(second.mean):
        return f"{start}; no other method has a seed with every target."
    return f"{start}; next is {second.title} with {points(second)}{_closeness(best, second)}."


def _mean_of(line: Line) -> str:
    if math.isnan(line.mean):
        return f"{line.title} has no seed with every target"
    return f"{line.title} has {points(line)}"


def _closeness(best: Line, other: Line) -> str:
    """Say that means differ which are shown as the same number."""
    return ", less than 0.1 points lower" if f"{best.mean:.1f}" == f"{other.mean:.1f}" else ""


def unreadable(study: Study) -> str:
    """Name the methods with many unreadable answers, which tables mark; empty if there is none."""
    marked = [f"{line.title} {line.unreadable:.0%}" for line in study.lines if line.is_marked]
    if not marked:
        return ""
    return (
        f"{UNREADABLE_MARK} More than {UNREADABLE:.0%} of the test answers are no answer of the task at all, "
        f"and count as wrong: {', '.join(marked)}."
    )


def marked_title(line: Line) -> str:
    """The title of a line in tables."""
    return f"{line.title} {UNREADABLE_MARK}" if line.is_marked else line.title


def certainty(study: Study) -> list[str]:
    """Say how sure that is, how many claims hold, and at what cost."""
    best, reference = study.lines[0], study.reference
    other = best if best is not reference else next(iter(study.others), None)
    sentences = []
    if other is not None and other.comparison is not None:
        sentences.append(_how_sure(study, other.comparison))
    verdicts = [each.verdict.decision for each in study.analysis.contrasts.comparisons]
    if verdicts:
        counts = [f"{verdicts.count(decision)} {decision}" for decision in get_args(Decision)]
        counts += [f"{len(study.without_results)} without results"] if study.without_results else []
        counts += [f"{len(study.apart)} not testable"] if study.apart else []
        family = len(study.analysis.rules.references)
        sentences.append(f"Of the {family} claims that {reference.title} is better: {', '.join(counts)}.")
    if not math.isnan(best.mean):
        sentences += [_cost(line) for line in ([best] if best is reference else [best, reference])]
    return sentences


def controls(study: Study) -> list[str]:
    """Say which of the experiment's controls do as well as the reference, as far as that is shown.

    Empty if the reference is shown to be better than each of them, or there is none. A control that is the same
    function as the reference has a sentence of its own.
    """
    groups: dict[str, list[str]] = {}
    same = []
    for line in study.others:
        found = _as_well(study, line) if line.column in study.compared.definition.controls else None
        if found is not None and is_same_function(study, line):
            same.append(_cannot_differ(study, line, found[1]))
        elif found is not None:
            groups.setdefault(found[0], []).append(f"{line.title}, {found[1]}")
    title = study.reference.title
    return [*(f"{CONTROLS} {relation} {title}: {'; '.join(named)}." for relation, named in groups.items()), *same]


def is_same_function(study: Study, line: Line) -> bool:
    """Whether a method is the reference with its experts in another order: adapters exchanged between the sources.

    The guided prompt is a sum over sources and gates start at zero, so nothing connects a source's prompt with its
    adapter (`pemt_core.model.source_controls.exchanged_adapters`).
    """
    own, changed = (_settings(study, each.column) for each in (study.reference, line))
    values = {name: (own.get(name), changed.get(name)) for name in {*own, *changed}}
    return own.get("gate") in EXCHANGEABLE and {n: pair for n, pair in values.items() if pair[0] != pair[1]} == SAME


def _cannot_differ(study: Study, line: Line, numbers: str) -> str:
    title = study.reference.title
    return (
        f"{line.title} ({numbers}) cannot differ from {title} but by rounding, which training amplifies: it is the "
        "same function with its experts in another order. It says nothing about whether sources help, but that the "
        f"gates of {title} do not use which prompt belongs to which adapter."
    )


def _settings(study: Study, column: str) -> Mapping[str, Any]:
    return next(result.settings for result in study.results if result.method == column)


def _as_well(study: Study, line: Line) -> tuple[str, str] | None:
    """How a line compares with the reference, and the numbers; None if the reference is shown to be better."""
    each = line.comparison
    if each is None:
        gap = line.mean - study.reference.mean
        return (AS_WELL, f"{signed(gap)}, not tested") if gap >= 0 else None
    if each.verdict.decision == "supported":
        return None
    relation = UNDECIDED if each.verdict.decision == "undecidable" else AS_WELL
    return relation, f"{difference(each)}, Holm p {p_value(each.p_holm)}"


def paragraph(study: Study) -> list[str]:
    """Return the first paragraph, then a sentence on each claim: the reference is better than one of the family."""
    return [" ".join([headline(study), *controls(study), *certainty(study)]), *claims(study)]


def claims(study: Study) -> list[str]:
    """Return a sentence on each claim, then on targets at the floor and on what is not tested."""
    sentences = [claim(study, each) for each in study.analysis.contrasts.comparisons]
    return [*sentences, *remarks(study)]


def remarks(study: Study) -> list[str]:
    """Say which targets are at the floor, what changes without them, and what is not tested or has no results."""
    sentences = []
    if study.floors:
        names = ", ".join(study.floors)
        sentences.append(f"Every method scores like a constant answer or a guess on {names}. {without_floors(study)}")
    left_out = [line.title for line in study.others if line.column not in study.analysis.rules.references]
    if left_out:
        sentences.append(f"Not tested, because the family fixed beforehand leaves them out: {', '.join(left_out)}.")
    if study.without_results:
        named = ", ".join(map(study.title, study.without_results))
        sentences.append(f"Without results, but counted in the family of Holm's correction: {named}.")
    if study.apart:
        named, common = ", ".join(map(study.title, study.apart)), f"in common with {study.reference.title}"
        sentences.append(f"Without a target and seed {common}, but counted in Holm's correction: {named}.")
    return sentences


def claim(study: Study, comparison: MethodComparison) -> str:
    """Return "<reference> is better than <method>: <verdict>, because ...", with the numbers."""
    titles = study.compared.columns
    named = f"{titles[comparison.method].title} is better than {titles[comparison.reference].title}"
    verdict = comparison.verdict
    return f"{named}: {verdict.decision}, because {verdict.reason} ({_numbers(comparison)})."


def without_floors(study: Study) -> str:
    """Say what changes without the targets at the floor."""
    changed = changed_verdicts(study)
    if study.analysis.above_floor is None:
        return "These are all targets, so nothing is left to compare without them."
    if not changed:
        return "Without them, every verdict is the same."
    return f"Without them, the verdict changes on {'; '.join(changed)}."


def changed_verdicts(study: Study) -> list[str]:
    """Return the claims whose verdict changes without the targets at the floor."""
    above = study.analysis.above_floor
    titles = study.compared.columns
    before = {each.reference: each for each in study.analysis.contrasts.comparisons}
    return [
        f"{titles[each.reference].title} ({before[each.reference].verdict.decision} becomes {each.verdict.decision})"
        for each in (above.comparisons if above else ())
        if each.reference in before and before[each.reference].verdict.decision != each.verdict.decision
    ]


def points(line: Line) -> str:
    """Format a mean with its interval: "71.2 ± 0.8"."""
    return f"{line.mean:.1f}" if math.isnan(line.half_width) else f"{line.mean:.1f} ± {line.half_width:.1f}"


def interval(ends: Interval, minus: bool = False) -> str:
    """Format an interval, "0.2 to 2.0", or that of the negative value; an end that the data cannot bound is ∞."""
    low, high = (-ends.high, -ends.low) if minus else (ends.low, ends.high)
    return f"{signed(low)} to {signed(high)}"


def difference(each: MethodComparison) -> str:
    """Format the method minus the reference with its bootstrap interval: "−1.2 (−2.0 to −0.3)"."""
    return f"{signed(-each.mean)} ({interval(each.mean_interval, minus=True)})"


def p_value(p: float) -> str:
    """Format a p value: "= 0.031" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _numbers(each: MethodComparison) -> str:
    """The numbers of a comparison: the method minus the reference."""
    return (
        f"mean difference {signed(each.mean)}, median {signed(each.median)}, "
        f"Hodges-Lehmann {signed(each.hodges_lehmann)} ({interval(each.interval)}), Holm p {p_value(each.p_holm)}, "
        f"{each.wins} won, {each.ties} tied, {each.losses} lost of {counted(each.n_targets, 'target')}"
    )


def _how_sure(study: Study, each: MethodComparison) -> str:
    names = study.compared.columns
    one, other = names[each.method].title, names[each.reference].title
    numbers = f"{one} and {other} differ by {abs(each.mean):.1f} points, Holm p {p_value(each.p_holm)}"
    return f"{numbers}: that {one} is better is {each.verdict.decision}, because {each.verdict.reason}."


def _cost(line: Line) -> str:
    cost = line.cost
    most = f"{cost.most_parameters:,}"
    trained = most if cost.fewest_parameters == cost.most_parameters else f"{cost.fewest_parameters:,} to {most}"
    frozen = f", {cost.source_parameters:,} frozen ones of {_sources(cost)}" if cost.source_parameters else ""
    time = "" if cost.seconds is None else f", {duration(cost.seconds)} a cell"
    return f"The cost of {line.title}: {trained} trained parameters a target{frozen}{time}."


def _sources(cost: MethodCost) -> str:
    named = f"{cost.sources} source{'s' if cost.sources > 1 else ''}"
    return f"{named}, chosen among {cost.candidates}" if cost.candidates > cost.sources else named


def _at(study: Study) -> str:
    return " with all training data" if study.k == "full" else f" with k = {study.k}"


def signed(value: float) -> str:
    """Format points with a sign: "+1.2", "−0.3", "0.0", "−∞", or "–" if there is no number."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = f"{value:+.1f}".replace("-", "−")
    return "0.0" if shown[1:] == "0.0" else shown
