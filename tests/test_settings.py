"""params.yaml and how it is checked: every error names the key, the value and what would be right."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pemt_core.artifacts.cell import methods_over
from pemt_core.errors import SettingsError
from pemt_core.settings import RECIPE_GROUPS, Settings, load_settings, parse_settings, settings_text
from pemt_core.tasks import SOURCES, TARGETS

REPOSITORY = Path(__file__).parent.parent
PARAMS = REPOSITORY / "params.yaml"
VALUES: dict[str, Any] = YAML(typ="safe", pure=True).load(PARAMS)

Change = Callable[[dict[str, Any]], object]


def parsed(*changes: Change) -> Settings:
    values = copy.deepcopy(VALUES)
    for change in changes:
        change(values)
    return parse_settings(values, "params.yaml")


def put(path: str, value: Any) -> Change:
    """Set the key at a dotted path, whether it was there or not."""
    *groups, key = path.split(".")

    def change(values: dict[str, Any]) -> None:
        for group in groups:
            values = values[group]
        values[key] = value

    return change


def remove(path: str) -> Change:
    *groups, key = path.split(".")

    def change(values: dict[str, Any]) -> None:
        for group in groups:
            values = values[group]
        del values[key]

    return change


# --- the file as it stands


@pytest.mark.parametrize("recipe", VALUES["recipes"])
def test_every_recipe_of_params_yaml_loads(recipe: str) -> None:
    settings = parsed(put("recipe", recipe))
    for task in settings.tasks.sources:
        assert settings.train_source_for(task).training.batch_size > 0
    for task in settings.tasks.targets:
        assert settings.transfer_for(task).learning_rates


def test_params_yaml_is_what_load_settings_reads() -> None:
    assert load_settings(PARAMS) == parsed()


def test_the_paper_recipe_is_the_authors_script() -> None:
    """What Lin et al.'s public scripts set for T5-base, in both stages and for the tasks that differ."""
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
    """Strict loading refuses keys without a field; a field that no code reads would be as dead."""
    sources = [
        path.read_text()
        for package in ("pemt_core", "components", "pipelines")
        for path in (REPOSITORY / package).rglob("*.py")
        if path.name != "groups.py"
    ]
    code = "\n".join(sources) + (REPOSITORY / "pemt_core" / "settings" / "groups.py").read_text()
    unread = {name for name in fields_of(Settings) if not re.search(rf"\.{name}\b", code)}
    assert unread == set()


def test_every_known_task_has_its_lines() -> None:
    """So that any of the 23 tasks can be listed without an edit elsewhere."""
    assert set(VALUES["per_source"]) == set(SOURCES)
    assert set(VALUES["per_target"]) == set(TARGETS)
    for recipe in VALUES["recipes"].values():
        assert set(recipe["per_source"]) == set(SOURCES)
        assert set(recipe["per_target"]) == set(TARGETS)


# --- overlays


def test_a_recipe_lies_over_the_groups_and_a_task_over_both() -> None:
    settings = parsed(
        put("recipes.demo.transfer", {"source_length": 11, "training": {"epochs": 3}}),
        put("per_target.cb", {"training": {"batch_size": 5, "epochs": 4}}),
        put("recipes.demo.per_target.cb", {"training": {"epochs": 9}}),
    )
    assert settings.transfer_for("rte").source_length == 11
    assert settings.transfer_for("rte").training.epochs == 3
    assert settings.transfer_for("rte").training.batch_size == VALUES["transfer"]["training"]["batch_size"]
    cb = settings.transfer_for("cb")
    assert (cb.training.epochs, cb.training.batch_size, cb.source_length) == (9, 5, 11)


def test_a_task_has_methods_of_its_own() -> None:
    settings = parsed(put("per_target.cb", {"methods": ["pemt", "control", "without_mnli"]}))
    assert settings.transfer_for("cb").methods == ["pemt", "control", "without_mnli"]
    assert settings.transfer_for("rte").methods == VALUES["transfer"]["methods"]


def test_methods_follow_the_listed_sources() -> None:
    two, left_out = put("tasks.sources", ["mnli", "qqp"]), put("transfer.methods", ["without_qqp"])
    assert methods_over(["mnli", "qqp"]) == {
        "pemt": ["mnli", "qqp"],
        "control": [],
        "without_mnli": ["qqp"],
        "without_qqp": ["mnli"],
    }
    assert parsed(two, left_out).transfer.methods == ["without_qqp"]
    with pytest.raises(SettingsError, match=r"'without_sst2': no such method; did you mean 'without_qqp'"):
        parsed(two, put("transfer.methods", ["without_sst2"]))
    with pytest.raises(SettingsError, match=r"'without_qqp': no such method; choose from: control, pemt$"):
        parsed(put("tasks.sources", ["qqp"]), left_out)  # nothing would be left


