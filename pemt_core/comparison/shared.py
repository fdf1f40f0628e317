"""Make what all cells of an experiment share: data, backbone, source adapters and experts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pemt_core.artifacts.files import sha256_of_file, sha256_of_json
from pemt_core.backbone.store import recorded_fingerprint
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.made import content_of, make
from pemt_core.comparison.plan import ComparisonPlan, VariantPlan
from pemt_core.data.prepared import PreparedTask
from pemt_core.settings.steps import StepSettings, as_text
from pemt_core.steps.backbone import make_backbone
from pemt_core.steps.collect_experts import collect_experts, import_experts
from pemt_core.steps.prepare import prepare
from pemt_core.steps.train_source import train_source
from pemt_core.tasks import get_task, known_tasks
from pemt_core.training.run import OpenRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shared:
    """The stages before the cells; each is skipped if its folder was made of the same settings, code and inputs."""

    plan: ComparisonPlan
    folders: Folders
    project: Path  # the folder of params.yaml, from which the paths of the user's tasks start
    checkpoints: Path

    def prepare(self) -> None:
        """Prepare the tasks of all experiments."""
        settings = self.plan.prepare
        known = known_tasks(settings.own_tasks, self.project)
        tasks = [get_task(name, known) for name in settings.tasks]
        files = {str(path): sha256_of_file(path) for path in self.plan.own_files if path.is_file()}
        made = make(
            self.folders.data,
            self.folders.made("data"),
            _inputs(settings, {"files": files, "folder": _folder_hash(settings.prepare.folder)}),
            lambda: prepare(tasks, settings.prepare, settings.tokenizer, output_dir=self.folders.data),
        )
        _say(f"data: {len(tasks)} tasks", made)

    def make_backbone(self, open_run: OpenRun) -> None:
        """Fetch or pretrain the backbone."""
        settings, data = self.plan.backbone, self.folders.data
        tokenizer, corpus = data / "tokenizer", data / "corpus.parquet"
        checkpoint = Path(settings.backbone.name)
        inputs = {
            "tokenizer": content_of(tokenizer),
            "corpus": sha256_of_file(corpus),
            "checkpoint": content_of(checkpoint) if settings.backbone.kind == "hub" and checkpoint.is_dir() else "",
        }
        made = make(
            self.folders.backbone,
            self.folders.made("backbone"),
            _inputs(settings, inputs),
            lambda: make_backbone(
                settings.backbone,
                tokenizer_dir=tokenizer,
                corpus_path=corpus,
                output_dir=self.folders.backbone,
                checkpoint_dir=self.checkpoints,
                open_run=open_run,
            ),
        )
        _say("backbone", made)

    def train_sources(self, variant: VariantPlan, open_run: OpenRun) -> None:
        """Train the source adapters of a variant, and collect them with the imported ones."""
        folder, backbone, steps = self.folders.sources(variant.name), self.folders.backbone, variant.steps
        fingerprint, trained = recorded_fingerprint(backbone), []
        for name, step in steps.train_source.items():
            data = self.folders.data / name
            made = make(
                folder / name,
                self.folders.made(f"sources/{variant.name}/{name}"),
                _inputs(step, {"data": PreparedTask.load(data, name).content_hash(), "backbone": fingerprint}),
                lambda name=name, step=step, data=data: train_source(  # type: ignore[misc]
                    data,
                    backbone,
                    step.train_source,
                    source=step.source,
                    answer=step.answer,
                    output_dir=folder / name,
                    checkpoint_dir=self.checkpoints,
                    open_run=open_run,
                ),
            )
            trained += [name] if made else []
        _say(f"sources of {variant.name}: {len(trained)} of {len(steps.train_source)} trained", bool(trained))
        self._collect(variant, fingerprint)

    def _collect(self, variant: VariantPlan, fingerprint: str) -> None:
        step, backbone = variant.steps.collect_experts, self.folders.backbone
        adapters = [self.folders.sources(variant.name) / name for name in step.sources]
        imported = {name: content_of(Path(each.adapter)) for name, each in step.imported_sources.items()}
        inputs = {"adapters": [content_of(path) for path in adapters], "imported": imported, "backbone": fingerprint}
        made = make(
            self.folders.experts(variant.name),
            self.folders.made(f"experts/{variant.name}"),
            _inputs(step, inputs),
            lambda: collect_experts(
                adapters,
                step.sources,
                import_experts(step.imported_sources, backbone),
                backbone_dir=backbone,
                output_dir=self.folders.experts(variant.name),
            ),
        )
        _say(f"experts of {variant.name}", made)


def _inputs(settings: StepSettings, inputs: Mapping[str, object]) -> dict[str, object]:
    return {"settings": as_text(settings), "inputs": dict(inputs)}


def _folder_hash(folder: Path | None) -> str:
    """A hash of the names, sizes and times of a mirror's files, whose contents take long to read; empty without one."""
    if folder is None:
        return ""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_of_json([[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files])


def _say(what: str, made: bool) -> None:
    logger.info("%s: %s", what, "made" if made else "as before")
