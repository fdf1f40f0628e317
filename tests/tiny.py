"""Tiny backbones, tokenizer and prepared tasks, and both stages run on them (also from other processes)."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxtyping
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.description import TrainingRecord
from pemt_core.artifacts.files import read_record, sha256_of_file, write_record
from pemt_core.artifacts.result import load_results
from pemt_core.artifacts.run_info import RunInfo
from pemt_core.backbone.store import save_backbone
from pemt_core.backbone.tokenizer import load_tokenizer, train_tokenizer
from pemt_core.data.corpus import CorpusText, corpus_table
from pemt_core.data.prepared import ROW_SCHEMA, SPLITS, TaskDescription, load_task_description, write_description
from pemt_core.methods import method_of
from pemt_core.model.assemble import (
    Expert,
    build_target_model,
    initial_prompt,
    initial_source_tensors,
    initial_target_tensors,
)
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.stacks import width
from pemt_core.report.names import MethodNames
from pemt_core.report.table import Tables
from pemt_core.settings import EvaluateSettings, LonePromptSettings, ReportSettings, TrainSourceSettings
from pemt_core.settings.steps import Transfer, Transfers, as_text
from pemt_core.steps.collect_experts import collect_experts
from pemt_core.steps.evaluate import evaluate
from pemt_core.steps.record import record
from pemt_core.steps.train_source import train_source
from pemt_core.steps.transfer import TargetTransfer, transfer
from pemt_core.tracking import Tracker
from pemt_core.training.run import OpenRun, SilentRun

torch.set_num_threads(1)  # on tensors this small, threads cost ten times what they save

Batch = dict[str, Tensor]

SIZES = {"vocab_size": 64, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3}
KINDS: dict[str, dict[str, Any]] = {
    "t5": {},
    "wide": {"d_model": 40, "d_kv": 5, "d_ff": 12, "num_heads": 3, "num_layers": 4, "num_decoder_layers": 1},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mt5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def tiny_t5(kind: str = "t5", *, seed: int = 0, dropout: float = 0.0, **sizes: Any) -> Any:
    """A random T5 whose layers all matter: weights larger than T5's initial ones, and no layer norm equal to one."""
    config = {**SIZES, "num_heads": 4, "decoder_start_token_id": 0, "dropout_rate": dropout, **KINDS[kind], **sizes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        is_mt5 = kind == "mt5"
        model = (
            MT5ForConditionalGeneration(MT5Config(**config))
            if is_mt5
            else T5ForConditionalGeneration(T5Config(**config))
        )
        if kind in ("v1.1", "mt5"):  # their output layer is a separate matrix
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.shared.weight))
        for name, parameter in model.named_parameters():
            if name.endswith("layer_norm.weight"):
                parameter.data.uniform_(0.5, 1.5)
            else:
                parameter.data.normal_(0, 1.0 if "shared" in name else 0.3)
    return model.eval()


def tiny_batch(rows: int = 4, *, length: int = 7, label_length: int = 4, vocab_size: int = 64, seed: int = 0) -> Batch:
    """Random ids; every row but the first is padded, each by a different amount."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(2, vocab_size, (rows, length), generator=generator)
    labels = torch.randint(2, vocab_size, (rows, label_length), generator=generator)
    mask = torch.ones_like(input_ids)
    for row in range(1, rows):
        mask[row, length - row % (length - 1) :] = 0
        labels[row, label_length - row % label_length :] = -100
    return {"input_ids": input_ids * mask, "attention_mask": mask, "labels": labels}


def random_experts(backbone: Any, count: int, *, rank: int = 3, seed: int = 1) -> list[Expert]:
    """Source adapters as if trained: no tensor is zero; prompts and scales differ."""
    generator = torch.Generator().manual_seed(seed)
    experts = []
    for k in range(count):
        prompt = torch.randn(3 + k, width(backbone), generator=generator)
        tensors = initial_source_tensors(backbone, prompt, rank=rank, init="kaiming", generator=generator)
        experts.append(Expert(f"source{k}", tensors, 0.5 + 0.25 * k))
    return experts


def random_target_tensors(
    backbone: Any, num_experts: int, *, prompt_length: int = 5, seed: int = 2
) -> dict[str, Tensor]:
    """Stage 2's tensors as after some training: gates, biases and layer norms moved away from their start."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(3, 3 + prompt_length)
    prompt = initial_prompt(backbone, ids, "vocab", generator)
    experts = random_experts(backbone, num_experts)
    tensors = initial_target_tensors(backbone, prompt, experts, reduction_factor=4, generator=generator)
    return {n: t + 0.3 * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}


