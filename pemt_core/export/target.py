"""Export a trained cell as a folder of transformers, with the measured loss of agreement.

config.json, model.safetensors, the tokenizer   the backbone with the mean gates and the layer norms in its weights
prompt.safetensors                              the prompt (P, D)
adapters.safetensors                            the target adapters, if the method has them
agreement.json                                  how often its answers are the original's, and its mean gates
README.md                                       code that loads all of this
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file

from pemt_core.answering.split import EvaluationSplit, Predictions, predict
from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.description import TargetDescription, load_description
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.files import atomic_directory, check_replaceable, write_json
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import ArtifactError
from pemt_core.export.agreement import Agreement
from pemt_core.export.merging import Merged
from pemt_core.export.page import page
from pemt_core.lora.layout import CARD, PROMPT, PROMPT_TENSOR
from pemt_core.methods import stored_method
from pemt_core.methods.pemt import Pemt
from pemt_core.model.prompted import PromptedModel
from pemt_core.training.accelerator import make_accelerator

AGREEMENT, ADAPTERS = "agreement.json", "adapters.safetensors"


def export_target(
    cell_dir: Path,
    output_dir: Path,
    *,
    backbone_dir: Path,
    experts_dir: Path,
    data_dir: Path,
    split: Literal["train", "validation"],
    least_agreement: float,
    force: bool,
) -> Agreement:
    """Write the folder whole or not at all; the gates' means and the agreement are those over the rows of `split`.

    Raises ArtifactError if an input is missing, altered or of a method that cannot be merged, if `output_dir` holds
    something else, or, unless forced, if less than `least_agreement` of the rows keep their answer.
    """
    output_dir = Path(output_dir)
    check_replaceable(output_dir, AGREEMENT)
    description, _ = load_description(cell_dir, TargetDescription)
    method = _mergeable(cell_dir, description)
    prepared = PreparedTask.load(Path(data_dir) / description.task, description.task)
    backbone = load_backbone(backbone_dir)
    bank = load_experts(experts_dir, backbone)
    adapter = load_target(cell_dir, description.task, backbone, bank)
    rows = EvaluationSplit.of(
        prepared.task,
        prepared.rows(split),
        backbone.tokenizer,
        source_length=method.source_length,
        max_rows=method.training.validation_rows,
    )
    answers = _Answers(backbone, rows, adapter, method.training.batch_size)
    with restore_target(backbone.model, adapter, bank) as model:
        before = answers.of(model)
        merged = Merged.of(model, before.expert_weights, str(cell_dir))
    merged.write_into(backbone.model)
    with merged.attach_to(backbone.model) as model:
        after = answers.of(model)
    agreement = Agreement.of(split, rows, before.texts, after.texts)
    if agreement.share < least_agreement and not force:
        raise ArtifactError(
            f"{cell_dir}: with mean gates, only {agreement}; expected at least {100 * least_agreement:.1f} % of the "
            "rows, so nothing is written. Lower --least-agreement, or pass --force"
        )
    _write(output_dir, backbone, prepared, adapter, merged, agreement, before)
    return agreement


def _mergeable(cell_dir: Path, description: TargetDescription) -> Pemt:
    method = stored_method(description.settings, str(cell_dir))
    if not isinstance(method, Pemt):
        raise ArtifactError(
            f"{cell_dir}: its method is of the kind '{method.kind}': expected pemt, single or joint, whose gates, "
            "norms and prompt can be merged"
        )
    return method


@dataclass(frozen=True)
class _Answers:
    """Answers the rows of a split by the cell's rule."""

    backbone: Backbone
    rows: EvaluationSplit
    adapter: Adapter[TargetDescription]
    batch_size: int

    def of(self, model: PromptedModel) -> Predictions:
        accelerator = make_accelerator("float32")
        return predict(
            model.to(accelerator.device),
            self.rows,
            self.backbone.tokenizer,
            accelerator,
            rule=self.adapter.description.answer,
            batch_size=self.batch_size,
        )


def _write(
    output_dir: Path,
    backbone: Backbone,
    prepared: PreparedTask,
    adapter: Adapter[TargetDescription],
    merged: Merged,
    agreement: Agreement,
    before: Predictions,
) -> None:
    description = adapter.description
    found: dict[str, Any] = {
        "cell": description.cell.run.removeprefix("transfer/"),
        "artifact": adapter.content_hash,
        "backbone": description.backbone,
        **asdict(agreement),
        "sources": description.sources,
        "gates": {name: weights.tolist() for name, weights in before.expert_weights.items()},
    }
    adapters = merged.adapters_by_module(backbone.model)
    with atomic_directory(output_dir) as temporary:
        backbone.model.save_pretrained(temporary)
        backbone.tokenizer.save_pretrained(temporary)
        save_file({PROMPT_TENSOR: merged.prompt.float().cpu().contiguous()}, temporary / PROMPT)
        if adapters:
            save_file(adapters, temporary / ADAPTERS)
        write_json(temporary / AGREEMENT, found)
        text = page(output_dir, backbone, prepared.task, description, agreement, ADAPTERS if adapters else None)
        (temporary / CARD).write_text(text, encoding="utf-8")
        check_replaceable(output_dir, AGREEMENT, [*os.listdir(temporary), ADAPTERS])
