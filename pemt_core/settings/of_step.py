"""What one step reads of the settings, as one JSON text: how a container is told, and what its result is cached by.

It holds groups of params.yaml, or one key of a group, with recipe and per-task differences laid in, and nothing else,
so that a change of what the step does not read leaves the text as it is.
"""

import json
from typing import Any

from pydantic import create_model

from pemt_core.schema.group import Group
from pemt_core.schema.validation import parse_object, validate
from pemt_core.settings.groups import Settings

GROUPS_OF_STEP = {  # a whole group, or one key of it
    "prepare": ("tasks", "own_tasks", "prepare", "backbone"),
    "backbone": ("backbone", "tracking"),
    "train_source": ("train_source", "per_source", "evaluate.answer", "tracking"),
    "collect_experts": ("tasks", "imported_sources"),
    "transfer": ("transfer", "per_target", "evaluate.answer", "tracking"),
    "evaluate": ("evaluate", "models", "own_tasks", "tracking"),
}


def settings_text(settings: Settings, step: str, **groups: Any) -> str:
    """The groups that `step` reads, `groups` in place of those of `settings`; equal values give equal texts.

    Keys stay in their order, which is that of the experts.
    """
    values = {}
    for name, key in _read_by(step):
        group = groups.get(name, getattr(settings, name))
        values[name] = {key: getattr(group, key)} if key else group
    return json.dumps(values, default=Group.model_dump, ensure_ascii=False, separators=(",", ":"))


def parse_step_settings(step: str, text: str) -> Settings:
    """Settings with the groups that `step` reads; it has no others. SettingsError as `load_settings`."""
    origin = f"the settings of {step}"
    values = parse_object(text, origin)
    fields: dict[str, Any] = {}
    for name, key in _read_by(step):
        group: Any = Settings.model_fields[name].annotation
        part: Any = {key: (group.model_fields[key].annotation, ...)} if key else {}
        fields[name] = (create_model(group.__name__, __base__=Group, **part) if key else group, ...)
    groups = validate(create_model("StepSettings", __base__=Group, **fields), values, origin)
    return Settings.model_construct(**{name: getattr(groups, name) for name in fields})


def _read_by(step: str) -> list[tuple[str, str]]:
    """The groups that `step` reads, each with the one key that it reads of it; "" for the whole group."""
    return [(name.partition(".")[0], name.partition(".")[2]) for name in GROUPS_OF_STEP[step]]
