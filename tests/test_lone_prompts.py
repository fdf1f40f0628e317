"""Prompts of sources that are trained without an adapter: where they are asked for, how they are stored and read."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_components import run_here, tracking_in
from tiny import TRAINING, World, change_record, source_settings, tiny_batch

from pemt_core.artifacts.description import load_training_record
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.finished import FinishedStore
from pemt_core.artifacts.source import load_lone_prompt, load_source
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import ArtifactError, SettingsError
from pemt_core.methods.pemt import Pemt
from pemt_core.model.prompt_tuning import build_prompt_model
from pemt_core.schema.validation import merged
from pemt_core.settings import LonePromptSettings, parse_settings, read_params
from pemt_core.settings.steps import CollectExperts, TrainSource, as_text
from pemt_core.steps.collect_experts import collect_experts
from pemt_core.steps.plan import make_plan
from pemt_core.tracking import Tracker, connect
from pemt_core.tracking.results import record_sources
from pemt_core.training import source as source_training

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

REPOSITORY = Path(__file__).parents[1]
VALUES = read_params(REPOSITORY / "params.yaml")
PROMPT = LonePromptSettings.model_validate(
    {
        "length": 6,
        "init": "vocab5000",
        "seed": 7,
        "source_length": 32,
        "select_by": "mean",
        "training": {**TRAINING, "learning_rate": 0.3, "epochs": 3},
    }
)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods of the kind pemt read prompts that were trained alone."""
    monkeypatch.setattr(Pemt, "needs_lone_prompts", True)


