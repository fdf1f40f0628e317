"""Artifacts: complete, tied to their backbone, refused if damaged, written atomically, never pickled."""

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import (
    World,
    change_record,
    random_experts,
    random_target_tensors,
    source_settings,
    tiny_batch,
    tiny_t5,
    transfer_settings,
    write_corpus,
)
from torch import Tensor

from pemt_core.artifacts.adapter import Adapter, load_adapter, save_adapter
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.description import (
    SourceDescription,
    TargetDescription,
    TrainingRecord,
    load_description,
    load_training_record,
)
from pemt_core.artifacts.experts import load_experts, save_experts
from pemt_core.artifacts.files import (
    atomic_directory,
    atomic_file,
    read_json,
    read_record,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_record,
)
from pemt_core.artifacts.source import load_source
from pemt_core.artifacts.target import holds_cell, load_target
from pemt_core.backbone.shapes import outline
from pemt_core.backbone.store import Backbone, load_backbone, save_backbone
from pemt_core.backbone.tokenizer import train_tokenizer
from pemt_core.errors import ArtifactError
from pemt_core.methods import stored_method
from pemt_core.model.assemble import build_source_model, build_target_model
from pemt_core.model.prompted import PromptedModel
from pemt_core.steps.collect_experts import collect_experts
from pemt_core.training.checkpoint import FILE

PACKAGE = Path(__file__).parent.parent / "pemt_core"
CELL = "pemt-kfull-seed4096"
RECORD = TrainingRecord(
    1e-3, {"accuracy": 50.0}, best_step=3, steps=5, history=[{"step": 3, "x": 0.1}], trained_parameters=7
)
SHARED: dict[str, Any] = {"prompt": "Decide.", "data": "d" * 64, "seed": 1, "answer": "generate"}


def description(task: str = "alpha", backbone: str = "a" * 64) -> SourceDescription:
    """The description of a source adapter."""
    return SourceDescription(task, backbone=backbone, settings=source_settings().model_dump(), scale=0.75, **SHARED)


def cell_description() -> TargetDescription:
    """The description of a target's cell."""
    settings = transfer_settings().methods["pemt"]
    hashes = {"backbone": "a" * 64, "experts": "e" * 64, "key": "k" * 64}
    return TargetDescription(
        "gamma", method="pemt", settings=settings, k=16, sources=["alpha", "beta"], **hashes, **SHARED
    )


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A source adapter's folder."""
    tensors = dict(random_experts(tiny_t5(), 1)[0].tensors)
    save_adapter(tmp_path / "adapter", description(), tensors, RECORD)
    return tmp_path / "adapter"


# --- complete


def test_a_source_adapter_comes_back_with_its_logits(world: World, tmp_path: Path) -> None:
    """The adapter is trained by the step itself and loaded onto a freshly loaded backbone."""
    world.train_source(tmp_path / "out", learning_rate=3e-2)
    backbone = load_backbone(world.folder / "backbone")
    adapter = load_adapter(tmp_path / "out", backbone.fingerprint, SourceDescription)
    scale = adapter.description.scale
    batch = tiny_batch()
    bare = backbone.model(**batch).logits
    first = build_source_model(backbone.model, adapter.tensors, scale=scale).eval()
    logits = first(**batch).logits
    save_adapter(tmp_path / "again", adapter.description, first.tensors(), RECORD)
    first.detach()
    again = load_adapter(tmp_path / "again", backbone.fingerprint, SourceDescription)
    other = load_backbone(world.folder / "backbone").model
    assert torch.equal(build_source_model(other, again.tensors, scale=scale).eval()(**batch).logits, logits)
    assert not torch.allclose(logits, bare, atol=1e-2)
    assert again.content_hash == adapter.content_hash
    assert again.description == adapter.description


