"""The report of a comparison: planted outcomes, numbers against scipy, strict markup, figures without collisions."""

import csv
import itertools
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import scipy.stats
from comparisons import Planted
from html_page import Element, parse
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pemt_core.answering.gates import gate_statistics
from pemt_core.comparison.compared import Compared
from pemt_core.comparison.definition import Statistics
from pemt_core.comparison_report.claims import controls, headline, paragraph, signed
from pemt_core.comparison_report.costs import cost_of
from pemt_core.comparison_report.gates import agreement, chosen_sources, gates_of
from pemt_core.comparison_report.labels import Labelled, place_labels
from pemt_core.comparison_report.markdown import size, sources_of, stage_1_time
from pemt_core.comparison_report.matrix import colours, draw_matrix, matrix_of
from pemt_core.comparison_report.points import side_by_side
from pemt_core.comparison_report.ranks import levels_of
from pemt_core.comparison_report.study import Study
from pemt_core.comparison_report.write import studies_of, write_comparison
from pemt_core.errors import ArtifactError
from pemt_core.report.expert_table import contrast

MINUS = "−"
TARGETS = ("cola", "mrpc", "rte", "nq", "yelp", "scitail", "paws", "boolq", "wic", "cb")
ACCURACY = {"pemt": 0.95, "lora": 0.80, "uniform": 0.95, "permuted": 0.70, "full": 0.90}
TITLES = {"pemt": "PEMT", "lora": "LoRA & biases", "full": "full fine-tuning"}
FLOOR = "cb"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Five methods, of which uniform is as good as PEMT and not in the family, ten targets, one at the floor."""
    folder = tmp_path_factory.mktemp("planted")
    family = ("lora", "permuted", "full")
    planted = Planted(folder, ACCURACY, TARGETS, floor=(FLOOR,), rows=60, family=family, titles=TITLES)
    planted.controls = ("permuted", "uniform")
    return planted.compared()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, compared: Compared) -> Path:
    output = tmp_path_factory.mktemp("report")
    write_comparison(compared, output)
    return output


@pytest.fixture(scope="module")
def study(compared: Compared) -> Study:
    (study,) = studies_of(compared)
    return study


@pytest.fixture(scope="module")
def page(folder: Path) -> Element:
    return parse((folder / "report.html").read_text(encoding="utf-8"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores_of(compared: Compared) -> dict[str, dict[str, list[float]]]:
    """Scores by method and target, in the order of seeds."""
    scores: dict[str, dict[str, list[float]]] = {}
    for result in compared.results:
        scores.setdefault(result.method, {}).setdefault(result.task, []).append(result.score)
    return scores


def number(text: str) -> float:
    return float(text.split()[0].replace(MINUS, "-").replace(",", ""))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm (1979): the i-th smallest of m, times m - i, and never less than the one before."""
    ordered, adjusted, highest = sorted(p, key=lambda name: p[name]), {}, 0.0
    for place, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(p) - place) * p[name]))
        adjusted[name] = highest
    return adjusted


# Numbers


def test_the_tables_hold_the_means_and_intervals_of_the_seeds(compared: Compared, folder: Path) -> None:
    scores, rows = scores_of(compared), rows_of(folder / "table.csv")
    assert len(rows) == len(ACCURACY) * len(TARGETS)
    for row in rows:
        values = scores[row["method"]][row["target"]]
        half = scipy.stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
        assert float(row["mean"]) == pytest.approx(fmean(values), abs=1e-6)
        assert float(row["high"]) - float(row["mean"]) == pytest.approx(half, abs=1e-5)
        assert (row["seeds"], row["test_rows"], row["clusters"]) == ("3", "60", "15")
        assert row["at_floor"] == str(row["target"] == FLOOR)
        gap = fmean(values) - fmean(scores["pemt"][row["target"]])
        assert float(row["difference"]) == pytest.approx(gap, abs=1e-6)


