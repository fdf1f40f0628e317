"""pemt compare: experiments as files, what they share, what is trained again, and what is printed beforehand."""

import argparse
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from components import compare as program
from pemt_core.artifacts.adapter import save_adapter
from pemt_core.artifacts.files import write_record
from pemt_core.artifacts.result import CellResult
from pemt_core.artifacts.run_info import ARTIFACT_TAG, RunInfo
from pemt_core.backbone.store import load_backbone
from pemt_core.backbone.tokenizer import train_tokenizer
from pemt_core.comparison import forecast
from pemt_core.comparison.definition import Statistics
from pemt_core.comparison.experiments import Experiment, read_experiments
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.paper import paper_forecast
from pemt_core.comparison.plan import Choice, plan_comparison
from pemt_core.comparison.rates import ranked_grids, write_rates
from pemt_core.comparison.scale import rows_of, source_rows
from pemt_core.comparison.source_seconds import SourceSeconds
from pemt_core.comparison.work import CellWork, TargetRows
from pemt_core.data.corpus import CorpusText, corpus_table
from pemt_core.errors import SettingsError
from pemt_core.interruption import Interrupted
from pemt_core.methods import method_of
from pemt_core.pretraining.llama import new_llama
from pemt_core.settings import load_settings
from pemt_core.tasks import TASKS
from pemt_core.tracking import Tracker, connect
from pemt_core.training import target_cells
from pemt_core.training.run import OpenRun, silent_runs

REPOSITORY = Path(__file__).parent.parent
SHORT = {"max_steps": 2, "evaluate_every": 1, "checkpoint_every": 1, "batch_size": 4, "validation_rows": 4}
FILES = {
    "shared": "methods: {uniform: {kind: pemt, gate: uniform}}\ntransfer: {seeds: [1]}\n"
    "statistics: {margin: 2.0, draws: 50, seed: 1}\n",
    "first": "title: First\nabout: The first one\nreference: pemt\ntransfer: {methods: [pemt, control]}\n",
    "second": "title: Second\nabout: The second one\nreference: pemt\nfamily: [uniform]\n"
    "variants: {base: {}, rank2: {train_source: {rank: 2}, methods: [pemt]}}\ntransfer: {methods: [pemt, uniform]}\n",
    "rates": "title: Rates\nabout: Rates\nreference: control\ndevelopment: true\nvariants: {development: {}}\n"
    "transfer: {methods: [control], learning_rates: [0.01, 0.1]}\n",
}


def write_project(folder: Path, **files: str) -> Path:
    """Write params.yaml for the embedded suite in seconds, and experiments; returns the path of params.yaml."""
    values = YAML(typ="safe").load(REPOSITORY / "params.yaml")
    values["tasks"] = {"sources": ["mnli", "sst2"], "targets": ["cb", "rte"]}
    values["prepare"] |= {"max_rows": {"train": 24, "validation": 6, "test": 8}, "corpus_rows_per_task": 10}
    values["backbone"]["name"] = str(REPOSITORY / "pemt_core/embedded/backbone")
    values["train_source"] |= {"rank": 4, "training": {"learning_rate": 1.0e-3, **SHORT}}
    values["transfer"] |= {"seeds": [7], "k": [4], "learning_rates": [1.0e-2]}
    values["transfer"]["training"] |= SHORT
    values["evaluate"]["max_rows"] = 6
    values["tracking"]["uri"] = f"sqlite:///{folder}/mlflow.db"
    (folder / "experiments").mkdir(parents=True)
    (folder / "recipes").mkdir()
    (folder / "recipes/paper.yaml").write_text((REPOSITORY / "recipes/paper.yaml").read_text())
    YAML().dump(values, folder / "params.yaml")
    for name, text in {**FILES, **files}.items():
        (folder / f"experiments/{name}.yaml").write_text(text)
    return folder / "params.yaml"


def parsed(params: Path, *words: str) -> argparse.Namespace:
    output = ["--output", str(params.parent / "comparison"), "--checkpoints", str(params.parent / "checkpoints")]
    return program.make_parser().parse_args([*words, "--params", str(params), "--workers", "1", *output])