def test_a_target_adapter_holds_every_trained_tensor(tmp_path: Path) -> None:
    """Prompt, gates, target adapters and layer norms: logits after loading equal those after training."""
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)

    def build(tensors: dict[str, Tensor]) -> PromptedModel:
        options: dict[str, Any] = {"prompt_dropout": 0.1, "sparsity_coefficient": 0.1}
        return build_target_model(tiny_t5(), tensors, experts, **options).eval()

    model = build(random_target_tensors(backbone, 3))
    start = model(**batch).logits
    optimizer = torch.optim.AdamW(model.trained.values(), lr=1e-2)
    for _ in range(3):
        model(**batch).loss.backward()
        optimizer.step()
    trained = model(**batch)
    save_adapter(tmp_path / "out", cell_description(), model.tensors(), RECORD)
    loaded = build(load_adapter(tmp_path / "out", "a" * 64, TargetDescription).tensors)
    again = loaded(**batch)
    assert not torch.allclose(trained.logits, start, atol=1e-2)
    assert torch.equal(again.logits, trained.logits)
    assert torch.equal(again.loss, trained.loss)
    assert torch.equal(
        *(m.generate(batch["input_ids"], batch["attention_mask"], max_new_tokens=4) for m in (model, loaded))
    )


def test_a_transfer_describes_what_it_needs(world: World, tmp_path: Path) -> None:
    world.transfer(tmp_path / "out", epochs=1, methods=["pemt", "control"], seeds=[3])
    backbone = load_backbone(world.folder / "backbone")
    bank = load_experts(world.folder / "experts", backbone)
    adapter = load_adapter(tmp_path / "out" / "pemt-kfull-seed3", backbone.fingerprint, TargetDescription)
    found = adapter.description
    assert found.cell == Cell("gamma", "pemt", "full", 3)
    assert found.sources == bank.sources == list(World.SOURCES)
    assert found.experts == bank.mixture_hash(found.sources)
    assert found.prompt == "Decide which colour the gamma text names."
    assert found.settings == transfer_settings(epochs=1).methods["pemt"]
    assert stored_method(found.settings, "").model_dump() == found.settings
    control = load_adapter(tmp_path / "out" / "control-kfull-seed3", backbone.fingerprint, TargetDescription)
    assert (control.description.sources, control.description.experts) == ([], bank.mixture_hash([]))
    assert set(adapter.tensors) - set(control.tensors) == {n for n in adapter.tensors if n.endswith("gate")}
    shapes = read_json(tmp_path / "out" / "pemt-kfull-seed3" / "adapter.json")["tensors"]["shapes"]
    assert shapes == {name: list(tensor.shape) for name, tensor in adapter.tensors.items()}
    record = load_training_record(tmp_path / "out" / "pemt-kfull-seed3")
    assert record.trained_parameters == sum(tensor.numel() for tensor in adapter.tensors.values())
    assert record.trials.keys() == {"0.01"}
    assert {path.name for path in (tmp_path / "out" / "pemt-kfull-seed3").iterdir()} == {
        "adapter.safetensors",
        "adapter.json",
        "training.json",
    }


def test_a_description_holds_no_time_host_or_commit(world: World, tmp_path: Path) -> None:
    """Two runs write the same bytes, so later steps do not look changed."""
    for name in ("a", "b"):
        world.train_source(tmp_path / name / "out", epochs=1)
    for file in ("adapter.safetensors", "adapter.json", "training.json"):
        assert (tmp_path / "a" / "out" / file).read_bytes() == (tmp_path / "b" / "out" / file).read_bytes()


# --- tied to a backbone


