"""Count the work of trainings on T5-base, for estimates of the paper's setting. Nothing of this is measured on a GPU.

docs/scale.md explains the model; tests/test_scale.py compares its counts with torch's.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from pemt_core.tasks import JOINT, get_task
from pemt_core.tasks.split_rules import Share
from pemt_core.training.settings import TrainingSettings

# Operators that start work on a device, with 12 layers per stack (tests/test_scale.py counts them); the CPU launches as
# many for any size of batch
STEP_OPERATORS = {"train_source": 2490, "transfer": 4640}
ENCODE_OPERATORS, TOKEN_OPERATORS = 700, 770  # in generation: once, and per token
LOGGED_STEPS = 10  # as in pemt_core/training/loop.py

# By task: rows of the official splits that its rule uses, in its order (record: one training row per answer of 100,730
# queries), and mean tokens of prompt, text and target, as docs/scale.md lists them
_REAL = json.loads((Path(__file__).parent / "real_tasks.json").read_text(encoding="utf-8"))
ROWS: Mapping[str, Sequence[int]] = {name: each["rows"] for name, each in _REAL.items()}
TOKENS: Mapping[str, tuple[int, int, float]] = {name: tuple(each["tokens"]) for name, each in _REAL.items()}


@dataclass(frozen=True)
class Shape:
    """The sizes of a T5 (by default T5-base), and the number of values in its artifacts."""

    d_model: int = 768
    d_ff: int = 3072
    d_kv: int = 64
    num_heads: int = 12
    num_layers: int = 12
    num_decoder_layers: int = 12
    vocab_size: int = 32_128

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})

    @property
    def norms(self) -> int:
        return (2 * self.num_layers + 3 * self.num_decoder_layers + 2) * self.d_model

    def backbone(self) -> int:
        inner, layers = self.num_heads * self.d_kv, self.num_layers + self.num_decoder_layers
        attention = 4 * self.d_model * inner * (layers + self.num_decoder_layers)
        biases = 2 * 32 * self.num_heads  # 32 buckets of relative positions in either stack
        return self.vocab_size * self.d_model + attention + 2 * self.d_model * self.d_ff * layers + self.norms + biases

    def source(self, rank: int, prompt: int) -> int:
        layers = self.num_layers + self.num_decoder_layers
        return prompt * self.d_model + layers * rank * (self.d_model + self.d_ff)

    def target(self, experts: int, bottleneck: int, prompt: int) -> int:
        layers = self.num_layers + self.num_decoder_layers
        adapters = layers * (2 * self.d_model * bottleneck + self.d_model + bottleneck)
        gates = experts * (self.num_layers * self.d_ff + self.num_decoder_layers * self.d_model)
        return prompt * self.d_model + adapters + gates + self.norms


@dataclass(frozen=True)
class Attached:
    """The modules beside every `wo`. Stage 1: one trained adapter, bottleneck 0. Stage 2: folded frozen adapters."""

    experts: int
    rank: int
    bottleneck: int = 0


def forward(shape: Shape, parts: Attached, source: float, target: float, *, sparsity: bool) -> tuple[float, float]:
    """Operations of a row's forward pass: those with frozen weights, and those whose factors both need a gradient.

    `source` counts positions of the encoder, prompt included, and `target` those of the decoder. Gates, layer norms and
    the prompt's attention to the sources' prompts are left out.
    """
    D, F, inner = shape.d_model, shape.d_ff, shape.num_heads * shape.d_kv
    encoded, decoded = source * shape.num_layers, target * shape.num_decoder_layers
    crossed = decoded + source * shape.num_decoder_layers  # attention to the encoder: q and o, k and v
    weights = (encoded + decoded) * (4 * D * inner + 2 * D * F) + crossed * 2 * D * inner
    frozen = 2 * (weights + target * D * shape.vocab_size)
    both = 4 * inner * (encoded * source + decoded * (target + source))  # attention: Q K^T, and its product with V
    experts = 2 * (encoded + decoded) * parts.experts * parts.rank * (D + F)
    if not parts.bottleneck:
        return frozen, both + experts
    cosines = 2 * (encoded + decoded) * parts.experts * parts.rank * (D + parts.rank) if sparsity else 0
    return frozen + experts + cosines, both + 4 * (encoded + decoded) * D * parts.bottleneck


def training_flops(shape: Shape, parts: Attached, source: float, target: float) -> float:
    """Operations of a row's training step: backward costs as much as forward, twice as much if both factors need it."""
    frozen, both = forward(shape, parts, source, target, sparsity=True)
    return 2 * frozen + 3 * both


