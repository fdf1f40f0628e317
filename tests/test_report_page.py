"""The HTML page: strict markup without external links, the numbers of the results, distinguishable colours."""

import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Element, parse
from test_report import NAMES, SOURCES, SUITES, make, new_origin, report, save_all, seventeen_targets

from pemt_core.artifacts.files import write_record
from pemt_core.artifacts.result import STACKS, CellResult, load_results, sort_key
from pemt_core.errors import ArtifactError
from pemt_core.report.cost import Process, duration, read_processes
from pemt_core.report.curves import draw_curves
from pemt_core.report.expert_table import heat_colours
from pemt_core.report.files import write_files
from pemt_core.report.headline import headline
from pemt_core.report.heat_map import draw_expert_weights, draw_weights_of, weight_panels
from pemt_core.report.page import render_page
from pemt_core.report.palette import COLOURS, MARKERS, SHAPES
from pemt_core.report.parameters import draw_parameters
from pemt_core.report.published import PUBLISHED, TARGETS, comparable_with
from pemt_core.report.table import Tables
from pemt_core.report.targets import Track

MINUS = "−"


def page_of(
    folder: Path, *results: CellResult, targets: Sequence[str] = (), failed: Sequence[str] = (), **changes: Any
) -> Element:
    """Render and parse only the page of these results: the report's other files take longer."""
    tables, origin = tables_of(*results, targets=targets, failed=failed), new_origin(**changes)
    published = comparable_with(tables.results, origin.backbone, origin.prepare).over(tables.targets)
    curves = draw_curves(tables.results, tables.series, most_columns=5)
    figures = {"curves": curves, "parameters": draw_parameters(tables, published)}
    write_files(folder, {"report.html": render_page(tables, origin, figures)})
    return parse((folder / "report.html").read_text(encoding="utf-8"))


