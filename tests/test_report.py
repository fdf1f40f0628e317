"""Reports from synthetic results: hand-computed intervals and means, missing results, and figures."""

import csv
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.image import imread
from tiny import change_record

from pemt_core.artifacts.files import read_record, write_record
from pemt_core.artifacts.result import CellResult, cell_directory, load_results
from pemt_core.errors import ArtifactError
from pemt_core.report.files import csv as text_of
from pemt_core.report.heat_map import group_layers
from pemt_core.report.names import MethodNames
from pemt_core.report.origin import Origin
from pemt_core.report.palette import series_of
from pemt_core.report.table import Tables, cell_frame, half_width, mean_frame, seed_frame, summary
from pemt_core.settings import Settings, load_settings
from pemt_core.steps.report import report as write_report

REPOSITORY = Path(__file__).parent.parent
SUITES = {
    "GLUE": ["cola", "stsb", "mrpc", "rte"],
    "MRQA": ["nq", "hotpotqa", "searchqa", "newsqa"],
    "Others": ["winogrande", "yelp", "scitail", "paws"],
    "SuperGLUE": ["multirc", "boolq", "wic", "wsc", "cb"],
}
SOURCES = ["mnli", "qnli", "qqp", "sst2", "squad", "record"]
NAMES = MethodNames({"pemt": "PEMT"}, {"control": "stage 2 without sources", "without_mnli": "PEMT without mnli"})


def make(task: str, method: str = "pemt", seed: int = 1, score: float = 80.0, **changes: Any) -> CellResult:
    """Make a result with plausible values; `changes` replaces any of them."""
    values: dict[str, Any] = {
        "task": task,
        "suite": next(suite for suite, tasks in SUITES.items() if task in tasks),
        "method": method,
        "k": "full",
        "seed": seed,
        "learning_rate": 3e-4,
        "answer": "generate",
        "main_metric": "accuracy",
        "test": {"accuracy": score, "f1": score - 1},
        "unreadable": 0,
        "test_rows": 28,
        "test_rows_available": 28,
        "validation": {"accuracy": score + 1},
        "trained_parameters": 2_126_208 if method == "pemt" else 1_894_912,
        "sources": SOURCES if method == "pemt" else [],
        "expert_weights": None,
        "artifact": f"artifact of {task} {method} {seed}",
        "key": f"key of {task} {method} {seed}",
        "data": "data",
        "backbone": "backbone",
        "settings": {"training": {"batch_size": 32}},
        "history": [],
    }
    return CellResult(**{**values, **changes})


def weights(generator: np.random.Generator, layers: int = 12) -> list[list[float]]:
    return [list(map(float, row)) for row in generator.dirichlet(np.ones(len(SOURCES)) * 0.7, layers)]


def seventeen_targets(results_dir: Path) -> None:
    """Save results of 17 targets, 2 methods and 3 seeds with curves and expert weights."""
    generator = np.random.default_rng(0)
    for task in [task for tasks in SUITES.values() for task in tasks]:
        level = generator.uniform(55, 95)
        for method in ("pemt", "adapter"):
            for seed in (42, 1024, 4096):
                score = float(level + generator.normal(0, 1.5) - 2 * (method == "adapter"))
                history = [
                    {
                        "step": step,
                        "train/loss": float(np.exp(-step / 400)),
                        "validation/main": float(score - 25 * np.exp(-step / 300) + generator.normal(0, 0.7)),
                    }
                    for step in range(100, 2001, 100)
                ]
                experts = {"encoder": weights(generator), "decoder": weights(generator)} if method == "pemt" else None
                rows = {"test_rows": 400, "test_rows_available": 8000} if task == "paws" else {}
                make(task, method, seed, score, history=history, expert_weights=experts, **rows).save(
                    results_dir / task / f"{method}-kfull-seed{seed}"
                )


def save_all(results_dir: Path, *results: CellResult) -> Path:
    for result in results:
        result.save(cell_directory(results_dir, result))
    return results_dir


@cache
def plain_settings() -> Settings:
    return load_settings(REPOSITORY / "params.yaml")