def test_the_tests_equal_scipys(compared: Compared, folder: Path) -> None:
    scores, rows = scores_of(compared), rows_of(folder / "comparisons.csv")
    for over, targets in {"all": TARGETS, "above the floor": TARGETS[:-1]}.items():
        found = {row["against"]: row for row in rows if row["over"] == over}
        assert list(found) == ["lora", "permuted", "full"]
        gaps = {
            name: [fmean(scores["pemt"][target]) - fmean(scores[name][target]) for target in targets] for name in found
        }
        for name, row in found.items():
            assert float(row["mean"]) == pytest.approx(fmean(gaps[name]), abs=1e-6)
            assert float(row["median"]) == pytest.approx(np.median(gaps[name]), abs=1e-6)
        p = {name: exact_p(np.array(gap)) for name, gap in gaps.items()}
        for name, value in holm(p).items():
            assert float(found[name]["p"]) == pytest.approx(p[name], abs=1e-6)
            assert float(found[name]["p_holm"]) == pytest.approx(value, abs=1e-6)


def exact_p(gaps: np.ndarray) -> float:
    """Wilcoxon's p over all assignments of signs; targets without a difference are ranked and then dropped (Pratt)."""
    gaps = np.round(gaps, 9)
    every = scipy.stats.PermutationMethod(n_resamples=2 ** len(gaps))
    return float(scipy.stats.wilcoxon(gaps, zero_method="pratt", method=every).pvalue)


def test_every_cell_is_a_row_with_its_facts(compared: Compared, folder: Path) -> None:
    rows = rows_of(folder / "rows.csv")
    assert len(rows) == len(compared.results)
    for row, result in zip(rows, compared.results, strict=True):
        assert (row["target"], row["method"], row["seed"]) == (result.task, result.method, str(result.seed))
        cost = compared.costs[result.cell]
        assert float(row["score"]) == pytest.approx(result.score, abs=1e-6)
        assert (row["steps"], float(row["seconds"])) == (str(cost.steps), cost.seconds)
        assert (row["best_step"], row["configurations"]) == ("200", "3")
        assert json.loads(row["trials"]) == compared.searches[result.cell].trials
        assert (row["key"], row["artifact"], row["sources"]) == (result.key, result.artifact, " ".join(result.sources))


def test_the_page_shows_the_numbers_of_the_tables(page: Element, study: Study, folder: Path) -> None:
    table = page.one("table", **{"class": "methods"}).rows()
    tests = {row["against"]: row for row in rows_of(folder / "comparisons.csv") if row["over"] == "all"}
    assert [row[0] for row in table[1:]] == [line.title for line in study.lines]
    for row, line in zip(table[1:], study.lines, strict=True):
        assert number(row[1]) == pytest.approx(line.mean, abs=0.051)
        if line.column in tests:
            test = tests[line.column]
            assert number(row[2]) == pytest.approx(-float(test["mean"]), abs=0.051)
            assert row[4] == test["verdict"]
        assert row[5].replace(",", "") == str(line.cost.most_parameters)
        assert row[6].replace(",", "") == ("0" if line.column in ("lora", "full") else "150000 3 3 min 00 s")
    matrix = page.one("table", **{"class": "heat matrix"}).rows()
    assert [name.removesuffix(" †") for name in matrix[0][1:]] == list(TARGETS)
    assert [name for name in matrix[0] if name.endswith("†")] == ["cb †"]
    for row, line in zip(matrix[2:], study.others, strict=True):
        shown = [study.difference(line.column, target) for target in TARGETS]
        assert [number(cell) for cell in row[1:]] == pytest.approx(shown, abs=0.051)


def test_pscp_follows_its_formula(study: Study) -> None:
    """A method at a median is penalised by 2 for it."""
    sizes = {line.column: line.cost.most_parameters for line in study.lines}
    memory = {line.column: line.cost.peak_memory_mib or 0 for line in study.lines}
    flops = {line.column: 1_000 * len(line.column) for line in study.lines}
    for line in study.lines:
        penalties = [1 + of[line.column] / float(np.median(list(of.values()))) for of in (sizes, flops, memory)]
        assert line.pscp == pytest.approx(line.mean / np.prod(penalties))


