"""Statistics against scipy, statsmodels, scikit-posthocs, closed forms, brute force and published numbers."""

import math
import subprocess
import sys
from dataclasses import replace
from itertools import product
from typing import Any

import networkx
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests

from pemt_core.artifacts.result import CellResult
from pemt_core.metrics import METRICS, Scored, score
from pemt_core.statistics import (
    Cost,
    Floor,
    Interval,
    Rules,
    TargetRuns,
    analyse,
    best_constant,
    binomial_standard_error,
    cliques,
    compare,
    decide,
    draw_scores,
    find_floor,
    hodges_lehmann,
    holm,
    mcnemar,
    mean_over_targets,
    median_constants,
    nemenyi_difference,
    penalties,
    percentile_interval,
    pscp,
    rank_methods,
    signed_rank_p,
    smallest_p,
    student_interval,
    target_runs,
)
from pemt_core.statistics.weighted import score_of_draws, written_out

EXAMPLES = settings(deadline=None, max_examples=60)  # no deadline: the first call imports scipy
LABELS = ["no", "yes", "maybe"]
Numbers = NDArray[np.float64]


# Answers to draw from


def drawn(metric: str, seed: int, rows: int = 40, right: float = 0.6) -> Scored:
    """Random answers that `metric` can score: a share `right` is right; references are the same for all seeds."""
    fixed, generator = np.random.default_rng(0), np.random.default_rng([seed, 1])
    groups = [str(row // 3) for row in range(rows)] if metric.startswith("multirc") else [str(r) for r in range(rows)]
    if metric in ("pearson", "spearman"):
        truth = fixed.integers(0, 11, rows) / 2
        noisy = np.where(generator.random(rows) < right, truth, generator.integers(0, 11, rows) / 2)
        texts = ["not a number" if generator.random() < 0.05 else f"{value:g}" for value in noisy]
        return Scored(texts, [[f"{value:g}"] for value in truth], groups, None)
    words = ["a red dog", "the dog", "cat", "a cat sat"] if metric.startswith("qa") else LABELS
    words = words[:2] if metric in ("f1", "multirc_f1") else words
    truth = [str(word) for word in fixed.choice(words, rows)]
    guesses = [str(word) for word in generator.choice([*words, "banana"], rows)]
    texts = [t if generator.random() < right else g for t, g in zip(truth, guesses, strict=True)]
    return Scored(texts, [[text] for text in truth], groups, None if metric.startswith("qa") else words)


def coin(share: float, seed: int, rows: int = 200, labels: tuple[str, str] = ("no", "yes")) -> Scored:
    """Accuracy of `share` in expectation on rows whose labels are the same for every seed, half and half."""
    truth = [labels[row % 2] for row in range(rows)]
    hit = np.random.default_rng(seed).random(rows) < share
    texts = [word if right else labels[word == labels[0]] for word, right in zip(truth, hit, strict=True)]
    return Scored(texts, [[word] for word in truth], [str(row) for row in range(rows)], list(labels))


# Intervals


@pytest.mark.parametrize(("n", "t"), [(3, 4.303), (5, 2.776), (10, 2.262)])
def test_student_interval_has_the_tabled_width(n: int, t: float) -> None:
    values = np.random.default_rng(n).normal(70, 3, n).tolist()
    interval = student_interval(values, 0.95)
    assert interval.half_width == pytest.approx(t * np.std(values, ddof=1) / math.sqrt(n), rel=2e-4)
    expected = scipy.stats.t.interval(0.95, n - 1, np.mean(values), scipy.stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(expected)


def test_one_seed_bounds_nothing() -> None:
    assert not student_interval([70.0], 0.95).bounded
    assert student_interval([70.0, 70.0], 0.95) == Interval(70.0, 70.0)


@pytest.mark.parametrize(
    ("score", "rows", "error"), [(67.3, 52, 6.5), (85.7, 28, 6.6), (76.0, 138, 3.6), (88.0, 204, 2.3)]
)
def test_binomial_error(score: float, rows: int, error: float) -> None:
    assert binomial_standard_error(score, rows) == pytest.approx(error, abs=0.05)
    with pytest.raises(ValueError, match="0 to 100 points"):
        binomial_standard_error(-3.0, rows)


# Metrics of draws


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(2))
def test_the_fast_metric_of_every_draw_equals_the_metric_of_its_rows(metric: str, seed: int) -> None:
    scored = drawn(metric, seed, rows=18)
    generator = np.random.default_rng(seed)
    groups, index = np.unique(scored.groups, return_inverse=True)
    counts = generator.multinomial(len(groups), [1 / len(groups)] * len(groups), size=40)[:, index].astype(float)
    counts = np.concatenate([counts, np.ones((1, 18)), np.eye(len(groups))[:2, index]])  # all rows; one group alone
    fast, slow = score_of_draws(metric, scored)(counts), written_out(metric, scored)(counts)
    np.testing.assert_allclose(fast, slow, atol=1e-9)
    assert fast[-3] == pytest.approx(score([metric], scored)[metric])


@pytest.mark.parametrize("metric", ["matthews", "pearson", "spearman"])
def test_correlations_of_a_constant_answer_are_zero_in_every_draw(metric: str) -> None:
    scored = drawn(metric, 1, rows=30)
    scored = replace(scored, predictions=["yes" if scored.labels else "2.6"] * 30)
    counts = np.random.default_rng(0).multinomial(30, [1 / 30] * 30, size=50).astype(float)
    assert (score_of_draws(metric, scored)(counts) == 0).all()


# The bootstrap


def test_draws_of_rows_have_the_binomial_error() -> None:
    run = coin(0.7, 3)
    draws = draw_scores(TargetRuns("a", "accuracy", {"pemt": {1: run}}), 20_000, 1)
    rows = draws.new_rows("pemt", [1])
    accuracy = score(["accuracy"], run)["accuracy"]
    assert rows.mean() == pytest.approx(accuracy, abs=0.1)
    assert rows.std() == pytest.approx(binomial_standard_error(accuracy, 200), rel=0.03)
    np.testing.assert_array_equal(rows, draws.two_way("pemt", [1]))  # a single seed adds nothing


def test_draws_of_clusters_are_wider_than_those_of_rows() -> None:
    """Ten copies of each row add no information: the error is that of the clusters."""
    base = coin(0.7, 3, rows=40)
    copied = Scored(*(column * 10 for column in (base.predictions, base.references, base.groups)), base.labels)
    clustered = draw_scores(TargetRuns("a", "accuracy", {"m": {1: copied}}), 5_000, 1).new_rows("m", [1])
    plain = draw_scores(TargetRuns("a", "accuracy", {"m": {1: base}}), 5_000, 1).new_rows("m", [1])
    np.testing.assert_allclose(clustered, plain)


def test_equal_methods_differ_in_no_draw() -> None:
    """Both methods get the same rows and the same seeds."""
    runs = {seed: coin(0.7, seed) for seed in (1, 2, 3)}
    draws = draw_scores(
        TargetRuns("a", "accuracy", {"pemt": runs, "twin": dict(runs), "rival": {1: coin(0.4, 9)}}), 500, 1
    )
    assert (draws.difference("pemt", "twin", [1, 2, 3]) == 0).all()
    assert draws.difference("pemt", "rival", [1]).std() > 0


def test_draws_do_not_depend_on_other_methods_or_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {"pemt": {1: coin(0.7, 1)}, "lora": {1: coin(0.6, 2)}}
    both = draw_scores(TargetRuns("a", "accuracy", runs), 1000, 1)
    monkeypatch.setattr("pemt_core.statistics.bootstrap._MOST_COUNTS", 200 * 96)
    alone = draw_scores(TargetRuns("a", "accuracy", {"lora": runs["lora"]}), 1000, 1)
    np.testing.assert_array_equal(both.scores["lora", 1], alone.scores["lora", 1])
    other = draw_scores(TargetRuns("b", "accuracy", runs), 1000, 1)
    assert (both.scores["lora", 1] != other.scores["lora", 1]).any()


def test_the_two_way_variance_is_that_of_rows_and_seeds() -> None:
    """Seeds of 60, 70 and 80 points on the same rows: their variance, (n - 1)/n of it over n, adds to that of rows."""
    runs = {seed: coin(share, seed, rows=2000) for seed, share in ((1, 0.6), (2, 0.7), (3, 0.8))}
    target = TargetRuns("a", "accuracy", {"m": runs})
    draws = draw_scores(target, 4000, 1)
    over_seeds = np.var(target.scores("m", [1, 2, 3])) / 3
    one_row = np.mean([draws.scores["m", seed].var() for seed in (1, 2, 3)]) / 3
    assert draws.two_way("m", [1, 2, 3]).var() == pytest.approx(over_seeds + one_row, rel=0.08)


def test_the_two_way_interval_covers_the_true_difference() -> None:
    """Rows of unequal difficulty, eight seeds of unequal quality, a true difference of 0: about 95 % coverage."""
    generator, covered, trials = np.random.default_rng(5), 0, 120
    seeds = list(range(8))
    for _ in range(trials):
        difficulty = generator.normal(0, 0.15, 80)
        runs = {
            method: {
                seed: scored_by(generator.random(80) < 0.65 + difficulty + generator.normal(0, 0.05)) for seed in seeds
            }
            for method in ("a", "b")
        }
        draws = draw_scores(TargetRuns("t", "accuracy", runs), 300, 1)
        covered += percentile_interval(draws.difference("a", "b", seeds), 0.95).contains(0.0)
    assert 0.88 <= covered / trials <= 0.995


def scored_by(right: NDArray[np.bool_]) -> Scored:
    texts = ["yes" if hit else "no" for hit in right]
    return Scored(texts, [["yes"]] * len(right), [str(row) for row in range(len(right))], ["no", "yes"])


def test_a_mean_over_targets_is_narrower_than_each_and_wider_for_a_new_target() -> None:
    generator = np.random.default_rng(1)
    draws = [generator.normal(centre, 2.0, 5000) for centre in (-6, 0, 6, 12)]
    fixed = percentile_interval(mean_over_targets(draws), 0.95)
    assert fixed.half_width == pytest.approx(1.96 * 2 / 2, rel=0.05)
    new = percentile_interval(mean_over_targets(draws, np.random.default_rng(2)), 0.95)
    assert new.half_width == pytest.approx(1.96 * math.sqrt(1 + np.var([-6, 0, 6, 12]) / 4), rel=0.1)
    assert mean_over_targets(draws).mean() == pytest.approx(3, abs=0.1)


# Families and signed ranks


@pytest.mark.parametrize("tests", [1, 2, 5, 12])
def test_holm_equals_statsmodels(tests: int) -> None:
    p = (np.random.default_rng(tests).random(tests) ** 3).round(2).tolist()  # some are equal
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
@EXAMPLES
def test_holm_keeps_the_order_and_lowers_nothing(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.1, math.nan])


@pytest.mark.parametrize(("n", "p"), [(3, 0.25), (5, 0.0625), (6, 0.031), (8, 0.0078), (17, 1.5e-5)])
def test_the_smallest_p_of_n_targets(n: int, p: float) -> None:
    assert smallest_p(n) == pytest.approx(p, rel=0.02)
    assert signed_rank_p(np.arange(1.0, n + 1)) == smallest_p(n)


@pytest.mark.parametrize("n", [1, 4, 9, 17, 30])
def test_the_signed_rank_test_equals_scipy(n: int) -> None:
    for seed in range(5):
        differences = np.random.default_rng([n, seed]).normal(0.5, 1, n)
        assert signed_rank_p(differences) == pytest.approx(scipy.stats.wilcoxon(differences, method="exact").pvalue)


def test_ties_and_zeros_are_exact_by_pratt() -> None:
    """Every choice of signs for the ranks, written out."""
    for seed in range(20):
        differences = np.random.default_rng(seed).integers(-3, 5, 8).astype(float)
        assert signed_rank_p(differences) == pytest.approx(all_signs(differences))
    assert signed_rank_p(np.zeros(17)) == 1.0


def all_signs(differences: Numbers) -> float:
    ranks = scipy.stats.rankdata(np.abs(differences))[differences != 0]
    signs = differences[differences != 0] > 0
    if not len(ranks):
        return 1.0
    sums = np.array([np.dot(choice, ranks) for choice in product((0, 1), repeat=len(ranks))])
    observed = ranks[signs].sum()
    return min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=17))