def target_model(backbone: Any, num_experts: int = 3, **options: Any) -> PromptedModel:
    """A stage-2 model on `backbone` with random experts and random target tensors, in evaluation mode."""
    tensors = random_target_tensors(backbone, num_experts)
    options = {"prompt_dropout": 0.1, "sparsity_coefficient": 0.1, **options}
    return build_target_model(backbone, tensors, random_experts(backbone, num_experts), **options).eval()


WORDS = ("red", "blue", "green", "stone", "river", "cloud", "lamp", "paper", "window", "garden")
FILLERS = WORDS[3:]


def write_corpus(path: Path, rows: int = 200) -> Path:
    """Write plain sentences that contain every character of the toy tasks."""
    texts = [
        f"The first ten minutes of day {n} the {FILLERS[n % 7]} and the {FILLERS[n % 5]} were {WORDS[n % 3]}, "
        f"decide the colour: {WORDS[n % 3]}?"
        for n in range(rows)
    ]
    pq.write_table(corpus_table(map(CorpusText, texts)), path)
    return path


def tiny_tokenizer(folder: Path, vocab_size: int = 400, words: Sequence[str] = ()) -> Any:
    """Train a tokenizer, which has `words` as tokens, and read it back from `folder`/tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = write_corpus(folder / "corpus.parquet")
    train_tokenizer(corpus, vocab_size, words).save_pretrained(folder / "tokenizer")
    return load_tokenizer(str(folder / "tokenizer"))


def write_task(
    folder: Path,
    name: str,
    *,
    labels: Sequence[str] = ("red", "blue"),
    rows: Mapping[str, int] | None = None,
    fillers: int = 3,
) -> Path:
    """Write a prepared toy task to `folder`/`name`: answer which of the label words occurs in the text.

    With `fillers` 0, all sources have the same number of tokens, and so do all targets.
    """
    sizes = {"train": 24, "validation": 8, "test": 8, **(rows or {})}
    target = folder / name
    target.mkdir(parents=True)
    for seed, split in enumerate(SPLITS):
        table = [_toy_row(f"{split}-{n}", n, labels, fillers * ((n + seed) % 4)) for n in range(sizes[split])]
        pq.write_table(pa.Table.from_pylist(table, schema=ROW_SCHEMA), target / f"{split}.parquet")
    description = f"Decide which colour the {name} text names."
    write_description(target, TaskDescription(name, "Others", description, list(labels), ["accuracy"], 6))
    return target


def _toy_row(identifier: str, number: int, labels: Sequence[str], fillers: int) -> dict[str, Any]:
    word = labels[number % len(labels)]
    padding = "".join(f" {FILLERS[(number + n) % 7]}" for n in range(fillers))
    source = f"text: {word}{padding}"
    names = {"id": identifier, "group": identifier, "cluster": identifier}
    return {**names, "source": source, "target": word, "references": [word]}


def change_record(path: Path, **changes: Any) -> None:
    """Change values of a JSON file with a checksum; the checksum, and the hash of a training.json, fit afterwards."""
    write_record(path, {**read_record(path, ""), **changes})
    if path.name == "training.json":
        change_record(path.with_name("adapter.json"), training=sha256_of_file(path))


def change_rows(task_dir: Path, split: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a split of a prepared task; its description fits afterwards."""
    pq.write_table(change(pq.read_table(task_dir / f"{split}.parquet")), task_dir / f"{split}.parquet")
    write_description(task_dir, load_task_description(task_dir))


TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "gradient_accumulation": 1,
    "epochs": 2,
    "max_steps": None,
    "warmup_steps": 0,
    "max_grad_norm": 1.0,
    "precision": "float32",
    "evaluate_every": "epoch",
    "validation_rows": None,
    "early_stop": None,
    "checkpoint_every": 100,
}


def source_settings(**changes: Any) -> TrainSourceSettings:
    """Stage-1 settings; a change that is not a key of the group changes its `training`."""
    values: dict[str, Any] = {
        "seed": 7,
        "rank": 4,
        "alpha": 4,
        "init": "zero",
        "prompt_init": "vocab",
        "source_length": 32,
        "select_by": "mean",
        "training": {"learning_rate": 1e-2, **TRAINING},
    }
    return TrainSourceSettings.model_validate(_changed(values, changes))


METHODS: dict[str, dict[str, Any]] = {
    "pemt": {},
    "control": {"kind": "pemt", "sources": []},
    **{f"without_{source}": {"kind": "pemt", "without": [source]} for source in ("alpha", "beta", "delta")},
}


def transfer_settings(*, task: str = "gamma", answer: AnswerRule = "generate", **changes: Any) -> Transfer:
    """The settings that stage 2 of a target reads. `methods` are names of METHODS, or entries by name; a change that is
    not a key of the group `transfer` changes its `training`."""
    values: dict[str, Any] = {
        "methods": ["pemt"],
        "seeds": [4096],
        "k": ["full"],
        "rare_class": "error",
        "reduction_factor": 4,
        "prompt_init": "vocab",
        "prompt_dropout": 0.1,
        "sparsity_coefficient": 0.1,
        "sparsity_positions": "all",
        "source_length": 32,
        "select_by": "mean",
        "learning_rates": [1e-2],
        "search": "full",
        "group": "auto",
        "training": dict(TRAINING),
    }
    values = _changed(values, changes)
    methods, ks, seeds, group = (values.pop(name) for name in ("methods", "k", "seeds", "group"))
    entries = methods if isinstance(methods, dict) else {name: METHODS[name] for name in methods}
    resolved = {name: method_of(name, entry, values, name).model_dump() for name, entry in entries.items()}
    return Transfer(target=task, methods=resolved, k=ks, seeds=seeds, answer=answer, group=group, code="")


def transfer_text(**changes: Any) -> str:
    """`transfer_settings` of one target, as the program of stage 2 reads them."""
    return as_text(Transfers(targets=[transfer_settings(**changes)]))