def test_an_adapter_for_another_backbone_names_both(stored: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_adapter(stored, "b" * 64, SourceDescription)
    for part in (str(stored), "a" * 12, "b" * 12, "use that backbone, or train again"):
        assert part in str(caught.value)


def test_a_transfer_onto_another_backbone_stops_at_the_experts(world: World, tmp_path: Path) -> None:
    """The experts' backbone is replaced by one that differs in a single weight."""
    copy = World(shutil.copytree(world.folder, tmp_path / "world"))
    backbone = load_backbone(copy.folder / "backbone")
    with torch.no_grad():
        backbone.model.shared.weight[5, 5] += 1e-3
    changed = save_backbone(copy.folder / "backbone", backbone.model, backbone.tokenizer)
    with pytest.raises(ArtifactError, match=f"{backbone.fingerprint[:12]}, but the current one is {changed[:12]}"):
        copy.transfer(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- experts


def test_experts_keep_their_order(world: World, tmp_path: Path) -> None:
    backbone = load_backbone(world.folder / "backbone")
    folders = {name: world.folder / "adapters" / name for name in World.SOURCES}
    hashes = []
    for order in (["alpha", "beta"], ["beta", "alpha"], ["beta"]):
        given = [folders[name] for name in sorted(order)]  # a loop in Kubeflow may finish in any order
        collect_experts(given, order, backbone_dir=world.folder / "backbone", output_dir=tmp_path / "experts")
        bank = load_experts(tmp_path / "experts", backbone)
        assert bank.sources == order
        for expert, name in zip(bank.experts, order, strict=True):
            adapter = load_adapter(folders[name], backbone.fingerprint, SourceDescription)
            assert expert.scale == adapter.description.scale
            assert expert.tensors.keys() == adapter.tensors.keys()
            assert all(torch.equal(tensor, adapter.tensors[key]) for key, tensor in expert.tensors.items())
        hashes.append(bank.mixture_hash(order))
    assert len(set(hashes)) == 3


def test_more_than_ten_experts_are_not_mixed_up(tmp_path: Path) -> None:
    """Keys are `<k>/<name>`: expert 1 must not take the tensors of expert 11."""
    model = tiny_t5()
    made = random_experts(model, 14)
    adapters = [Adapter(description(task=f"task{k}"), dict(made[k].tensors), f"{k}") for k in range(14)]
    save_experts(tmp_path / "experts", adapters)
    experts = load_experts(tmp_path / "experts", Backbone(model, None, "a" * 64)).experts
    for expert, whole in zip(experts, made, strict=True):
        assert expert.tensors.keys() == whole.tensors.keys()
        assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in expert.tensors.items())


def collect(world: World, output: Path, *adapter_dirs: Path) -> None:
    """Collect the adapters of both sources of the world from these folders."""
    collect_experts(adapter_dirs, World.SOURCES, backbone_dir=world.folder / "backbone", output_dir=output)


def test_experts_of_different_backbones_are_refused(world: World, stored: Path, tmp_path: Path) -> None:
    tensors = dict(random_experts(tiny_t5(), 1)[0].tensors)
    save_adapter(tmp_path / "other", description(backbone="b" * 64, task="beta"), tensors, RECORD)
    with pytest.raises(ArtifactError, match=r"other: trained on the backbone bbbbbbbbbbbb, but the current one is "):
        collect(world, tmp_path / "experts", world.folder / "adapters" / "alpha", tmp_path / "other")
    with pytest.raises(ArtifactError, match="source adapter beta"):
        save_experts(
            tmp_path / "experts",
            [
                load_adapter(stored, "a" * 64, SourceDescription),
                load_adapter(tmp_path / "other", "b" * 64, SourceDescription),
            ],
        )
    assert not (tmp_path / "experts").exists()


def test_no_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tasks\.sources must name at least one task"):
        collect_experts([], [], backbone_dir=tmp_path, output_dir=tmp_path / "experts")


def test_adapters_of_other_sources_are_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found adapters of alpha; expected those of alpha, beta"):
        collect(world, tmp_path / "experts", world.folder / "adapters" / "alpha")
    assert not (tmp_path / "experts").exists()


# --- damaged


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def replace_by_list(path: Path) -> None:
    path.write_text(json.dumps([1, 2]))


def empty_object(path: Path) -> None:
    path.write_text("{}")


def another_digit(path: Path) -> None:
    path.write_text(re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), path.read_text(), count=1))


def another_layout(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text())))


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "truncated tensors": ("safetensors", halve),
    "altered byte": ("safetensors", flip),
    "missing tensors": ("safetensors", Path.unlink),
    "half of the JSON": ("json", halve),
    "missing JSON": ("json", Path.unlink),
    "a list": ("json", replace_by_list),
    "an empty object": ("json", empty_object),
    "another digit": ("json", another_digit),
    "another layout": ("json", another_layout),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_adapter_is_named(stored: Path, damage: str) -> None:
    suffix, change = DAMAGES[damage]
    path = stored / f"adapter.{suffix}"
    change(path)
    with pytest.raises(ArtifactError, match=re.escape(str(path))):
        load_adapter(stored, "a" * 64, SourceDescription)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_experts_are_named(world: World, tmp_path: Path, damage: str) -> None:
    suffix, change = DAMAGES[damage]
    folder = shutil.copytree(world.folder / "experts", tmp_path / "experts")
    path = folder / f"experts.{suffix}"
    change(path)
    backbone = load_backbone(world.folder / "backbone")
    with pytest.raises(ArtifactError, match=re.escape(str(path))):
        load_experts(folder, backbone)


