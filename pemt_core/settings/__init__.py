"""params.yaml, the only home of numbers, as typed values."""

from pemt_core.settings.groups import (
    EMBEDDED,
    HUB,
    BackboneSettings,
    EvaluateSettings,
    KubeflowSettings,
    ModelSettings,
    PrepareSettings,
    ReportSettings,
    Resources,
    TokenizerSettings,
    TrackingSettings,
    TransferSettings,
)
from pemt_core.settings.load import RECIPE_GROUPS, Choices, load_settings, parse_run, parse_settings, read_params
from pemt_core.settings.settings import Settings
from pemt_core.settings.sources import ImportedSource, LonePromptSettings, TrainSourceSettings

__all__ = [
    "EMBEDDED",
    "HUB",
    "RECIPE_GROUPS",
    "BackboneSettings",
    "Choices",
    "EvaluateSettings",
    "ImportedSource",
    "KubeflowSettings",
    "LonePromptSettings",
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