# Words


def test_a_planted_advantage_is_supported_and_a_control_as_good_comes_first(study: Study) -> None:
    first, *others = paragraph(study)
    verdicts = {each.reference: each.verdict.decision for each in study.analysis.contrasts.comparisons}
    assert verdicts["lora"] == verdicts["permuted"] == "supported"
    (lora,) = (
        sentence for sentence in others if sentence.startswith("PEMT is better than LoRA & biases: supported, bec")
    )
    test = next(each for each in study.analysis.contrasts.comparisons if each.reference == "lora")
    assert f"mean difference {signed(test.mean)}, median {signed(test.median)}, Hodges-Lehmann" in lora
    gap = study.reference.mean - next(line.mean for line in study.lines if line.column == "uniform")
    assert ("Controls, which should be worse, do as well as PEMT: uniform" in first) == (gap <= 0)
    assert "permuted" not in first
    assert any("leaves them out: uniform" in sentence for sentence in others)
    assert any(f"a guess on {FLOOR}" in sentence for sentence in others)


def test_a_control_as_good_as_the_reference_is_in_the_first_paragraph(tmp_path: Path) -> None:
    accuracy = {"pemt": 0.9, "shuffled_prompts": 0.9, "random_bank": 0.6}
    controlled = ("shuffled_prompts", "random_bank")
    planted = Planted(tmp_path, accuracy, TARGETS, rows=400, seeds=(1, 2, 3), controls=controlled)
    (study,) = studies_of(planted.compared())
    found = controls(study)
    assert len(found) == 1
    start = "Controls, which should be worse, (do as well as|cannot be told apart from) pemt: shuffled_prompts, "
    assert re.match(start, found[0])
    assert "random_bank" not in found[0]
    assert found[0] in paragraph(study)[0]


PEMT = {"kind": "pemt", "gate": "input", "source_adapters": "own", "sparsity_coefficient": 0.1}


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"source_adapters": "permuted"}, True),
        ({"source_adapters": "random"}, False),
        ({"source_adapters": "permuted", "sparsity_coefficient": 0.0}, False),
    ],
)
def test_exchanged_adapters_are_said_to_change_nothing(tmp_path: Path, changed: dict[str, Any], same: bool) -> None:
    planted = Planted(tmp_path, {"pemt": 0.9, "other": 0.9}, TARGETS, rows=40, controls=("other",))
    planted.settings = {"pemt": PEMT, "other": {**PEMT, **changed}}
    (study,) = studies_of(planted.compared())
    text = " ".join(controls(study))
    assert ("other (" in text and "cannot differ from pemt but by rounding" in text) is same
    assert ("do not use which prompt belongs to which adapter" in text) is same
    assert "should be worse" not in text or not same


def test_members_of_the_family_without_results_count(tmp_path: Path, compared: Compared) -> None:
    """Holm's correction is that of the family in the experiment's file."""
    definition = compared.definition.model_copy(update={"family": ["lora", "absent", "permuted", "full"]})
    (before,), (after,) = studies_of(compared), studies_of(replace(compared, definition=definition))
    found = {each.reference: each for each in after.analysis.contrasts.comparisons}
    assert {each.family_size for each in found.values()} == {4}
    p = {each.reference: each.p for each in before.analysis.contrasts.comparisons}
    assert {name: each.p_holm for name, each in found.items()} == pytest.approx(
        {name: value for name, value in holm({**p, "absent": 1.0}).items() if name != "absent"}
    )
    first, *others = paragraph(after)
    assert "Of the 4 claims that PEMT is better: " in first
    assert ", 1 without results." in first
    assert others[-1] == "Without results, but counted in the family of Holm's correction: absent."
    assert any("leaves them out: uniform." in each for each in others)