@pytest.mark.parametrize("damage", ["half of the JSON", "missing JSON", "a list", "an empty object"])
def test_a_damaged_training_record_is_named(stored: Path, damage: str) -> None:
    path = stored / "training.json"
    DAMAGES[damage][1](path)
    with pytest.raises(ArtifactError, match=re.escape(str(path))):
        load_training_record(stored)


@pytest.mark.parametrize("damage", ["half of the JSON", "missing JSON", "a list", "an empty object"])
def test_collecting_names_a_damaged_description(world: World, tmp_path: Path, damage: str) -> None:
    path = shutil.copytree(world.folder / "adapters" / "alpha", tmp_path / "alpha") / "adapter.json"
    DAMAGES[damage][1](path)
    with pytest.raises(ArtifactError, match=re.escape(str(path))):
        collect(world, tmp_path / "experts", tmp_path / "alpha", world.folder / "adapters" / "beta")


def test_invalid_safetensors_are_refused_even_with_a_matching_hash(stored: Path) -> None:
    path = stored / "adapter.safetensors"
    halve(path)
    forge(stored)
    with pytest.raises(ArtifactError, match="not readable as safetensors"):
        load_adapter(stored, "a" * 64, SourceDescription)


def forge(directory: Path, **tensors: Tensor) -> None:
    """Make the description consistent with the file of tensors, or with `tensors`, which replace it."""
    path, values = directory / "adapter.safetensors", read_record(directory / "adapter.json", "")
    if tensors:
        save_file(tensors, path)
        values["tensors"]["shapes"] = {name: list(tensor.shape) for name, tensor in tensors.items()}
    values["tensors"]["sha256"] = sha256_of_file(path)
    write_record(directory / "adapter.json", values)


FORGED: dict[str, tuple[Callable[[dict[str, Tensor], str], object], str]] = {
    "not a number": (lambda tensors, name: tensors[name].view(-1)[3:4].fill_(torch.nan), "values that are not finite"),
    "infinite": (lambda tensors, name: tensors[name].view(-1)[3:4].fill_(-torch.inf), "values that are not finite"),
    "another type": (lambda tensors, name: tensors.update({name: tensors[name].half()}), r"is torch\.float16"),
    "truth values": (lambda tensors, name: tensors.update({name: tensors[name] > 0}), r"is torch\.bool"),
    "complex": (lambda tensors, name: tensors.update({name: tensors[name] * 1j}), r"is torch\.complex64"),
    "another shape": (lambda tensors, name: tensors.update({name: tensors[name][:, 1:].clone()}), "has the shape"),
    "a row less": (lambda tensors, name: tensors.update({name: tensors[name][1:].clone()}), "has the shape"),
    "a scalar": (lambda tensors, name: tensors.update({name: torch.tensor(1.0)}), "has the shape"),
    "one missing": (lambda tensors, name: tensors.pop(name), "lacks the tensor"),
    "one too many": (lambda tensors, name: tensors.update({f"{name}x": torch.ones(1)}), "has a tensor"),
}


