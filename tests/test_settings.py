"""Reading and checking params.yaml: every error names the key, the value and what is expected."""

import copy
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from pemt_core.errors import SettingsError, nearest, shown
from pemt_core.methods import method_of
from pemt_core.schema.json_values import parse_object
from pemt_core.schema.validation import merged
from pemt_core.schema.values import check_words
from pemt_core.settings import RECIPE_GROUPS, Settings, load_settings, parse_run, parse_settings, read_params
from pemt_core.settings.steps import Evaluate, read_step
from pemt_core.tasks import TASKS

REPOSITORY = Path(__file__).parent.parent
PARAMS = REPOSITORY / "params.yaml"
VALUES: dict[str, Any] = read_params(PARAMS)

Change = Callable[[dict[str, Any]], object]


def parsed(*changes: Change) -> Settings:
    values = copy.deepcopy(VALUES)
    for change in changes:
        change(values)
    return parse_settings(values, "params.yaml")


def put(path: str, value: Any) -> Change:
    """Return a change that sets the key at a dotted path, whether or not it exists."""
    *groups, key = path.split(".")

    def change(values: dict[str, Any]) -> None:
        for group in groups:
            values = values.setdefault(group, {})
        values[key] = value

    return change


def remove(path: str) -> Change:
    *groups, key = path.split(".")

    def change(values: dict[str, Any]) -> None:
        for group in groups:
            values = values[group]
        del values[key]

    return change


# --- the files of the project


@pytest.mark.parametrize("recipe", VALUES["recipes"])
def test_every_recipe_of_params_yaml_loads(recipe: str) -> None:
    settings = parsed(put("recipe", recipe))
    for task in settings.tasks.sources:
        assert settings.train_source_for(task).training.batch_size > 0
    for task in settings.tasks.targets:
        assert all(method.learning_rates for method in settings.methods_for(task).values())


def test_load_settings_reads_params_yaml() -> None:
    assert load_settings(PARAMS) == parsed()


@pytest.mark.parametrize("name", ["decoder", "layouts"])
def test_experiments_have_the_decoders_sources_and_pemt_as_its_recipe(name: str) -> None:
    experiment = read_params(REPOSITORY / "experiments" / f"{name}.yaml")
    variants, expected = experiment["variants"].values(), VALUES["recipes"]["decoder"]
    reference = read_params(REPOSITORY / "experiments" / "shared.yaml")["methods"]["gate_normalised_mean"]
    assert experiment["reference"].startswith("gate_normalised_mean")
    assert reference == {"kind": "pemt", **expected["methods"]["pemt"]}
    assert all(variant["train_source"] == expected["train_source"] for variant in variants)
    assert all(variant["backbone"]["name"] == expected["backbone"]["name"] for variant in variants)


@pytest.mark.parametrize("ending", [".yml", ".YAML"])
def test_a_recipe_of_another_ending_is_named(tmp_path: Path, ending: str) -> None:
    """It is ignored as long as the run has another recipe, and a file that ends in .yaml comes first."""
    (tmp_path / "recipes").mkdir()
    file, params = tmp_path / "recipes" / f"mine{ending}", tmp_path / "params.yaml"
    file.write_text("transfer: {k: [4]}\n")
    params.write_text("recipe: mine\n")
    with pytest.raises(
        SettingsError, match=rf"params.yaml: recipe 'mine': .*mine\{ending} is ignored; rename it to mi"
    ):
        load_settings(params)
    file.with_suffix(".yaml").write_text("transfer: {k: [8]}\n")
    assert read_params(params)["recipes"] == {"mine": {"transfer": {"k": [8]}}}
    params.write_text("recipe: null\n")
    file.with_suffix(".yaml").unlink()
    assert read_params(params)["recipes"] == {}


def test_the_paper_recipe_matches_the_scripts_of_the_authors() -> None:
    """It has the settings of Lin et al.'s public scripts for T5-base, for both stages and for tasks that differ."""
    settings = parsed(put("recipe", "paper"))
    source, target = settings.train_source_for("mnli"), settings.transfer_for("cb")
    training = source.training
    assert settings.backbone.kind == "hub"
    assert (training.learning_rate, training.warmup_steps, training.batch_size, training.epochs) == (5e-4, 500, 128, 5)
    assert (source.rank, source.scale, source.init, source.prompt_init) == (64, 1.0, "zero", "vocab")
    assert (target.training.batch_size, target.training.epochs, target.training.warmup_steps) == (32, 20, 0)
    assert target.learning_rates == [1e-3, 6e-4, 3e-4]
    assert (target.reduction_factor, target.prompt_dropout, target.sparsity_coefficient) == (16, 0.1, 0.1)
    assert target.sparsity_positions == "all"
    assert (source.source_length, target.source_length) == (256, 256)
    assert (source.training.max_steps, target.training.max_steps, settings.evaluate.max_rows) == (None, None, None)
    assert settings.transfer_for("multirc").source_length == 348
    assert settings.transfer_for("multirc").training.epochs == 10
    assert {settings.transfer_for(task).source_length for task in ("nq", "hotpotqa", "searchqa", "newsqa")} == {512}
    assert settings.transfer_for("nq").training.epochs == 5
    assert settings.transfer_for("nq").training.batch_size == 32