@EXAMPLES
def test_the_signed_rank_test_ignores_direction_and_scale(values: list[int]) -> None:
    differences = np.array(values, dtype=float)
    p = signed_rank_p(differences)
    assert 0 < p <= 1
    assert signed_rank_p(-differences) == pytest.approx(p)
    assert signed_rank_p(8 * differences) == pytest.approx(p)


@pytest.mark.parametrize("n", [6, 11, 17])
def test_the_hodges_lehmann_interval_holds_what_the_test_does_not_reject(n: int) -> None:
    differences = np.random.default_rng(n).normal(1, 2, n)
    estimate, interval = hodges_lehmann(differences, 0.95)
    assert estimate == pytest.approx(
        np.median([(a + b) / 2 for i, a in enumerate(differences) for b in differences[i:]])
    )
    for end, inwards in ((interval.low, 1e-6), (interval.high, -1e-6)):
        assert scipy.stats.wilcoxon(differences - end - inwards, method="exact").pvalue > 0.05
        assert scipy.stats.wilcoxon(differences - end + inwards, method="exact").pvalue <= 0.05


def test_five_targets_have_no_interval() -> None:
    assert not hodges_lehmann(np.arange(5.0), 0.95)[1].bounded
    assert hodges_lehmann(np.arange(6.0), 0.95)[1] == Interval(0.0, 5.0)