def test_what_a_method_needs_of_stage_1(tmp_path: Path) -> None:
    """SPoT reads prompts trained alone, PEMT adapters, and `single` the one of three that validation chose."""
    names = ("pemt", "spot", "single", "lora")
    planted = Planted(tmp_path, dict.fromkeys(names, 0.8), TARGETS[:2], rows=20, seeds=(1, 2))
    planted.on_lone_prompts, planted.one_source = ("spot",), ("single",)
    compared = planted.compared()
    (study,) = studies_of(compared)
    costs = {line.column: line.cost for line in study.lines}
    found = {name: (costs[name].source_parameters, costs[name].source_seconds) for name in names}
    assert found == {"pemt": (150_000, 180.0), "spot": (4_500, 120.0), "single": (50_000, 180.0), "lora": (0, 0.0)}
    assert [sources_of(costs[name]) for name in names] == ["3", "3", "1 of 3", "0"]
    assert [stage_1_time(costs[name]) for name in names] == ["3 min 00 s", "2 min 00 s", "3 min 00 s", ""]
    untimed = {name: replace(cost, adapter=replace(cost.adapter, seconds=None))
               for name, cost in compared.sources["base"].items()}  # fmt: skip
    (study,) = studies_of(replace(compared, sources={"base": untimed}))
    assert {stage_1_time(line.cost) for line in study.lines if line.column != "spot"} == {""}


def test_a_guess_at_the_chance_of_a_task_is_at_the_floor(tmp_path: Path) -> None:
    """Methods answer half of the rows of a free text right, where the best constant answer has fewer."""
    compared = Planted(tmp_path, {"pemt": 0.7, "lora": 0.7}, ("cb",), rows=40).compared()
    assert not studies_of(compared)[0].floors
    assert set(studies_of(replace(compared, chance={"cb": 90.0}))[0].floors) == {"cb"}


def test_equal_answers_are_ties_and_support_no_claim(tmp_path: Path) -> None:
    compared = Planted(tmp_path, {"pemt": 1.0, "lora": 1.0, "full": 0.5}, TARGETS, rows=40).compared()
    (study,) = studies_of(compared)
    tied = study.analysis.contrasts.comparisons[0]
    assert (tied.wins, tied.ties, tied.losses, tied.mean) == (0, len(TARGETS), 0, 0.0)
    assert tied.verdict.decision == "not supported"
    assert headline(study) == ("The highest mean of 10 targets with k = 32, 100.0 points, is that of pemt and lora.")
    lines = [replace(line, mean=99.97) if line.column == "lora" else line for line in study.lines]
    assert headline(replace(study, lines=lines)) == (
        "The highest mean of 10 targets with k = 32 is that of pemt: 100.0 ± 0.0 points; next is lora with "
        "100.0 ± 0.0, less than 0.1 points lower."
    )


def test_a_lost_cost_leaves_other_methods_their_pscp(compared: Compared) -> None:
    lost = next(result.cell for result in compared.results if result.method == "lora")
    costs = {**compared.costs, lost: replace(compared.costs[lost], peak_memory_mib=None)}
    (study,) = studies_of(replace(compared, costs=costs))
    assert {line.column for line in study.lines if math.isnan(line.pscp)} == {"lora"}


def test_methods_with_many_unreadable_answers_are_marked(tmp_path: Path) -> None:
    compared = Planted(tmp_path, {"pemt": 0.9, "lora": 0.6, "full": 0.6}, TARGETS[:3], rows=40).compared()
    share = {"pemt": 0, "lora": 9, "full": 8}  # of 40 rows: 22.5 and 20 %
    results = [replace(result, unreadable=share[result.method]) for result in compared.results]
    write_comparison(replace(compared, results=results), tmp_path / "report")
    page = parse((tmp_path / "report/report.html").read_text(encoding="utf-8"))
    names = [row[0] for row in page.one("table", **{"class": "methods"}).rows()[1:]]
    assert sorted(names) == ["full", "lora ‡", "pemt"]
    for name in ("table.md", "report.html"):
        text = (tmp_path / "report" / name).read_text(encoding="utf-8")
        assert "‡ More than 20% of the test answers are no answer of the task at all" in text
        assert "lora 22%." in text
    assert "| lora ‡ |" in (tmp_path / "report/table.md").read_text(encoding="utf-8")