OWN = {"adapter": "imported/own", "description": "Decide which colour the text names."}


def test_an_imported_source_can_be_left_out_too() -> None:
    """Experts come in the file's order, after those of tasks.sources."""
    imported, left_out = put("imported_sources", {"own": OWN, "a": OWN}), put("transfer.methods", ["without_own"])
    settings = parsed(imported, left_out, put("recipe", "study"))
    assert list(settings.imported_sources) == ["own", "a"]
    assert list(json.loads(settings_text(settings, "collect_experts"))["imported_sources"].items()) == [
        ("own", OWN),
        ("a", OWN),
    ]
    with pytest.raises(SettingsError, match=r"'without_own': no such method"):
        parsed(left_out)
    parsed(imported, left_out, put("tasks.sources", ["mnli"]))  # one of each kind is several
    with pytest.raises(SettingsError, match=r"'without_onw': no such method; did you mean 'without_own'"):
        parsed(imported, put("per_target.cb", {"methods": ["without_onw"]}))


def test_a_recipe_that_is_not_chosen_may_leave_out_sources_that_are_not_listed() -> None:
    few = put("tasks.sources", ["mnli", "squad"])
    assert parsed(few).tasks.sources == ["mnli", "squad"]
    with pytest.raises(SettingsError, match=r"per_target.cb.methods.3' is 'without_sst2': no such method"):
        parsed(few, put("recipe", "study"))
    with pytest.raises(
        SettingsError, match=r"recipe study.*'without_sst3': no such method; did you mean 'without_sst2'"
    ):
        parsed(put("recipes.study.per_target.yelp", {"methods": ["without_sst3"]}))


def test_a_list_in_a_recipe_replaces_the_list() -> None:
    settings = parsed(put("recipes.demo.transfer", {"seeds": [1, 2]}))
    assert settings.transfer.seeds == [1, 2]


def test_only_the_chosen_recipe_is_laid_over() -> None:
    changed = put("recipes.paper.transfer", {"source_length": 99})
    assert parsed(changed).transfer.source_length == VALUES["transfer"]["source_length"]
    assert parsed(changed, put("recipe", "paper")).transfer.source_length == 99


