"""The findings in words: who is best and at what cost, whether controls do as well, and each claim with its numbers."""

import math

from pemt_core.comparison_report.groups import is_control, is_equal_weights
from pemt_core.comparison_report.study import Line, Study
from pemt_core.report.cost import duration
from pemt_core.statistics.comparison import MethodComparison
from pemt_core.statistics.intervals import Interval


def headline(study: Study) -> str:
    """Say who is best, by how much, how sure that is, and at what cost."""
    best, reference = study.lines[0], study.reference
    if math.isnan(best.mean):
        return f"No method has a seed with every target{_at(study)}, so only single targets compare."
    over = f"{len(study.targets)} target{'s' if len(study.targets) > 1 else ''}{_at(study)}"
    if best is not reference:
        start = f"{best.title} has the highest mean of {over}, {points(best)}, against {points(reference)} for "
        return f"{start}{reference.title}{_beside(best, reference.title)}. {_cost(best)}"
    start = f"{best.title} has the highest mean of {over}, {points(best)}"
    if not study.others:
        return f"{start}. {_cost(best)}"
    second = study.others[0]
    return f"{start}, before {second.title} with {points(second)}{_beside(second, best.title)}. {_cost(best)}"


def controls(study: Study) -> list[str]:
    """Say which negative controls, and whether equal weights, do as well as the reference, as far as that is shown.

    Empty if the reference is shown to be better than each of them, or there is none.
    """
    reference, sentences = study.reference.title, []
    for line in study.others:
        kind = _kind(study, line)
        if not kind:
            continue
        ahead = None if line.comparison is None else line.comparison
        if ahead is None:
            gap = reference_gap(study, line)
            if gap is not None and gap <= 0:
                sentences.append(f"{kind} {line.title} does as well as {reference}: {signed(-gap)} points, not tested.")
        elif ahead.verdict.decision != "supported":
            better = "cannot be told apart from" if ahead.verdict.decision == "undecidable" else "does as well as"
            sentences.append(f"{kind} {line.title} {better} {reference}: {_numbers(ahead, minus=True)}.")
    return sentences


def _kind(study: Study, line: Line) -> str:
    if is_control(study.compared, line.column):
        return "The negative control"
    return "Equal weights:" if is_equal_weights(study.compared, line.column) else ""


def paragraph(study: Study) -> list[str]:
    """Return the first paragraph, then a sentence on each claim: the reference is better than one of the family."""
    sentences = [" ".join([headline(study), *controls(study)])]
    sentences += [claim(study, each) for each in study.analysis.contrasts.comparisons]
    if study.floors:
        names = ", ".join(study.floors)
        sentences.append(f"Every method scores like a constant answer or a guess on {names}. {without_floors(study)}")
    if any(line.comparison is None for line in study.others):
        named = ", ".join(line.title for line in study.others if line.comparison is None)
        sentences.append(f"Not tested, because the family fixed beforehand leaves them out: {named}.")
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
        return "No target is left without them."
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


def reference_gap(study: Study, line: Line) -> float | None:
    """The reference's mean minus a line's, in points; None if one of them has none."""
    gap = study.reference.mean - line.mean
    return None if math.isnan(gap) else gap


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


def _numbers(each: MethodComparison, minus: bool = False) -> str:
    """The numbers of a comparison, of the reference minus the method, or the method minus the reference."""
    sign = -1 if minus else 1
    won, lost = (each.losses, each.wins) if minus else (each.wins, each.losses)
    return (
        f"mean difference {signed(sign * each.mean)}, Hodges-Lehmann {signed(sign * each.hodges_lehmann)} "
        f"({interval(each.interval, minus)}), Holm p {p_value(each.p_holm)}, "
        f"{won} won, {each.ties} tied, {lost} lost of {each.n_targets} targets"
    )


def _beside(line: Line, reference: str) -> str:
    """How sure the difference between a line and the reference is."""
    each = line.comparison
    if each is None:
        return ""
    gap = f"{abs(each.mean):.1f} points"
    sure = {
        "supported": "and the difference is supported",
        "not supported": f"so that {reference} is better is not supported",
        "undecidable": "which is undecidable from these data",
    }[each.verdict.decision]
    return f"; they are {gap} apart, Holm p {p_value(each.p_holm)}, {sure}"


def _cost(line: Line) -> str:
    cost = line.cost
    most = f"{cost.most_parameters:,}"
    range_ = most if cost.fewest_parameters == cost.most_parameters else f"{cost.fewest_parameters:,} to {most}"
    frozen = f" and draws on {cost.source_parameters:,} frozen ones of its sources" if cost.source_parameters else ""
    time = "" if cost.seconds is None else f", and takes {duration(cost.seconds)} a cell"
    return f"It trains {range_} parameters a target{frozen}{time}."


def _at(study: Study) -> str:
    return " with all training data" if study.k == "full" else f" with k = {study.k}"


def signed(value: float) -> str:
    """Format points with a sign: "+1.2", "−0.3", "0.0", "−∞"."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = f"{value:+.1f}".replace("-", "−")
    return "0.0" if shown[1:] == "0.0" else shown
