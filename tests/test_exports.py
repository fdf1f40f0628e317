"""Exports on every family: the code on their pages runs and answers as the pipeline does; what merging gates costs."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from test_components import run_here
from tiny import random_experts, tiny_t5, tiny_tokenizer, write_task
from tiny_models import tiny_model
from tiny_tokenizers import byte_tokenizer

from pemt_core.artifacts.adapter import Adapter, save_adapter
from pemt_core.artifacts.description import SourceDescription, TargetDescription, TrainingRecord
from pemt_core.artifacts.experts import ExpertBank, ImportedExpert, load_experts, save_experts
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.adopt import adopt
from pemt_core.backbone.store import Backbone, load_backbone, save_backbone
from pemt_core.backbone.text_ids import input_ids, text_ids
from pemt_core.methods import method_of
from pemt_core.model.assemble import build_source_model
from pemt_core.model.gate import is_of_gate
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.stacks import feed_forwards, layer_norms, linear_layers

# peft 0.21 reads an attribute that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TEXT, TASK = "a text of the task", "gamma"
SOURCES = ("source0", "source1")
DESCRIPTION = f"Decide which colour the {TASK} text names."
RECORD = TrainingRecord(1e-2, {"accuracy": 50.0}, 1, 1, [], 1)
SETTINGS = {
    "rare_class": "error", "reduction_factor": 4, "prompt_init": "vocab", "prompt_dropout": 0.1,
    "sparsity_coefficient": 0.1, "sparsity_positions": "all", "source_length": 256, "select_by": "mean",
    "learning_rates": [1e-2], "search": "full",
    "training": {
        "batch_size": 4, "gradient_accumulation": 1, "epochs": 1, "max_steps": None, "warmup_steps": 0,
        "max_grad_norm": 1.0, "precision": "float32", "evaluate_every": "epoch", "validation_rows": None,
        "early_stop": None, "checkpoint_every": 100,
    },
}  # fmt: skip
BACKBONES = {
    "t5": ("t5", "auto"),
    "t5gemma": ("t5gemma", "auto"),
    "t5gemma2": ("t5gemma2", "auto"),
    "llama behind": ("llama", "behind"),
    "llama with a chat": ("llama chat", "behind"),
    "qwen3 on both sides": ("qwen3", "both"),
    "gemma3 in front": ("gemma3", "front"),
}


@dataclass(frozen=True)
class Place:
    """A folder with a backbone, the data of a target and experts, as the steps leave them."""

    folder: Path
    backbone: Backbone
    bank: ExpertBank

    @classmethod
    def make(cls, folder: Path, kind: str, layout: str, dtype: torch.dtype = torch.float32) -> "Place":
        model, tokenizer = model_of(folder, kind)
        model.to(dtype)
        adopt(model, tokenizer, layout)
        save_backbone(folder / "backbone", model, tokenizer)
        backbone = load_backbone(folder / "backbone")
        write_task(folder / "data", TASK, fillers=3)
        first, second = random_experts(backbone.model, 2)
        for place in linear_layers(backbone.model):
            if place.role in ("q", "v"):  # the second source has a LoRA there too
                generator = torch.Generator().manual_seed(len(second.tensors))
                outputs, inputs = place.layer.weight.shape
                pair = torch.randn(2, inputs, generator=generator), torch.randn(outputs, 2, generator=generator)
                second.tensors.update(zip((f"{place.key}.down", f"{place.key}.up"), pair, strict=True))  # type: ignore[attr-defined]
        adapters = [source_of(backbone, first.task, first.tensors, first.scale)]
        save_experts(folder / "experts", adapters, [ImportedExpert(second, backbone.fingerprint, "")])
        return cls(folder, backbone, load_experts(folder / "experts", backbone))

    def cell(self, name: str, **entry: Any) -> Path:
        """Write a trained cell of a method: its initial tensors, moved."""
        method = method_of(name, {"kind": "pemt", **entry}, SETTINGS, name)
        sources = method.draws_on(SOURCES)
        ids = torch.tensor(text_ids(self.backbone.tokenizer, [DESCRIPTION])[0])
        generator = torch.Generator().manual_seed(3)
        tensors = method.initial_tensors(self.backbone.model, ids, self.bank.select(sources), generator)
        tensors = {
            n: t + (0.1 if "norm" in n else 0.3) * torch.randn(t.shape, generator=generator) for n, t in tensors.items()
        }
        description = TargetDescription(
            TASK, DESCRIPTION, self.backbone.fingerprint, "", name, method.model_dump(), "generate", "full", 1, sources,
            self.bank.mixture_hash(sources), "",
        )  # fmt: skip
        directory = self.folder / "targets" / TASK / f"{name}-kfull-seed1"
        save_adapter(directory, description, {n: t.contiguous() for n, t in tensors.items()}, RECORD)
        return directory

    def export(self, monkeypatch: pytest.MonkeyPatch, adapter: Path, *flags: object, output: str = "exported") -> str:
        """Run the program in the folder of the place."""
        monkeypatch.chdir(self.folder)
        return run_here(monkeypatch, "export_adapter", adapter.relative_to(self.folder), "--output", output, *flags)

    def original(self, cell: Path) -> PromptedModel:
        adapter = load_target(cell, TASK, self.backbone, self.bank)
        return restore_target(self.backbone.model, adapter, self.bank).eval()

    def check_page(self, page: Path, model: PromptedModel, length: int) -> Any:
        """Run a page's code: it reads and generates what `model` does for the same text. Returns its model."""
        names, ids = run_page(page), torch.tensor(input_ids(self.backbone.tokenizer, [TEXT], 256))
        with model, torch.no_grad():
            written = model.generate(ids, torch.ones_like(ids), max_new_tokens=length, do_sample=False)
            assert torch.equal(names["ids"], written)
            assert torch.equal(names["embeddings"], model.prefix(ids, torch.ones_like(ids)).embeddings)
        return names["model"]


