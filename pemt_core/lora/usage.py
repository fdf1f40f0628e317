"""The Python code on the page of an export: how transformers answers a text behind an exported prompt."""

import json

from pemt_core.backbone.families import family_of
from pemt_core.backbone.store import Backbone
from pemt_core.backbone.text_ids import chat_frame, closes_texts

CODE = """\
import torch
{imports}from safetensors.torch import load_file
from transformers import {auto_class}, AutoTokenizer

{loading}
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
text = tokenizer("a text of the task", return_tensors="pt", {options}).input_ids
embed, prompt = model.get_input_embeddings(), load_file({prompt})["prompt"].unsqueeze(0)
embeddings = torch.cat([{parts}], dim=1).to(model.dtype)
mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
ids = model.generate(inputs_embeds=embeddings, attention_mask=mask, {generation})
print(tokenizer.decode(ids[0], skip_special_tokens=True))
"""


def auto_class(backbone: Backbone) -> str:
    """The class of transformers by which any model of the backbone's kind is loaded."""
    return "AutoModelForSeq2SeqLM" if family_of(backbone.model).has_encoder else "AutoModelForCausalLM"


def quoted(text: object) -> str:
    """A string of Python's for any text, as folders may be named."""
    return json.dumps(str(text), ensure_ascii=False)


def usage(
    backbone: Backbone,
    *,
    imports: str = "",
    loading: str,
    tokenizer: str,
    prompt: str,
    source_length: int,
    generation_length: int,
) -> str:
    """Code that reads one text as the pipeline does, and prints the answer.

    Args:
        imports: lines with further imports.
        loading: lines that load `model`.
        tokenizer: folder or name of the backbone's.
        prompt: the file of the prompt.
    """
    frame = sum(map(len, chat_frame(backbone.tokenizer)))
    options = [f"truncation=True, max_length={source_length - frame}"]
    options += [] if closes_texts(backbone.tokenizer) else ["add_special_tokens=False"]
    generation = [f"max_new_tokens={generation_length}", "do_sample=False"]
    depths = {len(backbone.model.get_submodule(stack.layers)) for stack in family_of(backbone.model).stacks}
    if len(depths) > 1:  # transformers gives its cache as many layers as the encoder has
        generation.append("use_cache=False")
    return CODE.format(
        imports=imports,
        auto_class=auto_class(backbone),
        loading=loading,
        tokenizer=quoted(tokenizer),
        options=", ".join(options),
        prompt=quoted(prompt),
        parts=", ".join(_parts(backbone)),
        generation=", ".join(generation),
    )


def _parts(backbone: Backbone) -> list[str]:
    """What the model reads before its answer, in order."""
    family, config = family_of(backbone.model), backbone.model.config
    layout = family.layouts[0] if family.has_encoder else config.prompt_layout
    before, behind = ([_embedded(ids)] if ids else [] for ids in chat_frame(backbone.tokenizer))
    parts = [_embedded([config.bos_token_id])] if family.starts_with_bos else []
    parts += ["prompt"] if layout in ("front", "both") else []
    return [*parts, *before, "embed(text)", *behind, *(["prompt"] if layout in ("behind", "both") else [])]


def _embedded(ids: list[int]) -> str:
    return f"embed(torch.tensor([{ids}]))"