def test_few_targets_decide_nothing(tmp_path: Path) -> None:
    (study,) = studies_of(Planted(tmp_path, {"pemt": 0.95, "lora": 0.5}, TARGETS[:3]).compared())
    assert "undecidable, because 3 targets cannot" in paragraph(study)[1]


@pytest.mark.parametrize(
    ("value", "shown"), [(1.24, "+1.2"), (-0.04, "0.0"), (0.04, "0.0"), (-3.0, f"{MINUS}3.0"), (-math.inf, f"{MINUS}∞")]
)
def test_points_have_a_sign(value: float, shown: str) -> None:
    assert signed(value) == shown


def test_the_documents_are_ready_to_paste(folder: Path, study: Study) -> None:
    table = (folder / "table.md").read_text(encoding="utf-8")
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in lines[2:7]] == [f"| {line.title}" for line in study.lines]
    assert {len(re.findall(r" \| ", line)) for line in lines[:7]} == {16}
    assert "operations per row that a method adds" in table
    assert "medians over the methods" in table
    text = (folder / "paragraph.md").read_text(encoding="utf-8")
    assert text.startswith(headline(study))
    assert len(re.findall("^- ", text, flags=re.MULTILINE)) == len(paragraph(study)) - 1
    assert text.endswith("is won or lost by more than one standard error of its difference, and tied otherwise.\n")


# Gates


def test_gate_statistics_equal_scipys() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(4) * 0.1, 50)
    found = gate_statistics([weights[:20], weights[20:]])
    assert found.entropy == pytest.approx(np.mean([scipy.stats.entropy(row, base=4) for row in weights]))
    assert found.one_hot == pytest.approx(sum(max(row) > 0.95 for row in weights) / 50)
    assert found.deviation == pytest.approx(
        np.mean([scipy.stats.tstd(weights[:, k]) for k in range(4)]) * (49 / 50) ** 0.5
    )


@pytest.mark.parametrize(
    ("row", "entropy", "one_hot"),
    [([0.25] * 4, 1.0, 0.0), ([0.0, 1.0, 0.0, 0.0], 0.0, 1.0), ([1.0], 0.0, 1.0), ([0.7, -0.2], None, None)],
)
def test_constant_gates(row: list[float], entropy: float | None, one_hot: float | None) -> None:
    found = gate_statistics([np.array([row, row])])
    assert (found.entropy, found.one_hot, found.deviation) == (pytest.approx(entropy), one_hot, 0.0)


def test_seeds_agree_where_they_choose_the_same_source() -> None:
    assert agreement([["a", "b"], ["a", "c"], ["a", "b"]]) == pytest.approx((3 + 1) / 6)
    assert agreement([["a", ""], ["b", "a"]]) == 0.0
    assert math.isnan(agreement([["a"]]))


def test_gates_are_means_over_seeds_and_equal_weights_choose_nothing(compared: Compared, study: Study) -> None:
    by_method = {gates.column: gates for gates in gates_of(study)}
    assert list(by_method) == ["pemt", *(line.column for line in study.others if line.column in by_method)]
    assert set(by_method) == {"pemt", "uniform", "permuted"}
    first = by_method["pemt"].targets[0]
    own = [result for result in compared.results if (result.method, result.task) == ("pemt", first.target)]
    expected = np.mean(
        [[g["entropy"] for s in ("encoder", "decoder") for g in (r.gates or {})[s]] for r in own], axis=0
    )
    assert first.entropy == pytest.approx(expected)
    assert first.agreement == pytest.approx(agreement([chosen_sources(result) for result in own]))
    uniform = by_method["uniform"].targets[0]
    assert (uniform.chosen, math.isnan(uniform.agreement)) == ("", True)