# Verdicts


def verdict(p: float, low: float, high: float, targets: int = 17) -> tuple[str, str]:
    made = decide(p, Interval(low, high), targets, family_size=12, confidence=0.95, margin=2.0)
    return made.decision, made.reason


@pytest.mark.parametrize(
    ("p", "low", "high", "targets", "decision", "reason"),
    [
        (0.01, 0.5, 9.0, 17, "supported", "both exclude no difference"),
        (0.20, 0.5, 9.0, 17, "undecidable", "may exceed ±2"),
        (0.20, 0.5, 1.5, 17, "not supported", "within ±2"),
        (0.90, -1.5, 2.0, 17, "not supported", "within ±2"),
        (0.90, -1.0, 3.0, 17, "undecidable", "may exceed ±2"),
        (0.01, -9.0, -0.1, 17, "not supported", "the reverse holds, significantly"),
        (0.20, -9.0, -0.1, 17, "not supported", "not significantly"),
        (0.01, 1.0, 2.0, 8, "undecidable", "8 targets cannot give a corrected p below 0.094"),
        (0.01, 1.0, 2.0, 9, "supported", "exclude"),
        (1.00, -math.inf, math.inf, 3, "undecidable", "3 targets"),
    ],
)
def test_verdicts(p: float, low: float, high: float, targets: int, decision: str, reason: str) -> None:
    found = verdict(p, low, high, targets)
    assert found[0] == decision
    assert reason in found[1]