@pytest.mark.parametrize("damage", FORGED)
def test_consistent_but_wrong_tensors_are_refused(
    world: World, trained_cell: Path, tmp_path: Path, damage: str
) -> None:
    """Hash and shapes in the description fit the file: only the backbone and the settings contradict."""
    change, message = FORGED[damage]
    backbone = load_backbone(world.folder / "backbone")
    bank = load_experts(world.folder / "experts", backbone)
    source = shutil.copytree(world.folder / "adapters" / "alpha", tmp_path / "alpha")
    cell = shutil.copytree(trained_cell, tmp_path / "gamma" / trained_cell.name)
    experts = shutil.copytree(world.folder / "experts", tmp_path / "experts")
    uses: list[tuple[Path, str, Callable[[], object]]] = [
        (source, "decoder.2.down", lambda: load_source(source, outline(world.folder / "backbone"))),
        (source, "prompt", lambda: collect(world, tmp_path / "new", source, world.folder / "adapters" / "beta")),
        (cell, "encoder.1.gate", lambda: load_target(cell, "gamma", backbone, bank)),
        (experts, "1/encoder.0.up", lambda: load_experts(experts, backbone)),
    ]
    for folder, name, use in uses:
        (path,) = folder.glob("*.safetensors")
        tensors = {each: tensor.clone() for each, tensor in load_file(path).items()}
        change(tensors, name)
        if folder == experts:
            save_file(tensors, path)
            change_record(experts / "experts.json", sha256=sha256_of_file(path))
        else:
            forge(folder, **tensors)
        with pytest.raises(ArtifactError, match=rf"^{path}: .*{message}"):
            use()
    description, _ = load_description(cell, TargetDescription)
    assert holds_cell(trained_cell, description, backbone, bank)
    assert not holds_cell(cell, description, backbone, bank)


def test_tensors_that_their_description_contradicts_are_refused(stored: Path) -> None:
    change_record(
        stored / "adapter.json", tensors={"sha256": sha256_of_file(stored / "adapter.safetensors"), "shapes": {}}
    )
    with pytest.raises(ArtifactError, match=r"has a tensor 'decoder.*', not expected by adapter\.json"):
        load_adapter(stored, "a" * 64, SourceDescription)