def test_weights_that_are_no_shares_have_no_entropy(compared: Compared, study: Study) -> None:
    """Nor in layers where they happen to add up to 1."""
    results = [each for each in study.results if each.method == "uniform"]
    gates = {stack: [dict(layer) for layer in layers] for stack, layers in (results[0].gates or {}).items()}
    gates["decoder"][1] |= {"entropy": None, "one_hot": None}
    changed = [replace(each, gates=gates) if each is results[0] else each for each in study.results]
    by_method = {gates.column: gates for gates in gates_of(replace(study, results=changed))}
    assert all(
        np.isnan(target.entropy).all() and np.isnan(target.one_hot).all() for target in by_method["uniform"].targets
    )
    assert not np.isnan(by_method["uniform"].mean("deviation"))
    assert not np.isnan(by_method["pemt"].mean("entropy"))


def test_the_table_has_the_gates_of_the_page(compared: Compared, study: Study, tmp_path: Path) -> None:
    write_comparison(compared, tmp_path / "report")
    table = (tmp_path / "report/table.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in table.partition("| Gates | Entropy")[2].splitlines()[2:] if line]
    expected = {gates.title: f"{gates.mean('one_hot'):.2f}" for gates in gates_of(study)}
    assert {row[0].removeprefix("| "): row[2] for row in rows} == expected
    assert "PEMT" in expected


def test_a_result_with_gates_is_checked(compared: Compared) -> None:
    result = next(each for each in compared.results if each.gates)
    for gates in ({"encoder": []}, {**(result.gates or {}), "decoder": [{"entropy": 0.5}]}):
        with pytest.raises(ValueError, match="gates"):
            replace(result, gates=gates)


def test_gates_of_a_decoder_only_backbone_have_one_stack(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"pemt": 0.95, "lora": 0.8}, TARGETS[:3], rows=20, layers={"decoder": 5})
    compared = planted.compared()
    (study,) = studies_of(compared)
    (gates,) = gates_of(study)
    assert gates.layers == [f"decoder {number}" for number in range(1, 6)]
    own = [r for r in compared.results if (r.method, r.task) == ("pemt", gates.targets[0].target)]
    expected = np.mean([[layer["entropy"] for layer in (r.gates or {})["decoder"]] for r in own], axis=0)
    assert gates.targets[0].entropy == pytest.approx(expected)
    assert [len(chosen_sources(result)) for result in own] == [5] * len(own)
    write_comparison(compared, tmp_path / "report")
    page = parse((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    assert "d5" in page.text
    assert "e1" not in page.text.split()


# Files and figures


def test_the_files_of_a_comparison(folder: Path) -> None:
    figures = {"points", "matrix", "ranks", "ranks_above_floor", "gates"}
    named = {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "table.csv", "rows.csv", "comparisons.csv", "table.md", "paragraph.md", *named,
    }  # fmt: skip
    assert all((folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in figures)


def test_the_same_comparison_gives_the_same_bytes(compared: Compared, folder: Path, tmp_path: Path) -> None:
    write_comparison(compared, tmp_path)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_the_rules_of_the_tests_are_stated(tmp_path: Path) -> None:
    """They come from the experiment's file."""
    planted = Planted(tmp_path, {"pemt": 0.9, "lora": 0.9}, TARGETS[:6], rows=20, seeds=(1, 2))
    planted.statistics = Statistics(margin=3.5, draws=1234, seed=9)
    (study,) = write_comparison(planted.compared(), tmp_path / "report")
    rules = study.analysis.rules
    assert (rules.margin, rules.draws, rules.seed) == (3.5, 1234, 9)
    for name in ("rows", "table", "comparisons"):
        (stated,) = {
            (row["margin"], row["draws"], row["draws_seed"]) for row in rows_of(tmp_path / f"report/{name}.csv")
        }
        assert (float(stated[0]), *stated[1:]) == (3.5, "1234", "9")
    table, page = ((tmp_path / f"report/{name}").read_text(encoding="utf-8") for name in ("table.md", "report.html"))
    assert "within ±3.5 points does not matter. The bootstrap has 1,234 draws and the seed 9." in table
    assert "within ±3.5 points does not matter" in page
    assert re.search("1.?234 draws, seed 9", page)


def test_each_k_is_an_analysis_of_its_own(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"pemt": 0.9, "lora": 0.8, "full": 0.85}, TARGETS[:6], ks=(4, 32), rows=40)
    compared = planted.compared()
    output = tmp_path / "report"
    write_comparison(compared, output)
    names = {path.name for path in output.iterdir()}
    assert {"points-k4.png", "points-k32.png", "ranks-k4.svg", "gates-k32.svg", "by_k.png"} <= names
    tests = rows_of(output / "comparisons.csv")
    assert [(row["k"], row["against"], row["family"]) for row in tests] == [
        (k, name, "2") for k in ("4", "32") for name in ("lora", "full")
    ]
    page = parse((output / "report.html").read_text(encoding="utf-8"))
    links = [str(link.attributes["href"])[1:] for link in page.one("nav").all("a")]
    ids = [str(each.attributes["id"]) for each in page.all("h2") if not str(each.attributes["id"]).startswith("result")]
    assert links == ids
    assert len(list(page.all("table", **{"class": "methods"}))) == 2


def test_labels_cover_neither_each_other_nor_marks() -> None:
    figure = Figure(figsize=(6, 4), dpi=100)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    generator = np.random.default_rng(1)
    places = [*generator.uniform(3, 6, (12, 2)), *generator.uniform(1, 9, (6, 2))]
    place_labels(axes, [Labelled(x, y, f"method number {n}", y - 0.3, y + 0.3) for n, (x, y) in enumerate(places)])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 18
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1 <= frame.y1 for box in boxes)
    marks = axes.transData.transform(np.array(places))
    assert not any(box.contains(*mark) for box in boxes for mark in marks)


def test_marks_of_nearly_equal_counts_are_side_by_side(study: Study) -> None:
    sizes = (0, 6, 180_000, 183_000, 190_000, 500_000)
    lines = [replace(study.lines[0], cost=replace(study.lines[0].cost, most_parameters=size)) for size in sizes]
    places = side_by_side(lines)
    assert (places[:2], places[5]) == ([0.0, 6.0], 500_000.0)
    assert places[3] / places[2] == pytest.approx(1.15) == places[4] / places[3]
    assert math.prod(places[2:5]) == pytest.approx(180_000 * 183_000 * 190_000)
    crowd = side_by_side(lines[2:3] * 21)
    assert crowd[-1] / crowd[0] == pytest.approx(2)  # however many they are
    assert crowd == sorted(crowd)


def test_bars_of_the_ranks_do_not_touch(study: Study) -> None:
    ranking = study.analysis.contrasts.ranking
    assert ranking is not None
    ranks = dict(zip(ranking.methods, ranking.average_ranks, strict=True))
    levels = levels_of(ranking)
    for one, other in itertools.combinations(range(len(levels)), 2):
        if levels[one] == levels[other]:
            ends = [sorted(ranks[method] for method in ranking.cliques[place]) for place in (one, other)]
            low, high = sorted(ends)
            assert low[-1] < high[0]


def test_colours_of_the_matrix_are_symmetric_and_legible(study: Study) -> None:
    matrix, shades = matrix_of(study), colours()
    assert matrix.shade(0.0) == 5
    assert (matrix.shade(-99.0), matrix.shade(99.0)) == (0, 10)
    assert all(contrast(*pair) >= 4.5 for pair in shades)


def test_the_caption_of_a_narrow_matrix_fits(study: Study) -> None:
    matrix = matrix_of(study)
    figure = draw_matrix(study, replace(matrix, targets=matrix.targets[:1], values=matrix.values[:, :1]))
    FigureCanvasAgg(figure).draw()
    (caption,) = figure.texts
    assert caption.get_window_extent().x1 <= figure.bbox.x1


def test_a_lost_measurement_leaves_steps_unknown(compared: Compared) -> None:
    lost = {compared.results[0].cell: replace(compared.costs[compared.results[0].cell], steps=None, seconds=None)}
    column = compared.results[0].method
    results = [result for result in compared.results if result.method == column]
    cost = cost_of(replace(compared, costs={**compared.costs, **lost}), column, results)
    assert (cost.steps, cost.seconds) == (None, None)
    assert cost_of(compared, column, results).steps is not None


# Answers that do not fit


def test_missing_predictions_are_an_error(compared: Compared, tmp_path: Path) -> None:
    result = compared.results[0]
    moved = replace(compared, scores={**compared.scores, result.cell: tmp_path})
    with pytest.raises(ArtifactError, match=r"predictions\.jsonl: no such file; the evaluate step has not scored"):
        studies_of(moved)


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"id": "other", "prediction": "yes"}', "answers other test rows"), ('{"id": "x"}', "not the predictions")],
)
def test_predictions_of_other_rows_are_an_error(compared: Compared, tmp_path: Path, line: str, message: str) -> None:
    result = compared.results[0]
    (tmp_path / "predictions.jsonl").write_text(line + "\n")
    with pytest.raises(ArtifactError, match=message):
        studies_of(replace(compared, scores={**compared.scores, result.cell: tmp_path}))