def new_origin(**changes: Any) -> Origin:
    """Make an origin with the settings of params.yaml and no recorded runs; `changes` replaces any field."""
    settings = plain_settings()
    values = {"backbone_dir": None, "processes": [], "source_dirs": [], **changes}
    return Origin(**{"prepare": settings.prepare, "backbone": settings.backbone, **values})


def report(results_dir: Path, output_dir: Path, **tables: Any) -> Path:
    write_report(Tables.of(load_results(results_dir), NAMES, 0.95, **tables), new_origin(), 3, output_dir)
    return output_dir


def test_interval_is_students_t() -> None:
    values = [90.0, 92.0, 95.0]
    # 4.302653 is t(0.975) with 2 degrees of freedom; the sample's standard deviation is sqrt(19 / 3).
    assert half_width(values, 0.95) == pytest.approx(4.302653 * np.sqrt(19 / 3) / np.sqrt(3), rel=1e-6)
    low, high = scipy.stats.t.interval(0.9, 2, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert half_width(values, 0.9) == pytest.approx((high - low) / 2)
    assert np.isnan(half_width([90.0], 0.95))


def test_means_over_targets_use_only_seeds_with_every_target() -> None:
    results = [
        make("cola", seed=1, score=50.0),
        make("cola", seed=2, score=60.0),
        make("cola", seed=3, score=0.0),  # this seed has no rte, so no mean includes it
        make("rte", seed=1, score=70.0),
        make("rte", seed=2, score=90.0),
        make("cb", seed=1, score=90.0),
        make("cb", seed=2, score=96.0),
    ]
    means = mean_frame(seed_frame(results), 0.95).set_index("suite")
    assert means.loc["GLUE", "mean"] == pytest.approx((60 + 75) / 2)
    assert means.loc["GLUE", "half_width"] == pytest.approx(half_width([60, 75], 0.95))
    assert means.loc["SuperGLUE", "mean"] == 93.0
    assert means.loc["all", "mean"] == pytest.approx(((50 + 70 + 90) / 3 + (60 + 90 + 96) / 3) / 2)
    assert list(means.loc["all", ["targets", "seeds"]]) == [3, 2]


def test_a_method_without_a_target_has_no_mean_over_it() -> None:
    results = [make("cola"), make("rte"), make("cola", "adapter")]
    seeds = seed_frame(results)
    means = mean_frame(seeds, 0.95)
    assert means.loc[means["method"] == "adapter", "mean"].isna().all()
    assert summary(cell_frame(seeds, 0.95), means) == {
        "pemt": {"all": 80.0, "GLUE": 80.0, "cola": 80.0, "rte": 80.0},
        "adapter": {"cola": 80.0},
    }


def test_tables_show_caps_single_seeds_and_missing_results(tmp_path: Path) -> None:
    save_all(
        tmp_path / "results",
        make("cb", seed=1, score=92.8, unreadable=2),
        make("paws", seed=1, score=90.0, test_rows=400, test_rows_available=8000),
        make("paws", seed=2, score=91.0, test_rows=400, test_rows_available=8000),
        make("cb", "adapter", seed=1, score=85.7),
        make("cb", seed=1, score=60.0, k=16),
    )
    text = (report(tmp_path / "results", tmp_path / "out", targets=["cb", "paws", "wsc"]) / "table.md").read_text()
    assert "| paws | accuracy | pemt | full | 90.5 | 6.4 | 2 | 400 of 8,000 | 2,126,208 | 0 |" in text
    assert "| cb | accuracy | pemt | full | 92.8 | - | 1 | 28 | 2,126,208 | 2 of 28 |" in text
    assert "| pemt | full | all | 2 | 91.4 | - | 1 |" in text
    assert "| adapter | full | all |" not in text  # the method lacks a target, so a row would hold only blanks
    assert "1 of 2 targets were scored on part of their test split" in text
    missing = text[text.index("## Missing") :]
    assert "- wsc: no result; means leave it out." in missing
    assert "- adapter, k=full: no result for paws; means that need one are not shown." in missing
    assert "- pemt, k=16: no result for paws; means that need one are not shown." in missing
    assert "- pemt, k=full: cb lacks seed 2; means leave such seeds out." in missing
    assert set(json.loads((tmp_path / "out" / "summary.json").read_text())) == {"adapter", "pemt", "pemt-k16"}


def test_methods_are_compared_with_blanks_for_missing_results(tmp_path: Path) -> None:
    """Leaving a source out on one target changes neither the numbers of other methods nor the heat map."""
    experts = {stack: [[1 / len(SOURCES)] * len(SOURCES)] for stack in ("encoder", "decoder")}
    plain = [
        make(task, method, score=score, expert_weights=experts if method == "pemt" else None)
        for task, score in (("cb", 90.0), ("rte", 70.0))
        for method in ("pemt", "control")
    ]
    five = {"sources": SOURCES[1:], "expert_weights": {stack: [[0.2] * 5] for stack in ("encoder", "decoder")}}
    save_all(tmp_path / "few", *plain)
    save_all(tmp_path / "more", *plain, make("cb", "without_mnli", score=85.0, **five))
    few, more = (report(tmp_path / name, tmp_path / f"{name}-report") for name in ("few", "more"))
    text = (more / "table.md").read_text()
    assert "| Target | k | control | pemt | without_mnli |" in text
    assert "| cb | full | 90.0 | 90.0 | 85.0 |" in text
    assert "| rte | full | 70.0 | 70.0 |  |" in text
    assert "- without_mnli, k=full: no result for rte; means that need one are not shown." in text
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (few, more)]
    assert summaries[1] == {**summaries[0], "without_mnli": {"SuperGLUE": 85.0, "cb": 85.0}}
    assert (more / "expert_weights.png").read_bytes() == (few / "expert_weights.png").read_bytes()
    assert len({style.colour for style in series_of(load_results(tmp_path / "more"), NAMES).values()}) == 3