def _changed(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        (values if key in values else values["training"])[key] = value
    return values


@dataclass(frozen=True)
class World:
    """A folder with everything that both stages read: data/<task>, backbone, adapters/<source>, experts."""

    folder: Path

    SOURCES = ("alpha", "beta")
    TARGET = "gamma"
    SCORED = ("gamma", "delta", "epsilon")

    @classmethod
    def make(cls, folder: Path, *, dropout: float = 0.1, fillers: int = 3) -> "World":
        """Make two sources, briefly trained, and a target."""
        tokenizer = tiny_tokenizer(folder)
        model = tiny_t5(vocab_size=len(tokenizer), d_model=32, dropout=dropout)
        save_backbone(folder / "backbone", model, tokenizer)
        return cls.on_backbone(folder, fillers=fillers)

    @classmethod
    def on_backbone(cls, folder: Path, *, fillers: int = 3) -> "World":
        """Make two sources, briefly trained, and a target, for the backbone in `folder`."""
        world = cls(folder)
        for name in (*cls.SOURCES, cls.TARGET):
            write_task(folder / "data", name, fillers=fillers)
        for name in cls.SOURCES:
            world.train_source(folder / "adapters" / name, task=name, init="kaiming", epochs=1)
        adapters = [folder / "adapters" / name for name in cls.SOURCES]
        collect_experts(adapters, cls.SOURCES, backbone_dir=folder / "backbone", output_dir=folder / "experts")
        return world

    @classmethod
    def scored(cls, folder: Path, trained: "World") -> "World":
        """A copy of a finished world, with results in scores/<target>/<cell>, made by the steps themselves."""
        world = cls(Path(shutil.copytree(trained.folder, folder)))
        for name in cls.SCORED:
            if name != cls.TARGET:
                write_task(folder / "data", name)
            world.transfer(
                folder / "targets" / name, task=name, methods=["pemt", "control"], seeds=[1, 2], epochs=8,
                learning_rates=[0.1], evaluate_every=100,
            )  # fmt: skip
        evaluate(
            {name: folder / "targets" / name for name in cls.SCORED},
            folder / "data",
            folder / "backbone",
            folder / "experts",
            EvaluateSettings(answer="generate", batch_size=8, precision="float32", max_rows=None),
            output_dir=folder / "scores",
        )
        return world

    def record(self, tracker: Tracker, scores: Path | None = None) -> None:
        """Run the step that records everything in `tracker`; `scores` replaces the world's."""
        scores = scores or self.folder / "scores"
        tables = Tables.of(load_results(scores), MethodNames({}, {}), 0.95)
        sources = [self.folder / "adapters" / name for name in self.SOURCES]
        record(tables, scores, sources, ReportSettings(confidence=0.95, layer_groups=2), tracker, self.folder)

    def train_source(
        self,
        output: Path,
        *,
        task: str = "alpha",
        answer: AnswerRule = "generate",
        checkpoints: Path | None = None,
        log: Path | None = None,
        prompt: LonePromptSettings | None = None,
        **changes: Any,
    ) -> TrainingRecord:
        """Run stage 1 as the component does."""
        done = train_source(
            self.folder / "data" / task,
            self.folder / "backbone",
            source_settings(**changes),
            source=task,
            answer=answer,
            output_dir=output,
            checkpoint_dir=checkpoints or output.parent / "checkpoints",
            open_run=logging_runs(log),
            prompt=prompt,
        )
        return done.record

    def transfer(
        self,
        output: Path,
        *,
        task: str = "gamma",
        answer: AnswerRule = "generate",
        checkpoints: Path | None = None,
        log: Path | None = None,
        workers: int | None = 1,
        costs: Path | None = None,
        keep_others: bool = False,
        **changes: Any,
    ) -> Any:
        """Run stage 2 as the component does, without the checks of shapes, which take a third of it."""
        settings = transfer_settings(task=task, answer=answer, **changes)
        with unchecked():
            return transfer(
                [TargetTransfer(settings, self.folder / "data" / task, output, costs)],
                self.folder / "backbone",
                self.folder / "experts",
                checkpoint_dir=checkpoints or output.parent / "checkpoints",
                open_run=logging_runs(log),
                workers=workers,
                keep_others=keep_others,
            )


@contextmanager
def unchecked() -> Iterator[None]:
    """Switch the tests' checks of shapes off in the block."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


class LoggedRun(SilentRun):
    """A run that writes every point as a line of JSON."""

    def __init__(self, cell: str, path: Path) -> None:
        self.cell, self.path = cell, path

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"cell": self.cell, "step": step, **metrics}) + "\n")


def logging_runs(path: Path | None) -> OpenRun:
    """Runs that write to `path`; without a path they write nothing."""

    @contextmanager
    def open_run(info: RunInfo) -> Iterator[SilentRun]:
        yield SilentRun() if path is None else LoggedRun(info.cell, path)

    return open_run


def main(arguments: Sequence[str]) -> None:
    """Run one stage here: `python tests/tiny.py STAGE FOLDER OUTPUT LOG {JSON of changed settings, workers}`."""
    stage, folder, output, log, changes = arguments
    logging.basicConfig(level=logging.INFO)
    Path(log).with_name(f"rank-{os.environ.get('RANK', 0)}").touch()
    runs: dict[str, Callable[..., Any]] = {
        "train_source": World(Path(folder)).train_source,
        "transfer": World(Path(folder)).transfer,
    }
    runs[stage](Path(output), log=Path(log), **json.loads(changes))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
