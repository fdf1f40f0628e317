"""What cells of an experiment share: data, backbones, source adapters and experts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pemt_core.artifacts.files import atomic_directory, sha256_of_file, sha256_of_json
from pemt_core.backbone.description import recorded_fingerprint
from pemt_core.backbone.package import packaged_file
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.made import Stage, content_of
from pemt_core.comparison.plan import ComparisonPlan, VariantPlan
from pemt_core.comparison.source_seconds import SourceSeconds
from pemt_core.data.prepared import PreparedTask
from pemt_core.settings import BackboneSettings, TokenizerSettings
from pemt_core.settings.steps import StepSettings, as_text
from pemt_core.steps.backbone import make_backbone
from pemt_core.steps.collect_experts import collect_experts, import_experts
from pemt_core.steps.prepare import prepare, prepare_tokenizer
from pemt_core.steps.train_source import train_source
from pemt_core.tasks import get_task, known_tasks
from pemt_core.training.run import OpenRun, silent_runs


@dataclass(frozen=True)
class Shared:
    """The stages before the cells. Each method needs the folders of the stages before it."""

    plan: ComparisonPlan
    folders: Folders
    project: Path  # the folder of params.yaml, from which the paths of the user's tasks start
    checkpoints: Path

    def data(self) -> Stage:
        """The prepared tasks of all experiments."""
        settings, folder = self.plan.prepare, self.folders.data
        known = known_tasks(settings.own_tasks, self.project, settings.prepare.label_words)
        tasks = [get_task(name, known) for name in settings.tasks]
        files = {str(path): sha256_of_file(path) for path in self.plan.own_files if path.is_file()}
        return Stage(
            folder,
            self.folders.made("data"),
            _made_of(settings, {"files": files, "mirror": _listing_hash(settings.prepare.folder)}),
            lambda: prepare(tasks, settings.prepare, settings.tokenizer, joined=settings.joined, output_dir=folder),
        )

    def backbone(self, variant: VariantPlan, open_run: OpenRun) -> Stage:
        """The backbone of a variant, fetched or pretrained, with its tokenizer: that of the data if it shares one."""
        settings, own = variant.steps.backbone, variant.own_backbone
        folder, tokenizer = self.folders.backbone(own), self.folders.tokenizer(own)
        corpus = self.folders.data / "corpus.parquet"
        inputs = {
            "tokenizer": content_of(self.folders.tokenizer(None)),
            "corpus": sha256_of_file(corpus),
            "checkpoint": _checkpoint_hash(settings.backbone),
        }

        def build() -> None:
            if own is not None:
                self._make_tokenizer(settings.backbone.of_tokenizer, tokenizer)
            make_backbone(
                settings.backbone,
                tokenizer_dir=tokenizer,
                corpus_path=corpus,
                output_dir=folder,
                checkpoint_dir=self.checkpoints,
                open_run=open_run,
            )

        made = "backbone" if own is None else f"backbones/{own}"
        return Stage(folder, self.folders.made(made), _made_of(settings, inputs), build)

    def _make_tokenizer(self, settings: TokenizerSettings, folder: Path) -> None:
        with atomic_directory(folder) as temporary:
            prepare_tokenizer(self.plan.prepare.tasks, settings, self.folders.data, temporary)

    def source(self, variant: VariantPlan, name: str, open_run: OpenRun, *, progress_bar: bool = True) -> Stage:
        """The trained adapter of one source."""
        step, folder = variant.train_source[name], self.folders.sources(variant.name) / name
        data, backbone = self.folders.data / name, self.folders.backbone(variant.own_backbone)
        inputs = {"data": PreparedTask.load(data, name).content_hash(), "backbone": recorded_fingerprint(backbone)}
        made_of = _made_of(step, inputs)
        watched = SourceSeconds(self.folders.source_seconds).watched(open_run, made_of, self.checkpoints)

        def build() -> None:
            train_source(
                data,
                backbone,
                step.train_source,
                source=step.source,
                answer=step.answer,
                output_dir=folder,
                checkpoint_dir=self.checkpoints,
                open_run=watched,
                prompt=step.prompt,
                progress_bar=progress_bar,
            )

        return Stage(folder, self.folders.made(f"sources/{variant.name}/{name}"), made_of, build)

    def missing_sources(self, variant: VariantPlan) -> list[str]:
        """The sources whose adapter is still to be made."""
        return [name for name in variant.train_source if not self.source(variant, name, silent_runs).is_made()]

    def experts(self, variant: VariantPlan) -> Stage:
        """The adapters of all sources in one file, and the imported ones."""
        step, backbone = variant.collect_experts, self.folders.backbone(variant.own_backbone)
        folder = self.folders.experts(variant.name)
        adapters = [self.folders.sources(variant.name) / name for name in step.sources]
        inputs = {
            "adapters": [content_of(path) for path in adapters],
            "imported": {name: content_of(Path(each.adapter)) for name, each in step.imported_sources.items()},
            "backbone": recorded_fingerprint(backbone),
        }

        def build() -> None:
            imported = import_experts(step.imported_sources, backbone)
            collect_experts(
                adapters,
                step.sources,
                imported,
                lone_prompts=step.lone_prompts,
                backbone_dir=backbone,
                output_dir=folder,
            )

        return Stage(folder, self.folders.made(f"experts/{variant.name}"), _made_of(step, inputs), build)


def _made_of(settings: StepSettings, inputs: Mapping[str, object]) -> dict[str, object]:
    return {"settings": as_text(settings), "inputs": dict(inputs)}


def _checkpoint_hash(settings: BackboneSettings) -> str:
    """A hash of a checkpoint on this machine; empty for one on the hub, and for a backbone that is pretrained here."""
    if settings.kind == "package":
        return sha256_of_file(packaged_file(settings.name).path)
    folder = Path(settings.name)
    return content_of(folder) if settings.kind == "hub" and folder.is_dir() else ""


def _listing_hash(folder: Path | None) -> str:
    """A hash of the names, sizes and times of a mirror's files, which take long to read; empty without a mirror."""
    if folder is None:
        return ""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_of_json([[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files])
