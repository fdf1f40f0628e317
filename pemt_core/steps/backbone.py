"""backbone: fetch, convert or pretrain the model that everything is attached to."""

from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import sha256_of_file
from pemt_core.artifacts.run_info import RunInfo
from pemt_core.backbone.adopt import adopt
from pemt_core.backbone.checkpoint import fetch_backbone
from pemt_core.backbone.store import save_backbone
from pemt_core.backbone.tokenizer import load_tokenizer, tokenizer_content
from pemt_core.pretraining.scratch import Pretraining, new_model, read_corpus, validation_loss
from pemt_core.provenance.code import code_hash
from pemt_core.settings import BackboneSettings
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import CheckpointStore
from pemt_core.training.course import Course
from pemt_core.training.lock import training_locks
from pemt_core.training.loop import Trainer
from pemt_core.training.run import OpenRun, run_of


def make_backbone(
    settings: BackboneSettings,
    *,
    tokenizer_dir: Path,
    corpus_path: Path,
    output_dir: Path,
    checkpoint_dir: Path,
    open_run: OpenRun,
) -> dict[str, Any]:
    """Write the backbone's folder. Returns facts for its provenance: fingerprint, and origin or losses."""
    tokenizer = load_tokenizer(str(tokenizer_dir))
    if settings.kind != "scratch":
        model, origin = fetch_backbone(settings, tokenizer)
        return {"fingerprint": save_backbone(output_dir, model, tokenizer), **origin}
    training, validation = read_corpus(corpus_path, tokenizer, settings)
    model = new_model(settings, tokenizer)
    adopt(model, tokenizer, settings.layout)
    accelerator = make_accelerator(settings.training.precision)
    inputs = {
        "step": "backbone",
        "settings": settings.model_dump(),
        "corpus": sha256_of_file(corpus_path),
        "tokenizer": tokenizer_content(tokenizer),
        "code": code_hash(__name__),
    }
    pretraining = Pretraining(model, settings.text_weight)
    store = CheckpointStore(checkpoint_dir, inputs)
    info = RunInfo("backbone", f"backbone {settings.size}", {"pemt.step": "backbone"}, {"settings": inputs["settings"]})
    is_main = accelerator.is_main_process
    with training_locks([store.path.parent], is_main), run_of(info, open_run, is_main) as run:
        course = Course(
            pretraining.trained,
            training,
            lambda: validation_loss(pretraining, validation, accelerator.device),
            settings.training,
            accelerator,
            store,
            learning_rate=settings.training.learning_rate,
            seed=settings.seed,
            log=run.log,
            flush=run.flush,
            title="backbone",
        )
        state = Trainer(pretraining, course, learning_rate_factors=pretraining.learning_rate_factors()).fit()
        fingerprint = ""
        if is_main:
            fingerprint = save_backbone(output_dir, model.cpu().eval(), tokenizer)
            run.tag({"pemt.backbone": fingerprint})
            store.discard()
    return {"fingerprint": fingerprint, "steps": state.step, **state.best_metrics}
