"""Compare the speed of the answering rules on rows of the embedded suite.

    python benchmarks/evaluation.py [--target cb]... [--repeats 5]

For each target, PEMT with random experts is trained a few steps on the embedded backbone, so that it writes label words
and ends them. It then answers the test rows, in turn, by `score`, by `generate`, and by `generate` with another full
forward pass: over the text and the generated answer, whose probability it finds, or over the text with each label,
which finds the probabilities that `score` does. Prints a Markdown table with rows per processor second in the fastest
repeat, and the ratios of `score` to both.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from pemt_core.answering.answers import Answerer
from pemt_core.answering.split import EvaluationSplit
from pemt_core.backbone.checkpoint import fetch_backbone
from pemt_core.backbone.store import Backbone
from pemt_core.backbone.text_ids import description_ids
from pemt_core.backbone.tokenizer import obtain_tokenizer
from pemt_core.data.prepared import PreparedTask
from pemt_core.data.tokenized import answer_length, tokenize
from pemt_core.model.assemble import Expert, initial_source_tensors
from pemt_core.model.prompted import PromptedModel
from pemt_core.preparation import prepare_task
from pemt_core.settings import Settings, load_settings
from pemt_core.tasks import TASKS

STEPS, LEARNING_RATE, SEED = 60, 1e-2, 31
Batches = Sequence[NDArray[np.int64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", help="a target with label words (default: cb, rte, mrpc, boolq)")
    parser.add_argument("--repeats", type=int, default=5, help="of each way (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_settings(Path("params.yaml"))
    backbone = embedded_backbone(settings)
    ways = ["score", "generate", "with a forward pass", "with one per label"]
    print(f"| target | labels | rows | {' | '.join(ways)} | ratios | equal answers |")
    print(f"| --- |{' ---: |' * 8}")
    for target in arguments.target or ["cb", "rte", "mrpc", "boolq"]:
        with TemporaryDirectory() as folder, few_shot_model(target, settings, backbone, Path(folder)) as model:
            split = test_split(Path(folder), settings, backbone)
            print(row_of(model, split, backbone, settings.evaluate.batch_size, arguments.repeats), flush=True)


def embedded_backbone(settings: Settings) -> Backbone:
    """The backbone of the demo, as the step `backbone` reads it."""
    tokenizer = obtain_tokenizer(settings.backbone.of_tokenizer, Path())
    model, _ = fetch_backbone(settings.backbone, tokenizer)
    return Backbone(model.eval(), tokenizer, "")


def few_shot_model(target: str, settings: Settings, backbone: Backbone, folder: Path) -> PromptedModel:
    """PEMT for a target, trained a few steps; its rows are prepared in `folder`."""
    source = settings.prepare
    prepare_task(
        TASKS[target],
        source="embedded",
        embedded_seed=source.embedded_seed,
        split_seed=source.split_seed,
        max_rows={"train": STEPS * 32, "validation": 1, "test": None},
        output_dir=folder,
    )
    prepared, tokenizer = PreparedTask.load(folder), backbone.tokenizer
    method, generator = settings.method("pemt"), torch.Generator().manual_seed(SEED)
    ids = torch.tensor(description_ids(tokenizer, prepared.task.description))
    experts = [expert(name, settings, backbone, generator) for name in settings.tasks.sources]
    model = method.build(backbone.model, method.initial_tensors(backbone.model, ids, experts, generator), experts)
    rows, length = prepared.rows("train").slice(0, STEPS * 32), answer_length(prepared.task, tokenizer)
    texts, answers = rows["source"].to_pylist(), rows["target"].to_pylist()
    tokens = tokenize(texts, answers, tokenizer, source_length=method.source_length, target_length=length)
    optimizer = torch.optim.AdamW(model.trained.values(), lr=LEARNING_RATE)
    for step in range(STEPS):
        batch = np.random.default_rng(step).choice(len(tokens), 32, replace=False)
        model(**tokens.batch(batch)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.trained.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model


def expert(task: str, settings: Settings, backbone: Backbone, generator: torch.Generator) -> Expert:
    """A random expert of the size that `train_source` trains."""
    training = settings.train_source_for(task)
    ids = torch.tensor(description_ids(backbone.tokenizer, TASKS[task].description))
    prompt = backbone.model.get_input_embeddings()(ids).detach()
    tensors = initial_source_tensors(backbone.model, prompt, rank=training.rank, init="kaiming", generator=generator)
    return Expert(task, tensors, training.scale)


def test_split(folder: Path, settings: Settings, backbone: Backbone) -> EvaluationSplit:
    """All test rows of the prepared target."""
    prepared, length = PreparedTask.load(folder), settings.transfer.source_length
    rows = prepared.rows("test")
    return EvaluationSplit.of(prepared.task, rows, backbone.tokenizer, source_length=length, max_rows=None)


def row_of(model: PromptedModel, split: EvaluationSplit, backbone: Backbone, batch_size: int, repeats: int) -> str:
    """Time the three ways in turn, so that other load affects all alike."""
    lengths = split.texts.texts.lengths
    order = np.argsort(-lengths, kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    ways: dict[str, Callable[[], list[str]]] = {
        "score": lambda: answers(model, split, backbone, batches, "score"),
        "generate": lambda: answers(model, split, backbone, batches, "generate"),
        "answer": lambda: generated_and_read(model, split, backbone, batches),
        "labels": lambda: generated_and_read(model, split, backbone, batches, split.task.labels),
    }
    seconds, texts = dict.fromkeys(ways, float("inf")), {}
    for _ in range(repeats):
        for name, answer in ways.items():
            begin = time.process_time()
            texts[name] = answer()
            seconds[name] = min(seconds[name], time.process_time() - begin)
    same = sum(one == other for one, other in zip(texts["score"], texts["generate"], strict=True))
    speeds = [f"{len(split) / seconds[name]:.0f}" for name in ways]
    ratios = ", ".join(f"{seconds[name] / seconds['score']:.1f}" for name in ("answer", "labels"))
    sizes = [str(len(split.task.labels or [])), str(len(split))]
    return f"| {' | '.join([split.task.name, *sizes, *speeds, ratios, str(same)])} |"


def answers(model: PromptedModel, split: EvaluationSplit, backbone: Backbone, batches: Batches, rule: str) -> list[str]:
    answerer = Answerer(backbone.tokenizer, split.task, "score" if rule == "score" else "generate")
    return [t for batch in answerer.answer(model, split.texts, batches, probabilities=False) for t in batch.texts]


def generated_and_read(
    model: PromptedModel,
    split: EvaluationSplit,
    backbone: Backbone,
    batches: Batches,
    labels: Sequence[str] | None = None,
) -> list[str]:
    """Generate, then pass texts and answers through the model, or texts and each of the labels."""
    found = []
    answerer = Answerer(backbone.tokenizer, split.task, "generate")
    for batch in answerer.answer(model, split.texts, batches, probabilities=False):
        inputs = split.texts.batch(batch.rows)
        for answers in [[label] * len(batch.texts) for label in labels or []] or [batch.texts]:
            pairs = tokenize(answers, answers, backbone.tokenizer, source_length=1, target_length=16)
            with torch.no_grad():
                model(*inputs, pairs.batch(np.arange(len(answers)))["labels"])
        found += batch.texts
    return found


if __name__ == "__main__":
    main()