def settings_with(**differences: Any) -> Any:
    return parse_settings(merged(VALUES, differences), "params.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what is asked for


def test_no_prompt_is_trained_alone_unless_a_listed_method_reads_it() -> None:
    plan = make_plan(settings_with(), REPOSITORY)
    assert [each.prompt for each in plan.train_source.values()] == [None] * len(VALUES["tasks"]["sources"])
    assert plan.collect_experts.lone_prompts == []


@pytest.mark.usefixtures("reading")
def test_only_the_sources_that_a_listed_method_reads_are_asked_for() -> None:
    plan = make_plan(
        settings_with(methods={"pemt": {"sources": ["sst2", "mnli"]}}, per_source={"sst2": {"prompt": {"length": 9}}}),
        REPOSITORY,
    )
    prompts = {name: each.prompt for name, each in plan.train_source.items() if each.prompt}
    assert [*prompts] == plan.collect_experts.lone_prompts == ["mnli", "sst2"]
    assert [each.length for each in prompts.values()] == [VALUES["train_source"]["prompt"]["length"], 9]
    assert prompts["mnli"].training.learning_rate == VALUES["train_source"]["prompt"]["training"]["learning_rate"]
    assert prompts["mnli"].training.validation_rows == VALUES["train_source"]["training"]["validation_rows"]
    assert prompts["mnli"].seed == VALUES["train_source"]["seed"]


LORA = {"adapter": "imported/own", "description": "A task."}


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            {"train_source": {"kinds": ["adapter"]}},
            "methods.pemt: reads the prompt of mnli, trained alone, but train_source.kinds has no prompt; set it to "
            "[adapter, prompt]",
        ),
        (
            {"per_source": {"qqp": {"kinds": ["adapter"]}}},
            "methods.pemt: reads the prompt of qqp, trained alone, but per_source.qqp.kinds has no prompt",
        ),
        (
            {"imported_sources": {"own": LORA}},
            "methods.pemt: reads the prompt of own, trained alone, which an imported source lacks",
        ),
    ],
)
def test_a_prompt_that_cannot_be_trained_is_an_error(differences: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings_with(**differences)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({"kinds": ["prompt"]}, "expected [adapter] or [adapter, prompt], since every source has an adapter"),
        ({"kinds": ["adapter", "promt"]}, "'adapter' or 'prompt'"),
        ({"prompt": {"lenght": 3}}, "unknown key 'train_source.prompt.lenght'; did you mean 'length'"),
        ({"prompt": {"training": {"lr": 3}}}, "train_source.prompt.training: unknown key 'lr'"),
        ({"prompt": {"training": {"epochs": 0}}}, "train_source.prompt.training: key 'epochs' is 0"),
    ],
)
def test_invalid_settings_of_the_prompt_are_named(group: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings_with(train_source=group)
    assert expected in str(error.value)


# --- what is trained and stored


@pytest.fixture(scope="module")
def prompted(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sources of the world, with prompts that were trained alone, and their experts."""
    folder = tmp_path_factory.mktemp("prompted")
    for name in World.SOURCES:
        world.train_source(folder / "adapters" / name, task=name, prompt=PROMPT, init="kaiming", epochs=1)
    collect(world, folder, World.SOURCES)
    return folder


def collect(world: World, folder: Path, lone_prompts: Sequence[str]) -> Path:
    collect_experts(
        [folder / "adapters" / name for name in World.SOURCES],
        World.SOURCES,
        lone_prompts=lone_prompts,
        backbone_dir=world.folder / "backbone",
        output_dir=folder / "experts",
    )
    return folder / "experts"


def test_the_prompt_is_an_artifact_beside_an_unchanged_adapter(world: World, prompted: Path, tmp_path: Path) -> None:
    world.train_source(tmp_path / "alpha", init="kaiming", epochs=1)
    folder = prompted / "adapters" / "alpha"
    both = files(folder)
    assert {name: content for name, content in both.items() if "/" not in name} == files(tmp_path / "alpha")
    assert {name for name in both if "/" in name} == {
        "prompt/adapter.json", "prompt/adapter.safetensors", "prompt/training.json"
    }  # fmt: skip
    record = load_training_record(folder / "prompt")
    assert record.trained_parameters == PROMPT.length * 32
    assert record.steps == 18


def test_the_prompt_alone_was_trained(world: World, prompted: Path) -> None:
    """It moved from its start, and the model with it is the frozen backbone behind these vectors."""
    backbone = load_backbone(world.folder / "backbone")
    prompt = load_lone_prompt(prompted / "adapters" / "alpha", backbone).tensors["prompt"]
    rows = backbone.model.get_input_embeddings().weight.detach()
    assert prompt.shape == (PROMPT.length, 32)
    assert (prompt.unsqueeze(1) - rows).abs().amax(-1).min() > 0.05  # no vector is a token's embedding any longer
    batch = tiny_batch()
    before = backbone.model(**batch).logits
    embedded = torch.cat([prompt.expand(4, -1, -1), backbone.model.shared(batch["input_ids"])], dim=1)
    mask = torch.cat([torch.ones(4, len(prompt), dtype=torch.long), batch["attention_mask"]], dim=1)
    expected = backbone.model(inputs_embeds=embedded, attention_mask=mask, labels=batch["labels"])
    with build_prompt_model(backbone.model, {"prompt": prompt}) as model:
        output = model.eval()(**batch)
    torch.testing.assert_close(output.logits, expected.logits)
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(backbone.model(**batch).logits, before)


def test_a_damaged_prompt_is_refused(world: World, prompted: Path, tmp_path: Path) -> None:
    backbone = load_backbone(world.folder / "backbone")
    source = prompted / "adapters" / "alpha"
    with pytest.raises(ArtifactError, match=r"adapter\.json: no such file"):
        load_lone_prompt(world.folder / "adapters" / "alpha", backbone)
    with pytest.raises(ArtifactError, match="not the description of a source, as train_source writes it"):
        load_source(source / "prompt", backbone)
    folder = tmp_path / "prompt"
    for name, content in files(source / "prompt").items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    settings = {**json.loads((folder / "adapter.json").read_text())["settings"], "length": 5}
    change_record(folder / "adapter.json", settings=settings)
    with pytest.raises(ArtifactError, match=r"'prompt' has the shape \[6, 32\], expected \[5, 32\] by its backbone"):
        load_lone_prompt(tmp_path, backbone)
    save_file({"prompt": torch.zeros(6, 32)}, folder / "adapter.safetensors")
    with pytest.raises(ArtifactError, match="it is truncated or altered"):
        load_lone_prompt(tmp_path, backbone)


def test_runs_show_the_curve_of_the_prompt_too(world: World, prompted: Path, tmp_path: Path) -> None:
    tracker: Tracker = connect("sqlite:///runs.db", "pemt", tmp_path, "stop")
    assert record_sources([prompted / "adapters" / "alpha", world.folder / "adapters" / "beta"], tracker, tmp_path) == 3
    run = tracker.find("train_source/alpha/prompt")
    assert run is not None
    assert run.metrics["trained_parameters"] == PROMPT.length * 32
    assert run.metrics["validation/main"] == load_training_record(prompted / "adapters/alpha/prompt").validation["main"]
    assert tracker.find("train_source/beta/prompt") is None


def test_the_programs_of_both_steps(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {name: tmp_path / name for name in ("adapters", "experts", "provenance.json", "checkpoints")}
    both = ["--backbone", world.folder / "backbone", "--provenance", places["provenance.json"]]
    training = TrainSource(
        source="alpha", train_source=source_settings(epochs=1), prompt=PROMPT, answer="generate", code=""
    )
    flags = ["--data", world.folder / "data" / "alpha", "--output", places["adapters"] / "alpha", *both]
    flags += ["--tracking", tracking_in(tmp_path), "--checkpoints", places["checkpoints"]]
    for trained in (["train_source alpha", "train_source alpha, prompt alone"], []):
        assert run_here(monkeypatch, "train_source", "--settings", as_text(training), *flags) == ""
        assert json.loads(places["provenance.json"].read_text())["trained"] == trained
    collected = CollectExperts(sources=["alpha"], lone_prompts=["alpha"], imported_sources={}, code="")
    flags = ["--adapters", places["adapters"], "--output", places["experts"], *both]
    assert run_here(monkeypatch, "collect_experts", "--settings", as_text(collected), *flags) == ""
    (expert,) = load_experts(places["experts"], load_backbone(world.folder / "backbone")).experts
    assert expert.lone_prompt is not None


# --- the experts


def test_experts_carry_the_prompts(world: World, prompted: Path, tmp_path: Path) -> None:
    backbone = load_backbone(world.folder / "backbone")
    bank, plain = (load_experts(folder / "experts", backbone) for folder in (prompted, world.folder))
    for expert, other in zip(bank.experts, plain.experts, strict=True):
        stored = load_file(prompted / "adapters" / expert.task / "prompt" / "adapter.safetensors")["prompt"]
        assert expert.lone_prompt is not None
        assert torch.equal(expert.lone_prompt, stored)
        assert other.lone_prompt is None
        assert {*expert.tensors} == {*other.tensors}
    names = list(World.SOURCES)
    assert bank.mixture_hash(names) == plain.mixture_hash(names) == plain.mixture_hash(names, lone_prompts=False)
    assert len({bank.mixture_hash(names), bank.mixture_hash(names, True), bank.mixture_hash(names[::-1], True)}) == 3
    with pytest.raises(ArtifactError, match="the expert of 'alpha' has no prompt that was trained alone; add prompt"):
        plain.mixture_hash(names, lone_prompts=True)


def test_experts_without_prompts_have_the_same_files_as_ever(world: World, prompted: Path) -> None:
    (prompted / "without").mkdir()
    (prompted / "without" / "adapters").symlink_to(prompted / "adapters")
    assert files(collect(world, prompted / "without", [])) == files(world.folder / "experts")


def test_a_prompt_of_some_sources_and_a_missing_one(world: World, prompted: Path, tmp_path: Path) -> None:
    (tmp_path / "adapters").symlink_to(prompted / "adapters")
    bank = load_experts(collect(world, tmp_path, ["beta"]), load_backbone(world.folder / "backbone"))
    assert [expert.lone_prompt is not None for expert in bank.experts] == [False, True]
    with pytest.raises(ArtifactError, match=r"adapters/alpha/prompt/adapter\.json: no such file"):
        collect(world, world.folder, ["alpha"])
    entries = json.loads((tmp_path / "experts" / "experts.json").read_text())["experts"]
    assert ["lone_prompt" in entry for entry in entries] == [False, True]
    entries[0]["lone_prompt"] = "0" * 64
    change_record(tmp_path / "experts" / "experts.json", experts=entries)
    with pytest.raises(ArtifactError, match="lacks the tensor '0/lone_prompt'"):
        load_experts(tmp_path / "experts", load_backbone(world.folder / "backbone"))


# --- finished trainings


@contextmanager
def without_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A training that starts in the block fails."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a training starts")

    with monkeypatch.context() as patch:
        patch.setattr(source_training, "Trainer", fail)
        yield


def test_a_prompt_that_is_asked_for_later_leaves_the_adapter(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter comes from the store; the prompt is trained; then both come from it, as do earlier settings."""
    checkpoints = tmp_path / "checkpoints"
    world.train_source(tmp_path / "first", epochs=1, checkpoints=checkpoints, log=tmp_path / "first.jsonl")
    world.train_source(tmp_path / "both", prompt=PROMPT, epochs=1, checkpoints=checkpoints, log=tmp_path / "both.jsonl")
    first, both = ((tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("first", "both"))
    assert both[: len(first)] == first  # the run of the adapter shows its curve again
    assert {json.loads(line)["cell"] for line in both[len(first) :]} == {"train_source/alpha/prompt"}
    with without_training(monkeypatch):
        world.train_source(tmp_path / "again", prompt=PROMPT, epochs=1, checkpoints=checkpoints)
        world.train_source(tmp_path / "earlier", epochs=1, checkpoints=checkpoints)
        with pytest.raises(AssertionError, match="a training starts"):
            world.train_source(tmp_path / "other", epochs=2, checkpoints=checkpoints)
    assert files(tmp_path / "again") == files(tmp_path / "both")
    assert files(tmp_path / "earlier") == files(tmp_path / "first")
    assert not (tmp_path / "other").exists()
    assert [path.name for path in checkpoints.iterdir()] == ["finished"]


def test_a_damaged_result_is_trained_again(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world.train_source(tmp_path / "out", epochs=1)
    first = files(tmp_path / "out")
    (kept,) = (tmp_path / "checkpoints" / "finished").iterdir()
    (kept / "adapter.safetensors").write_bytes(b"x")
    world.train_source(tmp_path / "out", epochs=1)
    assert "its files are not those that finished.json lists; train it again" in caplog.text
    assert files(tmp_path / "out") == first
    (tmp_path / "out" / "adapter.safetensors").write_bytes(b"x")  # a copy, not a link
    world.train_source(tmp_path / "out", epochs=1)
    assert files(tmp_path / "out") == first


def test_a_result_that_is_not_written_to_its_end_is_not_kept(tmp_path: Path) -> None:
    store = FinishedStore(tmp_path, {"a": 1})
    with pytest.raises(ZeroDivisionError), store.writing() as folder:
        (folder / "half").write_text(str(1 // 0))
    assert not store.holds()
    with store.writing() as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "whole").write_text("x")
    assert store.holds()
    assert not FinishedStore(tmp_path, {"a": 2}).holds()
    store.copy_to(tmp_path / "copy")
    assert files(tmp_path / "copy") == {"inner/whole": b"x"}