class Saving:
    """Counts the cells that are saved; at the limit, a signal arrives instead."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.limit = 1000

    def __call__(self, folder: Path, *arguments: Any) -> str:
        if len(self.cells) == self.limit:
            raise Interrupted(signal.SIGINT)
        self.cells.append("/".join(folder.parts[-3:]))
        return save_adapter(folder, *arguments)


def untracked(experiment: Experiment) -> Callable[[str], Tracker]:
    return lambda variant: Tracker(None, "stop")


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> Saving:
    saving = Saving()
    monkeypatch.setattr(target_cells, "save_adapter", saving)
    return saving


# --- the files of the project


@pytest.mark.parametrize("paper", [False, True])
def test_every_experiment_parses_and_plans(paper: bool) -> None:
    experiments = read_experiments(REPOSITORY / "params.yaml", paper=paper)
    assert not experiments.broken
    assert set(experiments) >= {"table1", "few_shot", "router_swap", "ablations", "controls", "learning_rates"}
    for experiment in experiments.values():
        plan = plan_comparison(experiment, experiments, Choice(), REPOSITORY)
        assert set(plan.columns) == set(experiment.columns)
        assert next(iter(plan.columns)) == experiment.definition.reference
        if paper and experiment.name == "table1":  # most kinds of methods
            assert all(hours["H200 float32"] > 0 for hours in paper_forecast(plan).columns.values())


def test_reported_seeds_are_not_those_of_development() -> None:
    experiments = read_experiments(REPOSITORY / "params.yaml")
    seeds = {name: set(each.settings.transfer.seeds) for name, each in experiments.items()}
    development = {name for name, each in experiments.items() if each.definition.development}
    assert all(not seeds[name] & seeds[other] for name in development for other in seeds.keys() - development)
    assert all(len(seeds[name]) >= 3 for name in seeds.keys() - development)


def test_all_methods_of_an_experiment_try_equally_many_rates_and_steps() -> None:
    for name, experiment in read_experiments(REPOSITORY / "params.yaml").items():
        methods = experiment.settings.methods_for("cb").values()
        assert len({len(method.learning_rates) for method in methods}) == 1, name
        assert len({method.training.model_dump_json() for method in methods}) == 1, name
        assert len({method.search for method in methods}) == 1, name


def test_the_joint_source_has_as_many_steps_as_the_others_together() -> None:
    """With `paper` it trains by epochs, and has more steps because it has more rows."""
    for paper, steps in ((False, 400), (True, None)):
        for name, experiment in read_experiments(REPOSITORY / "params.yaml", paper=paper).items():
            sources = experiment.settings.tasks.sources
            found = {each: experiment.settings.train_source_for(each).training for each in sources}
            joint = found.pop("joint")
            assert {each.max_steps for each in found.values()} == {steps}, name
            assert joint.max_steps == (None if steps is None else steps * len(found)), name
            assert {each.epochs for each in found.values()} == {joint.epochs}, name


def test_the_joint_source_has_equally_many_rows_of_every_source() -> None:
    """As `prepare_joint` takes them; sst2 has the fewest rows for training."""
    sources = ["mnli", "qnli", "sst2", "joint", "own"]
    whole, parts = source_rows("sst2", sources)["sst2"], source_rows("joint", sources)
    assert list(parts) == ["mnli", "qnli", "sst2"]
    assert {rows["train"] for rows in parts.values()} == {whole["train"]}
    assert all(rows[split] <= rows_of(name)[split] for name, rows in parts.items() for split in rows)
    assert source_rows("own", sources) == {}
    assert source_rows("joint", ["own", "joint"]) == {}  # no task whose rows are known


@pytest.mark.parametrize("paper", [False, True])
def test_methods_that_are_twins_of_stage_1_have_its_sizes(paper: bool) -> None:
    """`lora_wo` is a source adapter without transfer, and prompt tuning is SPoT's; YAML cannot refer to params.yaml."""
    settings = read_experiments(REPOSITORY / "params.yaml", paper=paper)["table1"].settings
    stage_1, adapter = settings.train_source, settings.method("lora_wo").model_dump()
    assert (adapter["rank"], adapter["alpha"]) == (stage_1.rank, stage_1.alpha)
    assert settings.method("prompt_tuning").model_dump()["length"] == stage_1.prompt.length
    assert settings.tasks.sources == [*load_settings(REPOSITORY / "params.yaml").tasks.sources, "joint"]