# The family of comparisons


def many(methods: dict[str, float], targets: int = 12, seeds: int = 3) -> list[TargetRuns]:
    """Targets of 200 rows where each method has a true accuracy, shifted from target to target."""
    return [
        TargetRuns(
            f"target{t}",
            "accuracy",
            {
                name: {seed: coin(share + 0.01 * t, 1000 * t + 10 * seed + n) for seed in range(seeds)}
                for n, (name, share) in enumerate(methods.items())
            },
        )
        for t in range(targets)
    ]


def test_a_family_by_hand() -> None:
    runs = many({"pemt": 0.8, "lora": 0.6, "twin": 0.79})
    draws = {run.target: draw_scores(run, 500, 1) for run in runs}
    lora, twin = compare(runs, draws, "pemt", ["lora", "twin"], confidence=0.95, margin=2.0)
    expected = [run.mean("pemt", [0, 1, 2]) - run.mean("lora", [0, 1, 2]) for run in runs]
    np.testing.assert_allclose(lora.differences, expected)
    assert (lora.reference, lora.n_targets, lora.family_size) == ("lora", 12, 2)
    assert lora.p == pytest.approx(scipy.stats.wilcoxon(expected).pvalue)
    assert (lora.p_holm, twin.p_holm) == pytest.approx((2 * lora.p, max(2 * lora.p, twin.p)))
    assert (lora.wins, lora.ties, lora.losses, lora.superiority) == (12, 0, 0, 1.0)
    assert lora.verdict.decision == "supported"
    assert lora.median == pytest.approx(np.median(expected))
    means = [np.mean(np.delete(expected, i)) for i in range(12)]
    assert (lora.leave_one_out.low, lora.leave_one_out.high) == pytest.approx((min(means), max(means)))
    assert lora.mean_interval.contains(lora.mean)
    assert lora.new_target_interval.half_width > lora.mean_interval.half_width
    assert twin.wins + twin.ties + twin.losses == 12
    for difference, error in zip(lora.differences, lora.standard_errors, strict=True):
        assert difference > error > 0


