"""Token ids of texts and of answers: the one place that knows which special tokens a tokenizer adds by itself.

T5's tokenizers close every text with an EOS. Others close none, and some begin with a BOS: there, a text has no special
tokens (a model whose texts begin with a BOS puts it before the prompt), and an answer begins with a blank, as words
within a text do, and ends with the EOS.

A tokenizer that `prepare` or `backbone` saved has a chat template only if `backbone.chat` asks for it. Then a text is a
user's message: in the template's frame, up to where the answer begins.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any

_ANY_TEXT = "a"
CLOCK = "strftime_now"  # the function by which templates of Llama 3 and SmolLM3 write today's date
FIXED_DATE = f"{{% macro {CLOCK}(format) %}}26 Jul 2024{{% endmacro %}}"  # Llama's own date where there is no clock


def text_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts that are no input, such as descriptions of tasks; the closing one is included."""
    return _ids(tokenizer, texts, None, add_special_tokens=closes_texts(tokenizer))[0]


def description_ids(tokenizer: Any, description: str) -> list[int]:
    """The ids of a task's description, a vector of a prompt for each."""
    return text_ids(tokenizer, [description])[0]


def input_ids(tokenizer: Any, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
    """The ids of texts to be read, each cut to `max_length` tokens, the closing one or the chat's frame included."""
    return cut_input_ids(tokenizer, texts, max_length)[0]


def cut_input_ids(tokenizer: Any, texts: Sequence[str], max_length: int | None) -> tuple[list[list[int]], list[bool]]:
    """The ids of texts as from `input_ids`, and which texts were cut."""
    before, behind = chat_frame(tokenizer)
    room = None if max_length is None else max(1, max_length - len(before) - len(behind))
    rows, cut = _ids(tokenizer, texts, room, add_special_tokens=closes_texts(tokenizer))
    return [[*before, *row, *behind] for row in rows] if before or behind else rows, cut


def answer_ids(tokenizer: Any, answers: Sequence[str], max_length: int | None = None) -> list[list[int]]:
    """The ids of answers, each cut to `max_length` tokens, the closing one included."""
    if closes_texts(tokenizer):
        return _ids(tokenizer, answers, max_length, add_special_tokens=True)[0]
    room = None if max_length is None else max(1, max_length - 1)
    rows, _ = _ids(tokenizer, [f" {answer}" for answer in answers], room, add_special_tokens=False)
    return [[*row, tokenizer.eos_token_id] for row in rows]


def closes_texts(tokenizer: Any) -> bool:
    """Whether the tokenizer ends every text with its EOS."""
    last: int = tokenizer(_ANY_TEXT)["input_ids"][-1]  # of no text, it could be a BOS that is the EOS
    return last == tokenizer.eos_token_id


def chat_frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer's chat template puts before and behind a user's message, without a BOS; empty without one.

    It is the same on every day.
    """
    if not tokenizer.chat_template:
        return [], []
    template = tokenizer.get_chat_template()
    text = next(word for word in map("TEXT{}".format, count()) if word not in template)  # stands for the message
    message = [{"role": "user", "content": text}]
    dated = f"{FIXED_DATE}{template}" if CLOCK in template else template
    chat = tokenizer.apply_chat_template(message, chat_template=dated, tokenize=False, add_generation_prompt=True)
    before, behind = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in chat.split(text))
    return before[1:] if before[:1] == [tokenizer.bos_token_id] else before, behind


def _ids(
    tokenizer: Any, texts: Sequence[str], max_length: int | None, *, add_special_tokens: bool
) -> tuple[list[list[int]], list[bool]]:
    if not texts:
        return [], []
    limit = {} if max_length is None else {"truncation": True, "max_length": max_length}
    encoded = tokenizer(list(texts), add_special_tokens=add_special_tokens, verbose=False, **limit)
    ids: list[list[int]] = encoded["input_ids"]
    if max_length is None:
        return ids, [False] * len(ids)
    if encoded.encodings:
        return ids, [bool(row.overflowing) for row in encoded.encodings]
    whole = tokenizer(list(texts), add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
    return ids, [len(row) > max_length for row in whole]