def test_the_best_grid_is_that_whose_better_rate_scores_most() -> None:
    """0.01 and 0.1 have equal means, but only the grid of both has the best rate of each cell."""
    cells = [
        {"0.001": 10.0, "0.01": 60.0, "0.1": 20.0, "1": 0.0},
        {"0.001": 10.0, "0.01": 20.0, "0.1": 60.0, "1": 50.0},
    ]
    ranked = [(grid.labels, grid.score) for grid in ranked_grids(cells, 2)]
    assert ranked == [(("0.01", "0.1"), 60.0), (("0.001", "0.01"), 40.0), (("0.1", "1"), 40.0)]
    assert [grid.labels for grid in ranked_grids(cells[:1], 1)] == [("0.01",), ("0.1",), ("0.001",), ("1",)]
    assert ranked_grids([{"mnli 0.01": 5.0}], 2)[0].labels == ("mnli 0.01",)


def test_rates_of_targets_with_grids_of_their_own_are_compared_where_they_meet() -> None:
    cells = [{"0.001": 10.0, "0.01": 60.0, "0.1": 20.0}, {"0.01": 20.0, "0.1": 30.0, "1": 50.0}]
    assert [(grid.labels, grid.score) for grid in ranked_grids(cells, 2)] == [(("0.01", "0.1"), 45.0)]
    table = write_rates({("pemt", 32): cells}, 2)
    assert "0.01: 40.00, 0.1: 25.00" in table
    assert "0.001" not in table
    apart = [{"0.001": 10.0}, {"1": 50.0}]
    assert ranked_grids(apart, 2) == []
    assert "pemt" in write_rates({("pemt", 32): apart}, 2)


# --- one experiment after another


