"""Compare both answering rules on every trained cell: test scores, equal answers, and rows per second.

Run it in a trained project, as after `make demo`: python benchmarks/prediction.py [--target cb]... It prints a Markdown
table in which * marks the rule that selected the cell and that serves it.
"""

import argparse
import time
from pathlib import Path
from typing import get_args

from pemt_core.answering.rule import AnswerRule
from pemt_core.answering.split import EvaluationSplit, predict
from pemt_core.artifacts.adapter import Adapter, load_adapter
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import restore_target
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.settings import load_settings
from pemt_core.training.accelerator import make_accelerator

RULES: tuple[AnswerRule, ...] = get_args(AnswerRule)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", help="one of the targets (default: all)")
    targets = parser.parse_args().target
    settings, backbone = load_settings(Path("params.yaml")).evaluate, load_backbone(Path("backbone"))
    bank = load_experts(Path("experts"), backbone)
    accelerator = make_accelerator(settings.precision)
    columns = [*RULES, "same answers", *(f"rows/s, {rule}" for rule in RULES)]
    print(f"| cell | metric | rows | {' | '.join(columns)} |")
    print(f"| --- | --- |{' ---: |' * (1 + len(columns))}")
    totals = [0, 0]
    for directory in sorted(path.parent for path in Path("adapters/targets").glob("*/*/adapter.json")):
        if targets and directory.parent.name not in targets:
            continue
        adapter = load_adapter(directory, backbone.fingerprint, TargetDescription)
        split = test_split(adapter, backbone, settings.max_rows)
        model = restore_target(backbone.model, adapter, bank).to(accelerator.device)
        texts, points, speeds = [], [], []
        for rule in RULES:
            size, begin = settings.batch_size, time.perf_counter()
            found = predict(model, split, backbone.tokenizer, accelerator, rule=rule, batch_size=size).texts
            speeds.append(f"{len(split) / (time.perf_counter() - begin):.0f}")
            chosen = "*" if rule == adapter.description.answer else ""
            points.append(f"{split.metrics(found)[split.task.metrics[0]]:.2f}{chosen}")
            texts.append(found)
        model.detach()
        same = sum(one == other for one, other in zip(*texts, strict=True))
        totals = [totals[0] + same, totals[1] + len(split)]
        cell = f"{split.task.name}/{directory.name}"
        shown = [cell, split.task.metrics[0], str(len(split)), *points, str(same), *speeds]
        print(f"| {' | '.join(shown)} |", flush=True)
    print(f"\n{totals[0]:,} of {totals[1]:,} answers are the same.")


def test_split(adapter: Adapter[TargetDescription], backbone: Backbone, max_rows: int | None) -> EvaluationSplit:
    """The test rows of a cell's task, cut as in its training."""
    prepared = PreparedTask.load(Path("data") / adapter.description.task)
    return EvaluationSplit.of(
        prepared.task,
        prepared.rows("test"),
        backbone.tokenizer,
        source_length=adapter.description.settings["source_length"],
        max_rows=max_rows,
    )


if __name__ == "__main__":
    main()
