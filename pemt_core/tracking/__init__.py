"""Runs in MLflow, in an embedded sqlite store or on a tracking server. Only `store` and `models` import mlflow."""

from pemt_core.tracking.address import TrackingError
from pemt_core.tracking.tracker import (
    ARTIFACT,
    CELL,
    ERROR,
    KEY,
    PLAN,
    RESULT,
    LiveRun,
    RunRecord,
    Tracker,
    connect,
)

__all__ = [
    "ARTIFACT",
    "CELL",
    "ERROR",
    "KEY",
    "PLAN",
    "RESULT",
    "LiveRun",
    "RunRecord",
    "Tracker",
    "TrackingError",
    "connect",
]