def test_test_rows_of_one_cluster_bound_no_error() -> None:
    """Draws of a single passage are all alike, which is no certainty."""
    rows = {name: {seed: coin(share, seed + len(name), rows=40) for seed in (1, 2)}
            for name, share in {"pemt": 0.9, "lora": 0.6}.items()}  # fmt: skip
    other = TargetRuns("rows", "accuracy", rows)
    passage = TargetRuns("passage", "accuracy", rows, clusters=["one"] * 40)
    rules = Rules("pemt", ("lora",), 0.95, 2.0, 100, 1)
    found = analyse([passage, other], rules)
    for cell in found.cells:
        assert (cell.bootstrap.bounded, math.isfinite(cell.se_test)) == (cell.target == "rows", cell.target == "rows")
    (each,) = found.contrasts.comparisons
    assert (each.wins, each.ties, each.mean_interval.bounded) == (1, 1, False)
    similar = {"pemt": {seed: drawn("pearson", seed) for seed in (1, 2)}}
    floors = analyse([TargetRuns("t", "pearson", similar, clusters=["one"] * 40)], Rules("pemt", (), 0.95, 2.0, 100, 1))
    assert floors.floors[0].at_floor


def test_differences_that_rounding_alone_tells_apart_are_ties() -> None:
    """On 7 rows, differences are sevenths: p is that of whole numbers of right answers."""
    right = {"pemt": [6, 5, 7, 3, 6, 4, 2, 5], "lora": [4, 4, 5, 4, 5, 4, 0, 6], "full": [4, 5, 6, 1, 3, 3, 2, 6]}
    runs = [
        TargetRuns(f"t{target}", "accuracy", {name: {1: seventh(hits[target])} for name, hits in right.items()})
        for target in range(8)
    ]
    draws = {run.target: draw_scores(run, 50, 1) for run in runs}
    counts = {name: np.array(hits) for name, hits in right.items()}
    for each in compare(runs, draws, "pemt", ["lora", "full"], confidence=0.95, margin=2.0):
        whole = counts["pemt"] - counts[each.reference]
        assert each.p == signed_rank_p(whole.astype(float))
        assert each.superiority == ((whole > 0) + (whole == 0) / 2).mean()
    table = np.array(list(counts.values()), dtype=float).T
    exact, rounded = rank_methods([*counts], table, 0.95), rank_methods([*counts], 100 * table / 7, 0.95)
    np.testing.assert_array_equal(exact.p_holm, rounded.p_holm)
    assert exact.average_ranks == rounded.average_ranks


def seventh(hits: int) -> Scored:
    """Seven rows of one class, of which `hits` are right."""
    texts = ["yes" if row < hits else "no" for row in range(7)]
    return Scored(texts, [["yes"]] * 7, [str(row) for row in range(7)], ["no", "yes"])


def test_a_reference_without_results_counts_in_the_family() -> None:
    runs = many({"pemt": 0.8, "lora": 0.6}, targets=6)
    draws = {run.target: draw_scores(run, 200, 1) for run in runs}
    (alone,) = compare(runs, draws, "pemt", ["lora"], confidence=0.95, margin=2.0)
    (found,) = compare(runs, draws, "pemt", ["missing", "lora"], confidence=0.95, margin=2.0)
    assert found.p_holm == 2 * alone.p_holm == 2 * smallest_p(6)
    assert (alone.verdict.decision, found.verdict.decision) == ("supported", "undecidable")
    with pytest.raises(ValueError, match="its own references"):
        compare(runs, draws, "pemt", ["pemt"], confidence=0.95, margin=2.0)


def test_mcnemar_equals_statsmodels() -> None:
    first, second = coin(0.7, 1), coin(0.6, 2)
    found = mcnemar(first, second)
    hits = [[p == r[0] for p, r in zip(s.predictions, s.references, strict=True)] for s in (first, second)]
    table = pd.crosstab(*map(pd.Series, hits))
    assert found.p == pytest.approx(mcnemar_of_statsmodels(table, exact=True).pvalue)
    assert (found.only_first, found.only_second) == (table.loc[True, False], table.loc[False, True])
    assert mcnemar(first, first).p == 1.0
    with pytest.raises(ValueError, match="different rows"):
        mcnemar(first, coin(0.7, 1, rows=100))


# Ranks


def table(seed: int, targets: int = 14, methods: int = 5) -> Numbers:
    values: Numbers = np.random.default_rng(seed).normal(np.arange(methods), 1.5, (targets, methods)).round(1)
    return values


