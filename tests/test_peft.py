"""Export to and import from PEFT's layout with the real library: exactness and rejected adapters."""

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_model import PlainExpert, PlainTarget
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from source_code import REPOSITORY
from test_components import run_here
from tiny import KINDS, World, change_record, random_experts, random_target_tensors, tiny_batch, tiny_t5
from torch import Tensor
from transformers import T5ForConditionalGeneration

from pemt_core.artifacts.adapter import Adapter, save_adapter
from pemt_core.artifacts.description import SourceDescription, TrainingRecord
from pemt_core.artifacts.experts import ImportedExpert, load_experts
from pemt_core.artifacts.result import load_results
from pemt_core.backbone.store import Backbone, load_backbone, save_backbone
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.errors import ArtifactError
from pemt_core.lora.layout import CONFIG, PICKLED, PROMPT, TENSORS
from pemt_core.lora.patterns import check_patterns, values_of
from pemt_core.lora.reader import load_lora
from pemt_core.lora.writer import save_lora
from pemt_core.model.assemble import build_source_model, build_target_model
from pemt_core.model.stacks import feed_forwards, linear_layers
from pemt_core.prediction.predictor import load_predictor
from pemt_core.settings import EvaluateSettings, parse_settings, read_params
from pemt_core.steps.collect_experts import collect_experts
from pemt_core.steps.evaluate import evaluate
from pemt_core.tasks.rows import columns_as_text

# peft 0.21 reads an attribute that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

KEPT = REPOSITORY / "pemt_core" / "embedded" / "backbone"
DESCRIPTION = "Decide which colour the text names."
ENDLESS = "(?:.|..)*(?:.|..)*(?:.|..)*(?=!)"  # exponential in the length of a module's name
EVERY_WO = {"r": 3, "lora_alpha": 4, "target_modules": ["wo"]}
OF_ENCODER_0 = "encoder.block.0.layer.1.DenseReluDense.wo"
A_QUERY = "encoder.block.0.layer.0.SelfAttention.q"
A = f"base_model.model.{OF_ENCODER_0}.lora_A.weight"
B = f"base_model.model.{OF_ENCODER_0}.lora_B.weight"


@pytest.fixture(scope="module")
def peft() -> Any:
    import peft

    return peft


@pytest.fixture(scope="module")
def backbone(world: World) -> Backbone:
    return load_backbone(world.folder / "backbone")


def peft_lora(peft: Any, backbone: Backbone, folder: Path, **options: Any) -> Any:
    """Save a PEFT model with random matrices in `folder`; the options are those of LoraConfig."""
    config = peft.LoraConfig(**{"init_lora_weights": False, "task_type": "SEQ_2_SEQ_LM", **EVERY_WO, **options})
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = peft.get_peft_model(copy.deepcopy(backbone.model), config).eval()
    model.save_pretrained(str(folder))
    return model


