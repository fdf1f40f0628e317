"""Check files of golden tensors: `python tests/golden.py FILE.safetensors...`, sizes from the .json beside each.

Prints, for each file, the worst error of every group as one JSON object, and exits with 1 above the bounds. The error
of a tensor is its largest difference over the reference's largest magnitude. The models are built by the same
functions that training uses.
"""

import json
import math
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from pemt_core.model.assemble import Expert, build_source_model, build_target_model
from pemt_core.model.prompted import PromptedModel

OUTPUT_BOUND = 1e-5
GRADIENT_BOUND = 5e-5

Tensors = dict[str, Tensor]


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose key starts with `prefix`, keyed without it; copies, because models train them in place."""
    return {key.removeprefix(prefix): value.clone() for key, value in tensors.items() if key.startswith(prefix)}


def error_of(value: Tensor, reference: Tensor) -> float:
    """The largest difference over the reference's largest magnitude."""
    if value.shape != reference.shape:
        raise ValueError(f"shape {tuple(value.shape)}, the reference has {tuple(reference.shape)}")
    largest = reference.abs().max().item()
    difference = (value - reference).abs().max().item()
    if math.isnan(difference):  # `max` over several errors would ignore it
        return math.inf
    return difference / largest if largest else difference


def backbone_of(tensors: Tensors, sizes: dict) -> T5ForConditionalGeneration:
    backbone = T5ForConditionalGeneration(T5Config(**{"decoder_start_token_id": 0, **sizes["t5_config"]}))
    state = under(tensors, "backbone/")
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    tied = {name for name in missing if "embed_tokens" in name or name == "lm_head.weight"}
    if unexpected or set(missing) - tied:
        raise ValueError(f"backbone: missing {sorted(set(missing) - tied)}, unexpected {unexpected}")
    backbone.tie_weights()
    return backbone.eval()


def source_model(tensors: Tensors, sizes: dict) -> PromptedModel:
    return build_source_model(
        backbone_of(tensors, sizes), under(tensors, "stage1/source/"), scale=sizes["source_scaling"]
    ).eval()


def target_model(tensors: Tensors, sizes: dict) -> PromptedModel:
    experts = [
        Expert(f"source {k}", under(tensors, f"stage2/source/{k}/"), sizes["source_scaling"])
        for k in range(sizes["num_sources"])
    ]
    return build_target_model(
        backbone_of(tensors, sizes),
        under(tensors, "stage2/target/"),
        experts,
        prompt_dropout=0.1,
        sparsity_coefficient=sizes["sparsity_coefficient"],
    ).eval()


def gradient_errors(model: PromptedModel, reference: Tensors) -> dict[str, float]:
    """The error of each trained tensor's gradient; infinite for a tensor that only one side has."""
    errors = dict.fromkeys(set(model.trained) ^ set(reference), float("inf"))
    for name in set(model.trained) & set(reference):
        gradient = model.trained[name].grad
        errors[name] = float("inf") if gradient is None else error_of(gradient, reference[name])
    return errors


def check_stage1(tensors: Tensors, sizes: dict) -> dict[str, float]:
    model = source_model(tensors, sizes)
    output = model(**under(tensors, "stage1/in/"))
    output.loss.backward()
    expected = under(tensors, "stage1/out/")
    return {
        "stage1/logits": error_of(output.logits, expected["logits"]),
        "stage1/loss": error_of(output.loss.reshape(1), expected["loss"].reshape(1)),
        "stage1/gradients": max(gradient_errors(model, under(tensors, "stage1/grad/")).values()),
    }


def check_stage2(tensors: Tensors, sizes: dict) -> dict[str, float]:
    model = target_model(tensors, sizes)
    batch, expected = under(tensors, "stage2/in/"), under(tensors, "stage2/out/")
    output = model(**batch)
    weights = dict(model.signal.expert_weights)
    output.loss.backward()
    steps = expected["greedy_ids"].shape[1] - 1
    greedy = model.generate(
        batch["input_ids"], batch["attention_mask"], max_new_tokens=steps, min_new_tokens=steps, do_sample=False
    )
    gates = under(expected, "gate/")
    losses = {"lm_loss": output.lm_loss, "sparsity_loss": output.sparsity_loss, "loss": output.loss}
    return {
        "stage2/logits": error_of(output.logits, expected["logits"]),
        **{f"stage2/{name}": error_of(v.reshape(1), expected[name].reshape(1)) for name, v in losses.items()},
        "stage2/gates": max(error_of(weights[name], gates[name]) for name in gates),
        "stage2/greedy_ids": float((greedy != expected["greedy_ids"]).sum()),
        "stage2/gradients": max(gradient_errors(model, under(tensors, "stage2/grad/")).values()),
    }


def check(path: Path) -> dict[str, float]:
    """The worst error of every group of one golden file."""
    tensors, sizes = load_file(path), json.loads(path.with_suffix(".json").read_text())
    return check_stage1(tensors, sizes) | check_stage2(tensors, sizes)


def exceeds(group: str, error: float) -> bool:
    return not error <= (GRADIENT_BOUND if group.endswith("gradients") else OUTPUT_BOUND)


def main(paths: list[str]) -> int:
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    failed = False
    for path in paths:
        errors = check(Path(path))
        failed |= any(exceeds(group, error) for group, error in errors.items())
        print(json.dumps({"file": Path(path).name, **errors}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
