"""Which target a row is read for while targets come and go. They need no trained model: rows are only read."""

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pemt_core.errors import DataError
from pemt_core.prediction import predictor as predictor_module
from pemt_core.prediction.predictor import Predictor
from pemt_core.serving import targets as targets_module
from pemt_core.serving.metrics import Metrics
from pemt_core.serving.requests import RECORDS
from pemt_core.serving.targets import ServedTargets, TargetState
from pemt_core.serving.wanted import Wanted
from pemt_core.tasks import get_task

JSON = "application/json"
PAIR = {"sentence1": "A river.", "sentence2": "It is red."}  # a row of mrpc and of rte


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> ServedTargets:
    """A server that was started for mrpc, and has taken rte too."""

    def tokenized(texts: Sequence[str], tokenizer: Any, most: int) -> Any:
        return SimpleNamespace(texts=texts, truncated=[False] * len(texts))

    monkeypatch.setattr(predictor_module, "TokenizedTexts", SimpleNamespace(of=tokenized))
    targets: Any = {
        name: SimpleNamespace(conversion=get_task(name).conversion, source_length=64) for name in ("mrpc", "rte")
    }
    backbone: Any = SimpleNamespace(tokenizer=None)
    loader: Any = SimpleNamespace(predictor=Predictor(backbone, targets, batch_size=4), release=lambda served: None)
    store: Any = None
    metrics = Metrics()
    found = ServedTargets(store, Wanted("pemt", "champion", ("mrpc",)), metrics)
    found._loader = loader
    found._states = {name: TargetState(name, f"pemt-{name}", 1) for name in targets}
    for name in targets:
        metrics.versions.labels(name).set(1)
    return found


def body_of(**row: str) -> bytes:
    return json.dumps({RECORDS: [row]}).encode()


def test_the_only_target_answers_no_row_that_names_another(served: ServedTargets) -> None:
    targets = served.predictor.targets
    assert [row.target for row in served.read(body_of(task="rte", **PAIR), JSON)] == [targets["rte"]]
    served.remove("rte")
    with pytest.raises(DataError, match=r"^row 0: there is no target 'rte' here; choose from: mrpc$"):
        served.read(body_of(task="rte", **PAIR), JSON)
    for row in (PAIR, {"task": "mrpc", **PAIR}):
        assert [each.target for each in served.read(body_of(**row), JSON)] == [targets["mrpc"]]


def test_rows_are_read_for_the_targets_of_one_moment(served: ServedTargets, monkeypatch: pytest.MonkeyPatch) -> None:
    """rte is removed after its row was parsed."""
    rte, rows_of = served.predictor.targets["rte"], targets_module.rows_of

    def parsed(*arguments: Any) -> Any:
        rows = rows_of(*arguments)
        served.remove("rte")
        return rows

    monkeypatch.setattr(targets_module, "rows_of", parsed)
    assert [row.target for row in served.read(body_of(task="rte", **PAIR), JSON)] == [rte]
    assert [*served.predictor.targets] == ["mrpc"]


def test_targets_are_listed_while_one_is_removed(served: ServedTargets) -> None:
    class Removing(dict[str, TargetState]):
        def __iter__(self) -> Any:
            yield from super().__iter__()
            served.remove("rte")

    served._states = Removing(served._states)
    before = served.states
    assert [state.target for state in before] == ["mrpc", "rte"]