@torch.no_grad()
def peft_logits(model: Any, prompt: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute the logits of a PEFT model with the prompt before the text, through transformers' arguments."""
    text = model.get_input_embeddings()(batch["input_ids"])
    rows = prompt.expand(len(text), -1, -1)
    mask = torch.cat([batch["attention_mask"].new_ones(rows.shape[:2]), batch["attention_mask"]], dim=1)
    logits: Tensor = model(
        inputs_embeds=torch.cat([rows, text], dim=1), attention_mask=mask, labels=batch["labels"]
    ).logits
    return logits


@torch.no_grad()
def source_logits(model: Any, tensors: Mapping[str, Tensor], scale: float, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute the logits of the stage 1 model on a copy of the backbone."""
    logits: Tensor = build_source_model(copy.deepcopy(model), tensors, scale=scale).eval()(**batch).logits
    return logits


def source_adapter(model: Any, scale: float, fingerprint: str = "f" * 64) -> Adapter[SourceDescription]:
    """Make an adapter with random tensors of the same rank in every layer."""
    tensors = dict(random_experts(model, 1)[0].tensors)
    settings = {"rank": 3, "source_length": 256}
    description = SourceDescription("mnli", DESCRIPTION, fingerprint, "", 1, settings, "generate", scale)
    return Adapter(description, tensors, "")


# --- export


@pytest.mark.parametrize("kind", [*KINDS, "kept"])
def test_peft_computes_the_logits_of_the_pipeline(peft: Any, kind: str, tmp_path: Path) -> None:
    """The logits are bit-identical, though the scale is not a power of two: both compute the same products in order."""
    model = tiny_t5(kind) if kind in KINDS else T5ForConditionalGeneration.from_pretrained(KEPT).eval()
    adapter = source_adapter(model, 7 / 3)
    save_lora(tmp_path / "lora", adapter, Backbone(model, load_tokenizer(str(KEPT)), "f" * 64), "backbone")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), str(tmp_path / "lora")).eval()
    expected = {name for name, module in model.named_modules() if name.endswith("DenseReluDense.wo")}
    assert set(loaded.base_model.targeted_module_names) == expected
    assert {place.name for place in feed_forwards(model)} == expected
    prompt = load_file(tmp_path / "lora" / PROMPT)["prompt"]
    batch = tiny_batch()
    logits = peft_logits(loaded, prompt, batch)
    assert torch.equal(logits, source_logits(model, adapter.tensors, 7 / 3, batch))
    assert not torch.allclose(logits, source_logits(model, adapter.tensors, 0.0, batch))


@dataclass(frozen=True)
class Stored:
    """The kept backbone and a source adapter for it, each in its folder."""

    folder: Path
    backbone: Backbone
    adapter: Adapter[SourceDescription]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    folder = tmp_path_factory.mktemp("stored")
    fingerprint = save_backbone(
        folder / "backbone", T5ForConditionalGeneration.from_pretrained(KEPT), load_tokenizer(str(KEPT))
    )
    backbone = load_backbone(folder / "backbone")
    adapter = source_adapter(backbone.model, 7 / 3, fingerprint)
    adapter.tensors["prompt"] = torch.randn(
        len(backbone.tokenizer(DESCRIPTION)["input_ids"]), backbone.model.config.d_model
    )
    record = TrainingRecord(1e-2, {"accuracy": 1.0}, 1, 1, [], 1)
    save_adapter(folder / "adapter", adapter.description, adapter.tensors, record)
    return Stored(folder, backbone, adapter)


@pytest.fixture
def exported(stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the export program from the folder that holds its inputs; return its output."""
    for name in ("backbone", "adapter"):
        (tmp_path / name).symlink_to(stored.folder / name)
    monkeypatch.chdir(tmp_path)
    arguments = ["adapter", "--output", "exported/mnli"]
    assert run_here(monkeypatch, "export_adapter", *arguments) == ""
    return tmp_path / "exported" / "mnli"


def python_of(page: Path) -> str:
    """Extract the Python code of a document."""
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(code)


def test_the_code_on_the_page_of_an_export_runs_unchanged(exported: Path, stored: Stored) -> None:
    """The code of the page runs in the folder of the export and generates what the pipeline's model generates."""
    names: dict[str, Any] = {}
    exec(python_of(exported / "README.md"), names)
    model = build_source_model(copy.deepcopy(stored.backbone.model), stored.adapter.tensors, scale=7 / 3).eval()
    text = stored.backbone.tokenizer(["a text of the task"], return_tensors="pt")
    ids = model.generate(text["input_ids"], text["attention_mask"], max_new_tokens=8)
    assert torch.equal(names["ids"], ids)
    assert len(set(ids[0].tolist())) > 2


def test_the_code_runs_whatever_the_folder_is_named(stored: Stored, tmp_path: Path) -> None:
    folder, names = tmp_path / 'the "new"\\one', dict[str, Any]()
    save_lora(folder, stored.adapter, stored.backbone, str(stored.folder / "backbone"))
    exec(python_of(folder / "README.md"), names)
    assert torch.equal(names["prompt"], stored.adapter.tensors["prompt"].unsqueeze(0))


def test_the_document_lists_the_files_of_an_export(exported: Path) -> None:
    document = REPOSITORY / "docs" / "adapters.md"
    assert python_of(document) == python_of(exported / "README.md")
    assert json.loads((exported / CONFIG).read_text())["base_model_name_or_path"] == "backbone"
    assert "pemt export adapters/sources/mnli --output exported/mnli" in document.read_text()
    assert all(f"`{path.name}`" in document.read_text() for path in exported.iterdir())


def test_the_settings_that_the_document_shows_are_read() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs" / "adapters.md").read_text(), flags=re.DOTALL)
    values = {**read_params(REPOSITORY / "params.yaml"), **YAML(typ="safe").load(shown)}
    assert list(parse_settings(values, "the document").imported_sources) == ["own"]


def test_importing_an_export_restores_the_adapter(exported: Path, stored: Stored) -> None:
    """Without a description, the prompt is imported too."""
    expert = load_lora(exported, "back", None, stored.backbone).expert
    assert expert.scale == 7 / 3
    assert expert.tensors.keys() == stored.adapter.tensors.keys()
    assert all(torch.equal(tensor, stored.adapter.tensors[name]) for name, tensor in expert.tensors.items())


def test_an_impossible_export_is_explained(
    world: World, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(
        output: Path, adapter: Path = tmp_path / "adapter", backbone: Path = tmp_path / "backbone", *flags: str
    ) -> str:
        arguments = [adapter, "--backbone", backbone, "--output", output, *flags]
        return run_here(monkeypatch, "export_adapter", *arguments)

    absent, new, choice = tmp_path / "absent", tmp_path / "new", "choose from: adapter"
    assert error(new, adapter=absent) == f"error: {absent}: no such folder; {choice}"
    assert error(new, adapter=tmp_path) == f"error: {tmp_path}: has no adapter.json; name an adapter in it; {choice}"
    assert error(new, adapter=tmp_path / "adapter" / "adapter.json").startswith(
        f"error: {tmp_path / 'adapter' / 'adapter.json'}: is a file, expected a folder with adapter.json"
    )
    assert error(new, tmp_path / "adapter", tmp_path / "backbone", "--force", "--split", "train") == (
        f"error: {tmp_path / 'adapter'} is a source; --split and --force: expected only for targets"
    )
    assert error(new, backbone=absent).startswith(f"error: {absent / 'backbone.json'}: no such file")
    assert "the current one is" in error(new, backbone=world.folder / "backbone")
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    (exported / "README.md").unlink()
    assert error(Path("exported/mnli"), Path("adapter"), Path("backbone")) == ""  # an older export is replaced
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before
    prompt = shutil.copytree(tmp_path / "adapter", tmp_path / "prompt")
    change_record(prompt / "adapter.json", scale=None, rank=3)
    assert f"{prompt / 'adapter.json'}: not the description of a source, as train_source writes it" in error(
        new, prompt
    )
    assert not new.exists()


def test_an_export_removes_no_other_files(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(output: Path) -> str:
        return run_here(
            monkeypatch, "export_adapter", tmp_path / "adapter", "--backbone", tmp_path / "backbone", "--output", output
        )

    empty, trained = tmp_path / "empty", tmp_path / "trained"
    empty.mkdir()
    assert error(empty) == ""
    assert sorted(path.name for path in empty.iterdir()) == sorted(path.name for path in exported.iterdir())
    shutil.copytree(exported, trained)
    (trained / PROMPT).unlink()  # as PEFT saves a LoRA
    (empty / ".git").mkdir()
    for folder, reason in (
        (trained, f"already exists and has no {PROMPT}"),
        (empty, "has .git, which an export would remove"),
    ):
        before = sorted(path.name for path in folder.iterdir())
        assert error(folder) == f"error: {folder}: {reason}; expected a new folder, an empty one, or an earlier export"
        assert sorted(path.name for path in folder.iterdir()) == before


# --- import


def plain_tensors(model: Any, backbone: Backbone) -> dict[str, Tensor]:
    """Return the matrices of the PEFT model in memory, with each layer's scale multiplied into B."""
    tensors: dict[str, Tensor] = {}
    for place in feed_forwards(backbone.model):
        module = model.get_base_model().get_submodule(place.name)
        d_model, d_ff = place.layer.weight.shape
        down, up = torch.zeros(1, d_ff), torch.zeros(d_model, 1)
        if hasattr(module, "lora_A"):
            down, up = module.lora_A["default"].weight, module.scaling["default"] * module.lora_B["default"].weight
        tensors |= {f"{place.key}.down": down.detach(), f"{place.key}.up": up.detach()}
    return tensors


IMPORTS: dict[str, dict[str, Any]] = {
    "one scale": {},
    "rank-stabilised": {"use_rslora": True},
    "a scale that is no power of two": {"r": 3, "lora_alpha": 5},
    "ranks and scales of their own, powers of two": {
        "r": 2,
        "rank_pattern": {r"encoder.block.0.*wo": 4, "decoder.block.[02].*": 1},
        "alpha_pattern": {"decoder.block.1.layer.2.DenseReluDense.wo": 8},
    },
    "some layers": {"layers_to_transform": [1], "layers_pattern": "block"},
    "one stack, by an expression": {"target_modules": r"decoder\..*\.wo"},
    "a start that leaves the backbone as it is": {"init_lora_weights": "orthogonal", "r": 2},
}


@pytest.mark.parametrize("name", IMPORTS)
def test_a_lora_of_peft_is_imported_exactly(peft: Any, name: str, backbone: Backbone, tmp_path: Path) -> None:
    model = peft_lora(peft, backbone, tmp_path / "lora", **IMPORTS[name])
    expert = load_lora(tmp_path / "lora", "imported", DESCRIPTION, backbone).expert
    batch = tiny_batch()
    prompt = backbone.model.get_input_embeddings().weight.detach()[backbone.tokenizer(DESCRIPTION)["input_ids"]]
    assert torch.equal(expert.tensors["prompt"], prompt)
    imported = source_logits(backbone.model, expert.tensors, expert.scale, batch)
    assert torch.equal(peft_logits(model, prompt, batch), imported)
    for key, tensor in plain_tensors(model, backbone).items():
        assert torch.equal(expert.tensors[key] * (expert.scale if key.endswith("up") else 1), tensor)


def test_mixed_scales_that_are_not_powers_of_two_are_rounded_once(
    peft: Any, backbone: Backbone, tmp_path: Path
) -> None:
    """The import multiplies each layer's scale into B, which rounds once; PEFT scales the product instead."""
    options = {"use_rslora": True, "rank_pattern": {"encoder.*wo": 5}, "alpha_pattern": {"decoder.block.0.*": 7.5}}
    model = peft_lora(peft, backbone, tmp_path / "lora", **options)
    expert = load_lora(tmp_path / "lora", "imported", DESCRIPTION, backbone).expert
    assert expert.scale == 1.0
    for key, tensor in plain_tensors(model, backbone).items():
        assert torch.equal(expert.tensors[key], tensor)
    batch, prompt = tiny_batch(), expert.tensors["prompt"]
    imported = source_logits(backbone.model, expert.tensors, 1.0, batch)
    assert torch.allclose(peft_logits(model, prompt, batch), imported, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_files_are_read_exactly(
    peft: Any, dtype: torch.dtype, backbone: Backbone, tmp_path: Path
) -> None:
    peft_lora(peft, backbone, tmp_path / "lora")
    path = tmp_path / "lora" / TENSORS
    halves = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(halves, path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), str(tmp_path / "lora")).eval()
    expert = load_lora(tmp_path / "lora", "imported", DESCRIPTION, backbone).expert
    assert all(tensor.dtype == torch.float32 for tensor in expert.tensors.values())
    assert torch.equal(expert.tensors["encoder.0.up"], halves[B].float())
    batch = tiny_batch()
    imported = source_logits(backbone.model, expert.tensors, expert.scale, batch)
    assert torch.equal(peft_logits(loaded, expert.tensors["prompt"], batch), imported)


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights")  # raised while peft converts such an adapter
def test_a_pissa_adapter_is_imported_after_conversion_to_a_plain_lora(
    peft: Any, backbone: Backbone, tmp_path: Path
) -> None:
    """PiSSA subtracts its initial matrices from the backbone; PEFT can save the difference to them as a plain LoRA."""
    model = peft_lora(peft, backbone, tmp_path / "start", init_lora_weights="pissa")
    with pytest.raises(ArtifactError, match="'init_lora_weights' is 'pissa'"):
        load_lora(tmp_path / "start", "imported", DESCRIPTION, backbone)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.mul_(1.5)  # stands in for training
    model.save_pretrained(str(tmp_path / "plain"), path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    expert = load_lora(tmp_path / "plain", "imported", DESCRIPTION, backbone).expert
    batch = tiny_batch()
    imported = source_logits(backbone.model, expert.tensors, expert.scale, batch)
    trained = peft_logits(model, expert.tensors["prompt"], batch)
    assert torch.allclose(trained, imported, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(trained, source_logits(backbone.model, expert.tensors, 0.0, batch), atol=0.1)


def test_a_mixture_with_an_imported_expert_equals_the_plain_computation(
    peft: Any, backbone: Backbone, tmp_path: Path
) -> None:
    """The plain computation uses PEFT's matrices, the model the imported expert; both give the same results."""
    options = {"rank_pattern": {"encoder.block.0.*wo": 5}, "layers_to_transform": [0, 2], "layers_pattern": "block"}
    model = peft_lora(peft, backbone, tmp_path / "lora", **options)
    imported = load_lora(tmp_path / "lora", "imported", DESCRIPTION, backbone).expert
    others = random_experts(backbone.model, 2)
    tensors = random_target_tensors(backbone.model, 3)
    mixed = build_target_model(
        copy.deepcopy(backbone.model), tensors, [*others, imported], prompt_dropout=0.0, sparsity_coefficient=0.1
    ).eval()
    theirs = {"prompt": imported.tensors["prompt"], **plain_tensors(model, backbone)}
    experts = [*(PlainExpert(expert.tensors, expert.scale) for expert in others), PlainExpert(theirs, 1.0)]
    batch = tiny_batch()
    result, plain = mixed(**batch), PlainTarget(backbone.model, tensors, experts, coefficient=0.1)(**batch)
    assert torch.allclose(result.logits, plain.logits, rtol=1e-4, atol=1e-4)
    assert result.sparsity_loss is not None
    assert torch.allclose(result.sparsity_loss, plain.sparsity_loss, atol=1e-5)


# --- imported sources in the pipeline

# A column of W_g at every `wo` (2 of 24, 3 of 32 numbers); at q and v of 2 + 2 x 3 attentions, W_g of 32 x 3
NEW_GATES = {("wo",): 2 * 24 + 3 * 32, ("q", "v"): 2 * 24 + 3 * 32 + 2 * (2 + 2 * 3) * 32 * 3}


@pytest.mark.parametrize("modules", [["wo"], ["q", "v"]])
def test_the_pipeline_mixes_an_imported_source(
    modules: list[str], peft: Any, world: World, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run collect_experts, then stage 2 with and without the imported source, evaluate, and predict with both."""
    peft_lora(peft, backbone, tmp_path / "lora", target_modules=modules)
    project = World(tmp_path)
    for name in ("data", "backbone", "adapters"):
        (tmp_path / name).symlink_to(world.folder / name)
    source = {"adapter": str(tmp_path / "lora"), "description": DESCRIPTION}
    settings = {"sources": list(World.SOURCES), "imported_sources": {"own": source}, "code": ""}
    arguments = ["--settings", json.dumps(settings), "--adapters", tmp_path / "adapters"]
    arguments += ["--backbone", tmp_path / "backbone", "--output", tmp_path / "experts"]
    arguments += ["--provenance", tmp_path / "provenance.json"]
    assert run_here(monkeypatch, "collect_experts", *arguments) == ""
    manifest = json.loads((tmp_path / "experts" / "experts.json").read_text())
    assert [expert["task"] for expert in manifest["experts"]] == [*World.SOURCES, "own"]
    sha256 = hashlib.sha256((tmp_path / "lora" / TENSORS).read_bytes()).hexdigest()
    content = load_experts(tmp_path / "experts", backbone).contents["own"]
    imported_entry = {"task": "own", "scale": 4 / 3, "sha256": sha256, "content": content, "imported": True}
    assert manifest["experts"][-1] == imported_entry
    trained = json.loads((world.folder / "experts" / "experts.json").read_text())["experts"]
    assert manifest["experts"][:-1] == trained
    assert all(expert.keys() == imported_entry.keys() - {"imported"} for expert in trained)

    targets = {"gamma": tmp_path / "targets" / "gamma"}
    methods = {"pemt": {}, "without_own": {"kind": "pemt", "without": ["own"]}}
    project.transfer(targets["gamma"], methods=methods, epochs=1)
    settings = EvaluateSettings(answer="generate", batch_size=4, precision="float32", max_rows=None)
    evaluate(
        targets, tmp_path / "data", tmp_path / "backbone", tmp_path / "experts", settings, output_dir=tmp_path / "out"
    )
    results = {result.method: result for result in load_results(tmp_path / "out")}
    assert results["pemt"].sources == [*World.SOURCES, "own"]
    assert results["without_own"].sources == list(World.SOURCES)
    weights = results["pemt"].expert_weights
    assert weights is not None
    assert {len(layer) for layers in weights.values() for layer in layers} == {3}
    assert {stack: len(layers) for stack, layers in weights.items()} == {"encoder": 2, "decoder": 3}
    more = results["pemt"].trained_parameters - results["without_own"].trained_parameters
    assert more == NEW_GATES[tuple(modules)]

    cells = {name: targets["gamma"] / f"{name}-kfull-seed4096" for name in methods}
    predictions = tmp_path / "out" / "gamma" / cells["pemt"].name / "predictions.jsonl"
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    predictor = load_predictor(
        tmp_path / "backbone", tmp_path / "experts", {"gamma": cells["pemt"]}, {"gamma": tmp_path / "data/gamma"},
        {"gamma": columns_as_text({"text": "text"}, "", None, None)}, batch_size=3,
    )  # fmt: skip
    answers = predictor.predict([row["text"] for row in rows])
    assert [answer.prediction for answer in answers] == [row["prediction"] for row in rows]
    attention = {place.key for place in linear_layers(backbone.model) if place.role in modules}
    assert set(answers[0].layers) == {place.key for place in feed_forwards(backbone.model)} | attention
    assert sum(answers[0].expert_weights.values()) == pytest.approx(1, abs=1e-5)


def test_an_import_for_another_backbone_than_the_adapters_is_refused(world: World, tmp_path: Path) -> None:
    other = ImportedExpert(random_experts(tiny_t5(), 1)[0], "f" * 64, "")
    adapters = [world.folder / "adapters" / name for name in World.SOURCES]
    backbone = world.folder / "backbone"
    with pytest.raises(ArtifactError, match="source adapter source0: trained on the backbone ffffffffffff"):
        collect_experts(adapters, World.SOURCES, [other], backbone_dir=backbone, output_dir=tmp_path / "experts")
    assert not (tmp_path / "experts").exists()


# --- rejected adapters


@pytest.fixture(scope="module")
def intact(peft: Any, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intact") / "lora"
    peft_lora(peft, backbone, folder)
    return folder


Damage = Callable[[Path], object]


def put(**changes: Any) -> Damage:
    """Set keys of adapter_config.json."""

    def change(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**values, **changes}))

    return change


def drop(key: str) -> Damage:
    def change(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text())
        del values[key]
        (folder / CONFIG).write_text(json.dumps(values))

    return change


def change_tensors(change: Callable[[dict[str, Tensor]], object]) -> Damage:
    """Change what adapter_model.safetensors holds."""

    def damage(folder: Path) -> None:
        values = load_file(folder / TENSORS)
        change(values)
        save_file(values, folder / TENSORS)

    return damage


def on_the_head(values: dict[str, Tensor]) -> None:
    values[A.replace(OF_ENCODER_0, "lm_head")] = torch.zeros(3, 32)


def large_b(values: dict[str, Tensor]) -> None:
    values[B].fill_(99)


def truncated(folder: Path) -> None:
    path = folder / TENSORS
    path.write_bytes(path.read_bytes()[:-100])


def relinked(folder: Path) -> None:
    (folder / TENSORS).unlink()
    (folder / TENSORS).symlink_to(folder / "nothing")


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / TENSORS), folder / PICKLED)
    (folder / TENSORS).unlink()


def bad_prompt(folder: Path) -> None:
    save_file({"prompt": torch.zeros(3, 7)}, folder / PROMPT)


REFUSED: dict[str, tuple[Damage, list[str]]] = {
    "no folder": (shutil.rmtree, ["no such folder; expected one with adapter_config.json"]),
    "no settings": (lambda folder: (folder / CONFIG).unlink(), [CONFIG, "no such file"]),
    "no tensors": (lambda folder: (folder / TENSORS).unlink(), [TENSORS, "no such file"]),
    "a pickle": (pickled, ["has only adapter_model.bin, a pickle", "save it by save_pretrained()"]),
    "half a file": (truncated, [TENSORS, "not readable as safetensors", "truncated"]),
    "half the settings": (lambda folder: (folder / CONFIG).write_text('{"r": '), [CONFIG, "not readable as JSON"]),
    "settings that are a list": (lambda folder: (folder / CONFIG).write_text("[]"), [CONFIG, "found list"]),
    "another method": (put(peft_type="LOHA"), ["key 'peft_type' is 'LOHA'", "'LORA'"]),
    "DoRA": (put(use_dora=True), ["key 'use_dora' is True", "rescales"]),
    "biases of the backbone": (put(bias="lora_only"), ["key 'bias' is 'lora_only'", "'none'"]),
    "a bias of its own": (put(lora_bias=True), ["key 'lora_bias' is True", "no biases"]),
    "whole modules": (put(modules_to_save=["lm_head"]), ["key 'modules_to_save' is ['lm_head']", "frozen"]),
    "transposed weights": (put(fan_in_fan_out=True), ["key 'fan_in_fan_out' is True", "(in, out)"]),
    "parameters": (put(target_parameters=["w"]), ["key 'target_parameters' is ['w']"]),
    "tokens": (put(trainable_token_indices=[1, 2]), ["key 'trainable_token_indices' is [1, 2]", "embeddings"]),
    "PiSSA": (put(init_lora_weights="pissa_niter_4"), ["key 'init_lora_weights' is 'pissa_niter_4'", "plain LoRA"]),
    "OLoRA": (put(init_lora_weights="olora"), ["'olora'", "path_initial_model_for_weight_conversion"]),
    "an unknown key": (put(use_rslorra=True), ["unknown key 'use_rslorra'; did you mean 'use_rslora'?"]),
    "no rank": (drop("r"), ["key 'r' is missing"]),
    "a rank of words": (put(r="8"), ["key 'r' is '8'", "integer"]),
    "rank zero": (put(r=0), ["key 'r' is 0", "greater than or equal to 1"]),
    "no expression": (put(rank_pattern={"(wo": 2}), ["rank_pattern", "'(wo' is not a regular expression"]),
    "a rank that the tensors do not have": (put(r=5), [A, "shape (3, 24)", "expected (5, 24) by adapter_config.json"]),
    "another size": (change_tensors(lambda t: t.update({B: torch.zeros(16, 3)})), [B, "(16, 3)", "expected (32, 3)"]),
    "the head": (
        change_tensors(on_the_head), ["a LoRA on 'lm_head'; expected linear layers of the backbone's attentions"]
    ),
    "half a query": (
        change_tensors(lambda t: t.update({A.replace(OF_ENCODER_0, A_QUERY): torch.zeros(3, 32)})),
        [f"lacks '{B.replace(OF_ENCODER_0, A_QUERY)}', the other half"],
    ),
    "another layer": (
        change_tensors(lambda t: t.update({A.replace("block.0", "block.7"): torch.zeros(3, 24)})),
        ["encoder.block.7.layer.1.DenseReluDense.wo", "did you mean 'encoder.block."],
    ),
    "a lone A": (change_tensors(lambda t: t.pop(B)), [f"lacks '{B}'"]),
    "a lone B": (change_tensors(lambda t: t.pop(A)), [f"lacks '{A}'"]),
    "a vector of magnitudes": (
        change_tensors(lambda t: t.update({A.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(32)})),
        ["lora_magnitude_vector': not part of a plain LoRA", "<module>.lora_A.weight or"],
    ),
    "nothing in it": (change_tensors(lambda t: t.clear()), ["no tensors; expected the LoRA of at least one"]),
    "not finite": (change_tensors(lambda t: t[A].fill_(float("nan"))), [A, "not finite"]),
    "a pattern that does not end": (put(rank_pattern={ENDLESS: 2}), [ENDLESS, "takes too long to match"]),
    "many endless patterns": (
        put(alpha_pattern={f"{ENDLESS}{number}": 2 for number in range(200)}),
        ["takes too long to match"],
    ),
    "a long pattern": (put(rank_pattern={"w" * 9999: 2}), ["rank_pattern", "at most 200 characters"]),
    "many patterns": (put(rank_pattern=dict.fromkeys(map(str, range(300)), 2)), ["300 patterns", "at most 256"]),
    "a pattern of flags": (put(rank_pattern={"(?i)wo": 2}), ["'(?i)wo' is not a regular expression"]),
    "a brace": (put(rank_pattern={"(?:wo){e<=1}": 2}), ["a brace that repeats nothing"]),
    "a class of classes": (put(rank_pattern={"[[:alpha:]]o": 2}), ["is not a regular expression"]),
    "a rank of 400 digits": (put(r=10**400), ["key 'r' is 1000", "at most 18 digits"]),
    "a rank beyond any T5": (put(r=65537), ["key 'r' is 65537", "65536"]),
    "an alpha of 400 digits": (put(lora_alpha=10**400), ["key 'lora_alpha' is 1000"]),
    "an infinite alpha": (put(lora_alpha=float("inf")), ["not readable as JSON", "Infinity"]),
    "an alpha beyond float32": (put(alpha_pattern={"wo": 1e39}), ["alpha_pattern.wo", "1e+39"]),
    "a product that is not finite": (
        lambda folder: [put(alpha_pattern={OF_ENCODER_0: 9e37})(folder), change_tensors(large_b)(folder)],
        ["values that are not finite"],
    ),
    "deep settings": (lambda folder: (folder / CONFIG).write_text("[" * 99_999), [CONFIG, "nested too deeply"]),
    "large settings": (lambda folder: (folder / CONFIG).write_text(" " * 2**23), [CONFIG, "has more than"]),
    "settings in another encoding": (
        lambda folder: (folder / CONFIG).write_text("{}", encoding="utf-16"),
        [CONFIG, "not text in UTF-8"],
    ),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.touch()), ["is a file; expected one with"]),
    "a pointer of Git LFS": (
        lambda folder: (folder / TENSORS).write_text("version https://git-lfs.github.com/spec/v1\nsize 3\n"),
        [TENSORS, "is a Git LFS pointer, expected tensors; fetch the file itself: git lfs pull"],
    ),
    "a folder of named adapters": (
        lambda folder: (shutil.copytree(folder, folder / "mine"), (folder / CONFIG).unlink()),
        [f"{CONFIG}: no such file; ", "; name the folder of one: choose from: mine"],
    ),
    "a link to nothing": (relinked, [TENSORS, "no such file"]),
    "flags for numbers": (
        change_tensors(lambda t: t.update({A: t[A].bool()})),
        [A, "has the type BOOL: expected floating-point numbers"],
    ),
    "whole numbers": (change_tensors(lambda t: t.update({A: t[A].int()})), [A, "has the type I32"]),
    "complex numbers": (change_tensors(lambda t: t.update({A: t[A].to(torch.complex64)})), [A, "has the type C64"]),
    "numbers beyond float32": (change_tensors(lambda t: t.update({A: t[A].double() + 1e300})), [A, "not finite"]),
    "a prompt of flags": (
        lambda folder: save_file({"prompt": torch.zeros(3, 32).bool()}, folder / PROMPT),
        [PROMPT, "has the type BOOL"],
    ),
    "a prompt beyond any text": (
        lambda folder: save_file({"prompt": torch.zeros(10_001, 32)}, folder / PROMPT),
        [PROMPT, "P at most 10,000"],
    ),
    "of another backbone": (
        lambda folder: save_file({"prompt": torch.zeros(3, 32)}, folder / PROMPT, {"backbone": "e" * 64}),
        [PROMPT, "trained on the backbone eeeeeeeeeeee, but the current one is"],
    ),
    "no prompt at all": (lambda folder: None, [PROMPT, "needs a description"]),
    "a prompt of another size": (bad_prompt, [PROMPT, "{'prompt': (3, 7)}", "(P, 32)"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_or_damaged_adapters_are_refused(
    name: str, intact: Path, backbone: Backbone, tmp_path: Path
) -> None:
    damage, expected = REFUSED[name]
    folder = shutil.copytree(intact, tmp_path / "lora")
    damage(folder)
    with pytest.raises(ArtifactError) as caught:
        load_lora(folder, "imported", None if "prompt" in name else DESCRIPTION, backbone)
    message = str(caught.value)
    assert message.startswith(str(folder))
    for part in expected:
        assert part in message, message
    assert "\n" not in message


PATTERNS = [
    "wo", r".*\.wo", "encoder.*", r"encoder\.block\.[0-2]\..*", "block.1.layer", r"(?:de|en)coder\..*\.wo", ".*", "",
    "wo|wi", r"wo)|(x", r"(?!encoder).*", r"(?<=e\.)wo", r"(.).*\1wo", "(?i:WO)", "w{1}o{1,}", r"\w+", "[^.]*",
    "wo$", "^wo", r"encoder(?=\.).*\bwo", "x*", r"(?P<name>Dense).*",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_means_what_it_means_to_peft(peft: Any, pattern: str) -> None:
    modules = [
        f"{stack}.block.{layer}.layer.{sublayer}.DenseReluDense.wo"
        for stack, sublayer in (("encoder", 1), ("decoder", 2))
        for layer in range(12)
    ]
    check_patterns([pattern])
    expected = {each: peft.utils.other.get_pattern_key([pattern], each) == pattern for each in modules}
    assert values_of(modules, {pattern: True}, False) == expected


def test_a_lora_without_effect_is_imported(intact: Path, backbone: Backbone, tmp_path: Path) -> None:
    folder = shutil.copytree(intact, tmp_path / "lora")
    put(lora_alpha=0)(folder)
    assert load_lora(folder, "imported", DESCRIPTION, backbone).expert.scale == 0


@pytest.mark.parametrize(
    "change", [put(merge_weights=False, enable_lora=None, some=[]), drop("rank_pattern"), put(alpha_pattern=None)]
)
def test_disabled_options_of_other_peft_versions_are_ignored(
    change: Damage, intact: Path, backbone: Backbone, tmp_path: Path
) -> None:
    folder = shutil.copytree(intact, tmp_path / "lora")
    change(folder)
    expert, before = (load_lora(path, "imported", DESCRIPTION, backbone).expert for path in (folder, intact))
    assert expert.scale == before.scale
    assert all(torch.equal(tensor, before.tensors[name]) for name, tensor in expert.tensors.items())
