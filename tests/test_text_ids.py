"""Token ids of texts and answers by tokenizers that close texts (T5, ByT5) and by those that do not (SmolLM, Gemma)."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from test_families import GREEDY
from tiny import tiny_tokenizer
from tiny_models import tiny_model
from tiny_tokenizers import byte_tokenizer

from pemt_core.answering.answers import Answerer
from pemt_core.backbone.adopt import adopt
from pemt_core.backbone.text_ids import answer_ids, chat_frame, closes_texts, cut_input_ids, input_ids, text_ids
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.data.prepared import TaskDescription
from pemt_core.data.tokenized import TokenizedTexts, tokenize
from pemt_core.labels import check_label_words
from pemt_core.model.assemble import initial_prompt
from pemt_core.model.prompt_tuning import build_prompt_model

KINDS = {
    "bytes": {},
    "bytes, BOS": {"bos": True},
    "bytes, padding": {"pad": True},
    "bytes, BOS and padding": {"bos": True, "pad": True},
}
TEXTS = ["The first ten minutes", "red", "were positive, negative or red and blue; décider – 你好!"]
LABELS = ["red", "blue", "not red", "négatif"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from transformers import ByT5Tokenizer

    folder = tmp_path_factory.mktemp("tokenizers")
    made = {name: byte_tokenizer(folder / str(n), **options) for n, (name, options) in enumerate(KINDS.items())}
    ByT5Tokenizer().save_pretrained(folder / "byt5")
    return made | {"T5": tiny_tokenizer(folder / "t5"), "ByT5": load_tokenizer(folder / "byt5")}


@pytest.fixture(params=[*KINDS, "T5", "ByT5"])
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Any]) -> Any:
    return tokenizers[request.param]


def special_tokens(tokenizer: Any, row: list[int]) -> list[int]:
    return [token for token in row if token in tokenizer.all_special_ids]


def task(labels: list[str] | None, length: int = 24) -> TaskDescription:
    return TaskDescription("toy", "Others", "Decide which colour.", labels, ["accuracy"], length)


def test_only_t5s_tokenizers_close_texts(tokenizers: dict[str, Any]) -> None:
    assert {name for name, each in tokenizers.items() if closes_texts(each)} == {"T5", "ByT5"}
    assert tokenizers["bytes"].pad_token_id == tokenizers["bytes"].eos_token_id
    assert tokenizers["bytes, padding"].pad_token_id != tokenizers["bytes, padding"].eos_token_id


def test_texts_have_no_special_token_but_a_closing_one(tokenizer: Any) -> None:
    closing = [tokenizer.eos_token_id] if closes_texts(tokenizer) else []
    for text, row in zip(TEXTS[:2], text_ids(tokenizer, TEXTS[:2]), strict=True):
        assert special_tokens(tokenizer, row) == closing
        assert row[len(row) - len(closing) :] == closing
        assert tokenizer.decode(row, skip_special_tokens=True) == text
    assert text_ids(tokenizer, []) == []


def test_answers_end_with_the_eos_once(tokenizer: Any) -> None:
    for length in (None, 4, 2):
        for row in answer_ids(tokenizer, TEXTS[:2], length):
            assert special_tokens(tokenizer, row) == [tokenizer.eos_token_id] == row[-1:]
            assert length is None or 2 <= len(row) <= length
    whole = answer_ids(tokenizer, TEXTS[:2])
    assert [tokenizer.decode(row, skip_special_tokens=True).strip() for row in whole] == TEXTS[:2]
    cut = answer_ids(tokenizer, TEXTS[:2], 4)
    assert [row[: len(short) - 1] for row, short in zip(whole, cut, strict=True)] == [row[:-1] for row in cut]


def test_answers_are_tokenized_as_words_within_a_text(tokenizers: dict[str, Any]) -> None:
    for name in KINDS:
        ids = text_ids(tokenizers[name], ["were positive"])[0]
        (answer,) = answer_ids(tokenizers[name], ["positive"])
        assert ids[-len(answer) + 1 :] == answer[:-1]


@pytest.mark.parametrize("length", [1, 3, 5, 100])
def test_cut_texts_are_marked_and_keep_the_closing_token(tokenizer: Any, length: int) -> None:
    whole = text_ids(tokenizer, TEXTS)
    ids, cut = cut_input_ids(tokenizer, TEXTS, length)
    assert cut == [len(row) > length for row in whole]
    closing = [tokenizer.eos_token_id] if closes_texts(tokenizer) else []
    for row, short in zip(whole, ids, strict=True):
        kept = row[: len(row) - len(closing)][: length - len(closing)]
        assert short == [*kept, *closing]
    assert input_ids(tokenizer, TEXTS, length) == ids
    assert text_ids(tokenizer, TEXTS) == whole  # the limit does not stay in the tokenizer
    texts = TokenizedTexts.of(TEXTS, tokenizer, length)
    assert texts.truncated.tolist() == cut
    assert [row.tolist() for row in (texts.texts[n] for n in range(3))] == ids


def test_a_tokenized_split_pads_and_masks(tokenizer: Any) -> None:
    split = tokenize(TEXTS, ["red", "not red", "blue"], tokenizer, source_length=6, target_length=9)
    batch = split.batch(np.array([1, 2]))
    lengths = [len(row) for row in input_ids(tokenizer, TEXTS[1:], 6)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    for row, answer in zip(batch["labels"], answer_ids(tokenizer, ["not red", "blue"], 9), strict=True):
        assert row[row != -100].tolist() == answer


def test_label_words_survive(tokenizers: dict[str, Any]) -> None:
    for name in (*KINDS, "ByT5"):
        check_label_words(task(LABELS), tokenizers[name])
    check_label_words(task([*LABELS[:3], "你好 - très bien"], 6), tokenizers["bytes"])  # answers may be longer than 6


@pytest.mark.parametrize("name", KINDS)
def test_probabilities_of_generated_texts_count_the_closing_token(name: str, tokenizers: dict[str, Any]) -> None:
    """Even if padding is the same token: rows end at different lengths, and what follows an end does not count."""
    tokenizer = copy.deepcopy(tokenizers[name])
    backbone = tiny_model("llama", vocab_size=len(tokenizer), spread=0.3)
    adopt(backbone, tokenizer, "auto")
    prompt = initial_prompt(backbone, torch.tensor(text_ids(tokenizer, ["Decide."])[0]), "vocab", torch.Generator())
    model = build_prompt_model(backbone, {"prompt": prompt}).eval()
    texts = TokenizedTexts.of(TEXTS, tokenizer, 32)
    rows = np.arange(3)
    with model.encoded(*texts.batch(rows)) as encoded:
        free = encoded.generate(max_new_tokens=5, eos_token_id=None, **GREEDY)
    ending = int(free[0, 2])  # so that rows end, and not all at once
    assert not (free[:, 2] == ending).all()
    model.backbone.generation_config.eos_token_id = tokenizer.eos_token_id = ending
    if not KINDS[name].get("pad"):
        model.backbone.generation_config.pad_token_id = ending
    (answered,) = Answerer(tokenizer, task(None, 5), "generate").answer(model, texts, [rows], probabilities=True)
    assert answered.probabilities is not None
    for row, found in zip(rows, answered.probabilities.answers, strict=True):
        ids = free[row].tolist()
        answer = ids[: ids.index(ending) + 1] if ending in ids else ids
        with torch.no_grad():
            logits = model(*texts.batch(rows[row : row + 1]), torch.tensor([answer])).logits[0]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(answer).unsqueeze(-1)).sum().exp().item()
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_chat_that_begins_with_the_date_is_the_same_on_every_day(tokenizers: dict[str, Any]) -> None:
    """As that of SmolLM3 and Llama 3, whose templates read the clock."""
    tokenizer = copy.deepcopy(tokenizers["bytes"])
    tokenizer.chat_template = "Today: {{ strftime_now('%H %M %S %f') }}. {{ messages[0]['content'] }} Answer:"
    before, behind = chat_frame(tokenizer)
    assert (before, behind) == chat_frame(tokenizer)
    assert [tokenizer.decode(part) for part in (before, behind)] == ["Today: 26 Jul 2024. ", " Answer:"]


def test_a_chat_template_may_have_any_words(tokenizers: dict[str, Any]) -> None:
    tokenizer = copy.deepcopy(tokenizers["bytes"])
    tokenizer.chat_template = "The TEXT0 MESSAGE: {{ messages[0]['content'] }} Answer:"
    assert [tokenizer.decode(part) for part in chat_frame(tokenizer)] == ["The TEXT0 MESSAGE: ", " Answer:"]
