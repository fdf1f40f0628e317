"""The bodies of requests and answers, as /openapi.json describes them."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pemt_core.prediction.rows import TASK, TEXT
from pemt_core.prediction.trained import TrainedTarget
from pemt_core.serving.requests import CSV, JSON, RECORDS, SPLIT
from pemt_core.tasks.pairs import Kind


class Answer(BaseModel):
    """The answer to one row."""

    task: str = Field(description="the target that answered")
    prediction: str
    answer: Literal["generate", "score"] = Field(description="the rule that the prediction follows")
    score: float = Field(description="the probability of the prediction")
    scores: dict[str, float] | None = Field(description="of every label; null for free text")
    expert_weights: dict[str, float] = Field(description="the mean over all layers, by source; empty without experts")
    truncated: bool = Field(description="the text was longer than in training, and was cut")


class Answers(BaseModel):
    """The answers to all rows, in their order."""

    predictions: list[Answer]


class Problem(BaseModel):
    """Why there is no answer, as MLflow writes it."""

    error_code: str
    message: str


class Target(BaseModel):
    """A target as the server has it."""

    target: str
    model: str
    version: int | None = Field(description="the version that answers; null if none could be loaded")
    run: str | None = Field(description="the run that trained it")
    follows_alias: bool = Field(description="whether the version changes with the alias in the registry")
    error: str | None = Field(description="why the last change failed; the version before it stays")


class Targets(BaseModel):
    """All targets."""

    targets: list[Target]


class Readiness(BaseModel):
    """Whether the server answers rows."""

    ready: bool
    message: str


class WantedVersion(BaseModel):
    """The version to serve from now on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int | None = Field(None, ge=1, description="null: the version that has the alias, now and later")


_KINDS: Mapping[Kind, dict[str, Any]] = {
    "text": {"type": "string"},
    "number": {"type": "integer", "minimum": 0},
    "texts": {"type": "array", "items": {"type": "string"}},
}


def request_body(targets: Mapping[str, TrainedTarget]) -> dict[str, Any]:
    """The request body of /invocations: rows of these targets in MLflow's forms."""
    rows = [schema for name, target in sorted(targets.items()) for schema in _rows(name, target, len(targets) > 1)]
    row: dict[str, Any] = {"anyOf": rows} if rows else {"type": "object"}
    listed = {"type": "array", "items": row, "minItems": 1}
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "data": {"type": "array", "items": {"type": "array", "items": {}}, "minItems": 1},
        },
    }
    forms = {RECORDS: listed, SPLIT: split, "inputs": {"anyOf": [listed, row]}, "instances": {"anyOf": [listed, row]}}
    schemas = [_object({form: schema}, [form]) for form, schema in forms.items()]
    text = {"schema": {"type": "string", "description": "the columns' names in the first line"}}
    return {"required": True, "content": {JSON: {"schema": {"oneOf": schemas}}, CSV: text}}


def _rows(name: str, target: TrainedTarget, is_named: bool) -> list[dict[str, Any]]:
    """The schemas of a target's row: the columns of its task, or the finished text."""
    task = {TASK: {"const": name}}
    kinds, inputs = target.conversion.kinds, target.conversion.inputs
    columns = {column: _KINDS[kinds.get(column, "text")] for column in inputs}
    required = [TASK] if is_named else []
    return [
        {"title": f"{name}, columns", **_object({**task, **columns}, [*required, *columns])},
        {"title": f"{name}, text", **_object({**task, TEXT: {"type": "string"}}, [*required, TEXT])},
    ]


def _object(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": required}