def fields_of(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields_of(inner)
        else:
            yield name


def test_every_key_is_read_somewhere() -> None:
    """Strict loading rejects keys without a field; this test finds fields that no code reads."""
    sources = [
        path.read_text()
        for package in ("pemt_core", "components", "pipelines")
        for path in (REPOSITORY / package).rglob("*.py")
        if path.name != "groups.py"
    ]
    code = "\n".join(sources) + (REPOSITORY / "pemt_core" / "settings" / "groups.py").read_text()
    unread = {name for name in fields_of(Settings) if not re.search(rf"\.{name}\b", code)}
    assert unread == set()


def test_the_files_have_no_empty_entries_per_task() -> None:
    """Listing any of the 23 tasks needs no edit elsewhere, so the files have no line per task."""
    files = [PARAMS, *PARAMS.parent.glob("recipes/*.yaml")]
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert len(lines) <= 160
    assert [line for line in lines if re.search(rf"\b({'|'.join(TASKS)}): {{}}", line)] == []


# --- overlays


def test_a_recipe_overrides_groups_and_a_task_overrides_both() -> None:
    settings = parsed(
        put("recipes.demo.transfer", {"source_length": 11, "training": {"epochs": 3}}),
        put("per_target.cb", {"training": {"batch_size": 5, "epochs": 4}}),
        put("recipes.demo.per_target.cb", {"training": {"epochs": 9}}),
    )
    assert settings.transfer_for("rte").source_length == 11
    assert settings.transfer_for("rte").training.epochs == 3
    assert settings.transfer_for("rte").training.batch_size == VALUES["training"]["batch_size"]
    cb = settings.transfer_for("cb")
    assert (cb.training.epochs, cb.training.batch_size, cb.source_length) == (9, 5, 11)


def test_a_recipe_of_comments_alone_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "demo.yaml").write_text("# nothing\n")
    assert load_settings(tmp_path / "params.yaml") == parsed(put("recipes", {"demo": {}}))


def test_trainings_share_settings_that_no_group_overrides() -> None:
    settings = parsed(put("training.batch_size", 7), put("recipes.demo.transfer", {"training": {"batch_size": 5}}))
    trainings = (settings.backbone.training, settings.train_source.training, settings.transfer.training)
    assert [training.batch_size for training in trainings] == [7, 7, 5]
    assert [training.validation_rows for training in trainings] == [256, 128, VALUES["training"]["validation_rows"]]


def test_steps_share_common_settings() -> None:
    changes = put("kubeflow.resources.transfer.gpus", 2), put("kubeflow.resources.every_step.cpu", "3")
    resources = parsed(*changes).kubeflow.resources
    assert (resources["transfer"].gpus, resources["transfer"].cpu, resources["evaluate"].cpu) == (2, "3", "3")
    assert (resources["plan"].gpus, resources["plan"].cpu) == (0, "1")


# --- methods

SOME: dict[str, Any] = {"kind": "pemt", "without": ["qqp"], "reduction_factor": 2}


def test_a_method_overrides_its_task_which_overrides_transfer() -> None:
    settings = parsed(
        put("methods.some", {**SOME, "training": {"epochs": 3}}),
        put("transfer.training.epochs", 1),
        put("per_target.cb", {"methods": ["pemt", "some"], "reduction_factor": 8, "training": {"epochs": 2}}),
    )
    methods = settings.methods_for("cb")
    assert [methods[name].training.epochs for name in ("pemt", "some")] == [2, 3]
    assert [methods[name].model_dump()["reduction_factor"] for name in ("pemt", "some")] == [8, 2]
    assert methods["some"].training.max_steps == VALUES["transfer"]["training"]["max_steps"]
    assert methods["some"].draws_on(settings.sources) == [name for name in settings.sources if name != "qqp"]
    assert list(settings.methods_for("rte")) == VALUES["transfer"]["methods"]


