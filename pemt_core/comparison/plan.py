"""The plan of an experiment: the settings of each step, and the cells, of each variant."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pemt_core.artifacts.cell import Cell, FewShot
from pemt_core.artifacts.files import atomic_directory
from pemt_core.comparison.agreement import check_agreement, for_data, for_sources
from pemt_core.comparison.experiments import Experiment
from pemt_core.errors import SettingsError, nearest
from pemt_core.settings import Settings
from pemt_core.settings.inputs import check_inputs
from pemt_core.settings.steps import CollectExperts, MethodNaming, Prepare, TrainSource, Transfer
from pemt_core.steps.plan import Plan, make_plan


@dataclass(frozen=True)
class Choice:
    """The part of an experiment that is run; an empty list stands for all."""

    targets: Sequence[str] = ()
    k: Sequence[FewShot] = ()
    seeds: Sequence[int] = ()


@dataclass(frozen=True)
class VariantPlan:
    """One variant: its steps, and the chosen cells of each target."""

    name: str
    settings: Settings
    steps: Plan
    own_backbone: str | None  # its name if it changes the backbone; None: it has the one that variants share
    train_source: Mapping[str, TrainSource]  # by source; for the methods of all experiments
    collect_experts: CollectExperts
    transfers: Mapping[str, Transfer]  # by target

    @property
    def cells(self) -> list[Cell]:
        return [cell for transfer in self.transfers.values() for cell in transfer.cells]


@dataclass(frozen=True)
class ComparisonPlan:
    """Everything that a run of an experiment needs."""

    experiment: Experiment
    prepare: Prepare  # of the tasks of all experiments
    variants: Sequence[VariantPlan]
    own_files: Sequence[Path]  # the user's files that are prepared
    is_whole: bool  # not a part that was chosen

    def column(self, variant: VariantPlan, method: str) -> str:
        """The name in tables of a method on a variant's source adapters."""
        return self.experiment.definition.column(method, variant.name)

    @property
    def backbones(self) -> list[VariantPlan]:
        """The first variant with each of the backbones."""
        return list({variant.own_backbone: variant for variant in reversed(self.variants)}.values())[::-1]

    @property
    def cells(self) -> list[tuple[VariantPlan, Cell]]:
        return [(variant, cell) for variant in self.variants for cell in variant.cells]

    @property
    def columns(self) -> dict[str, MethodNaming]:
        """The title and the explanation of every column, the reference first."""
        found = {}
        for variant in self.variants:
            used = {cell.method for cell in variant.cells}
            for method, naming in variant.steps.record.methods.items():
                if method in used:
                    found[self.column(variant, method)] = self._naming(variant, method, naming)
        first = self.experiment.definition.reference
        return {name: found[name] for name in sorted(found, key=lambda name: name != first)}

    def write(self, directory: Path) -> None:
        """Write the settings of every step, so that a reader can trace what a report shows, and nothing from before."""
        with atomic_directory(directory) as folder:
            for variant in self.variants:
                made = replace(
                    variant.steps,
                    prepare=self.prepare,
                    train_source=variant.train_source,
                    collect_experts=variant.collect_experts,
                    transfer=variant.transfers,
                )
                made.write(folder / variant.name)

    def _naming(self, variant: VariantPlan, method: str, naming: MethodNaming) -> MethodNaming:
        if self.column(variant, method) == method:
            return naming
        on = "source adapters" if variant.own_backbone is None else "the backbone"
        about = f"on {on} of the variant '{variant.name}'"
        return MethodNaming(
            title=f"{naming.title} ({variant.name})", about=f"{naming.about}, {about}" if naming.about else about
        )


def plan_comparison(
    experiment: Experiment, experiments: Mapping[str, Experiment], choice: Choice, folder: Path
) -> ComparisonPlan:
    """Plan an experiment; paths of the user's tasks are relative to `folder`.

    Raises SettingsError if one of `experiments` contradicts it, the experiment has no such target, k or seed, the
    reference has no cell at a k of others, or a folder or file that the settings name is not there.
    """
    check_agreement(experiment, experiments)
    shared = for_data(experiments)
    of_all = make_plan(shared, folder)
    variants = [_variant(name, experiment, experiments, choice, folder) for name in experiment.variants]
    _check_choice(experiment, choice)
    own = [folder / file for entry in shared.listed_own_tasks.values() for file in entry.files.by_split.values()]
    is_whole = not (choice.targets or choice.k or choice.seeds)
    plan = ComparisonPlan(experiment, of_all.prepare, variants, own, is_whole)
    _check_cells(plan)
    check_inputs(shared, folder)
    return plan


def _variant(
    name: str, experiment: Experiment, experiments: Mapping[str, Experiment], choice: Choice, folder: Path
) -> VariantPlan:
    settings, own = experiment.variants[name], name if experiment.definition.has_own_backbone(name) else None
    steps, before = make_plan(settings, folder), make_plan(for_sources(name, settings, experiments), folder)
    transfers = {target: _chosen(transfer, choice) for target, transfer in steps.transfer.items()}
    kept = {name: transfer for name, transfer in transfers.items() if transfer.cells and _has(choice.targets, name)}
    return VariantPlan(name, settings, steps, own, before.train_source, before.collect_experts, kept)


def _chosen(transfer: Transfer, choice: Choice) -> Transfer:
    k = [each for each in transfer.k if _has(choice.k, each)]
    seeds = [each for each in transfer.seeds if _has(choice.seeds, each)]
    return transfer.model_copy(update={"k": k, "seeds": seeds})


def _has(chosen: Sequence[object], value: object) -> bool:
    return not chosen or value in chosen


def _check_choice(experiment: Experiment, choice: Choice) -> None:
    """Raise SettingsError if a choice is none of the experiment's, of any variant and target."""
    known: dict[str, dict[str, None]] = {"targets": {}, "k": {}, "seeds": {}}
    for settings in experiment.variants.values():
        for target in settings.tasks.targets:
            cells = settings.transfer_for(target)
            known["targets"][target] = None
            known["k"] |= dict.fromkeys(map(str, cells.k))
            known["seeds"] |= dict.fromkeys(map(str, cells.seeds))
    for flag, chosen in _flags(choice):
        for value in chosen:
            if value not in known[flag]:
                raise SettingsError(
                    f"--{flag}: '{value}' is not part of {experiment.file}; {nearest(value, known[flag])}"
                )


def _check_cells(plan: ComparisonPlan) -> None:
    """Raise SettingsError if the choices leave no cell, or none of the reference at a k that is compared."""
    file, definition = plan.experiment.file, plan.experiment.definition
    found: dict[str, set[str]] = {}
    for variant, cell in plan.cells:
        found.setdefault(str(cell.k), set()).add(plan.column(variant, cell.method))
    if not found:
        raise SettingsError(f"{file}: no cell has all that --targets, --k and --seeds ask for; leave one of them out")
    lacking = [k for k, columns in found.items() if definition.reference not in columns]
    if lacking and not definition.development:
        has = ", ".join(k for k in found if k not in lacking)
        hint = f"it has k {has}" if has else "list it in `methods` of one of these targets"
        raise SettingsError(
            f"{file}: reference: '{definition.reference}' has no cell with k {', '.join(lacking)} to compare others "
            f"with; {hint}"
        )


def _flags(choice: Choice) -> Iterator[tuple[str, Iterable[str]]]:
    for flag in ("targets", "k", "seeds"):
        yield flag, map(str, getattr(choice, flag))
