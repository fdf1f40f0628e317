"""Trials of files with tensors: adapters, experts, LoRAs, training states, backbones, and prepared tasks."""

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pemt_core.artifacts.adapter import Adapter, load_adapter, save_adapter
from pemt_core.artifacts.description import SourceDescription, TargetDescription, load_training_record
from pemt_core.artifacts.experts import load_experts, save_experts
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.store import load_backbone
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.data.prepared import PreparedTask
from pemt_core.lora.config import read_config
from pemt_core.lora.reader import load_lora
from soak.ground import Ground, write_tensors
from soak.mutation import as_json, mutated_bytes, mutated_value


def _changed_tensors(tensors: Mapping[str, torch.Tensor], random: Random) -> dict[str, torch.Tensor]:
    """Change names, shapes, types or values of a few tensors."""
    changed = dict(tensors)
    for _ in range(random.randint(1, 2)):
        if not changed:
            break
        name = random.choice(list(changed))
        tensor = changed[name]
        match random.randrange(9):
            case 0:
                del changed[name]
            case 1:
                changed[random.choice(("x", f"{name}x", "encoder.99.down", "99/prompt", "é"))] = tensor
            case 2:
                kinds = (torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)
                changed[name] = tensor.to(random.choice(kinds))
            case 3:
                changed[name] = tensor.reshape(-1)
            case 4:
                changed[name] = tensor[..., :-1] if tensor.ndim else tensor[None]
            case 5:
                changed[name] = tensor[None]
            case 6:
                changed[name] = torch.zeros(random.choice(((0,), (), (0, 3), (1, 1, 1, 1))))
            case _:
                changed[name] = tensor.float().clone()
                if changed[name].numel():
                    changed[name].view(-1)[0] = random.choice((float("nan"), float("inf"), 3e38, -3e38))
    return {name: tensor.contiguous().clone() for name, tensor in changed.items()}


def adapter_tensors(ground: Ground, folder: Path, random: Random) -> None:
    """A cell whose hash is right and whose tensors are not; whatever is read must fit the model."""
    cell = ground.cell("cb", random.choice(("pemt", "control")))
    whole = load_adapter(cell, ground.backbone.fingerprint, TargetDescription)
    save_adapter(
        folder / "cell", whole.description, _changed_tensors(whole.tensors, random), load_training_record(cell)
    )
    read = load_target(folder / "cell", "cb", ground.backbone, ground.bank)
    restore_target(copy.deepcopy(ground.backbone.model), read, ground.bank)


def expert_tensors(ground: Ground, folder: Path, random: Random) -> None:
    """The same for the experts."""
    sources = [
        load_adapter(ground.folder / "adapters" / name, ground.backbone.fingerprint, SourceDescription)
        for name in ("alpha", "beta")
    ]
    place = random.randrange(2)
    sources[place] = Adapter(
        sources[place].description, _changed_tensors(sources[place].tensors, random), sources[place].content_hash
    )
    save_experts(folder / "experts", sources)
    bank = load_experts(folder / "experts", ground.backbone)
    cell = load_adapter(ground.cell("cb"), ground.backbone.fingerprint, TargetDescription)
    restore_target(copy.deepcopy(ground.backbone.model), cell, bank)


def expert_manifest(ground: Ground, folder: Path, random: Random) -> None:
    """The description of the experts alone."""
    original = (ground.folder / "experts/experts.json").read_bytes()
    changed = as_json(mutated_value(json.loads(original), random), random)
    (folder / "experts.json").write_bytes(changed if random.random() < 0.5 else mutated_bytes(original, random))
    load_experts(folder, ground.backbone)


