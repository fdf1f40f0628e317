"""params.yaml, the only home of numbers, as typed values."""

from pemt_core.settings.groups import (
    EMBEDDED,
    HUB,
    BackboneSettings,
    EvaluateSettings,
    ImportedSource,
    KubeflowSettings,
    ModelSettings,
    PrepareSettings,
    ReportSettings,
    Resources,
    TokenizerSettings,
    TrackingSettings,
    TrainSourceSettings,
    TransferSettings,
)
from pemt_core.settings.load import RECIPE_GROUPS, Choices, load_settings, parse_run, parse_settings, read_params
from pemt_core.settings.settings import Settings

__all__ = [
    "EMBEDDED",
    "HUB",
    "RECIPE_GROUPS",
    "BackboneSettings",
    "Choices",
    "EvaluateSettings",
    "ImportedSource",
    "KubeflowSettings",
    "ModelSettings",
    "PrepareSettings",
    "ReportSettings",
    "Resources",
    "Settings",
    "TokenizerSettings",
    "TrackingSettings",
    "TrainSourceSettings",
    "TransferSettings",
    "load_settings",
    "parse_run",
    "parse_settings",
    "read_params",
]