def test_ranks_equal_scipy() -> None:
    scores = table(0)
    ranking = rank_methods(list("abcde"), scores, 0.95)
    averages = scipy.stats.rankdata(-scores, axis=1).mean(0)
    assert dict(zip(ranking.methods, ranking.average_ranks, strict=True)) == pytest.approx(
        dict(zip("abcde", averages, strict=True))
    )
    assert list(ranking.average_ranks) == sorted(averages)
    assert ranking.friedman == pytest.approx(scipy.stats.friedmanchisquare(*scores.T).statistic)
    expected = 13 * ranking.friedman / (14 * 4 - ranking.friedman)
    assert ranking.iman_davenport == pytest.approx(expected)
    assert ranking.p == pytest.approx(scipy.stats.f.sf(expected, 4, 52))


def test_pairwise_tests_and_cliques_equal_scikit_posthocs() -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    scores = np.random.default_rng(1).normal(np.array([0, 0.3, 0.6, 1.6, 1.8]), 1, (14, 5))
    ranking = rank_methods(list("abcde"), scores, 0.95)
    long = pd.DataFrame(scores, columns=list("abcde")).melt()
    expected = posthocs.posthoc_wilcoxon(long, val_col="value", group_col="variable", p_adjust="holm")
    order = list(ranking.methods)
    np.testing.assert_allclose(ranking.p_holm, expected.loc[order, order])
    alike = pd.DataFrame(ranking.p_holm >= 0.05, index=order, columns=order)
    bars = networkx.find_cliques(networkx.from_pandas_adjacency(alike.astype(int)))
    assert sorted(map(sorted, ranking.cliques)) == sorted(sorted(bar) for bar in bars if len(bar) > 1)
    assert ranking.cliques


@given(st.integers(0, 2**28 - 1))
@EXAMPLES
def test_cliques_equal_networkx(bits: int) -> None:
    alike = np.eye(8, dtype=bool)
    for place, (i, j) in enumerate(zip(*np.triu_indices(8, 1), strict=True)):
        alike[i, j] = alike[j, i] = bits >> place & 1
    expected = networkx.find_cliques(networkx.from_numpy_array(alike.astype(int) - np.eye(8)))
    assert cliques(alike) == sorted(tuple(sorted(clique)) for clique in expected if len(clique) > 1)


@given(st.integers(2, 9), st.integers(3, 7), st.integers(0, 1000))
@EXAMPLES
def test_average_ranks_add_up(targets: int, methods: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, (targets, methods)).astype(float)
    ranking = rank_methods([str(m) for m in range(methods)], scores, 0.95)
    assert sum(ranking.average_ranks) == pytest.approx(methods * (methods + 1) / 2)
    assert 0 <= ranking.p <= 1
    assert ranking.friedman >= 0


def test_equal_methods_and_equal_orders() -> None:
    equal = rank_methods(list("abc"), np.ones((4, 3)), 0.95)
    assert (equal.average_ranks, equal.friedman, equal.p, equal.cliques) == ((2, 2, 2), 0, 1, (("a", "b", "c"),))
    same_order = rank_methods(list("abc"), np.tile([1.0, 2.0, 3.0], (4, 1)), 0.95)
    assert (same_order.methods, same_order.iman_davenport, same_order.p) == (("c", "b", "a"), math.inf, 0)
    with pytest.raises(ValueError, match="at least 2 targets and 3 methods"):
        rank_methods(["a", "b"], np.ones((4, 2)), 0.95)


@pytest.mark.parametrize(("methods", "difference"), [(5, 1.48), (8, 2.55), (10, 3.29), (12, 4.04), (15, 5.20)])
def test_nemenyi_differences_of_17_targets(methods: int, difference: float) -> None:
    assert nemenyi_difference(methods, 17, 0.95) == pytest.approx(difference, abs=0.01)


# The floor


def floor_of(runs: dict[str, Scored], metric: str = "accuracy", chance: float = 0.0) -> Any:
    target = TargetRuns("wsc", metric, {name: {1: run} for name, run in runs.items()}, chance=chance)
    return find_floor(target, draw_scores(target, 1000, 1), 0.95)


def majority(rows: int, share: float, answer: str, above: int = 0) -> Scored:
    """Answers that are all `answer` but for `above` rows of the other class, where they are right."""
    most = round(rows * share)
    truth = ["False"] * most + ["True"] * (rows - most)
    texts = [answer] * (rows - above) + ["True"] * above
    return Scored(texts, [[word] for word in truth], [str(row) for row in range(rows)], ["False", "True"])


