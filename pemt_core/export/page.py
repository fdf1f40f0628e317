"""The page of an exported target: what it is, what was lost, and code that runs it."""

from pathlib import Path

from pemt_core.artifacts.description import TargetDescription
from pemt_core.backbone.store import Backbone
from pemt_core.data.prepared import TaskDescription
from pemt_core.export.agreement import Agreement
from pemt_core.lora.layout import PROMPT
from pemt_core.lora.usage import auto_class, quoted, usage

PAGE = """\
---
library_name: transformers
---
# {task}: a model and its prompt

Trained on the task "{description}" by the method {method}, from the backbone with the fingerprint {backbone}.
The mean gates over the {split} rows and the layer norms are in the weights.{adapters} {agreement}.
{rule}

```python
{code}```
"""

WITH_ADAPTERS = """\
model = {auto_class}.from_pretrained({folder}).eval()
adapters = {{name: tensor.to(model.dtype) for name, tensor in load_file({file}).items()}}


def adapted(name):
    down, up = ([adapters[f"{{name}}.{{part}}.{{each}}"] for each in ("weight", "bias")] for part in ("down", "up"))
    return lambda module, inputs, output: output + linear(gelu(linear(output, *down), approximate="tanh"), *up)


for name in {{tensor.rsplit(".", 2)[0] for tensor in adapters}}:
    model.get_submodule(name).register_forward_hook(adapted(name))
"""


def page(
    directory: Path,
    backbone: Backbone,
    task: TaskDescription,
    description: TargetDescription,
    agreement: Agreement,
    adapters: str | None,
) -> str:
    """README.md of an export in `directory`, whose target adapters, if it has some, are in the file `adapters`."""
    plain = f"model = {auto_class(backbone)}.from_pretrained({quoted(directory)}).eval()"
    file = quoted(f"{directory}/{adapters}")
    hooked = WITH_ADAPTERS.format(auto_class=auto_class(backbone), folder=quoted(directory), file=file)
    return PAGE.format(
        task=task.name,
        description=description.prompt,
        method=description.method,
        backbone=description.backbone[:12],
        split=agreement.split,
        adapters=f" The target adapters are in `{adapters}`." if adapters else "",
        agreement=agreement,
        rule=_rule(task, description),
        code=usage(
            backbone,
            imports="from torch.nn.functional import gelu, linear\n" if adapters else "",
            loading=hooked if adapters else plain,
            tokenizer=str(directory),
            prompt=f"{directory}/{PROMPT}",
            source_length=description.settings["source_length"],
            generation_length=task.generation_length,
        ),
    )


def _rule(task: TaskDescription, description: TargetDescription) -> str:
    words = ", ".join(task.labels or [])
    if description.answer == "score":
        return f"The pipeline answers with the most probable of the words {words}; this code writes freely."
    return f"It answers with one of the words {words}." if words else "It answers with a text."
