"""The test answers of every cell, read back from its predictions and the prepared rows that they answer."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.compared import Compared
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import ArtifactError
from pemt_core.metrics import Scored

PREDICTIONS = "predictions.jsonl"


def read_answers(compared: Compared) -> Iterator[tuple[CellResult, Scored]]:
    """Pair every result with its answers; references and groups come from the prepared test rows.

    Raises ArtifactError if predictions are missing, unreadable, or answer other rows than the prepared ones.
    """
    rows_of = cache(lambda target: _TestRows.of(compared.data_dir / target, target))
    for result in compared.results:
        path = compared.scores[result.cell] / PREDICTIONS
        yield result, rows_of(result.task).scored(path, result.test_rows)


def read_clusters(compared: Compared) -> dict[str, list[str]]:
    """What the bootstrap draws together, for each target's test rows: those of a question of MultiRC or of a passage
    in SQuAD's form, and otherwise single rows.

    Raises ArtifactError if the prepared rows are missing or unreadable.
    """
    num_rows = {result.task: result.test_rows for result in compared.results}
    return {
        target: PreparedTask.load(compared.data_dir / target, target).rows("test")["cluster"][:count].to_pylist()
        for target, count in num_rows.items()
    }


class _TestRows:
    """The prepared test rows of one target; runs of the same number of rows share lists."""

    def __init__(self, prepared: PreparedTask) -> None:
        self.task = prepared.task
        self.columns: dict[str, list[Any]] = prepared.rows("test").select(["id", "group", "references"]).to_pydict()
        self.words = {shown: word for word, shown in (self.task.shown or {}).items()}
        self.first = cache(self._first)

    @classmethod
    def of(cls, folder: Path, target: str) -> "_TestRows":
        return cls(PreparedTask.load(folder, target))

    def scored(self, path: Path, num_rows: int) -> Scored:
        """The answers in a file of predictions, as the words that the model writes."""
        rows = _read(path)
        columns = self.first(num_rows)
        if [row["id"] for row in rows] != columns["id"]:
            raise ArtifactError(f"{path}: answers other test rows than the prepared ones; evaluate again")
        texts = [self.words.get(row["prediction"], row["prediction"]) for row in rows]
        return Scored(texts, columns["references"], columns["group"], self.task.labels)

    def _first(self, num_rows: int) -> Mapping[str, list[Any]]:
        return {name: values[:num_rows] for name, values in self.columns.items()}


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return [{"id": row["id"], "prediction": row["prediction"]} for row in rows]
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; the evaluate step has not scored this cell") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not the predictions of a cell ({error}); evaluate again") from error