def test_a_kind_of_method_accepts_only_its_settings() -> None:
    shared = parsed().methods_for("cb")["pemt"].model_dump(exclude={"kind"}) | {"colour": "red"}
    assert method_of("pemt", {}, shared, "methods.pemt") == parsed().methods_for("cb")["pemt"]
    with pytest.raises(SettingsError, match=r"methods\.pemt: key 'colour': the kind 'pemt' has no such setting"):
        method_of("pemt", {"colour": "blue"}, shared, "methods.pemt")


OWN = {"adapter": "imported/own", "description": "Decide which colour the text names."}


def test_an_imported_source_can_be_left_out_too() -> None:
    """Imported experts follow those of tasks.sources, in the order of the file."""
    imported = put("imported_sources", {"own": OWN, "a": OWN})
    listed = [put("methods.some", {**SOME, "without": ["own"]}), put("transfer.methods", ["some"])]
    settings = parsed(imported, *listed, put("recipe", "study"))
    assert settings.sources == [*VALUES["tasks"]["sources"], "own", "a"]
    assert settings.sources_of("some", settings.method("some")) == [*VALUES["tasks"]["sources"], "a"]
    with pytest.raises(SettingsError, match=r"methods\.some: without names 'own', which is not a source"):
        parsed(*listed)
    with pytest.raises(SettingsError, match=r"methods\.some: without leaves out every source"):
        parsed(imported, *listed, put("methods.some.without", ["own", "a", *VALUES["tasks"]["sources"]]))


def test_an_unused_method_may_leave_out_unlisted_sources() -> None:
    few = [put("recipe", "study"), put("tasks.sources", ["squad", "sst2"])]
    methods = parsed(*few, put("tasks.targets", ["nq"])).methods_for("nq")
    assert list(methods) == ["pemt", "control", "without_squad", "without_sst2"]
    with pytest.raises(SettingsError, match=r"recipes/study\.yaml: methods\.without_mnli: without names 'mnli'"):
        parsed(*few, put("tasks.targets", ["nq", "cb"]))


def test_a_list_in_a_recipe_replaces_the_list() -> None:
    settings = parsed(put("recipes.demo.transfer", {"seeds": [1, 2]}))
    assert settings.transfer.seeds == [1, 2]


def test_only_the_chosen_recipe_is_applied() -> None:
    changed = put("recipes.paper.transfer", {"source_length": 99})
    assert parsed(changed).transfer.source_length == VALUES["transfer"]["source_length"]
    assert parsed(changed, put("recipe", "paper")).transfer.source_length == 99


# --- rejected settings