def model_of(folder: Path, kind: str) -> tuple[Any, Any]:
    if kind == "t5":
        tokenizer = tiny_tokenizer(folder)
        return tiny_t5(vocab_size=len(tokenizer)), tokenizer
    kind, _, chat = kind.partition(" ")
    tokenizer = byte_tokenizer(folder / "tokenizer", bos=kind != "qwen3", pad=kind != "qwen3")
    tokenizer.chat_template = "Read: {{ messages[0]['content'] }} Answer:" if chat else None
    return tiny_model(kind, vocab_size=len(tokenizer), spread=0.2), tokenizer


def source_of(backbone: Backbone, task: str, tensors: Any, scale: float) -> Adapter[SourceDescription]:
    settings = {"rank": 3, "source_length": 256}
    description = SourceDescription(task, DESCRIPTION, backbone.fingerprint, "", 1, settings, "generate", scale)
    return Adapter(description, dict(tensors), "")


@pytest.fixture(scope="module", params=BACKBONES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("export"), *BACKBONES[request.param])


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place.make(tmp_path_factory.mktemp("export"), "t5", "auto")


def run_page(page: Path) -> dict[str, Any]:
    """Execute the Python code of a page, in the working directory."""
    names: dict[str, Any] = {}
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(code, names)
    return names


# --- source adapters