@pytest.fixture(scope="module")
def trained_cell(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cell") / "gamma"
    world.transfer(folder, max_steps=1)
    return folder / CELL


def test_a_flipped_bit_anywhere_in_a_description_is_noticed(trained_cell: Path, tmp_path: Path) -> None:
    cell = shutil.copytree(trained_cell, tmp_path / "cell")
    reads: dict[str, Callable[[], object]] = {
        "adapter.json": lambda: load_description(cell, TargetDescription),
        "training.json": lambda: load_training_record(cell),
    }
    for name, read in reads.items():
        whole = (cell / name).read_bytes()
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            (cell / name).write_bytes(damaged)
            with pytest.raises(ArtifactError, match=name):
                read()
        (cell / name).write_bytes(whole)
        read()


def test_a_description_of_another_version_is_named(stored: Path) -> None:
    values = read_record(stored / "adapter.json", "")
    write_json(stored / "adapter.json", values)
    with pytest.raises(ArtifactError, match=r"adapter.json: key 'checksum' is missing; another version wrote it, run"):
        load_adapter(stored, "a" * 64, SourceDescription)


# --- atomic writes


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_failed_write_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_directory(target) as folder:
        (folder / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_directory(target) as folder:
        (folder / "a.txt").rename(folder / "b.txt")  # the new folder starts empty
    assert (target / "a.txt").read_text() == "old"
    with atomic_directory(target) as folder:
        (folder / "b.txt").write_text("newer")
        assert (target / "a.txt").read_text() == "old"  # unchanged until the block ends
    assert names(target) == {"b.txt"}
    assert names(tmp_path) == {"out"}


def interrupt(path: Path) -> None:
    """Simulate Ctrl-C in the middle of a write."""
    path.write_text("half")
    raise KeyboardInterrupt


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    write_json(path, {"b": 1, "a": "ü"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"b": float("nan")})
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as temporary:
        interrupt(temporary)
    assert read_json(path) == {"b": 1, "a": "ü"}
    assert names(path.parent) == {"x.json"}


def test_the_hash_of_json_depends_on_its_content_alone() -> None:
    assert sha256_of_json({"a": 1, "b": [1, 2]}) == sha256_of_json({"b": [1, 2], "a": 1})
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": 1.5})


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this container may not mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_while_an_adapter_is_written(full_disk: Path) -> None:
    """The old adapter stays, no partial file remains, and the error names the adapter and the disk."""
    small = {"prompt": torch.ones(4)}
    target = full_disk / "adapter"
    save_adapter(target, description(), small, RECORD)
    with pytest.raises(ArtifactError, match=rf"{target}: the disk is full \(0\.\d MB free in {full_disk}\)"):
        save_adapter(target, description(), {"prompt": torch.ones(100_000)}, RECORD)
    assert names(full_disk) == {"adapter"}
    assert torch.equal(load_adapter(target, "a" * 64, SourceDescription).tensors["prompt"], small["prompt"])


def test_a_full_disk_while_a_file_is_written(full_disk: Path) -> None:
    path = full_disk / "x.json"
    write_json(path, "old")
    with pytest.raises(ArtifactError, match=rf"{path}: the disk is full"):
        write_json(path, "x" * 300_000)
    assert read_json(path) == "old"
    assert names(full_disk) == {"x.json"}


def test_a_full_disk_while_a_backbone_is_written(full_disk: Path, tmp_path: Path) -> None:
    """Two libraries write: transformers the model, tokenizers the tokenizer."""
    tokenizer = train_tokenizer(write_corpus(tmp_path / "corpus.parquet"), 400)
    with pytest.raises(ArtifactError, match="the disk is full"):
        save_backbone(full_disk / "backbone", tiny_t5(d_model=128, vocab_size=400), tokenizer)
    assert names(full_disk) == set()
    (full_disk / "filler").write_bytes(b"x" * 240_000)
    with pytest.raises(ArtifactError, match="the disk is full"), atomic_directory(full_disk / "tokenizer") as folder:
        tokenizer.save_pretrained(folder)
    assert names(full_disk) == {"filler"}


def test_a_full_disk_while_training_keeps_the_last_checkpoint(full_disk: Path, world: World, tmp_path: Path) -> None:
    """The disk holds one checkpoint but not a second one beside it; training can resume from the first."""
    options: dict[str, Any] = {"rank": 40, "epochs": 1, "checkpoint_every": 2, "evaluate_every": 100}
    with pytest.raises(ArtifactError, match=rf"{FILE}: the disk is full"):
        world.train_source(tmp_path / "out", checkpoints=full_disk, **options)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in full_disk.rglob("*") if path.is_file()] == [FILE]
    moved = shutil.copytree(full_disk, tmp_path / "checkpoints")
    resumed = tmp_path / "resumed.jsonl"
    world.train_source(tmp_path / "out", checkpoints=moved, log=resumed, **options)
    # earlier steps are not repeated
    assert min(json.loads(line)["step"] for line in resumed.read_text().splitlines()) == 4
    world.train_source(tmp_path / "again", checkpoints=tmp_path / "other", **options)
    assert (tmp_path / "out" / "adapter.safetensors").read_bytes() == (
        tmp_path / "again" / "adapter.safetensors"
    ).read_bytes()


# --- never pickled


def test_nothing_in_pemt_core_reads_or_writes_a_pickle() -> None:
    """Forbidden: torch.load, torch.save, pickle and similar modules, pickles of numpy and pandas, pickled weights."""
    forbidden_modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & forbidden_modules, file
            if isinstance(node, ast.ImportFrom) and ast.unparse(node) != "from joblib import cpu_count":
                assert (node.module or "").split(".")[0] not in forbidden_modules, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert called not in {"torch.load", "torch.save", "np.load", "np.save"}, (file, called)
                assert node.func.attr not in {"read_pickle", "to_pickle"}, (file, called)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("model_class.from_pretrained"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("use_safetensors") == "True", file


def test_a_pickle_in_place_of_safetensors_is_refused(stored: Path, tmp_path: Path) -> None:
    """Even if its hash matches the recorded one."""
    path = stored / "adapter.safetensors"
    torch.save({"prompt": torch.ones(2)}, path)
    forge(stored)
    with pytest.raises(ArtifactError, match="not readable as safetensors"):
        load_adapter(stored, "a" * 64, SourceDescription)


def test_descriptions_survive_a_round_trip(tmp_path: Path) -> None:
    for made in (description(), cell_description()):
        save_adapter(tmp_path / "a", made, {"x": torch.zeros(1)}, RECORD)
        assert load_adapter(tmp_path / "a", "a" * 64, type(made)).description == made
    assert load_training_record(tmp_path / "a") == RECORD
    save_file({"x": torch.zeros(1)}, tmp_path / "same")
    assert (tmp_path / "same").read_bytes() == (tmp_path / "a" / "adapter.safetensors").read_bytes()
