"""Load a model folder by MLflow's pyfunc flavour: `mlflow models serve`, `mlflow.pyfunc.load_model`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pemt_core.errors import DataError, PemtError
from pemt_core.prediction.model_folder import load_model_folder
from pemt_core.prediction.predictor import Predictor
from pemt_core.prediction.rows import known_columns
from pemt_core.tracking.models import BACKBONE, rejected_input


class ServedModel:
    """Answers tables of rows with a list of records; `layers` of a prediction are left out."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """One record per row: task, prediction, answer, score, scores, expert_weights, truncated.

        If a row is not what its task expects, raises the exception that MLflow's server answers with status 400,
        without a trace.
        """
        try:
            predictions = self.predictor.predict(self._rows(model_input))
        except PemtError as error:
            raise rejected_input(str(error)) from error
        return [prediction.record() for prediction in predictions]

    def _rows(self, model_input: Any) -> Sequence[Any]:
        if not hasattr(model_input, "to_dict"):
            return list(model_input)
        if not len(model_input.columns):  # MLflow drops unknown columns, so nothing is left of these rows
            known = ", ".join(known_columns(target.conversion for target in self.predictor.targets.values()))
            raise DataError(f"no row has a known column; expected some of: {known}")
        rows: list[Any] = model_input.to_dict("records")
        return rows


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> ServedModel:
    """MLflow's entry point for a `loader_module`. The configuration may name another folder for the backbone."""
    folder = (model_config or {}).get(BACKBONE)
    return ServedModel(load_model_folder(Path(data_path), Path(folder) if folder else None))