# --- what is refused

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
    "no rate": (put("transfer.learning_rates", []), ["transfer.learning_rates", "[]", "at least 1 item"]),
    "certain dropout": (put("backbone.dropout", 1.0), ["backbone.dropout", "1.0", "less than 1"]),
    "wrong word": (
        put("transfer.sparsity_positions", "some"),
        ["transfer.sparsity_positions", "'some'", "'all' or 'unpadded'"],
    ),
    "wrong k": (put("transfer.k", ["ful"]), ["transfer.k.0", "'ful'", "'full'"]),
    "null": (put("prepare.split_seed", None), ["prepare.split_seed", "None", "integer"]),
    "list for a word": (put("prepare.source", ["hub"]), ["prepare.source", "['hub']", "string"]),
    "a task twice": (put("tasks.targets", ["cb", "rte", "cb"]), ["tasks", "targets lists ['cb'] more than once"]),
    "unknown recipe": (put("recipe", "papr"), ["recipe 'papr'", "did you mean 'paper'?"]),
    "unknown step in a recipe": (
        put("recipes.demo.transfr", {}),
        ["recipes.demo.transfr", "did you mean 'transfer'?"],
    ),
    "a recipe without a step": (remove("recipes.demo.evaluate"), ["recipes.demo lacks 'evaluate'", "write `{}`"]),
    "a recipe without a task": (
        remove("recipes.paper.per_target.cb"),
        ["recipes.paper lacks 'per_target.cb'", "write `{}`"],
    ),
    "unknown key in a recipe that is not chosen": (
        put("recipes.paper.transfer.sead", 1),
        ["recipe paper", "transfer.sead", "did you mean 'seeds'?"],
    ),
    "wrong value in a recipe": (
        put("recipes.paper.backbone.size", "huge"),
        ["recipe paper", "backbone.size", "'huge'", "'tiny', 'mini' or 'small'"],
    ),
    "a source without its line": (
        remove("per_source.mnli"),
        ["params.yaml: per_source lacks 'mnli'", "write `mnli: {}`"],
    ),
    "a target without its line": (remove("per_target.wsc"), ["params.yaml: per_target lacks 'wsc'", "write `wsc: {}`"]),
    "unknown key of a task": (
        put("per_target.cb", {"training": {"epoch": 3}}),
        ["per_target.cb", "training.epoch", "did you mean 'epochs'?"],
    ),
    "unknown key of a task that is not listed": (
        put("per_target.searchqa", {"sed": 3}),
        ["per_target.searchqa", "unknown key 'sed'", "did you mean 'seeds'?"],
    ),
    "wrong value of a task in a recipe": (
        put("recipes.paper.per_source.squad", {"rank": "x"}),
        ["recipe paper", "per_source.squad", "rank", "'x'"],
    ),
    "an unknown task's line in a recipe": (
        put("recipes.paper.per_source.mnil", {}),
        ["recipes.paper.per_source.mnil", "did you mean 'mnli'?"],
    ),
    "unknown method": (
        put("transfer.methods", ["pemt", "contrl"]),
        ["key 'transfer.methods.1' is 'contrl'", "did you mean 'control'?"],
    ),
    "unknown source left out": (
        put("transfer.methods", ["without_mnil"]),
        ["key 'transfer.methods.0' is 'without_mnil'", "did you mean 'without_mnli'?"],
    ),
    "unknown source left out for one task in a recipe": (
        put("recipes.paper.per_target.cb", {"methods": ["pemt", "without_squda"]}),
        ["recipe paper", "key 'per_target.cb.methods.1' is 'without_squda'", "did you mean 'without_squad'?"],
    ),
    "an imported source with the name of a task": (
        put("imported_sources", {"mnli": OWN}),
        ["imported_sources.mnli", "a source task has this name"],
    ),
    "an imported source that is no name": (
        put("imported_sources", {"Own-1": OWN}),
        ["imported_sources.Own-1", "'Own-1'", "pattern"],
    ),
    "an imported source without a description": (
        put("imported_sources", {"own": {"adapter": "x"}}),
        ["key 'imported_sources.own.description' is missing"],
    ),
    "an imported source of an empty description": (
        put("imported_sources", {"own": {**OWN, "description": ""}}),
        ["imported_sources.own.description", "at least 1 character"],
    ),
    "an unknown task": (put("tasks.sources", ["mnli", "squda"]), ["'squda'", "did you mean 'squad'?"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_settings_are_refused_with_the_key_and_what_is_right(name: str) -> None:
    change, expected = REFUSED[name]
    with pytest.raises(SettingsError) as caught:
        parsed(change)
    message = str(caught.value)
    assert message.startswith("params.yaml")
    for part in expected:
        assert part in message, message
    assert "\n" not in message


def test_a_renamed_key_is_named_from_both_sides() -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(remove("evaluate.batch_size"), put("evaluate.batch_sise", 4))
    assert "key 'evaluate.batch_size' is missing; is 'batch_sise' meant for it?" in str(caught.value)
    assert "unknown key 'evaluate.batch_sise'; did you mean 'batch_size'?" in str(caught.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(put("evaluate.batch_size", 0), put("report.layer_groups", "three"), remove("prepare.source"))
    assert all(key in str(caught.value) for key in ("evaluate.batch_size", "report.layer_groups", "prepare.source"))


def test_a_task_that_has_no_line_is_refused_when_asked_for() -> None:
    with pytest.raises(SettingsError, match="per_target lacks 'mnli'"):
        parsed().transfer_for("mnli")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [1, 2", "not readable as YAML"),
        ("a: 1\na: 2\n", "not readable as YAML"),
        ("- a\n", "expected groups of settings, found list"),
        ("", "expected groups of settings, found NoneType"),
    ],
    ids=["half", "a key twice", "a list", "empty"],
)
def test_a_file_that_is_no_settings_is_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=re.escape(str(path))) as caught:
        load_settings(path)
    assert expected in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: no such file"):
        load_settings(tmp_path / "nowhere.yaml")


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    """YAML 1.2: `on` and `1e-3` without a point are words there, not a flag and a number."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().replace("on_unreachable: stop", "on_unreachable: on"))
    with pytest.raises(SettingsError, match=r"tracking\.on_unreachable' is 'on'"):
        load_settings(path)


def test_recipe_groups_are_groups_of_the_settings() -> None:
    assert set(RECIPE_GROUPS) < set(Settings.model_fields)
