"""Which sources a method draws on, and the prompts that were trained on them alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pemt_core.errors import ArtifactError, SettingsError, nearest
from pemt_core.schema.group import Group
from pemt_core.schema.names import JOINT
from pemt_core.schema.numbers import Short

if TYPE_CHECKING:
    from torch import Tensor

    from pemt_core.model.assemble import Expert


BY_VALIDATION = "validation"  # instead of a source's name: all are tried, and the best on validation is kept


class SourceChoice(Group):
    """The settings of a method that chooses among the known sources: a base class beside `Method`."""

    sources: list[Short] | None = None  # None: all but `joint`, which repeats what the others know
    without: list[Short] = Field(default_factory=list)  # sources to leave out of these

    def draws_on(self, known: Sequence[str]) -> list[str]:
        """The chosen sources in the order of `known`. Raises SettingsError if one is unknown or all are left out."""
        left = self._left(known)
        if self.without and not left:
            raise SettingsError(f"without leaves out every source: {known}; to use none, set `sources: []`")
        return left

    def _left(self, known: Sequence[str]) -> list[str]:
        for key, named in (("sources", self.sources or ()), ("without", self.without)):
            for source in named:
                if source not in known:
                    raise SettingsError(f"{key} names '{source}', which is not a source; {nearest(source, known)}")
        chosen = [each for each in known if each != JOINT] if self.sources is None else self.sources
        return [source for source in known if source in chosen and source not in self.without]


class ChosenSource(SourceChoice):
    """The setting of a method that uses one source, which validation may choose."""

    source: Short = BY_VALIDATION

    def options(self, known: Sequence[str]) -> list[Any]:
        """The method with each of the sources among which validation chooses; itself if it does not."""
        if self.source != BY_VALIDATION:
            return [self]
        return [self.model_copy(update={"source": source}) for source in self.draws_on(known)]

    def check_is_chosen(self) -> None:
        """Raise RuntimeError if the source is still to be chosen, so that there is no model to build."""
        if self.source == BY_VALIDATION:
            raise RuntimeError("the source is still to be chosen on validation: build one of the method's options")


class OneSource(ChosenSource):
    """The settings of a method that uses one source: a named one, or among `sources` the best on validation."""

    def draws_on(self, known: Sequence[str]) -> list[str]:
        """The named source, or those among which validation chooses. Raises SettingsError if there is none."""
        chosen = super().draws_on(known)
        if not chosen:
            raise SettingsError("sources is empty, but the method uses a source; name at least one")
        if self.source == BY_VALIDATION:
            return chosen
        if self.source not in chosen:
            raise SettingsError(
                f"source is '{self.source}', which is not a source that the method may use; "
                f"{nearest(self.source, [*chosen, BY_VALIDATION])}"
            )
        return [self.source]

    def about_source(self) -> str:
        """Name the source, or how it is chosen."""
        return "the source that is best on validation" if self.source == BY_VALIDATION else f"the source {self.source}"


class LonePromptChoice(SourceChoice):
    """The settings of a method that reads source prompts that were trained alone, of at least one source."""

    @property
    def needs_lone_prompts(self) -> bool:
        return True

    def draws_on(self, known: Sequence[str]) -> list[str]:
        """The chosen sources in the order of `known`. Raises SettingsError if one is unknown or there is none."""
        left = self._left(known)
        if not left:
            raise SettingsError("no source is left, but the method starts from a source's prompt; keep at least one")
        return left


def without_sources(known: Sequence[str], used: Sequence[str]) -> str:
    """The phrase in a method's explanation that names the known sources not used; empty if all are."""
    absent = [source for source in known if source not in used and source != JOINT]
    return f"without the source{'s' if len(absent) > 1 else ''} {', '.join(absent)}" if absent else ""


def lone_prompts(experts: "Sequence[Expert]") -> "list[Tensor]":
    """The prompt of every expert's source that was trained without an adapter, all of one shape (P, D).

    Raises ArtifactError, naming the sources, if prompts are missing or differ in length.
    """
    missing = [expert.task for expert in experts if expert.lone_prompt is None]
    if missing:
        raise ArtifactError(
            f"the experts have no prompt trained alone for {', '.join(missing)}; add `prompt` to `train_source.kinds`, "
            "and run train_source and collect_experts again"
        )
    prompts = [expert.lone_prompt for expert in experts if expert.lone_prompt is not None]
    lengths = {expert.task: len(prompt) for expert, prompt in zip(experts, prompts, strict=True)}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{task} {length}" for task, length in lengths.items())
        raise ArtifactError(f"the prompts trained alone differ in length ({described}); train them with one length")
    return prompts