def test_results_of_different_backbones_are_stated(tmp_path: Path) -> None:
    save_all(tmp_path / "results", make("cb"), make("cb", "adapter", backbone="another"))
    assert "2 different backbones" in (report(tmp_path / "results", tmp_path / "out") / "table.md").read_text()


def test_whole_report_is_complete_and_repeatable(tmp_path: Path) -> None:
    seventeen_targets(tmp_path / "results")
    first, second = report(tmp_path / "results", tmp_path / "a"), report(tmp_path / "results", tmp_path / "b")
    names = {"table.csv", "means.csv", "table.md", "summary.json", "curves.csv", "report.html"}
    figures = {"curves.png", "parameters.png", "expert_weights.png"}
    assert {path.name for path in first.iterdir()} == names | figures
    for name in names | figures:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    for name in figures:
        pixels = imread(first / name)
        assert min(pixels.shape[:2]) > 500
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50
    with (first / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 17 * 2 * 3 * 20
    assert list(rows[0]) == ["target", "method", "k", "seed", "step", "train/loss", "validation/main"]
    with (first / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 17 * 2


def test_report_without_experts_curves_or_second_seed_still_draws(tmp_path: Path) -> None:
    save_all(tmp_path / "results", make("cb", "adapter"))
    out = report(tmp_path / "results", tmp_path / "out")
    assert all(imread(out / name).size for name in ("curves.png", "parameters.png", "expert_weights.png"))
    assert (out / "curves.csv").read_text() == "target,method,k,seed,step\n"


def test_layers_are_grouped_evenly_and_never_empty() -> None:
    layers = [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    assert [(name, list(mean)) for name, mean in group_layers(layers, 2)] == [("1-2", [0.5, 0.5]), ("3", [0.5, 0.5])]
    assert [name for name, _ in group_layers(layers, 9)] == ["1", "2", "3"]


def test_sources_that_differ_between_targets_are_drawn_apart(tmp_path: Path) -> None:
    one = {"encoder": [[0.5, 0.5]], "decoder": [[0.2, 0.8]]}
    two = {"encoder": [[1.0]], "decoder": [[1.0]]}
    save_all(
        tmp_path / "results",
        make("cb", sources=["mnli", "qqp"], expert_weights=one),
        make("wsc", sources=["squad"], expert_weights=two),
    )
    assert imread(report(tmp_path / "results", tmp_path / "out") / "expert_weights.png").size


def test_a_result_survives_saving_and_keeps_its_hash(tmp_path: Path) -> None:
    result = make("cb", history=[{"step": 1, "train/loss": 0.5}], test={"accuracy": 92})
    result.save(tmp_path)
    assert CellResult.load(tmp_path) == result
    assert CellResult.load(tmp_path).content_hash() == result.content_hash()
    assert result.content_hash() != make("cb").content_hash()


def test_load_orders_by_suite_target_method_k_and_seed(tmp_path: Path) -> None:
    save_all(tmp_path, make("cb", k=100), make("cb"), make("cb", k=16), make("rte", seed=10), make("rte", seed=9))
    assert [(r.task, r.k, r.seed) for r in load_results(tmp_path)] == [
        ("rte", "full", 9), ("rte", "full", 10), ("cb", 16, 1), ("cb", 100, 1), ("cb", "full", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"main_metrik": "f1"}, "unknown key 'main_metrik'; did you mean 'main_metric'?"),
        ({"main_metric": "acuracy"}, "main_metric 'acuracy' is not in test; did you mean 'accuracy'?"),
        ({"seed": "42"}, "seed: Input should be a valid integer, found '42'"),
        ({"test": {"accuracy": None}}, "test: Input should be a valid number, found None"),
        ({"k": 0}, "k is 0; expected 'full' or at least 1 row"),
        ({"test_rows": 29}, "test_rows is 29; expected 1 to 28"),
        ({"history": [{"train/loss": 1.0}]}, "a point of history has no step"),
        ({"expert_weights": {"encoder": [[1.0]], "decoder": [[1.0]]}}, "expected 6 weights per layer, one per source"),
        ({"expert_weights": {"encoder": []}}, "expected encoder and decoder, or decoder alone"),
        ({"expert_weights": {}}, "expected encoder and decoder, or decoder alone"),
        ({"expert_weights": {"decoder": []}}, "expected 6 weights per layer, one per source"),
    ],
)
def test_strict_reading_names_file_key_and_value(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    make("cb").save(tmp_path)
    change_record(tmp_path / "result.json", **change)
    with pytest.raises(ArtifactError, match=f"result.json: .*{re.escape(message)}"):
        CellResult.load(tmp_path)


def test_missing_key_cut_file_and_wrong_folder_are_errors(tmp_path: Path) -> None:
    make("cb").save(tmp_path / "cb" / "pemt-kfull-seed1")
    path = tmp_path / "cb" / "pemt-kfull-seed1" / "result.json"
    whole = path.read_text()
    write_record(path, {key: value for key, value in read_record(path, "").items() if key != "seed"})
    with pytest.raises(ArtifactError, match="key 'seed' is missing"):
        load_results(tmp_path)
    path.write_text(whole[:100])
    with pytest.raises(ArtifactError, match="truncated or altered"):
        load_results(tmp_path)
    path.write_text(whole)
    path.parent.rename(tmp_path / "cb" / "pemt-kfull-seed2")
    with pytest.raises(ArtifactError, match=r"belongs in .*pemt-kfull-seed1"):
        load_results(tmp_path)


def test_no_results_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no result.json .* the evaluate step has not run"):
        report(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reading_results_loads_no_plotting_library() -> None:
    code = (
        "import sys, pemt_core.artifacts.result, pemt_core.report.names;"
        "print([m for m in ('pandas', 'matplotlib', 'torch', 'mlflow') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_small_numbers_keep_their_digits() -> None:
    """A p of 24 targets, a learning rate, the difference of equal points, and what six decimals hold."""
    numbers = [2.0**-23, 3e-7, -1.4e-14, 0.0006, 71.25]
    text = text_of(pd.DataFrame({"number": numbers}))
    assert text.split() == ["number", "1.19209e-07", "3e-07", "-0.000000", "0.000600", "71.250000"]