def test_wsc_at_its_majority_class_is_at_the_floor() -> None:
    """35 of 52 test rows are False: 67.3 points, with an error of 6.5."""
    runs = {"lora": majority(52, 0.673, "False"), "full": majority(52, 0.673, "False", above=3)}
    found = floor_of(runs)
    assert (found.at_floor, found.constant_answer, found.best_method) == (True, "False", "full")
    assert (found.constant_score, found.band) == pytest.approx((67.3, 6.5), abs=0.05)
    assert found.reason == "no method is more than 6.5 points above the answer 'False', which scores 67.3"
    assert not floor_of({**runs, "pemt": majority(52, 0.673, "False", above=4)}).at_floor


def test_a_method_below_the_constant_answer_is_at_the_floor() -> None:
    assert floor_of({"lora": majority(52, 0.673, "True")}).at_floor


def test_the_floor_of_f1_is_the_positive_answer() -> None:
    found = floor_of({"lora": majority(100, 0.6, "False")}, "multirc_f1")
    assert (found.constant_answer, found.constant_score) == ("True", pytest.approx(100 * 2 * 0.4 / 1.4))
    assert found.at_floor
    assert 3 < found.band < 7


@pytest.mark.parametrize("metric", ["matthews", "pearson"])
def test_a_correlation_is_at_the_floor_if_its_interval_holds_zero(metric: str) -> None:
    chance, good = drawn(metric, 3, right=0.0), drawn(metric, 4, right=0.8)
    assert floor_of({"lora": chance}, metric).at_floor
    found = floor_of({"lora": chance, "pemt": good}, metric)
    assert (found.at_floor, found.best_method, found.constant_score) == (False, "pemt", 0.0)
    assert found.reason == "the interval of pemt is above a guess, which scores 0.0"


def test_no_band_of_one_method_is_said_of_another() -> None:
    """The mean of lora is higher than the band of its better method, whose interval is narrower."""
    found = floor_of({"lora": drawn("pearson", 3, right=0.2), "none": drawn("pearson", 9, right=0.0)}, "pearson")
    assert found.at_floor
    assert found.reason == "no method's interval is above a guess, which scores 0.0"


def test_a_constant_answer_is_shown_in_one_short_line() -> None:
    answer = "one\ntwo " * 100
    floor = Floor("t", "accuracy", answer, 50.0, 1.0, "pemt", 50.0, True)
    assert "the answer 'one two one two" in floor.reason
    assert "\n" not in floor.reason
    assert len(floor.reason) < 300


def test_the_floor_of_free_text_is_a_frequent_answer_or_chance() -> None:
    texts = ["Paul"] * 30 + ["Anna"] * 20 + [f"name {i}" for i in range(50)]
    scored = Scored(["Paul"] * 52 + [""] * 48, [[t] for t in texts], [str(r) for r in range(100)], None)
    assert best_constant("qa_f1", scored) == ("Paul", 30.0)
    assert floor_of({"lora": scored}, "qa_f1").at_floor
    half = replace(scored, predictions=texts[:53] + [""] * 47)
    assert not floor_of({"lora": half}).at_floor
    guess = floor_of({"lora": half}, chance=50.0)
    assert (guess.at_floor, guess.constant_answer, guess.band) == (True, None, 5.0)


# PSCP


@pytest.mark.parametrize(
    ("performance", "parameters", "flops", "memory", "expected"),
    [(74.7, 196_608, 0.31, 28.41, 55.62), (50.0, 409_600, 1.67, 42.47, 29.49), (80.1, 14_680_064, 0.0, 27.75, 60.08)],
)
def test_pscp_equals_the_published_table(
    performance: float, parameters: float, flops: float, memory: float, expected: float
) -> None:
    """Rows of table 3 of PEFT-Bench: IA3, prompt tuning, LoRA."""
    assert pscp(performance, Cost(parameters, flops, memory)) == pytest.approx(expected, abs=0.01)


def test_pscp_against_medians_and_weights() -> None:
    costs = [Cost(10, 0, 3), Cost(20, 0, 5), Cost(30, 6, 7)]
    assert median_constants(costs) == Cost(20, 2, 5)
    assert median_constants([Cost(1, 0, 1)]) == Cost(1, 1, 1)
    assert penalties(Cost(20, 2, 5), median_constants(costs)) == (0.5, 0.5, 0.5)
    assert pscp(80.0, Cost(20, 2, 5), Cost(20, 2, 5), Cost(2, 1, 0)) == pytest.approx(80 / 8)
    with pytest.raises(ValueError, match="must not be negative"):
        pscp(80.0, Cost(-1, 0, 0))