def tables_of(*results: CellResult, **missing: Sequence[str]) -> Tables:
    return Tables.of(sorted(results, key=sort_key), NAMES, 0.95, **missing)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 17 targets, 2 methods and 3 seeds, and PEMT without a source on one target, next to the results."""
    folder = tmp_path_factory.mktemp("study")
    seventeen_targets(folder / "results")
    save_all(folder / "results", make("cb", "without_mnli", 42, 61.2), make("cb", "without_mnli", 1024, 66.6))
    return report(folder / "results", folder) / "report.html"


@pytest.fixture(scope="module")
def page(study: Path) -> Element:
    return parse(study.read_text(encoding="utf-8"))


def number(text: str) -> float:
    return float(text.replace(MINUS, "-"))


# Markup


def test_the_page_is_self_contained(page: Element, study: Path) -> None:
    assert [element.tag for element in page.all() if element.tag in ("script", "img", "iframe", "object", "form")] == []
    links = [element.attributes.get(name) for element in page.all() for name in ("href", "src", "srcset", "action")]
    assert {str(link)[0] for link in links if link and link != "data:,"} == {"#"}
    style = page.one("style").text
    assert not re.search(r"url\(|@import|https?:|//", style)
    assert not re.search("https?://", study.read_text())
    assert [name for element in page.all() for name in element.attributes if name.startswith("on")] == []


def test_the_page_can_be_navigated(page: Element) -> None:
    named = [(element.tag, element.attributes["id"]) for element in page.all() if "id" in element.attributes]
    assert len({name for _, name in named}) == len(named)
    ids = [name for tag, name in named if tag not in ("path", "clippath")]  # those are parts of figures
    targets = [str(link.attributes["href"])[1:] for link in page.one("nav").all("a")]
    assert targets == ids == ["suites", "targets", "parameters", "experts", "curves", "cost", "origin"]
    assert [str(element.attributes["aria-labelledby"]) for element in page.all("section")] == ids
    for figure in page.all("svg"):
        assert figure.attributes.get("aria-hidden") == "true" or figure.attributes.get("aria-label") or (
            "overflow" in figure.attributes  # a mark inside a figure
        )  # fmt: skip
    headings = [int(element.tag[1]) for element in page.all() if element.tag in ("h1", "h2", "h3")]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))


def test_the_same_results_give_the_same_bytes(study: Path, tmp_path: Path) -> None:
    page_of(tmp_path, *load_results(study.parent / "results"))
    assert (tmp_path / "report.html").read_bytes() == study.read_bytes()


# Numbers


def scores_of(study: Path) -> dict[tuple[str, str], list[float]]:
    scores: dict[tuple[str, str], list[float]] = {}
    for result in load_results(study.parent / "results"):
        scores.setdefault((result.task, result.method), []).append(result.test["accuracy"])
    return scores


def test_targets_have_the_means_and_intervals_of_their_seeds(page: Element, study: Path) -> None:
    scores = scores_of(study)
    rows = page.one("table", **{"class": "wide"}).rows()
    assert rows[0][2:5] == ["PEMT", "adapter", "without_mnli"]
    shown = {row[0].removesuffix(" accuracy"): row for row in rows[1:] if len(row) > 1}
    assert [row[0] for row in rows if len(row) == 1] == list(SUITES)
    assert list(shown) == [task for tasks in SUITES.values() for task in sorted(tasks)]
    for target, row in shown.items():
        for method, text in zip(("pemt", "adapter", "without_mnli"), row[2:5], strict=True):
            values = scores.get((target, method))
            if values is None:
                assert text == ""
                continue
            factor = {3: 4.302653, 2: 12.706205}[len(values)]  # t(0.975) with 2 degrees of freedom, and with 1
            half = factor * np.std(values, ddof=1) / np.sqrt(len(values))
            assert text == f"{np.mean(values):.1f} ± {half:.1f}"
    assert shown["paws"][5:] == ["400 of 8,000", "± 4.9"]  # 1.96 x 50 / sqrt(400)
    assert shown["cb"][5:] == ["28", "± 18.5"]


def test_suites_have_the_means_over_their_targets(page: Element, study: Path) -> None:
    scores = scores_of(study)
    region = page.one("div", aria_label="Means by suite")
    header, pemt, adapter = region.rows()  # without_mnli does not cover any suite
    assert header[:3] == ["Method", "All targets 17", "GLUE 4"]
    for method, row in (("pemt", pemt), ("adapter", adapter)):
        groups = [[task for tasks in SUITES.values() for task in tasks], *SUITES.values()]
        expected = [np.mean([scores[task, method] for task in tasks]) for tasks in groups]
        assert [text.split(" ")[0] for text in row[1:-1]] == [f"{mean:.1f}" for mean in expected]
        assert row[-1] == "3"


def test_expert_weights_are_means_over_seeds_and_layers(page: Element, study: Path) -> None:
    stored: dict[str, list[Any]] = {}
    for result in load_results(study.parent / "results"):
        if result.expert_weights:
            layers = [result.expert_weights[stack] for stack in STACKS]
            stored.setdefault(result.task, []).append(np.concatenate(layers))
    over_layers, *by_layer = page.all("table", **{"class": "heat"})
    averages = {row[0]: row[1:] for row in over_layers.rows()[1:] if len(row) > 1}
    assert over_layers.rows()[0] == ["Target", *SOURCES]
    assert averages == {t: [f"{w:.2f}" for w in np.mean(seeds, axis=(0, 1))] for t, seeds in stored.items()}
    names = [element.text for element in page.one("div", **{"class": "layers"}).all("summary")]
    for name, table in zip(names, by_layer, strict=True):
        rows = table.rows()[1:]
        assert [row[0] for row in rows] == [f"{stack} {n}" for stack in STACKS for n in range(1, 13)]
        assert [row[1:] for row in rows] == [[f"{w:.2f}" for w in layer] for layer in np.mean(stored[name], axis=0)]


def test_every_result_is_listed(page: Element, study: Path) -> None:
    rows = page.one("div", aria_label="Every result").rows()[1:]
    results = load_results(study.parent / "results")
    expected = [[r.task, r.method, str(r.k), str(r.seed)] for r in results]
    assert [row[:4] for row in rows] == expected
    assert rows[0][4] == f"accuracy {results[0].score:.1f}, f1 {results[0].score - 1:.1f}"


def test_curves_state_their_last_values(page: Element, study: Path) -> None:
    figures = [f for f in page.all("figure") if "parameters" not in f.classes]
    ends = [r.history[-1]["validation/main"] for r in load_results(study.parent / "results")
            if r.task == "cola" and r.method == "pemt"]  # fmt: skip
    (label,) = [str(f.one("svg").attributes["aria-label"]) for f in figures if "cola (accuracy)" in f.text]
    assert len(figures) == 17
    assert f"PEMT ends at {np.mean(ends):.1f}" in label


# The main finding


def pairs(pemt: list[float], control: list[float], **changes: Any) -> list[CellResult]:
    """Make results of two targets with one seed per value; the second target scores 10 points below the first."""
    scored = [("pemt", pemt), ("control", control)]
    return [
        make(task, method, seed, score - lower, **changes)
        for method, scores in scored
        for seed, score in enumerate(scores)
        for task, lower in (("cb", 0.0), ("rte", 10.0))
    ]


def test_the_headline_has_intervals_and_the_difference_seed_by_seed() -> None:
    first, second = headline(tables_of(*pairs([80.0, 90.0], [70.0, 82.0])))
    assert first == (
        "PEMT 80.0 ± 63.5 against 71.0 ± 76.2 for control: mean of the main metric over 2 targets, all training data, "
        "2 seeds."
    )  # 12.7062 x 10 / sqrt(2) / sqrt(2), and 12 in place of 10
    # differences 10 and 8: mean 9, 12.7062 x sqrt(2) / sqrt(2)
    assert second == (
        "PEMT is ahead of control on 2 of 2 targets. Seed by seed the difference is +9.0 ± 12.7; this includes zero, "
        "so the seeds do not tell them apart."
    )


def test_the_headline_states_a_single_seed() -> None:
    assert headline(tables_of(*pairs([60.0], [71.0], k=16))) == [
        "PEMT 55.0 against 66.0 for control: mean of the main metric over 2 targets, k = 16, one seed, so no interval.",
        "PEMT is ahead of control on 0 of 2 targets and behind on 2.",
    ]


def test_the_headline_compares_only_methods_with_every_target() -> None:
    (only,) = headline(tables_of(make("cb", "pemt"), make("rte", "control")))
    assert only == "No method has a result for every target with all training data, so only single targets compare."


# Incomplete and unusual results


def test_names_are_escaped_and_any_suite_is_shown(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)> & a_name_that_is_as_long_as_names_of_ones_own_tasks_may_become"
    results = [replace(make("cb", method), task=name, suite="Own <b>") for method in ("control", "<i>mine</i>"[:3])]
    page = page_of(tmp_path, *results)
    assert list(page.all("img")) == list(page.all("b")) == list(page.all("i")) == []
    rows = page.one("table", **{"class": "wide"}).rows()
    assert rows[0][2:4] == ["<i>", "control"]
    assert [rows[1][0], rows[2][0]] == ["Own <b>", f"{name} accuracy"]


def test_control_alone_has_no_experts_and_no_curves(tmp_path: Path) -> None:
    page = page_of(tmp_path, make("cb", "control"))
    assert [link.text for link in page.one("nav").all("a")] == ["Suites", "Targets", "Parameters", "Cost", "Provenance"]
    assert "stage 2 without sources" in page.text
    assert "Not recorded: the steps ran elsewhere" in page.text
    assert "not recorded" in page.one("div", aria_label="Trained parameters").text


def test_several_k_one_layer_and_missing_targets(tmp_path: Path) -> None:
    experts = {stack: [[0.25, 0.75]] for stack in STACKS}
    results = [make("cb", k=k, sources=["a", "b"], expert_weights=experts) for k in (16, "full")]
    other = make("rte", k=16, sources=["b"], expert_weights={stack: [[1.0]] for stack in STACKS})
    page = page_of(tmp_path, *results, other, targets=["cb", "rte", "wsc"], failed=["paws: it failed"])
    assert [f.text for f in page.one("section", aria_labelledby="experts").all("h3")] == ["k=full", "k=16"]
    few = page.one("div", aria_label="Expert weights, k=16").rows()
    assert few == [["Target", "b", "a"], ["GLUE"], ["rte", "1.00", "–"], ["SuperGLUE"], ["cb", "0.75", "0.25"]]
    assert page.one("table", **{"class": "wide"}).rows()[0][2:4] == ["PEMT, k=full", "PEMT, k=16"]
    missing = page.one("details", **{"class": "warn"})
    assert missing.one("summary").text == "3 things missing or unequal"
    assert [item.text for item in missing.all("li")][:2] == [
        "paws: it failed",
        "wsc: no result; means leave it out.",
    ]


def test_a_decoder_only_backbone_has_one_stack(tmp_path: Path) -> None:
    """On the page, in the heat map of the report, and in that of a single result."""
    layers = [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]]
    result = make("cb", sources=["a", "b"], expert_weights={"decoder": layers})
    page = page_of(tmp_path, result)
    table, by_layer = page.all("table", **{"class": "heat"})
    assert table.rows() == [["Target", "a", "b"], ["SuperGLUE"], ["cb", "0.58", "0.42"]]
    rows = [[f"decoder {number}", *(f"{w:.2f}" for w in layer)] for number, layer in enumerate(layers, start=1)]
    assert by_layer.rows()[1:] == rows
    panels = weight_panels([result], ["a", "b"], num_groups=2)
    assert {name: weights.tolist() for name, weights in panels.items()} == {
        "decoder 1-2": [[0.375, 0.625]], "decoder 3": [[1.0, 0.0]],
    }  # fmt: skip
    titles = [axes.get_title() for axes in draw_weights_of(result).axes]
    assert titles == ["decoder", ""]  # and its colour bar
    whole = [axes.get_title() for axes in draw_expert_weights([result], 2, "PEMT").subfigs[0].axes]
    assert whole == ["decoder 1-2", "decoder 3", ""]


# Published numbers


def on_paper(**changes: Any) -> dict[str, Any]:
    """Return the settings of the recipe `paper` that an origin records."""
    origin = new_origin()
    max_rows = origin.prepare.max_rows.model_copy(update={"train": changes.get("max_train_rows")})
    prepare = {"source": "hub", "max_rows": max_rows}
    backbone = {"name": changes.get("name", "google-t5/t5-base")}
    return {
        "prepare": origin.prepare.model_copy(update=prepare),
        "backbone": origin.backbone.model_copy(update=backbone),
    }


def published_in(page: Element) -> list[str]:
    """List the published methods in the figure of parameters."""
    texts = [text.text for text in page.one("figure", **{"class": "parameters"}).all("text")]
    return [row.method for row in PUBLISHED if any(re.fullmatch(rf"{row.method} \d+\.\d", text) for text in texts)]


def test_the_published_table_has_the_means_that_were_published() -> None:
    means = {row.method: row.mean(TARGETS) for row in PUBLISHED}
    stated = [78.3, 78.5, 76.0, 77.0, 74.2, 71.5, 75.6, 77.8, 79.0]
    assert list(means.values()) == pytest.approx(stated, abs=0.051)
    assert sorted(TARGETS) == sorted(task for tasks in SUITES.values() for task in tasks)
    assert PUBLISHED[-1].points["cb"] == 92.9


def test_published_numbers_are_shown_for_the_setting_of_the_paper(tmp_path: Path) -> None:
    tasks = [task for tasks in SUITES.values() for task in tasks]
    page = page_of(tmp_path, *(make(task, score=80.0) for task in tasks), **on_paper())
    above, header, *rows = page.one("table", **{"class": "wide"}).rows()
    assert above[-1] == "Published, not run here"
    assert header[-9:] == [row.method for row in PUBLISHED]
    assert next(row for row in rows if row[0].startswith("wsc"))[-9:] == [
        "59.6", "67.3", "59.6", "67.3", "67.3", "50.0", "53.8", "67.3", "67.3"
    ]  # fmt: skip
    suites = page.one("div", aria_label="Means by suite").rows()
    assert suites[-1][:3] == ["DePT, published", "79.0", "81.1"]  # (63.8 + 90.8 + 90.7 + 79.1) / 4
    assert published_in(page) == [row.method for row in PUBLISHED]
    assert "92.86" in page.text


def test_a_target_that_was_capped_has_no_published_number(tmp_path: Path) -> None:
    results = [make("cb"), make("paws", test_rows=400, test_rows_available=8000)]
    page = page_of(tmp_path, *results, **on_paper())
    rows = {row[0].split(" ")[0]: row for row in page.one("table", **{"class": "wide"}).rows()[2:] if len(row) > 1}
    assert rows["cb"][-1] == "92.9"
    assert rows["paws"][-1] == "–"
    means = page.one("div", aria_label="Means by suite").rows()[-1]
    assert means == ["DePT, published", "–", "–", "92.9", "–"]  # all, Others, SuperGLUE, seeds
    assert published_in(page) == []


@pytest.mark.parametrize(
    ("changes", "origin", "reason"),
    [
        ({}, {}, "the data is generated"),
        ({}, on_paper(name="google/t5-v1_1-base"), "the backbone is not T5-base"),
        ({}, on_paper(max_train_rows=1000), "the datasets were truncated"),
        ({"k": 16}, on_paper(), "no published target was trained on all its data"),
        ({"test_rows_available": 56}, on_paper(), "test splits were scored only in part"),
    ],
)
def test_other_settings_hide_published_numbers_with_a_reason(
    tmp_path: Path, changes: dict[str, Any], origin: dict[str, Any], reason: str
) -> None:
    page = page_of(tmp_path, make("cb", **changes), **origin)
    assert f"but here {reason}." in page.text
    assert [element for element in page.all() if "published" in element.classes] == []


# Cost and provenance


def process_of(step: str, task: str = "", **facts: Any) -> Process:
    values = {
        "commit": "a" * 40,
        "started": "2026-11-21T10:00:00+00:00",
        "seconds": 90.0,
        "peak_memory_mib": 500,
        "energy_joules": {"cpu": None, "gpu": None},
        "platform": "Linux",
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
    }
    return Process(step, task, {**values, **facts})


def test_costs_are_added_up_by_step(tmp_path: Path) -> None:
    processes = [
        process_of("prepare", seconds=12.4),
        process_of("transfer", "cb", energy_joules={"cpu": 7200.0, "gpu": None}, workers_memory_mib=100),
        process_of("transfer", "rte", energy_joules={"cpu": 1800.0, "gpu": None}, started="2026-11-21T10:01:00+00:00"),
    ]
    write_record(tmp_path / "backbone.json", {"fingerprint": "0", "parameters": 189_491_200})
    page = page_of(tmp_path, make("cb", "control"), processes=processes, backbone_dir=tmp_path)
    rows = {row[0]: row[1:] for row in page.one("div", aria_label="Cost by step").rows()}
    assert rows["Step"] == ["Processes", "Time", "Peak memory", "Energy, CPU"]
    assert rows["prepare"] == ["1", "12 s", "500 MiB", "not measurable"]
    assert rows["backbone"] == ["not recorded"]
    assert rows["transfer"] == ["2", "3 min 00 s", "600 MiB", "2.5 Wh"]
    assert rows["all"] == ["3", "3 min 12 s", "600 MiB", ""]
    assert "From the first start to the last end, the run took 2 min 30 s." in page.text
    assert page.one("div", aria_label="Cost of transfer").rows()[1][:4] == ["cb", "1 min 30 s", "600 MiB", "2 Wh"]
    assert page.one("div", aria_label="Trained parameters").rows()[1] == ["control", "1,894,912", "1.00 %"]
    assert "2026-11-21 10:01 UTC" in page.one("header").text


def test_energy_without_a_counter_is_shown_as_not_measured(tmp_path: Path) -> None:
    page = page_of(tmp_path, make("cb"), processes=[process_of("prepare")])
    assert "Energy: not measurable on this machine." in page.one("section", aria_labelledby="cost").text
    older = process_of("prepare")
    del older.facts["energy_joules"]
    assert "Energy: not recorded." in page_of(tmp_path, make("cb"), processes=[older]).text


def test_provenance_is_read_from_the_files_of_the_steps(tmp_path: Path) -> None:
    (tmp_path / "transfer").mkdir()
    for place in ("prepare", "transfer/rte", "transfer/cb", "report"):
        (tmp_path / f"{place}.json").write_text(json.dumps(process_of("").facts))
    found = [(process.step, process.task) for process in read_processes(tmp_path, ["cb", "rte"])]
    assert found == [("prepare", ""), ("transfer", "cb"), ("transfer", "rte")]
    assert [process.task for process in read_processes(tmp_path, ["rte"])] == [
        "",
        "rte",
    ]  # remains of an earlier list of tasks
    assert read_processes(tmp_path / "nothing", ["cb"]) == []


@pytest.mark.parametrize("content", ["{}", "[]", '{"seconds": "long"}', "["])
def test_a_damaged_provenance_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "prepare.json").write_text(content)
    with pytest.raises(ArtifactError, match=re.escape(str(tmp_path / "prepare.json"))):
        read_processes(tmp_path, [])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.02, "under 0.1 s"), (3.58, "3.6 s"), (59.7, "1 min 00 s"), (372, "6 min 12 s"), (11100, "3 h 05 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_commit_is_shown_for_checkout_several_are_listed(tmp_path: Path) -> None:
    one = page_of(tmp_path / "one", make("cb"), processes=[process_of("prepare", commit="b" * 40 + "+changes")])
    assert one.one("pre").text == f"git checkout {'b' * 40} dvc repro"
    assert "uncommitted changes" in one.text
    two = page_of(
        tmp_path / "two", make("cb"), processes=[process_of("prepare", commit="b" * 40), process_of("evaluate")]
    )
    assert list(two.all("pre")) == []
    assert f"2 commits, in this order: {'b' * 40} , {'a' * 40}" in two.text


def test_settings_are_shown_once_and_what_differs_by_target(tmp_path: Path) -> None:
    def settings(length: int, **training: Any) -> dict[str, Any]:
        return {"source_length": length, "training": {"batch_size": 32, **training}}

    results = [
        make("cb", settings=settings(256)),
        make("cb", "control", settings=settings(256)),
        make("nq", settings=settings(512, epochs=5)),
        make("rte", settings=settings(256)),
    ]
    section = page_of(tmp_path, *results).one("section", aria_labelledby="origin")
    assert "training.batch_size 32" in section.text
    assert section.one("div", aria_label="Settings that differ: targets").rows()[1:] == [
        ["source_length", "256", "rte, cb"],
        ["source_length", "512", "nq"],
        ["training.epochs", "absent", "rte, cb"],
        ["training.epochs", "5", "nq"],
    ]


def test_settings_that_differ_by_method_are_shown_by_method(tmp_path: Path) -> None:
    lengths = {"cb": 256, "nq": 512}
    results = [
        make(task, method, settings={"source_length": length, "router": {"kind": method}, "both": f"{task} {method}"})
        for task, length in lengths.items()
        for method in ("control", "pemt")
    ]
    section = page_of(tmp_path, *results).one("section", aria_labelledby="origin")
    shown = {whose: section.one("div", aria_label=f"Settings that differ: {whose}").rows()[1:]
             for whose in ("methods", "targets", "targets and methods")}  # fmt: skip
    assert shown["methods"] == [["router.kind", "control", "control"], ["router.kind", "pemt", "PEMT"]]
    assert shown["targets"] == [["source_length", "512", "nq"], ["source_length", "256", "cb"]]
    assert shown["targets and methods"][1] == ["both", "nq pemt", "nq (PEMT)"]


# Figures and colours


def test_the_track_runs_from_zero_or_the_lowest_mean() -> None:
    assert [Track(0.0)(points) for points in (-5, 0, 25, 100, 120)] == [0.0, 0.0, 25.0, 100.0, 100.0]
    assert Track(-100.0).ticks() == [(0.0, f"{MINUS}100"), (50.0, "0"), (100.0, "100")]


def test_labels_of_the_parameters_figure_do_not_overlap() -> None:
    results = [make(task, method, seed, score) for task in TARGETS for seed in (1, 2)
               for method, score in (("pemt", 78.2 + seed), ("control", 78.0 - seed))]  # fmt: skip
    figure = draw_parameters(tables_of(*results), PUBLISHED)
    (axes,) = figure.axes
    assert len(axes.texts) == 11
    assert all(axes.bbox.x0 <= x <= axes.bbox.x1 for x, _ in axes.transData.transform([text.xy for text in axes.texts]))
    extents = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(two) for one, two in itertools.combinations(extents, 2))


def test_figures_have_the_colours_of_the_page(page: Element) -> None:
    drawn = list(page.all("svg", **{"class": "drawn"}))
    assert len(drawn) == 18
    styles = [element.attributes.get("style") or "" for figure in drawn for element in figure.all()]
    assert [style for style in styles if "#" in style or "font-family" in style] == []
    variables = {name for style in styles for name in re.findall(r"var\(--(\w+)\)", style)}
    assert variables == {"page", "text", "soft", "line", "m0", "m1", "m2"}
    assert all(f"--{name}: #" in page.one("style").text for name in variables)


def luminance(colour: str) -> float:
    """Compute relative luminance as defined in WCAG 2.2."""
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def linear(colour: str) -> Any:
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, two: str) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_enough_contrast(page: Element) -> None:
    style = page.one("style").text
    heat = re.findall(r"\.h\d+ \{ background: (#\w{6}); color: (#\w{6}); \}", style)
    assert heat == heat_colours()
    assert min(contrast(*pair) for pair in heat) >= 4.5
    lightness = [luminance(background) for background, _ in heat]
    assert lightness == sorted(lightness, reverse=True)
    schemes = re.findall(r"--page: .*?(?=\})", style)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        for text, behind in itertools.product(("text", "soft", "accent"), ("page", "card", "warn")):
            assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)


# Severity 1.0 of Machado, Oliveira and Fernandes (2009), on linear RGB
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(rgb: Any) -> Any:
    """Convert linear RGB to CIELAB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_methods_are_distinguishable_with_colour_blindness(kind: str) -> None:
    """A difference of 2.3 is just noticeable. The eighth colour, grey, is close to others; marker shapes differ too."""
    seen = [lab(np.array(BLINDNESS[kind]) @ linear(colour)) for colour in COLOURS]
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(range(8), 2)}
    assert min(distance for pair, distance in apart.items() if 7 not in pair) > 15
    assert min(apart.values()) > 6
    assert len(set(SHAPES)) == len(SHAPES) == len(set(MARKERS)) == len(MARKERS) == len(COLOURS)


