"""All settings: params.yaml with the chosen recipe merged over it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pemt_core.artifacts.cell import Cell
from pemt_core.errors import SettingsError, nearest
from pemt_core.methods import Method, method_of
from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Name
from pemt_core.schema.validation import merged, validate
from pemt_core.settings.groups import (
    BackboneSettings,
    EvaluateSettings,
    KubeflowSettings,
    ModelSettings,
    PrepareSettings,
    ReportSettings,
    TaskSettings,
    TrackingSettings,
    TransferSettings,
)
from pemt_core.settings.sources import ImportedSource, LonePromptSettings, TrainSourceGroup, TrainSourceSettings
from pemt_core.tasks.entry import OwnTask

NOT_OF_A_METHOD = (
    "methods",
    "seeds",
    "k",
    "group",
)  # keys of `transfer` that say which cells there are, and how they train

Entries = Mapping[str, Mapping[str, Any]]


class Settings(Group):
    """Every group of settings. Nothing here has a default: params.yaml is the only home of numbers."""

    recipe: str
    tasks: TaskSettings
    methods: dict[Name, dict[str, Any]]
    imported_sources: dict[Name, ImportedSource]
    own_tasks: dict[str, OwnTask]
    prepare: PrepareSettings
    backbone: BackboneSettings
    train_source: TrainSourceGroup
    transfer: TransferSettings
    per_source: dict[str, dict[str, Any]]
    per_target: dict[str, dict[str, Any]]
    evaluate: EvaluateSettings
    report: ReportSettings
    models: ModelSettings
    tracking: TrackingSettings
    kubeflow: KubeflowSettings

    @property
    def listed_own_tasks(self) -> dict[str, OwnTask]:
        """The entries of `own_tasks` that are sources or targets."""
        listed = (*self.tasks.sources, *self.tasks.targets)
        return {name: entry for name, entry in self.own_tasks.items() if name in listed}

    @property
    def sources(self) -> list[str]:
        """Every source that has an expert, in the order of the experts: trained here, then imported."""
        return [*self.tasks.sources, *self.imported_sources]

    @property
    def folders(self) -> dict[str, Path]:
        """The user's folders that steps read, by the keys that name them."""
        adapters = {f"imported_sources.{name}.adapter": Path(s.adapter) for name, s in self.imported_sources.items()}
        return adapters if self.prepare.folder is None else {"prepare.source": self.prepare.folder, **adapters}

    def train_source_for(self, task: str) -> TrainSourceSettings:
        """The adapter's settings: `train_source` with a source task's differences from `per_source`."""
        return self._source_group(task).of_adapter()

    def lone_prompt_for(self, task: str) -> LonePromptSettings:
        """The settings of a source's prompt that is trained alone, with its differences from `per_source`."""
        origin = f"per_source.{task}" if task in self.per_source else "train_source"
        return self._source_group(task).of_prompt(origin)

    @property
    def lone_prompts(self) -> list[str]:
        """The source tasks whose prompt is trained alone, because a listed method reads it.

        Raises SettingsError, naming the method, if `train_source.kinds` excludes these prompts, or if the method draws
        on an imported source, which has none.
        """
        listed = [each for target in self.tasks.targets for each in self.methods_for(target).items()]
        read = {source for name, method in listed for source in self.lone_prompts_of(name, method)}
        return [source for source in self.tasks.sources if source in read]

    def transfer_for(self, task: str) -> TransferSettings:
        """`transfer` with a target task's differences from `per_target`."""
        return _with_differences(self.transfer, self.per_target, "per_target", task)

    def methods_for(self, task: str) -> dict[str, Method]:
        """A target's methods, in the order in which they are listed.

        A method's entry takes precedence over `per_target`, and `per_target` over `transfer`. Raises SettingsError if a
        method is undefined or its entry is invalid.
        """
        transfer, key = self.transfer_for(task), ".".join(self.lists_methods_of(task))
        for place, name in enumerate(transfer.methods):
            if name not in self.methods:
                raise SettingsError(
                    f"key '{key}.{place}' is '{name}', which `methods` does not define; {nearest(name, self.methods)}"
                )
        return {name: self._method(name, transfer) for name in dict.fromkeys(transfer.methods)}

    def lists_methods_of(self, task: str) -> list[str]:
        """The parts of the key that lists a target's methods."""
        group = ["per_target", task] if "methods" in self.per_target.get(task, {}) else ["transfer"]
        return [*group, "methods"]

    def method(self, name: str) -> Method:
        """A method of the group `methods`, with the settings of `transfer` and no target's differences."""
        return self._method(name, self.transfer)

    def sources_of(self, name: str, method: Method) -> list[str]:
        """The sources that a method draws on. Raises SettingsError if its entry names an unknown one."""
        try:
            return method.draws_on(self.sources)
        except SettingsError as error:
            raise SettingsError(f"methods.{name}: {error}") from error

    def lone_prompts_of(self, name: str, method: Method) -> list[str]:
        """The sources whose prompt, trained alone, a method reads. Raises SettingsError as `lone_prompts` does."""
        sources = self.sources_of(name, method)
        if not method.needs_lone_prompts:
            return []
        reads = f"methods.{name}: reads the prompt of {{}}, trained alone"
        for source in sources:
            if source in self.imported_sources:
                raise SettingsError(f"{reads.format(source)}, which an imported source lacks; leave that source out")
            if "prompt" not in self._source_group(source).kinds:
                group = f"per_source.{source}" if "kinds" in self.per_source.get(source, {}) else "train_source"
                raise SettingsError(
                    f"{reads.format(source)}, but {group}.kinds has no prompt; set it to [adapter, prompt]"
                )
        return sources

    def _source_group(self, task: str) -> TrainSourceGroup:
        group: TrainSourceGroup = _with_differences(self.train_source, self.per_source, "per_source", task)
        return group

    def _method(self, name: str, transfer: TransferSettings) -> Method:
        shared = transfer.model_dump(exclude=set(NOT_OF_A_METHOD))
        return method_of(name, self.methods[name], shared, f"methods.{name}")


def cells_of(task: str, methods: Sequence[str], ks: Sequence[Any], seeds: Sequence[int]) -> list[Cell]:
    """Every combination once: methods, then k, then seeds, each in its order."""
    return list(dict.fromkeys(Cell(task, method, k, seed) for method in methods for k in ks for seed in seeds))


def _with_differences(settings: Any, differences: Entries, group: str, task: str) -> Any:
    if task not in differences:
        return settings
    return validate(type(settings), merged(settings.model_dump(), differences[task]), f"{group}.{task}")