REFUSED: dict[str, tuple[Change, list[str]]] = {
    "unknown key": (
        put("transfer.reduction_facter", 8),
        ["unknown key 'transfer.reduction_facter'", "did you mean 'reduction_factor'?"],
    ),
    "unknown nested key": (
        put("backbone.training.batchsize", 8),
        ["unknown key 'backbone.training.batchsize'", "did you mean 'batch_size'?"],
    ),
    "unknown group": (put("evalute", {}), ["unknown key 'evalute'", "did you mean 'evaluate'?"]),
    "nothing alike": (put("prepare.zzz", 1), ["unknown key 'prepare.zzz'", "choose from: ", "split_seed"]),
    "missing key": (remove("train_source.rank"), ["key 'train_source.rank' is missing"]),
    "missing group": (remove("tracking"), ["key 'tracking' is missing"]),
    "text for a number": (put("transfer.reduction_factor", "16"), ["transfer.reduction_factor", "'16'", "integer"]),
    "fraction for a count": (put("evaluate.batch_size", 1.5), ["evaluate.batch_size", "1.5", "integer"]),
    "number for a flag of words": (put("train_source.init", 0), ["train_source.init", "0", "'zero' or 'kaiming'"]),
    "zero": (
        put("train_source.training.epochs", 0),
        ["train_source.training.epochs", "0", "greater than or equal to 1"],
    ),
    "negative rate": (put("transfer.learning_rates", [-1.0]), ["transfer.learning_rates.0", "-1.0", "greater than 0"]),
    "endless rate": (put("transfer.learning_rates", [float("inf")]), ["transfer.learning_rates.0", "finite"]),
    "no rate": (put("transfer.learning_rates", []), ["transfer.learning_rates", "[]", "at least 1 entry"]),
    "certain dropout": (put("backbone.dropout", 1.0), ["backbone.dropout", "1.0", "less than 1"]),
    "wrong word": (
        put("transfer.sparsity_positions", "some"),
        ["transfer.sparsity_positions", "'some'", "'all' or 'unpadded'"],
    ),
    "a word that is nearly right": (put("backbone.size", "tinny"), ["or 'small'; did you mean 'tiny'?"]),
    "a word that looks right": (put("backbone.size", "t\u0456ny"), ["did you mean 'tiny'?", r"'t\u0456ny' has other"]),
    "a flag of YAML 1.1": (put("models.enabled", "yes"), ["key 'models.enabled' is 'yes'", "boolean, as in true"]),
    "a quoted flag": (put("models.enabled", "False"), ["boolean, as in false"]),
    "a quoted number": (put("evaluate.batch_size", "32"), ["integer, without quotes"]),
    "a quoted rate": (put("transfer.learning_rates", ["1e-3"]), ["number, without quotes"]),
    "a count with an exponent": (put("evaluate.batch_size", 1e3), ["is 1000.0", "integer, as in 1000"]),
    "a number for a word": (put("recipe", 1), ["string, as in '1'"]),
    "a value for a list": (put("transfer.k", "full"), ["list, as in [full]"]),
    "values without brackets": (put("tasks.targets", "cb, rte"), ["list, as in [cb, rte]"]),
    "a list for a group": (put("per_target", []), ["key 'per_target' is []: expected a group of settings"]),
    "wrong k": (put("transfer.k", ["ful"]), ["transfer.k.0", "'ful'", "'full'"]),
    "null": (put("prepare.split_seed", None), ["prepare.split_seed", "None", "integer"]),
    "list for a word": (put("prepare.source", ["hub"]), ["prepare.source", "['hub']", "string"]),
    "a task twice": (put("tasks.targets", ["cb", "rte", "cb"]), ["tasks", "targets lists ['cb'] more than once"]),
    "unknown recipe": (put("recipe", "papr"), ["recipe 'papr'", "recipes/papr.yaml", "did you mean 'paper'?"]),
    "no recipe": (put("recipes", {}), ["recipe 'demo'", "recipes/ has no files"]),
    "shared settings that are none": (put("training", None), ["key 'training' is None"]),
    "a wrong shared setting": (put("training.batch_size", 0), ["params.yaml: key 'training.batch_size' is 0"]),
    "an unknown shared setting": (
        put("training.epoch", 3),
        ["params.yaml: unknown key 'training.epoch'", "did you mean 'epochs'?"],
    ),
    "a missing shared setting": (remove("training.epochs"), ["params.yaml: key 'training.epochs' is missing"]),
    "a missing setting that is not shared": (
        remove("train_source.training.learning_rate"),
        ["key 'train_source.training.learning_rate' is missing"],
    ),
    "a wrong setting of every step": (
        put("kubeflow.resources.every_step.gpus", -1),
        ["params.yaml: key 'kubeflow.resources.every_step.gpus' is -1"],
    ),
    "an unknown setting of every step": (
        put("kubeflow.resources.every_step.gpu", 1),
        ["params.yaml: unknown key 'kubeflow.resources.every_step.gpu'", "did you mean 'gpus'?"],
    ),
    "resources of an unknown step": (
        put("kubeflow.resources.transfr", {}),
        ["params.yaml: kubeflow.resources.transfr: there is no such step", "did you mean 'transfer'?"],
    ),
    "unknown key of a task": (
        put("per_target.cb", {"training": {"epoch": 3}}),
        ["per_target.cb", "training.epoch", "did you mean 'epochs'?"],
    ),
    "unknown key of a task that is not listed": (
        put("per_source.searchqa", {"sed": 3}),
        ["per_source.searchqa", "unknown key 'sed'", "did you mean 'seed'?"],
    ),
    "an unknown target's differences": (put("per_target.cbb", {}), ["per_target.cbb", "did you mean 'cb'?"]),
    "an unknown source's differences": (put("per_source.mnil", {}), ["per_source.mnil", "did you mean 'mnli'?"]),
    "a method that is not defined": (
        put("transfer.methods", ["pemt", "contrl"]),
        ["key 'transfer.methods.1' is 'contrl'", "did you mean 'control'?"],
    ),
    "a method of a task that is not defined": (
        put("per_target.cb", {"methods": ["pmet"]}),
        ["key 'per_target.cb.methods.0' is 'pmet'", "did you mean 'pemt'?"],
    ),
    "no kind": (put("methods.some", {}), ["methods.some", "expected the key `kind`, as 'some' is not a kind"]),
    "a method that is no name": (
        put("methods.Some-1", SOME),
        ["methods.Some-1: ", "expected lower-case letters, digits and _"],
    ),
    "an unknown source": (
        put("methods.pemt", {"sources": ["mnil"]}),
        ["methods.pemt: sources names 'mnil'", "did you mean 'mnli'?"],
    ),
    "an imported source with the name of a task": (
        put("imported_sources", {"mnli": OWN}),
        ["imported_sources.mnli", "a source task has this name"],
    ),
    "an imported source that is no name": (
        put("imported_sources", {"Own-1": OWN}),
        ["imported_sources.Own-1: expected lower-case letters"],
    ),
    "an imported source without a description": (
        put("imported_sources", {"own": {"adapter": "x"}}),
        ["key 'imported_sources.own.description' is missing"],
    ),
    "an imported source of an empty description": (
        put("imported_sources", {"own": {**OWN, "description": ""}}),
        ["imported_sources.own.description", "expected text that is not empty"],
    ),
    "an imported source of an invisible description": (
        put("imported_sources", {"own": {**OWN, "description": "\u200b"}}),
        ["imported_sources.own.description", "expected a sentence"],
    ),
    "an imported source of a long description": (
        put("imported_sources", {"own": {**OWN, "description": "word " * 1_520 + "x"}}),
        ["imported_sources.own.description", "at most 1,000 characters, found 7,601"],
    ),
    "an imported source with a reference": (
        put("imported_sources", {"own": {**OWN, "adapter": "${HOME}/lora"}}),
        ["imported_sources.own.adapter", "expected text without ${, which DVC would replace"],
    ),
}