# In a browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


@pytest.mark.browser
@pytest.mark.parametrize("size", [(360, 740), (1280, 800)], ids=["phone", "desktop"])
def test_the_page_fits_the_window_loads_nothing_and_unfolds(browser: Any, study: Path, size: tuple[int, int]) -> None:
    shown = browser.new_page(viewport={"width": size[0], "height": size[1]})
    requests, messages = [], []
    shown.on("request", lambda request: requests.append(request.url))
    shown.on("console", lambda message: messages.append(message.text))
    shown.goto(study.as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") == size[0]
    for details in shown.locator(".layers details").all():
        assert not details.locator("table").is_visible()
    cb = shown.locator(".layers details", has=shown.locator("summary", has_text=re.compile("^cb$")))
    cb.locator("summary").click()
    assert cb.locator("tbody tr").count() == 24
    assert cb.locator("text=decoder 12").is_visible()
    for summary in shown.locator("summary").all():
        if not summary.evaluate("element => element.parentElement.open"):
            summary.click()
    assert shown.evaluate("document.documentElement.scrollWidth") == size[0]
    assert requests == [study.as_uri()]
    assert messages == []
    shown.close()


@pytest.mark.browser
def test_the_page_prints(browser: Any, study: Path) -> None:
    shown = browser.new_page()
    shown.goto(study.as_uri())
    printed = shown.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", printed)) <= 12
    shown.emulate_media(media="print")
    assert not shown.locator("nav").is_visible()
    shown.close()


@pytest.mark.browser
def test_the_page_follows_a_dark_colour_scheme(browser: Any, study: Path) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        shown = browser.new_page(color_scheme=scheme)
        shown.goto(study.as_uri())
        backgrounds.append(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
        shown.close()
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]