# Runs and the whole analysis


def result(task: str, method: str, seed: int, k: Any = 32, metric: str = "accuracy") -> CellResult:
    return CellResult(
        task=task, suite="GLUE", method=method, k=k, seed=seed, learning_rate=0.001, answer="generate",
        main_metric=metric, test={metric: 50.0}, unreadable=0, test_rows=200, test_rows_available=200, validation={},
        trained_parameters=1, sources=[], expert_weights=None, artifact="", key="", data="", backbone="", settings={},
        history=[],
    )  # fmt: skip


def test_results_and_answers_become_runs() -> None:
    cells = [(result(t, m, s), coin(0.7, s)) for t in ("rte", "cb") for m in ("pemt", "lora") for s in (2, 1)]
    rte, cb = target_runs(cells, chance={"cb": 50.0}, clusters={"cb": [f"passage {row // 4}" for row in range(200)]})
    assert (rte.target, cb.target, rte.metric, rte.chance, cb.chance) == ("rte", "cb", "accuracy", 0.0, 50.0)
    assert (rte.cluster_of_row.max() + 1, cb.cluster_of_row.max() + 1) == (200, 50)
    assert rte.runs["pemt"][2] == coin(0.7, 2)
    assert rte.shared_seeds("pemt", "lora") == [1, 2]
    assert rte.shared_seeds("pemt", "missing") == []


def test_contradictory_runs_are_refused() -> None:
    cell = (result("rte", "pemt", 1), coin(0.7, 1))
    with pytest.raises(ValueError, match="rte: pemt, k = 32, seed 1 occurs twice"):
        target_runs([cell, cell])
    with pytest.raises(ValueError, match="one k at a time"):
        target_runs([cell, (result("rte", "pemt", 2, k="full"), coin(0.7, 1))])
    with pytest.raises(ValueError, match="main metric f1 and accuracy"):
        target_runs([cell, (result("rte", "lora", 1, metric="f1"), coin(0.7, 1))])
    with pytest.raises(ValueError, match="lora, seed 2 are not those of pemt, seed 1"):
        target_runs([cell, (result("rte", "lora", 2), coin(0.7, 1, rows=100))])
    with pytest.raises(ValueError, match="no runs"):
        TargetRuns("rte", "accuracy", {})
    with pytest.raises(ValueError, match="split among clusters"):
        TargetRuns("m", "multirc_em", {"a": {1: drawn("multirc_em", 1, 6)}}, clusters=list("abcdef"))


def test_an_analysis_has_every_cell_floor_and_contrast() -> None:
    runs = many({"pemt": 0.8, "lora": 0.6, "uniform": 0.79, "full": 0.7}, targets=8)
    at_floor = TargetRuns("flat", "accuracy", {name: {1: coin(0.5, 7)} for name in runs[0].runs})
    rules = Rules("pemt", ("lora", "uniform"), confidence=0.95, margin=2.0, draws=400, seed=1)
    found = analyse([*runs, at_floor], rules)
    assert [(c.target, c.method) for c in found.cells[:2]] == [("target0", "pemt"), ("target0", "lora")]
    cell = found.cells[0]
    assert (cell.seeds, cell.test_rows, cell.clusters) == ((0, 1, 2), 200, 200)
    assert cell.interval == student_interval(cell.scores, 0.95)
    assert cell.bootstrap.contains(cell.mean)
    assert 1 < cell.se_test < binomial_standard_error(cell.mean, 200)  # errors of three seeds partly cancel
    assert [floor.target for floor in found.floors if floor.at_floor] == ["flat"]
    assert [c.n_targets for c in found.contrasts.comparisons] == [9, 9]
    assert found.contrasts.ranking is not None
    assert found.contrasts.ranking.methods[-1] == "lora"
    assert found.above_floor is not None
    assert found.above_floor.targets == tuple(run.target for run in runs)
    assert found.above_floor.comparisons[0].verdict.decision == "supported"
    assert analyse(runs, rules).above_floor is None  # nothing to leave out
    for wrong in ([], [at_floor, at_floor]):
        with pytest.raises(ValueError, match="each occur once"):
            analyse(wrong, rules)


def test_the_package_loads_without_heavy_libraries() -> None:
    heavy = "{'torch', 'transformers', 'mlflow', 'sklearn', 'pandas', 'statsmodels', 'scikit_posthocs', 'matplotlib'}"
    program = f"import sys, pemt_core.statistics; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