# Markup


def test_the_page_is_self_contained_and_can_be_navigated(page: Element, folder: Path) -> None:
    assert [element.tag for element in page.all() if element.tag in ("script", "img", "iframe", "object", "form")] == []
    links = [element.attributes.get(name) for element in page.all() for name in ("href", "src", "srcset", "action")]
    assert {str(link)[0] for link in links if link and link != "data:,"} == {"#"}
    assert not re.search("https?://", (folder / "report.html").read_text())
    named = [(element.tag, element.attributes["id"]) for element in page.all() if "id" in element.attributes]
    assert len({name for _, name in named}) == len(named)
    ids = [name for tag, name in named if tag not in ("path", "clippath")]
    assert [str(link.attributes["href"])[1:] for link in page.one("nav").all("a")] == ids
    assert page.one("title").text == "Synthetic comparison"
    assert "LoRA &amp; biases" in (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.mark.browser
@pytest.mark.parametrize("size", [(360, 740), (1280, 800)], ids=["phone", "desktop"])
def test_the_page_fits_the_window_and_loads_nothing(browser: Any, folder: Path, size: tuple[int, int]) -> None:
    shown = browser.new_page(viewport={"width": size[0], "height": size[1]})
    requests: list[str] = []
    messages: list[str] = []
    shown.on("request", lambda request: requests.append(request.url))
    shown.on("console", lambda message: messages.append(message.text))
    address = (folder / "report.html").as_uri()
    shown.goto(address)
    assert shown.evaluate("document.documentElement.scrollWidth") == size[0]
    assert (requests, messages) == ([address], [])
    if size[0] > 1000:
        heading = shown.locator("table.methods").bounding_box()
        assert heading["y"] + 60 < size[1]  # the first screen shows who is best
        assert heading["width"] <= shown.locator("header").bounding_box()["width"] + 1
    shown.close()


@pytest.mark.parametrize(
    ("number_of_bytes", "shown"),
    [(512, "512 B"), (12_345, "12.3 kB"), (999.9, "1 kB"), (999_400, "999 kB"), (999_999, "1 MB"), (5e12, "5,000 GB")],
)
def test_sizes_have_no_exponent(number_of_bytes: float, shown: str) -> None:
    assert size(number_of_bytes) == shown