def test_experiments_share_cells_and_resume(
    tmp_path: Path, saving: Saving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    params, output = write_project(tmp_path), tmp_path / "comparison"
    program.main(parsed(params, "first", "--dry-run"))
    assert "4 cells, 0 there, 4 to train" in capsys.readouterr().out
    assert not output.exists()
    monkeypatch.setattr(forecast, "backbone_to_probe", lambda *_: None)
    with pytest.MonkeyPatch.context() as without_tracking:
        without_tracking.setattr(program, "trackers", untracked)
        check_sharing(params, output, saving, capsys)
    program.main(parsed(params, "first"))
    assert saving.cells[-1] == "base/cb/pemt-k4-seed1"
    assert len(saving.cells) == 8 + 2 + 1
    check_runs(params)


def check_sharing(params: Path, output: Path, saving: Saving, capsys: pytest.CaptureFixture[str]) -> None:
    saving.limit = 2
    with pytest.raises(Interrupted):
        program.main(parsed(params, "first"))
    err = capsys.readouterr().err
    assert "run the same command again to resume" in err
    assert "Loading weights" not in err
    saving.limit = 1000
    program.main(parsed(params, "first"))
    assert len(saving.cells) == len(set(saving.cells)) == 4
    out = capsys.readouterr().out
    assert "4 cells, 2 there, 2 to train" in out
    assert out.strip().splitlines()[-1].startswith(f"Report: {output}/first/report.html")
    before = read_files(output)
    program.main(parsed(params, "first"))
    assert len(saving.cells) == 4
    assert read_files(output) == before

    program.main(parsed(params, "second"))
    assert sorted(saving.cells[4:]) == [
        "base/cb/uniform-k4-seed1", "base/rte/uniform-k4-seed1", "rank2/cb/pemt-k4-seed1", "rank2/rte/pemt-k4-seed1",
    ]  # fmt: skip
    after = read_files(output)
    assert {name for name in before if after[name] != before[name]} == set()
    rows = (output / "second/rows.csv").read_text()
    assert "pemt_rank2" in rows
    page = (output / "second/report.html").read_text()
    source = r'>mnli</th><td class="text">rank2</td><td class="text">adapter</td>'
    assert re.search(rf"{source}<td>[^<]+</td><td>2</td><td>[\d.]+ s</td>", page)
    assert "control" not in rows

    program.main(parsed(params, "second", "--targets", "cb"))
    assert len(saving.cells) == 8
    assert (output / "second/part/report.html").is_file()
    assert (output / "second/rows.csv").read_text() == rows

    (output / "made").rename(output / "hidden")
    program.main(parsed(params, "first", "--dry-run"))
    assert "4 cells, at most 4 to train: 4 of these exist, and whether" in capsys.readouterr().out
    (output / "hidden").rename(output / "made")
    program.main(parsed(params, "first", "--dry-run"))
    assert "4 cells, 4 there, 0 to train" in capsys.readouterr().out

    (output / "targets/base/cb/pemt-k4-seed1/training.json").unlink()
    program.main(parsed(params, "rates"))
    assert "| control | 4 | 0." in capsys.readouterr().out
    assert not (output / "scores/development").exists()


def check_runs(params: Path) -> None:
    """The store has the runs of cells, sources and methods, and one with the report's files."""
    tracker = connect(f"sqlite:///{params.parent}/mlflow.db", "pemt-compare-first", params.parent, "stop")
    cell = tracker.find("transfer/cb/control/k=4/seed=1")
    assert cell is not None
    assert "test/main" in cell.metrics
    report = tracker.find("report/comparison")
    assert report is not None
    assert set(report.metrics) == {"mean/pemt/k4", "mean/control/k4"}
    assert "PEMT" in (tracker.read_file(report, "table.md") or "")


def test_sources_are_trained_in_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the bytes and the runs of one process, and their times in the report."""
    found, runs = {}, {}
    for workers in ("1", "2"):
        params = write_project(tmp_path / workers)
        arguments = parsed(params, "first", "--targets", "cb")
        arguments.workers = int(workers)
        program.main(arguments)
        output = params.parent / "comparison"
        found[workers] = {name: read_files(output / name) for name in ("sources", "experts", "targets")}
        found[workers] = {
            k: {str(Path(n).relative_to(output)): d for n, d in v.items()} for k, v in found[workers].items()
        }
        tracker = connect(f"sqlite:///{params.parent}/mlflow.db", "pemt-compare-first", params.parent, "stop")
        sources = [tracker.find(f"train_source/{name}") for name in ("mnli", "sst2")]
        runs[workers] = [(run.metrics["train/loss"], run.tags["pemt.artifact"]) for run in sources if run is not None]
        assert len([*Folders(output).source_seconds.glob("*.json")]) == 2
    assert found["1"] == found["2"]
    assert runs["1"] == runs["2"]
    assert len(runs["1"]) == 2
    errors = capsys.readouterr().err
    assert re.search(r"sources of base: 100%.* 4/4 .*step", errors)  # two steps of each
    assert errors.count("train_source sst2: 100%") == 1  # bars of single trainings are not shown beside each other


def test_variants_with_another_backbone_leave_the_shared_one_alone(tmp_path: Path, saving: Saving) -> None:
    """A decoder-only model with its prompt in two places, and another tokenizer, beside the shared T5."""
    decoder, output = tmp_path / "decoder", tmp_path / "project" / "comparison"
    texts = tmp_path / "corpus.parquet"
    pq.write_table(corpus_table([CorpusText(f"the garden {n} is red and the river is blue") for n in range(60)]), texts)
    labels = {label for name in ("mnli", "sst2", "cb", "rte") for label in TASKS[name].labels or ()}
    tokenizer = train_tokenizer(texts, 400, sorted(labels))
    tokenizer.save_pretrained(decoder)
    new_llama("nano", tokenizer, 0.0).save_pretrained(decoder)
    layouts = (
        "title: Layouts\nabout: Two places of the prompt\nreference: pemt_behind\ntasks: {targets: [cb]}\n"
        f"variants: {{behind: {{backbone: {{name: &decoder {decoder}}}}},"
        " front: {backbone: {name: *decoder, layout: front}}}\n"
        "transfer: {methods: [pemt]}\n"
    )
    params = write_project(tmp_path / "project", layouts=layouts)
    with pytest.MonkeyPatch.context() as without_tracking:
        without_tracking.setattr(program, "trackers", untracked)
        program.main(parsed(params, "layouts"))
        before = read_files(output)
        program.main(parsed(params, "layouts"))
    assert saving.cells == ["behind/cb/pemt-k4-seed1", "front/cb/pemt-k4-seed1"]
    assert read_files(output) == before
    assert not (output / "backbone").exists()
    backbones = {name: load_backbone(output / "backbones" / name) for name in ("behind", "front")}
    for name, backbone in backbones.items():
        assert backbone.model.config.prompt_layout == name
        assert len(backbone.tokenizer) == len(tokenizer)
        result = CellResult.load(output / f"scores/{name}/cb/pemt-k4-seed1")
        assert result.backbone == backbone.fingerprint
        assert set(result.expert_weights or {}) == {"decoder"}
    assert backbones["behind"].fingerprint != backbones["front"].fingerprint
    page = (output / "layouts/report.html").read_text()
    assert f"<dd>{decoder}, " in page
    assert f"<dd>{decoder}, layout front, " in page
    assert "on the backbone of the variant" in page


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- errors


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        ({}, ["frist"], r"there is no experiments/frist.yaml; did you mean .first.\?"),
        ({"first": "titel: A\n"}, ["first"], r"experiments/first.yaml: unknown key 'titel'; did you mean .title.\?"),
        ({"first": "title: A\nabout: B\n"}, ["first"], r"experiments/first.yaml: key 'reference' is missing"),
        (
            {"first": FILES["first"].replace("control]", "contrl]")},
            ["first"],
            r"experiments/first.yaml: key 'transfer.methods.1' is 'contrl', .* did you mean .control.\?",
        ),
        (
            {"first": FILES["first"] + "family: [contrl]\n"},
            ["first"],
            r"experiments/first.yaml: family: 'contrl' is not compared here; did you mean .control.\?",
        ),
        (
            {"first": FILES["first"] + "train_source: {rnak: 3}\n"},
            ["first"],
            r"experiments/first.yaml: unknown key 'train_source.rnak'; did you mean .rank.\?",
        ),
        (
            {"second": FILES["second"].replace("rank: 2", "rnak: 2")},
            ["second"],
            r"experiments/second.yaml: unknown key 'variants.rank2.train_source.rnak'; did you mean .rank.\?",
        ),
        (
            {"shared": FILES["shared"].replace("gate: uniform", "gate: unform")},
            ["first"],
            r"experiments/shared.yaml: methods.uniform: .*unform.* did you mean .uniform.\?",
        ),
        (
            {"first": FILES["first"] + "methods: {pemt: {sparsity_coefficient: 0.5}}\n"},
            ["second"],
            r"experiments/second.yaml and experiments/first.yaml define the method 'pemt' differently: "
            r"for cb with k 4, sparsity_coefficient is 0.1 and 0.5",
        ),
        (
            {"first": FILES["first"] + "evaluate: {max_rows: 3}\n"},
            ["second"],
            r"experiments/second.yaml and experiments/first.yaml differ in evaluate.max_rows: 6 and 3",
        ),
        (
            {"first": FILES["first"] + "controls: [contrl]\n"},
            ["first"],
            r"experiments/first.yaml: controls: 'contrl' is not compared here; did you mean .control.\?",
        ),
        (
            {"first": FILES["first"] + "controls: [pemt]\n"},
            ["first"],
            r"experiments/first.yaml: controls: 'pemt' is the reference; remove it",
        ),
        (
            {"first": FILES["first"] + "statistics: {margn: 1.0}\n"},
            ["first"],
            r"experiments/first.yaml: unknown key 'statistics.margn'; did you mean .margin.\?",
        ),
        (
            {"shared": FILES["shared"].replace("draws: 50", "draws: 1")},
            ["first"],
            r"experiments/shared.yaml: key 'statistics.draws' is 1: .* greater than or equal to 2",
        ),
        (
            {"shared": FILES["shared"].replace("margin: 2.0, ", "")},
            ["first"],
            r"experiments/shared.yaml: key 'statistics.margin' is missing",
        ),
        (
            {"second": FILES["second"].replace("[uniform]", "[uniform, uniform]", 1)},
            ["second"],
            r"experiments/second.yaml: family lists 'uniform' more than once",
        ),
        ({"costs": FILES["first"]}, ["costs"], r"experiments/costs.yaml: an experiment cannot be named 'costs'"),
        ({"paper": FILES["first"]}, ["paper"], r"experiments/paper.yaml: an experiment cannot be named 'paper'"),
        ({"real": FILES["first"]}, ["real"], r"experiments/real.yaml: an experiment cannot be named 'real'"),
        (
            {"first": FILES["first"] + "per_target: {rte: {methods: [control], k: [8]}}\n"},
            ["first"],
            r"^experiments/first.yaml: reference: 'pemt' has no cell with k 8 to compare others with; it has k 4$",
        ),
        (
            {"first": FILES["first"] + "per_target: {rte: {methods: [control]}}\n"},
            ["first", "--targets", "rte"],
            r"reference: 'pemt' has no cell with k 4 .*; list it in `methods` of one of these targets$",
        ),
        (
            {"first": FILES["first"] + "per_target: {rte: {k: [8]}}\n"},
            ["first", "--targets", "rte", "--k", "4"],
            r"^experiments/first.yaml: no cell has all that --targets, --k and --seeds ask for; leave one of them out$",
        ),
        (
            {"first": FILES["first"] + "train_source: {rank: 3}\n"},
            ["second"],
            r"define the variant 'base' differently: train_source.rank is 4 and 3. Stage 1 or a backbone with other "
            r"settings is a variant with another name than 'base'",
        ),
        (
            {"second": FILES["second"].replace("train_source: {rank: 2}", "backbone: {layuot: both}")},
            ["second"],
            r"experiments/second.yaml: unknown key 'variants.rank2.backbone.layuot'; did you mean .layout.\?",
        ),
        (
            {
                "second": FILES["second"].replace("train_source:", "backbone: {layout: both}, train_source:"),
                "third": FILES["second"].replace("train_source:", "backbone: {layout: behind}, train_source:"),
            },
            ["second"],
            r"define the variant 'rank2' differently: backbone.layout is \"both\" and \"behind\"",
        ),
        (
            {"first": FILES["first"] + "backbone: {layout: front}\n"},
            ["second"],
            r"second.yaml and experiments/first.yaml differ in backbone.layout: \"auto\" and \"front\". Experiments",
        ),
        ({}, ["shared"], r"experiments/shared.yaml is what experiments share, and none itself; choose from: first"),
        (
            {},
            ["first", "--targets", "cd"],
            r"--targets: 'cd' is not part of experiments/first.yaml; choose from: cb, rte",
        ),
        ({}, ["first", "--seeds", "2"], r"--seeds: '2' is not part of experiments/first.yaml"),
        ({}, [], r"which experiment\? expected its name"),
        (
            {"first": FILES["first"] + "tasks: {targets: [cb, ret]}\n"},
            ["first"],
            r"experiments/first.yaml: key 'tasks.targets.1' is 'ret': there is no such task; did you mean .rte.\?",
        ),
        (
            {"second": FILES["second"].replace("methods: [pemt]", "methods: [nope]")},
            ["second"],
            r"experiments/second.yaml: key 'variants.rank2.methods.0' is 'nope', which `methods` does not define",
        ),
        (
            {"first": FILES["first"].replace("control]", "control], seeds: [51, 51]")},
            ["first"],
            r"experiments/first.yaml: key 'transfer.seeds' lists \[51\] more than once",
        ),
        (
            {"first": FILES["first"].replace("control]", "control, control]")},
            ["first"],
            r"experiments/first.yaml: key 'transfer.methods' lists \['control'\] more than once",
        ),
        (
            {"first": FILES["first"].replace("control]", "control], k: [0]")},
            ["first"],
            r"^experiments/first.yaml: key 'transfer.k.0' is 0: expected 'full', or a number of rows per class of at "
            r"least 1$",
        ),
    ],
)
def test_errors_name_file_key_and_nearest(
    tmp_path: Path, files: dict[str, str], words: list[str], message: str
) -> None:
    params = write_project(tmp_path, **files)
    with pytest.raises(SettingsError, match=message):
        program.main(parsed(params, *words, "--dry-run"))


def test_a_broken_file_stops_no_other_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = write_project(tmp_path, broken="title: [", second=FILES["second"] + "paper:\n")
    for name in ("third.yml", "fourth.YAML"):
        (tmp_path / "experiments" / name).write_text(FILES["first"])
    program.main(parsed(params, "--list"))
    out = capsys.readouterr().out
    assert re.search(r"^broken  error: .*experiments/broken.yaml: not readable as YAML", out, flags=re.MULTILINE)
    assert out.splitlines()[-2:] == [
        "experiments/fourth.YAML is ignored; rename it to fourth.yaml",
        "experiments/third.yml is ignored; rename it to third.yaml",
    ]
    program.main(parsed(params, "second", "--dry-run"))
    assert "6 cells" in capsys.readouterr().out
    assert set(read_experiments(params, paper=True)) == {"first", "second", "rates"}
    with pytest.raises(SettingsError, match=r"broken.yaml: not readable"):
        program.main(parsed(params, "broken", "--dry-run"))
    with pytest.raises(SettingsError, match=r"experiments/third.yml is ignored; rename it to third.yaml"):
        program.main(parsed(params, "third", "--dry-run"))


def test_a_broken_file_is_named_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    program.main(parsed(write_project(tmp_path, broken="titel: A\n"), "first", "--dry-run"))
    assert "skipped, also in what experiments share: experiments/broken.yaml: unknown key 'titel'" in caplog.text


def test_files_that_contradict_each_other_stop_no_third_one(tmp_path: Path) -> None:
    contradicting = FILES["second"].replace("rank: 2", "rank: 3").replace("[uniform]", "[uniform, pemt_rank2]")
    params = write_project(tmp_path, third=contradicting)
    program.main(parsed(params, "first", "--dry-run"))
    with pytest.raises(SettingsError, match="define the variant 'rank2' differently"):
        program.main(parsed(params, "third", "--dry-run"))


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "many"], ["--k", "some"]])
def test_numbers_on_the_command_line_are_checked_before_anything_runs(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.make_parser().parse_args(["first", *words])
    assert f"argument {words[0]}: '{words[1]}': expected" in capsys.readouterr().err


def test_the_documented_trial_plans_beside_the_experiments(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs/comparing.md").read_text().split("## A quick trial")[1]
    for name in ("experiments", "recipes"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    (tmp_path / "experiments/trial.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    experiments = read_experiments(tmp_path / "params.yaml")
    (variant,) = plan_comparison(experiments["trial"], experiments, Choice(), REPOSITORY).variants
    assert list(variant.train_source) == ["mnli", "squad"]
    assert len(variant.cells) == 6


def test_a_variant_that_is_removed_leaves_the_plan(tmp_path: Path) -> None:
    params = write_project(tmp_path)
    second = FILES["second"].replace("variants: {base: {}, rank2:", "variants: {base: {}, rank4:")
    for text in (FILES["second"], second):
        (tmp_path / "experiments/second.yaml").write_text(text)
        experiments = read_experiments(params)
        plan_comparison(experiments["second"], experiments, Choice(), tmp_path).write(tmp_path / "plan")
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["base", "rank4"]
    assert (tmp_path / "plan/rank4/transfer/cb.json").is_file()


def test_a_source_that_is_not_there_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    params = write_project(tmp_path, shared=f"{FILES['shared']}prepare: {{source: ~/hub}}\n")
    experiments = read_experiments(params)
    with pytest.raises(SettingsError, match=r"prepare.source is '~/hub': no such folder; write out what ~ stands for"):
        plan_comparison(experiments["first"], experiments, Choice(), tmp_path)


def test_an_experiment_overrides_the_shared_statistics(tmp_path: Path) -> None:
    override = FILES["first"] + "statistics: {margin: 1.0}\npaper: {statistics: {draws: 70}}\n"
    params = write_project(tmp_path, first=override)
    for paper, draws in ((False, 50), (True, 70)):
        found = {name: each.definition.statistics for name, each in read_experiments(params, paper=paper).items()}
        assert found["first"] == Statistics(margin=1.0, draws=draws, seed=1)
        assert found["second"] == Statistics(margin=2.0, draws=50, seed=1)


# --- times of stage 1


@dataclass
class Training:
    """A training of stage 1 as its run sees it: it keeps its result unless it is kept already, and tags the run."""

    checkpoints: Path

    def run(self, open_run: OpenRun, artifact: str, interrupted: bool = False) -> None:
        with open_run(RunInfo("train_source/sst2", "sst2 source", {}, {})) as run:
            begin = time.process_time()
            while time.process_time() - begin < 0.05:
                pass
            if interrupted:
                raise Interrupted(signal.SIGINT)
            folder = self.checkpoints / "finished" / artifact
            if not folder.is_dir():
                folder.mkdir(parents=True)
                write_record(folder / "adapter.json", {"tensors": {"sha256": artifact}})
            run.tag({ARTIFACT_TAG: artifact})


def test_times_of_stage_1_add_up_over_interruptions_and_outlive_a_restored_source(tmp_path: Path) -> None:
    seconds, training = SourceSeconds(tmp_path / "seconds"), Training(tmp_path)
    first, other = (seconds.watched(silent_runs, {"settings": name}, tmp_path) for name in ("first", "other"))
    with pytest.raises(Interrupted):
        training.run(first, "a", interrupted=True)
    assert seconds.of("a") is None
    training.run(first, "a")
    took = seconds.of("a")
    assert took is not None
    assert 0.1 <= took < 0.5
    training.run(first, "a")  # as if the source was removed, and taken from the finished trainings
    assert seconds.of("a") == took
    training.run(silent_runs, "b")  # by another command
    training.run(other, "b")
    assert seconds.of("b") is None
    assert [path.name for path in (tmp_path / "seconds").iterdir()] == ["a.json"]


def test_a_killed_training_of_stage_1_has_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, training = SourceSeconds(tmp_path / "seconds"), Training(tmp_path)
    open_run = seconds.watched(silent_runs, {}, tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(SourceSeconds, "_keep", lambda *_: None)
        with pytest.raises(Interrupted):
            training.run(open_run, "a", interrupted=True)
    training.run(open_run, "a")
    assert seconds.of("a") is None
    training.run(seconds.watched(silent_runs, {"settings": "other"}, tmp_path), "b")
    assert seconds.of("b") is not None


# --- work


def work_of(search: str, rates: list[float], **training: Any) -> CellWork:
    shared = YAML(typ="safe").load(REPOSITORY / "params.yaml")
    values = {**shared["transfer"], "search": search, "learning_rates": rates}
    values["training"] = {**shared["training"], **values["training"], **training}
    method = method_of("pemt", {}, values, "pemt")
    return CellWork.of(method, ["mnli"], 32, TargetRows(train=1000, validation=40, classes=3))


def test_the_work_of_a_cell_is_counted_by_hand() -> None:
    assert work_of("full", [0.1, 0.2]) == CellWork(2, 120, 6 * 40)
    assert work_of("halving", [0.1, 0.2]) == CellWork(2, 2 * 20 + 40, 4 * 40)
    assert work_of("halving", [0.1, 0.2, 0.3]) == CellWork(3, 3 * 20 + 2 * 40, 7 * 40)
    assert work_of("full", [0.1], max_steps=None, epochs=5, evaluate_every="epoch") == CellWork(1, 15, 5 * 40)
