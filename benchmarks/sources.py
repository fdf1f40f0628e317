"""Print the test score of every source's adapter and prompt as a Markdown table: `python benchmarks/sources.py`.

Run it in the folder of a finished pipeline; rows are answered like those of targets. The validation scores by which
training selects come from rows like the training rows; test rows have new pairs of words and new templates.
"""

from pathlib import Path

from pemt_core.answering.split import EvaluationSplit, predict
from pemt_core.artifacts.experts import load_experts
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.model.assemble import build_source_model
from pemt_core.settings import load_settings
from pemt_core.training.accelerator import make_accelerator


def main() -> None:
    settings = load_settings(Path("params.yaml"))
    backbone = load_backbone(Path("backbone"))
    accelerator = make_accelerator(settings.evaluate.precision)
    print("| source | metric | test | rows |")
    print("| --- | --- | --- | --- |")
    for expert in load_experts(Path("experts"), backbone).experts:
        prepared = PreparedTask.load(Path("data") / expert.task)
        length = settings.train_source_for(expert.task).source_length
        split = EvaluationSplit.of(
            prepared.task, prepared.rows("test"), backbone.tokenizer, source_length=length, max_rows=None
        )
        model = build_source_model(backbone.model, expert.tensors, scale=expert.scale)
        how, size = settings.evaluate.answer, settings.evaluate.batch_size
        found = predict(model, split, backbone.tokenizer, accelerator, rule=how, batch_size=size)
        model.detach()
        metric = prepared.task.metrics[0]
        print(f"| {expert.task} | {metric} | {split.metrics(found.texts)[metric]:.1f} | {len(found.texts):,} |")


if __name__ == "__main__":
    main()