def imported_lora(ground: Ground, folder: Path, random: Random) -> None:
    """A LoRA from elsewhere: its configuration, its tensors, or the bytes of a file."""
    shutil.copytree(ground.folder / "lora", folder / "lora")
    config, tensors = folder / "lora/adapter_config.json", folder / "lora/adapter_model.safetensors"
    match random.randrange(3):
        case 0:
            values = {
                **json.loads(config.read_text()),
                "rank_pattern": {},
                "alpha_pattern": {"wo": 1},
                "use_rslora": True,
            }
            config.write_bytes(as_json(mutated_value(values, random), random))
        case 1:
            write_tensors(tensors, _changed_tensors(load_file(tensors), random), {"format": "pt"})
        case _:
            path = random.choice((config, tensors, folder / "lora/prompt.safetensors"))
            path.write_bytes(mutated_bytes(path.read_bytes(), random))
    load_lora(folder / "lora", "x", random.choice((None, "a text")), ground.backbone)


def lora_patterns(ground: Ground, folder: Path, random: Random) -> None:
    """Patterns of ranks are regular expressions by others."""
    parts = ("wo", ".*", "(", ")", "(.*.*)*", "[", "x", "|", "+", "{9}", "\\d", "(a+)+", ".", "$", "^", "*", "decoder")
    patterns = {
        "".join(random.choices(parts, k=random.randint(1, 8))): random.choice((1, 4, 0, -1, 10**400, 1.5, True))
    }
    values = {"peft_type": "LORA", "r": random.choice((4, 10**400, 2**64)), "lora_alpha": 4, "rank_pattern": patterns}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    config = read_config(folder / "adapter_config.json")
    module = "base_model.model.decoder.block.11.layer.2.DenseReluDense.wo"
    config.shapes_of([module], folder)


def training_state(ground: Ground, folder: Path, random: Random) -> None:
    """A checkpoint with other tensors or counters, or damaged; it is read or refused."""
    shutil.copytree(ground.folder / "checkpoints", folder / "checkpoints")
    store, trained, optimizer = ground.store(folder / "checkpoints")
    if random.random() < 0.6:
        with safe_open(store.path, framework="pt") as file:
            metadata = dict(file.metadata())
        key = random.choice(list(metadata))
        if random.random() < 0.5:
            changed = as_json(mutated_value({"": _parsed(metadata[key])}, random), random)
            metadata[key] = changed[5:-1].decode("utf-8", "replace")
        write_tensors(store.path, _changed_tensors(load_file(store.path), random), metadata)
    else:
        store.path.write_bytes(mutated_bytes(store.path.read_bytes(), random))
    if random.random() < 0.5:
        store.restore(trained, optimizer)
    else:
        store.load()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# Folders


def backbone_folder(ground: Ground, folder: Path, random: Random) -> None:
    """A checkpoint in transformers' layout, from anyone."""
    shutil.copytree(ground.folder / "backbone", folder / "backbone")
    path = random.choice(sorted(path for path in (folder / "backbone").iterdir() if path.is_file()))
    if path.suffix == ".json" and random.random() < 0.6:
        path.write_bytes(as_json(mutated_value(json.loads(path.read_text()), random), random))
    elif random.random() < 0.1:
        path.unlink()
        if random.random() < 0.5:
            path.mkdir()
    else:
        path.write_bytes(mutated_bytes(path.read_bytes(), random))
    load_tokenizer(str(folder / "backbone")) if random.random() < 0.4 else load_backbone(folder / "backbone")


def prepared_task(ground: Ground, folder: Path, random: Random) -> None:
    shutil.copytree(ground.folder / "data/cb", folder / "cb")
    path = random.choice(sorted((folder / "cb").iterdir()))
    path.write_bytes(mutated_bytes(path.read_bytes(), random))
    read_prepared(folder / "cb")


def read_prepared(directory: Path) -> list[Any]:
    """Read a prepared task as the steps do, with every row."""
    prepared = PreparedTask.load(directory, directory.name)
    rows = [prepared.rows(split).to_pylist() for split in ("train", "validation", "test")]
    prepared.content_hash()
    return [prepared.task, rows]
