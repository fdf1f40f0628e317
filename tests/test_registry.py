"""Registered models of a store that other programs and people use too."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from source_code import REPOSITORY

from pemt_core.errors import SettingsError
from pemt_core.schema.validation import merged
from pemt_core.serving.wanted import Wanted
from pemt_core.settings import ModelSettings, parse_settings, read_params
from pemt_core.settings.steps import Register
from pemt_core.steps import register
from pemt_core.tracking import CELL
from pemt_core.tracking.models import aliases_of, model_name, versions_of
from pemt_core.tracking.store import Store, open_store

TAGS = {"pemt.data": "d", "pemt.metric": "main", "pemt.validation": "80.0000", CELL: "transfer/cb/pemt/k=full/seed=1"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store("sqlite:///mlflow.db", "pemt", tmp_path_factory.mktemp("registry"))


def add(store: Store, name: str, **tags: str) -> int:
    """Register a version of the model `name`, with other tags than TAGS."""
    if not versions_of(store, name):
        store.client.create_registered_model(name)
    named = {f"pemt.{key}": value for key, value in tags.items()}
    return int(store.client.create_model_version(name, "/nowhere", tags={**TAGS, **named}).version)


def model(name: str, tags: Mapping[str, str] = TAGS) -> Any:
    settings = ModelSettings(enabled=True, metric="main", alias="champion", backbone="include")
    step = Register(
        targets=["cb"], own_tasks={}, methods=["pemt"], models=settings, batch_size=1, prefix="pemt", code=""
    )
    made = register._Model(name, Path("cell"), register.Folders(*[Path()] * 4), step)
    made.__dict__["tags"] = dict(tags)  # of a trained cell
    return made


def test_a_store_may_have_hundreds_of_models(store: Store) -> None:
    for number in range(120):
        store.client.create_registered_model(f"another-{number}")
    add(store, "hundreds")
    assert aliases_of(store, "hundreds") == {}


def test_scores_of_other_metrics_are_not_compared(store: Store) -> None:
    first, second = add(store, "metrics", validation="90.0000"), add(store, "metrics", metric="mean")
    assert model("metrics").crown(store).number == first
    assert model("metrics", {**TAGS, "pemt.metric": "mean"}).crown(store).number == second
    assert aliases_of(store, "metrics") == {"champion": second}


def test_a_version_with_tags_of_users_is_the_same_version(store: Store) -> None:
    add(store, "approved")
    store.client.set_model_version_tag("approved", "1", "approved", "Ann")
    model("approved").add_unless_there(store, tracker=None)  # it would look for the cell's run
    assert len(versions_of(store, "approved")) == 1


def test_the_alias_is_at_the_best_of_versions_that_are_registered_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another branch gives the alias to its better version just before this one gives it to its own."""
    give, own, later = register.set_alias, add(store, "race"), list[int]()

    def overtaken(*arguments: Any) -> None:
        if not later:
            later.append(add(store, "race", validation="99.0000"))
            assert model("race").crown(store).number == later[0]
        give(*arguments)

    monkeypatch.setattr(register, "set_alias", overtaken)
    found = model("race").crown(store).number
    assert own < found == later[0] == aliases_of(store, "race")["champion"]


def test_an_experiment_may_have_a_name_that_no_model_can_have(store: Store) -> None:
    """Such as the path of an experiment on a hosted server."""
    experiment = "/Users/ann@example.org/it's: new"
    name = model_name(experiment, "cb")
    assert (name, model_name("pemt", "cb")) == ("-Users-ann-example.org-it-s- new-cb", "pemt-cb")
    add(store, name)
    model(name).crown(store)
    for targets in ((), ("cb",)):
        assert list(Wanted(experiment, "champion", targets).versions(store)) == ["cb"]


@pytest.mark.parametrize("alias", ["latest", "v1", "v20", "v1a", "latest-one", "champion", "vv1"])
def test_aliases_that_mlflow_keeps_are_refused_before_anything_trains(store: Store, alias: str) -> None:
    name = f"alias-{alias}"
    number = add(store, name)
    try:
        store.client.set_registered_model_alias(name, alias, str(number))
        allowed = True
    except MlflowException:
        allowed = False
    with nullcontext() if allowed else pytest.raises(SettingsError, match=f"'models.alias' is '{alias}': expected"):
        parse_settings(merged(read_params(REPOSITORY / "params.yaml"), {"models": {"alias": alias}}), "params.yaml")