def test_the_page_of_a_source_adapter_answers_as_the_pipeline(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT finds the layers and the kind of model by itself, and the prompt is where the layout puts it."""
    tokens = text_ids(place.backbone.tokenizer, [DESCRIPTION])[0]
    (expert,) = random_experts(place.backbone.model, 1)
    tensors = {**expert.tensors, "prompt": torch.randn(len(tokens), expert.tensors["prompt"].shape[1])}
    adapter = source_of(place.backbone, "mnli", tensors, 7 / 3)
    save_adapter(place.folder / "mnli", adapter.description, adapter.tensors, RECORD)
    assert place.export(monkeypatch, place.folder / "mnli", output="exported_lora") == ""
    model = build_source_model(place.backbone.model, tensors, scale=7 / 3).eval()
    theirs = place.check_page(place.folder / "exported_lora" / "README.md", model, 8)
    assert isinstance(theirs, peft.PeftModel)
    found: Any = theirs.base_model.targeted_module_names
    assert set(found) == {each.name for each in feed_forwards(place.backbone.model)}


# --- targets

CONSTANT: dict[str, dict[str, Any]] = {
    "uniform": {"gate": "uniform"},
    "static_alone": {"gate": "static", "target_adapter": False},
    "scalearn": {"gate": "scalearn", "target_adapter": False, "norms": "frozen"},
    "scalearn_scalar": {"gate": "scalearn", "omega": "scalar"},
    "lorahub": {"gate": "lorahub"},
    "lorahub_updates": {"gate": "lorahub", "mixes": "updates"},
    "single": {"kind": "single", "source": "source1"},
    "fusion_of_one": {"gate": "fusion", "sources": ["source0"]},  # one source has all the weight everywhere
    "arrow_of_one": {"gate": "arrow", "sources": ["source0"]},
    "control": {"sources": []},
    "permuted": {"gate": "static", "source_adapters": "permuted", "guided_prompt": False},
}


@pytest.mark.parametrize("name", ["uniform", "static_alone"])
def test_the_page_of_a_target_answers_as_the_pipeline(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every family, with and without target adapters, by transformers alone."""
    cell = place.cell(name, **CONSTANT[name])
    printed = place.export(monkeypatch, cell, output=name)
    assert printed == ""
    has_adapters = CONSTANT[name].get("target_adapter", True)
    assert (place.folder / name / "adapters.safetensors").is_file() == has_adapters
    model = place.check_page(place.folder / name / "README.md", place.original(cell), 6)
    assert type(model).__module__.startswith("transformers.")


@pytest.mark.parametrize("name", CONSTANT)
def test_gates_that_ignore_the_text_export_without_loss(name: str, t5: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = t5.cell(name, **CONSTANT[name])
    assert t5.export(monkeypatch, cell, "--least-agreement", 1.0, output=f"constant_{name}") == ""
    agreement = json.loads((t5.folder / f"constant_{name}" / "agreement.json").read_text())
    assert (agreement["share"], agreement["rows"], agreement["split"]) == (1.0, 8, "validation")
    assert agreement["before"] == agreement["after"]
    assert agreement["cell"] == f"{TASK}/{name}/k=full/seed=1"
    t5.check_page(t5.folder / f"constant_{name}" / "README.md", t5.original(cell), 6)


def test_the_weights_are_the_backbones_with_mean_gates_and_norms(t5: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, from the mean gates in agreement.json."""
    cell = t5.cell("input", gate="input")
    t5.export(monkeypatch, cell, "--force", output="input")
    found = json.loads((t5.folder / "input" / "agreement.json").read_text())
    exported = load_file(t5.folder / "input" / "model.safetensors")
    adapter = load_target(cell, TASK, t5.backbone, t5.bank)
    expected = {name: tensor.clone() for name, tensor in t5.backbone.model.state_dict().items()}
    for place in linear_layers(t5.backbone.model):
        for weight, expert in zip(found["gates"].get(place.key, ()), t5.bank.experts, strict=False):
            if f"{place.key}.up" in expert.tensors:
                pair = expert.tensors[f"{place.key}.up"] @ expert.tensors[f"{place.key}.down"]
                expected[f"{place.name}.weight"] += weight * expert.scale * pair
    norms = {name for name, _, _ in layer_norms(t5.backbone.model)}
    expected |= {name: adapter.tensors[name] for name in norms}
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    with t5.original(cell) as model:
        prompt = load_file(t5.folder / "input" / "prompt.safetensors")["prompt"]
        assert torch.equal(prompt, model.prompt())
    assert all(sum(weights) == pytest.approx(1, abs=1e-5) for weights in found["gates"].values())
    assert set(found["gates"]) >= {"encoder.0", "decoder.1", "encoder.block.0.layer.0.SelfAttention.q"}


def test_an_export_that_answers_otherwise_is_refused(t5: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gates are sharp and depend on the text, so that their mean is another model."""
    cell = sharp_cell(t5)
    error = t5.export(monkeypatch, cell, output="sharp")
    assert re.search(
        r"^error: targets/gamma/sharp-kfull-seed1: with mean gates, only \d+\.\d % of 8 validation rows have the same "
        r"answer; accuracy \d+\.\d -> \d+\.\d; expected at least 95.0 % of the rows, so nothing is written", error
    ), error  # fmt: skip
    assert not (t5.folder / "sharp").exists()
    assert t5.export(monkeypatch, cell, "--force", output="sharp") == ""
    agreement = json.loads((t5.folder / "sharp" / "agreement.json").read_text())
    assert agreement["share"] < 0.95
    assert t5.export(monkeypatch, cell, "--least-agreement", agreement["share"], output="sharp") == ""  # replaced


def sharp_cell(place: Place) -> Path:
    cell = place.cell("sharp", gate="input")
    adapter = load_target(cell, TASK, place.backbone, place.bank)
    tensors = {name: 30 * tensor if is_of_gate(name) else tensor for name, tensor in adapter.tensors.items()}
    save_adapter(cell, adapter.description, tensors, RECORD)
    return cell


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "lora": ({"kind": "lora"}, "its method is of the kind 'lora': expected pemt, single or joint"),
    "token": ({"gate": "token"}, "its gate weighs every position of encoder.block.0.layer.0.SelfAttention.q"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged_is_explained(name: str, t5: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, expected = REFUSED[name]
    error = t5.export(monkeypatch, t5.cell(name, **entry), output="refused")
    assert expected in error
    assert "\n" not in error
    assert not (t5.folder / "refused").exists()


def test_the_means_may_be_those_of_the_training_rows(t5: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    t5.export(monkeypatch, t5.cell("means", gate="input"), "--split", "train", "--force", output="means")
    found = json.loads((t5.folder / "means" / "agreement.json").read_text())
    assert (found["split"], found["rows"]) == ("train", 24)
    assert "over the train rows" in (t5.folder / "means" / "README.md").read_text()


def test_an_export_removes_no_other_files(t5: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, kept = t5.cell("kept", gate="uniform"), t5.folder / "kept"
    kept.mkdir()
    assert t5.export(monkeypatch, cell, "--force", output="kept") == ""
    assert t5.export(monkeypatch, cell, "--force", output="kept") == ""
    (kept / "letters.txt").touch()
    assert "kept: has letters.txt, which an export would remove" in t5.export(
        monkeypatch, cell, "--force", output="kept"
    )
    assert (kept / "letters.txt").exists()


def test_weights_keep_their_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone in bfloat16 is exported in bfloat16, and what rounding costs is measured with the rest."""
    place = Place.make(tmp_path, "llama", "behind", torch.bfloat16)
    assert place.export(monkeypatch, place.cell("static", gate="static"), "--force") == ""
    assert {tensor.dtype for tensor in load_file(tmp_path / "exported" / "model.safetensors").values()} == {
        torch.bfloat16
    }
    assert run_page(tmp_path / "exported" / "README.md")["model"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "exported" / "agreement.json").read_text())["rows"] == 8


def test_wrong_inputs_are_named(t5: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = t5.cell("uniform", gate="uniform")
    (t5.folder / "letters").mkdir()
    (t5.folder / "letters" / "a.txt").touch()
    assert "letters: already exists and has no agreement.json" in t5.export(monkeypatch, cell, output="letters")
    assert "--base-model is for sources" in t5.export(monkeypatch, cell, "--base-model", "t5-base")
    assert "absent/gamma" in t5.export(monkeypatch, cell, "--data", "absent")
    assert "absent/experts.json: no such file" in t5.export(monkeypatch, cell, "--experts", "absent")
    assert "absent/backbone.json: no such file" in t5.export(monkeypatch, cell, "--backbone", "absent")
    assert not (t5.folder / "exported").exists()