@dataclass(frozen=True)
class Gpu:
    """A device, and how fast the CPU gives it work."""

    flops: float  # per second, sustained
    launch: float  # seconds per operator

    def seconds(self, flops: float, operators: float) -> float:
        return max(flops / self.flops, operators * self.launch)


@dataclass(frozen=True)
class Lengths:
    """Means over a task's prepared rows: tokens, padded as in training batches, and bytes over all splits."""

    source: float
    target: float
    prompt: int
    bytes_per_row: float


@dataclass(frozen=True)
class Work:
    """The work of a step."""

    seconds: float
    flops: float = 0
    steps: int = 0
    writes: int = 0  # to the tracking store


def generation(gpu: Gpu, parts: Attached, lengths: Lengths, rows: int, batch: int) -> Work:
    positions, shape = lengths.source + lengths.prompt, Shape()
    encode = sum(forward(shape, parts, positions, 0, sparsity=False))
    decode = sum(forward(shape, parts, positions, lengths.target, sparsity=False)) - encode
    encoding = gpu.seconds(batch * encode, ENCODE_OPERATORS)
    decoding = gpu.seconds(batch * decode, lengths.target * TOKEN_OPERATORS)
    return Work(ceil(rows / batch) * (encoding + decoding), rows * (encode + decode))


def training(gpu: Gpu, step: str, parts: Attached, lengths: Lengths, rows: Mapping[str, int], settings: Any) -> Work:
    """One training with its evaluation after every epoch. `settings`: TrainSourceSettings or TransferSettings."""
    how: TrainingSettings = settings.training
    steps = how.epochs * ceil(rows["train"] / how.batch_size)
    flops = training_flops(Shape(), parts, lengths.source + lengths.prompt, lengths.target)
    scored = generation(gpu, parts, lengths, rows["validation"], how.batch_size)
    seconds = steps * gpu.seconds(how.batch_size * flops, STEP_OPERATORS[step]) + how.epochs * scored.seconds
    writes = ceil(steps / LOGGED_STEPS) + how.epochs
    return Work(seconds, how.epochs * (rows["train"] * flops + scored.flops), steps, writes)


def rows_of(name: str) -> dict[str, int]:
    """Rows of train, validation and test by the task's split rule, caps included."""
    task = get_task(name)
    official = dict(zip(task.splits.official_splits, ROWS[name], strict=True))
    held_out = min(1_000, official["train"] // 10)
    shares: dict[Share, Callable[[int], int]] = {
        Share.ALL: lambda rows: rows,
        Share.FIRST_HALF: lambda rows: rows // 2,
        Share.SECOND_HALF: lambda rows: rows - rows // 2,
        Share.HELD_OUT: lambda rows: held_out,
        Share.REMAINDER: lambda rows: rows - held_out,
    }
    sizes = {role: shares[portion.share](official[portion.split]) for role, portion in task.splits.roles.items()}
    return {role: min(size, task.caps.get(role, size)) for role, size in sizes.items()}


def source_rows(name: str, sources: Sequence[str]) -> dict[str, dict[str, int]]:
    """The tasks whose rows a source is trained on, and how many of each split; none for a task of the user's files.

    `joint` takes of every split as many rows of each of the other `sources` as the smallest of them has.
    """
    parts = {part: rows_of(part) for part in (sources if name == JOINT else [name]) if part in ROWS}
    if name != JOINT or not parts:
        return parts
    smallest = {split: min(rows[split] for rows in parts.values()) for split in ("train", "validation", "test")}
    return dict.fromkeys(parts, smallest)
