"""params.yaml as typed values, the only home of numbers, and what one step reads of it as one JSON text."""

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
    SelectBy,
    Settings,
    TrainingSettings,
    TrainSourceSettings,
    TransferSettings,
)
from pemt_core.settings.load import RECIPE_GROUPS, Choices, load_settings, parse_settings, read_params
from pemt_core.settings.of_step import GROUPS_OF_STEP, parse_step_settings, settings_text
from pemt_core.settings.own_tasks import OwnTask

__all__ = [
    "EMBEDDED",
    "GROUPS_OF_STEP",
    "HUB",
    "RECIPE_GROUPS",
    "BackboneSettings",
    "Choices",
    "EvaluateSettings",
    "ImportedSource",
    "KubeflowSettings",
    "ModelSettings",
    "OwnTask",
    "PrepareSettings",
    "ReportSettings",
    "Resources",
    "SelectBy",
    "Settings",
    "TrainSourceSettings",
    "TrainingSettings",
    "TransferSettings",
    "load_settings",
    "parse_settings",
    "parse_step_settings",
    "read_params",
    "settings_text",
]