OF_A_RECIPE: dict[str, tuple[str, Any, str]] = {
    "group": ("transfr", {}, "transfr: no such group; did you mean 'transfer'?"),
    "group of params.yaml alone": ("tasks", {}, "tasks: no such group; choose from: backbone, evaluate"),
    "no settings": ("transfer", None, "transfer: expected a group of settings, found NoneType"),
    "key": ("transfer.sead", 1, "unknown key 'transfer.sead'; did you mean 'seeds'?"),
    "value": (
        "backbone.size",
        "huge",
        "key 'backbone.size' is 'huge': Input should be 'nano', 'tiny', 'mini' or 'small'",
    ),
    "key of a training": (
        "transfer.training.epoch",
        1,
        "unknown key 'transfer.training.epoch'; did you mean 'epochs'?",
    ),
    "task": ("per_target.cbb", {}, "per_target.cbb: there is no such task; did you mean 'cb'?"),
    "value of a task": ("per_source", {"squad": {"rank": "x"}}, "per_source.squad: key 'rank' is 'x'"),
    "method": ("transfer.methods", ["pmet"], "key 'transfer.methods.0' is 'pmet', which `methods` does not define"),
    "method of a task": ("per_target.cb", {"methods": ["pmet"]}, "key 'per_target.cb.methods.0' is 'pmet'"),
    "setting of a method": ("methods", {"pemt": {"gaet": 1}}, "methods.pemt: unknown key 'gaet'; did you mean 'gate'?"),
    "source of a method": ("methods", {"pemt": {"without": ["mnil"]}}, "methods.pemt: without names 'mnil'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_settings_are_refused_with_key_and_expected_value(name: str) -> None:
    change, expected = REFUSED[name]
    with pytest.raises(SettingsError) as caught:
        parsed(change)
    message = str(caught.value)
    assert message.startswith("params.yaml")
    for part in expected:
        assert part in message, message
    assert "\n" not in message


@pytest.mark.parametrize("name", OF_A_RECIPE)
def test_an_error_in_the_chosen_recipe_is_named_with_its_file(name: str) -> None:
    path, value, expected = OF_A_RECIPE[name]
    change = put(f"recipes.paper.{path}", value)
    parsed(change)
    with pytest.raises(SettingsError, match=rf"recipes/paper\.yaml: {re.escape(expected)}"):
        parsed(put("recipe", "paper"), change)


def test_a_shared_setting_is_named_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(put("training.batch_size", 0))
    assert str(caught.value).count("batch_size") == 1


def test_a_misspelt_key_is_reported_as_missing_and_as_unknown() -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(remove("evaluate.batch_size"), put("evaluate.batch_sise", 4))
    assert "key 'evaluate.batch_size' is missing; is 'batch_sise' a misspelling of it?" in str(caught.value)
    assert "unknown key 'evaluate.batch_sise'; did you mean 'batch_size'?" in str(caught.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(put("evaluate.batch_size", 0), put("report.layer_groups", "three"), remove("prepare.source"))
    assert all(key in str(caught.value) for key in ("evaluate.batch_size", "report.layer_groups", "prepare.source"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [1, 2", "not readable as YAML"),
        ("a: 1\na: 2\n", "not readable as YAML"),
        ("- a\n", "expected groups of settings, found list"),
        ("# nothing", "key 'recipe' is missing; key 'tasks' is missing"),
        ("recipes: {}", "unknown key 'recipes'; a recipe is a file"),
    ],
    ids=["half", "a key twice", "a list", "comments alone", "recipes"],
)
def test_an_invalid_settings_file_is_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=re.escape(str(path))) as caught:
        load_settings(path)
    assert expected in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: no such file"):
        load_settings(tmp_path / "nowhere.yaml")


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    """In YAML 1.2 as DVC reads it, `on` and `1e-3` without a point are strings, not a flag and a number."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().replace("on_unreachable: stop", "on_unreachable: on"))
    (tmp_path / "recipes").symlink_to(PARAMS.parent / "recipes")
    with pytest.raises(SettingsError, match=r"tracking\.on_unreachable' is 'on'"):
        load_settings(path)


def test_recipe_groups_are_a_subset_of_the_settings() -> None:
    assert set(RECIPE_GROUPS) < set(Settings.model_fields)


# --- bounds

NINE = ",".join(["*x{0}"] * 10)
BOMB = "[&x0 [a, a, a], " + ", ".join(f"&x{n} [{NINE.format(n - 1)}]" for n in range(1, 12)) + "]"
MERGES = "{x0: &x0 {a: 1}, " + ", ".join(f"x{n}: &x{n} {{<<: [{NINE.format(n - 1)}]}}" for n in range(1, 12)) + "}"

OUT_OF_BOUNDS: dict[str, tuple[str, str, list[str]]] = {  # a text of params.yaml, its replacement, parts of the error
    "aliases of aliases": ("split_seed: 42", f"split_seed: {BOMB}", ["line 18", "more than 100,000 values"]),
    "merges of merges": ("split_seed: 42", f"split_seed: {MERGES}", ["line 18", "more than 100,000 values"]),
    "a value in itself": ("split_seed: 42", "split_seed: &x [*x]", ["line 18", "an alias of this value is within it"]),
    "an impossible date": ("experiment: pemt", "experiment: 2001-13-45", ["column", "2001-13-45 is a date", "quotes"]),
    "a date": ("experiment: pemt", "experiment: 2001-12-14", ["2001-12-14 is a date in YAML"]),
    "a number as a key": ("split_seed: 42", "5: 42", ["line 18, column 3", "the key 5 is of the type int"]),
    "null as a key": ("per_target: {}", "per_target: {null: {}}", ["the key null is of the type null"]),
    "a list as a key": ("per_target: {}", "per_target: {[a]: {}}", ["a group or list as a key"]),
    "deep lists": ("split_seed: 42", "split_seed: " + "[" * 9999, ["line 18", "nested too deeply", "at most 50"]),
    "deep groups": ("split_seed: 42", "split_seed: " + "{a: " * 9999, ["nested too deeply"]),
    "many digits": ("split_seed: 42", "split_seed: " + "9" * 5000, ["line 18", "not readable as int"]),
    "a seed of 2^64": ("split_seed: 42", f"split_seed: {2**64}", ["'prepare.split_seed' is 18446744073709551616"]),
    "a seed of 2^63": ("split_seed: 42", f"split_seed: {2**63}", ["'prepare.split_seed' is", "18 digits"]),
    "a long length": ("  length: 96", "  length: 100000000000000000000", ["'backbone.length' is 1000000000000"]),
    "a count of 2^31": ("batch_size: 32", f"batch_size: {2**31}", ["'training.batch_size'", "2147483647"]),
    "a rank beyond any T5": ("rank: 32", "rank: 65537", ["'train_source.rank' is 65537", "65536"]),
    "a rate beyond float32": ("alpha: 128", "alpha: 1.0e+39", ["'train_source.alpha' is 1e+39"]),
    "infinity": ("sparsity_coefficient: 0.1", "sparsity_coefficient: .inf", ["sparsity_coefficient' is inf", "finite"]),
    "no number": ("dropout: 0.0", "dropout: .nan", ["'backbone.dropout' is nan", "finite"]),
    "an overflow": ("mean_span_length: 3.0", "mean_span_length: 1.0e+999", ["mean_span_length' is inf"]),
    "a set": ("per_target: {}", "per_target: !!set {a}", ["the type 'set' has no place in settings"]),
    "an object": ("experiment: pemt", "experiment: !!python/object:os.system x", ["python/object:os.system"]),
    "a wrong tag": ("split_seed: 42", "split_seed: !!bool x", ["line 18", "'x' is not readable as bool"]),
    "half a surrogate": ("experiment: pemt", r'experiment: "\ud800"', ["'tracking.experiment'", "surrogates"]),
    "NUL": ("experiment: pemt", r'experiment: "\0"', ["'tracking.experiment'", "NUL"]),
    "a character that does not exist": (
        "experiment: pemt",
        r'experiment: "\UFFFFFFFF"',
        ["as YAML: line"],
    ),
    "a long text": ("experiment: pemt", f"experiment: {'a' * 70_000}", ["'tracking.experiment'", "65,536 characters"]),
    "a long key": (
        "per_target: {}",
        f"per_target: {{{'a' * 300}: {{}}}}",
        ["has the key 'aaa", "200 characters"],
    ),
    "a long recipe": ("recipe: demo", f"recipe: {'a' * 30_000}", ["there is no recipes/aaaa", "(30,000 characters)"]),
    "many unknown keys": (
        "per_target: {}",
        "".join(f"k{number}: 1\n" for number in range(9000)),
        ["unknown key 'k0'", "and 8,991 more problems"],
    ),
    "a large file": ("per_target: {}", "per_target: {} #" + "x" * 2**17, ["more than 131,072 bytes"]),
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_settings_out_of_bounds_are_refused_in_a_line_at_once(tmp_path: Path, name: str) -> None:
    old, new, expected = OUT_OF_BOUNDS[name]
    path = tmp_path / "params.yaml"
    text = PARAMS.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    (tmp_path / "recipes").symlink_to(PARAMS.parent / "recipes")
    begin = time.perf_counter()
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert time.perf_counter() - begin < 10  # most take milliseconds
    message = str(caught.value)
    assert str(path) in message
    assert all(part in message for part in expected), message
    assert "\n" not in message
    assert len(message) < 3000


def test_params_changed_at_random_load_or_end_in_a_line(tmp_path: Path) -> None:
    """Also what loads becomes JSON, which a run on a cluster is given."""
    pieces = ["[", "]", "{", "}", ":", "- ", "&x ", "*x", "<<: *x", "!!set ", "2001-13-45", "~", "5: 1", "'", '"', "|"]
    pieces += ["? ", "%", "@", "\t", "\n", "9" * 5000, "\x00", "\ufeff", r'"\ud800"', "1e999", "0x" + "F" * 40]
    text, generator = PARAMS.read_text(), random.Random(7)
    (tmp_path / "recipes").symlink_to(PARAMS.parent / "recipes")
    path, errors = tmp_path / "params.yaml", []
    for _ in range(80):
        begin, end = sorted(generator.choices(range(len(text)), k=2))
        cut = min(end - begin, generator.randrange(12))
        path.write_text(text[:begin] + generator.choice(pieces) + text[begin + cut :])
        try:
            values = read_params(path)
            parse_settings(values, str(path))
            json.dumps(values, allow_nan=False).encode()
        except SettingsError as error:
            errors.append(str(error))
    assert 0 < len(errors) < 80
    assert not any("\n" in error for error in errors)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 99_999, "nested too deeply"),
        ('{"a":' * 60 + "1" + "}" * 60, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "not readable as JSON"),
        (f'{{"a": {2**63}}}', "key 'a' is 9223372036854775808: expected a number of at most 18 digits"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": -Infinity}', "-Infinity is no number of JSON"),
        ('{"a": 1e999}', "key 'a' is inf: expected a finite number"),
        ('{"a": {"b": 1, "b": 2}}', "the key 'b' occurs twice"),
        (r'{"a": "\ud800"}', "surrogates"),
        (r'{"\u0000": 1}', "NUL"),
        ("[]", "found list"),
    ],
    ids=range(11),
)
def test_json_out_of_bounds_is_refused_in_a_line(text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=f"settings: .*{re.escape(expected)}") as caught:
        parse_object(text, "settings")
    assert len(str(caught.value)) < 500


def test_words_of_a_command_line_are_utf_8() -> None:
    check_words(["t.csv", "--description", "café", "--labels", "a", "b"])
    for words, expected in (
        (["--labels", "a", "caf\udce9"], r"'caf\\udce9' after --labels is not UTF-8 text \(character 4\)"),
        (["--labels", "a", "--description=\udce9"], r"the argument '--description=\\udce9' is not"),
        (["\udce9.csv"], r"the argument '\\udce9.csv' is not"),
    ):
        with pytest.raises(SettingsError, match=expected):
            check_words(words)


def test_large_numbers_of_json_stay_what_they_are() -> None:
    assert parse_object('{"a": 1e30, "b": 7.0, "c": 9007199254740993}', "x") == {"a": 1e30, "b": 7, "c": 2**53 + 1}


def test_the_largest_seed_is_accepted_by_what_draws() -> None:
    seed = 2**63 - 1
    assert parsed(put("recipes.demo.transfer", {"seeds": [seed]})).transfer.seeds == [seed]
    torch.Generator().manual_seed(seed)
    np.random.default_rng([seed, 1])
    np.random.SeedSequence([seed, 1])


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes("# é\nrecipe: demo\n".encode(encoding))
    with pytest.raises(SettingsError, match=r"not text in UTF-8 \(byte 0x\w\w at position \d\); save it as UTF-8"):
        read_params(path)


def test_hidden_files_are_no_recipes(tmp_path: Path) -> None:
    """An editor's lock is a link to nothing."""
    (tmp_path / "params.yaml").write_text("recipe: a\n")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / ".#a.yaml").symlink_to("user@host.1")
    assert read_params(tmp_path / "params.yaml") == {"recipe": "a", "recipes": {}}


@pytest.mark.parametrize(
    "value",
    [10**5000, "a" * 10**6, [["x" * 500] * 9] * 10**5, {"a": 2**40}, float("nan"), None],
    ids=["digits", "text", "lists", "group", "NaN", "None"],
)
def test_values_are_shown_shortly(value: Any) -> None:
    assert 0 < len(shown(value)) < 250


@pytest.mark.parametrize(("name", "choice"), [("CB", "cb"), ("pemt", "PEMT"), ("GOOGLE-T5", "google_t5")])
def test_the_nearest_name_may_be_of_another_case(name: str, choice: str) -> None:
    assert nearest(name, ["rte", choice, "wsc"]) == f"did you mean '{choice}'?"
    assert nearest("cola", ["COLA", "cola2"]) == "did you mean 'cola2'?"


def test_names_of_any_type_and_length_have_a_nearest() -> None:
    assert nearest(5, [1, None, "five"]).startswith("choose from: 1, None, five")
    assert len(nearest("a" * 10**6, ["a" * 10**6 + "b"] * 1000)) < 10_000


ALIKE = {
    "normal form": ("cafe\u0301", "caf\u00e9", r"did you mean 'caf\xe9'? It looks the same, but 'cafe\u0301' has"),
    "the other form": ("\uac00", "\u1100\u1161", r"did you mean '\u1100\u1161'? It looks the same, but '\uac00' has"),
    "no width": ("label", "label\u200b", r"did you mean 'label\u200b'? It looks the same, but 'label' has"),
    "a variation": ("\u2764", "\u2764\ufe0f", "did you mean '\u2764\\ufe0f'? It looks the same, but '\u2764' has"),
    "a blank": ("a b", "a\u00a0b", r"did you mean 'a\xa0b'? It looks the same, but 'a b' has"),
    "a Cyrillic letter": ("\u0441at", "cat", r"did you mean 'cat'? It looks the same, but '\u0441at' has"),
}


@pytest.mark.parametrize("case", ALIKE)
def test_names_that_look_alike_are_told_apart(case: str) -> None:
    name, choice, expected = ALIKE[case]
    others = [choice[:-1], "b", name + "s"]
    assert nearest(name, [*others, choice]) == f"{expected} other characters"
    assert nearest(choice, [*others, name]).startswith("did you mean ")
    assert nearest(name, others).count("looks the same") == 0


def test_texts_that_look_different_are_shown_as_they_are() -> None:
    assert nearest("area m\u00b2", ["area m2"]) == "did you mean 'area m2'?"
    assert nearest("body", [" body"]) == "did you mean ' body'?"


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a" * 600, "a/b", "a:b"])
def test_the_experiment_can_name_models(name: str) -> None:
    with pytest.raises(SettingsError, match=r"tracking\.experiment"):
        parse_settings(merged(VALUES, {"tracking": {"experiment": name}}), "params.yaml")
    if name in ("a/b", "a:b"):  # as experiments in a workspace of Databricks
        parse_settings(merged(VALUES, {"tracking": {"experiment": name}, "models": {"enabled": False}}), "params.yaml")


@pytest.mark.parametrize(
    ("params", "key"),
    [("x", "params"), ({"recipes": "x"}, r"params\.recipes"), ({"recipes": {"demo": []}}, r"params\.recipes\.demo")],
)
def test_a_run_of_other_groups_is_refused(params: Any, key: str) -> None:
    with pytest.raises(SettingsError, match=f"key '{key}' is .*: expected a group of settings"):
        parse_run(json.dumps({"params": params, "choices": {}}))


@pytest.mark.parametrize("given", ['x{"code": "' + "a" * 5_000 + '"}', "a\0b", "\udc80"])
def test_settings_of_a_step_that_are_no_file_are_refused(given: str) -> None:
    with pytest.raises(SettingsError):
        read_step(Evaluate, given, "evaluate")
