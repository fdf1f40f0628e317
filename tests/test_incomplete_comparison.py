"""Reports of comparisons in which a method lacks a target, or a target a k: nothing is shown that the data lack."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from comparisons import Planted
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pemt_core.comparison import recording
from pemt_core.comparison.compared import Compared
from pemt_core.comparison_report.by_k import draw_by_k
from pemt_core.comparison_report.claims import certainty, headline, remarks
from pemt_core.comparison_report.costs import pscp_of
from pemt_core.comparison_report.markdown import write_table
from pemt_core.comparison_report.points import draw_points
from pemt_core.comparison_report.ranks import draw_ranks
from pemt_core.comparison_report.write import studies_of, write_comparison
from pemt_core.tracking import Tracker

ACCURACY = {"pemt": 0.95, "lora": 0.70, "full": 0.85}
TARGETS = ("cb", "rte", "boolq")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    planted = Planted(tmp_path_factory.mktemp("planted"), ACCURACY, TARGETS, ks=(4, 32), seeds=(1, 2), rows=40)
    return planted.compared()


@pytest.fixture(scope="module")
def few(compared: Compared) -> Compared:
    return replace(compared, results=[result for result in compared.results if result.k == 32])


def without(compared: Compared, lacking: Mapping[str, Collection[str]]) -> Compared:
    """The comparison without some targets of each method."""
    kept = [result for result in compared.results if result.task not in lacking.get(result.method, ())]
    return replace(compared, results=kept)


@pytest.mark.parametrize(
    ("lacking", "part", "end"),
    [
        ({"lora": ["cb"], "full": ["cb"]}, "is that of pemt: ", " no other method has a seed with every target."),
        ({"pemt": ["cb"]}, "is that of full: ", " points; pemt has no seed with every target."),
        ({"pemt": ["cb"], "lora": ["rte"], "full": ["boolq"]}, "No method has", "so only single targets compare."),
    ],
)  # fmt: skip
def test_a_method_without_every_target_has_no_mean(
    few: Compared, lacking: dict[str, list[str]], part: str, end: str
) -> None:
    (study,) = studies_of(without(few, lacking))
    assert part in headline(study)
    assert headline(study).endswith(end)


def test_a_method_on_other_seeds_is_not_testable(few: Compared) -> None:
    seeds = {"lora": [1], "pemt": [2], "full": [1, 2]}
    (study,) = studies_of(replace(few, results=[each for each in few.results if each.seed in seeds[each.method]]))
    assert "0 supported, 0 not supported, 1 undecidable, 1 not testable." in " ".join(certainty(study))
    assert remarks(study) == ["Without a target and seed in common with pemt, but counted in Holm's correction: lora."]


def test_the_tracking_store_gets_no_mean_of_fewer_targets(few: Compared, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(recording, "record_files", lambda *arguments: found.append(arguments[-1]))
    recording.record_report(studies_of(without(few, {"lora": ["cb"]})), "", Path(), Tracker(None, "stop"))
    (metrics,) = found
    expected = {name: fmean(each.score for each in few.results if each.method == name) for name in ("pemt", "full")}
    assert metrics == pytest.approx({f"mean/{name}/k32": mean for name, mean in expected.items()})


def test_lines_over_k_join_means_of_the_same_targets(compared: Compared) -> None:
    """boolq, which has one k, would bend them."""
    results = [result for result in compared.results if (result.task, result.k) != ("boolq", 4)]
    axes = draw_by_k(studies_of(replace(compared, results=results))).axes[0]
    drawn = {str(each.get_label()): list(each.lines[0].get_ydata()) for each in axes.containers}  # type: ignore[attr-defined]
    assert drawn == {
        method: pytest.approx(
            [
                fmean(each.score for each in results if (each.method, each.k) == (method, k) and each.task != "boolq")
                for k in (4, 32)
            ]
        )
        for method in ACCURACY
    }
    assert axes.get_ylabel().endswith("mean over the 2 with every k")


def test_the_files_show_what_is_there_and_nothing_older(compared: Compared, tmp_path: Path) -> None:
    """The first k lacks a target, a method that is not tested another; the folder has a figure of an earlier k."""
    definition = compared.definition.model_copy(update={"family": ["full"]})
    results = [result for result in compared.results if (result.task, result.k) != ("boolq", 4)]
    older = ("points.svg", "matrix-k8.png", "ranks_above_floor-kfull.svg")
    for name in (*older, "notes.png"):
        (tmp_path / name).touch()
    write_comparison(without(replace(compared, results=results, definition=definition), {"lora": ["cb"]}), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {*older}
    assert {"notes.png", "points-k4.svg", "by_k.png"} <= names
    for path in [*tmp_path.glob("*.md"), *tmp_path.glob("*.csv"), *tmp_path.glob("*.html")]:
        text = path.read_text(encoding="utf-8")
        assert not {"nan", "+nan", "NaN"} & set(text.replace("<", " ").replace(">", " ").split()), path.name
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "3 methods, 3 targets, seeds 1, 2" in page
    assert "<dt>boolq</dt>" in page


def test_a_wide_interval_is_drawn_in_full(few: Compared) -> None:
    """The frame cuts it; a shorter bar would claim more certainty."""
    (study,) = studies_of(few)
    lines = [replace(line, half_width=40.0) for line in study.lines]
    axes = draw_points(replace(study, lines=lines)).axes[0]
    ends = [segment[:, 1].tolist() for each in axes.collections for segment in each.get_segments()]  # type: ignore[attr-defined]
    assert ends == [pytest.approx([line.mean - 40, line.mean + 40]) for line in lines]
    assert axes.get_ylim()[1] < lines[0].mean + 20


def test_long_titles_stay_inside_the_figure_of_ranks(few: Compared) -> None:
    columns = {name: naming.model_copy(update={"title": "wide " * 20 + name}) for name, naming in few.columns.items()}
    (study,) = studies_of(replace(few, columns=columns))
    figure = draw_ranks(study, study.analysis.contrasts.ranking)
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.width


def test_one_seed_is_not_said_to_be_drawn(few: Compared) -> None:
    once = replace(few, results=[result for result in few.results if result.seed == 1])
    ((one,), (two,)) = studies_of(once), studies_of(few)
    assert "bootstrap interval over test rows alone, as there is one seed;" in write_table([one])
    assert "bootstrap interval over seeds and test rows;" in write_table([two])


def test_a_negative_mean_has_no_pscp(few: Compared) -> None:
    """Equation 3 would raise it with every cost."""
    costs = {line.column: line.cost for line in studies_of(few)[0].lines}
    found = pscp_of({"pemt": (-10.0, costs["pemt"]), "lora": (10.0, costs["lora"])})
    assert math.isnan(found["pemt"])
    assert 0 < found["lora"] < 10
