"""The backbone: span corruption, tokenizers, scratch models, checkpoints from folders, the stored form."""

import json
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny import KINDS, World, logging_runs, tiny_batch, tiny_t5, tiny_tokenizer, write_corpus
from tiny_models import tiny_model
from torch import nn
from transformers import BertConfig, BertModel

from pemt_core.artifacts.files import read_json, sha256_of_file, write_json, write_record
from pemt_core.backbone.checkpoint import fetch_checkpoint
from pemt_core.backbone.families import family_of
from pemt_core.backbone.shapes import backbone_of_shapes
from pemt_core.backbone.store import fingerprint_of, load_backbone, save_backbone
from pemt_core.backbone.tokenizer import fetch_tokenizer, load_tokenizer, obtain_tokenizer, train_tokenizer
from pemt_core.data.corpus import CorpusText, corpus_table
from pemt_core.errors import ArtifactError, DataError, SettingsError
from pemt_core.pretraining.llama import DISTANCES
from pemt_core.pretraining.objectives import chunks, continuation, corrupt, followed, middle, noise_mask
from pemt_core.pretraining.scratch import Piece, Pretraining, PretrainingRows, new_model, read_corpus
from pemt_core.pretraining.t5 import OUTPUT_SCALE
from pemt_core.settings import BackboneSettings, load_settings
from pemt_core.steps.backbone import make_backbone
from pemt_core.training.loop import Trainer
from pemt_core.training.run import silent_runs

REPOSITORY = Path(__file__).parent.parent
SCRATCH_FAMILIES = get_args(BackboneSettings.model_fields["family"].annotation)
GIVEN_TOKENIZER = REPOSITORY.parent / "shared" / "t5_tokenizer"


def settings(**changes: Any) -> BackboneSettings:
    values = load_settings(REPOSITORY / "params.yaml").backbone.model_dump()
    values["training"] |= changes.pop("training", {})
    return BackboneSettings.model_validate(values | {"kind": "scratch", **changes})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def given_tokenizer() -> Any:
    if not GIVEN_TOKENIZER.is_dir():
        pytest.skip("../shared/t5_tokenizer, the folder with T5's own tokenizer, is not there")
    return load_tokenizer(str(GIVEN_TOKENIZER))


# --- span corruption

SENTINELS = np.arange(1000, 1100, dtype=np.int32)
EOS = 1


def reassembled(source: NDArray[np.int32], target: NDArray[np.int32]) -> list[int]:
    """The original text: each sentinel of the source replaced by what follows it in the target."""
    hidden: dict[int, list[int]] = {}
    for token in target.tolist()[:-1]:
        if token >= 1000:
            current = hidden.setdefault(token, [])
        else:
            current.append(token)
    return [t for token in source.tolist()[:-1] for t in (hidden.pop(token) if token >= 1000 else [token])]


def test_corruption_of_a_known_mask() -> None:
    """As in figure 2 of the T5 paper: if the text does not end in noise, one more sentinel closes the target."""
    ids = np.arange(10, 20, dtype=np.int32)
    mask = np.isin(ids, [12, 13, 18])
    source, target = corrupt(ids, mask, SENTINELS, EOS)
    assert source.tolist() == [10, 11, 1000, 14, 15, 16, 17, 1001, 19, EOS]
    assert target.tolist() == [1000, 12, 13, 1001, 18, 1002, EOS]


@pytest.mark.parametrize("length", [2, 3, 8, 40, 128, 512])
def test_source_and_target_reassemble_to_the_text(length: int) -> None:
    generator = np.random.default_rng(length)
    ids = generator.integers(10, 900, size=length, dtype=np.int32)
    for _ in range(50):
        mask = noise_mask(length, 0.15, 3.0, generator)
        source, target = corrupt(ids, mask, SENTINELS, EOS)
        assert reassembled(source, target) == ids.tolist()
        assert source[-1] == target[-1] == EOS
        opened = [token for token in source.tolist() if token >= 1000]
        assert opened == list(range(1000, 1000 + len(opened)))
        assert len(source) - 1 - len(opened) == (~mask).sum()


def test_noise_has_the_configured_density_and_span_length() -> None:
    generator = np.random.default_rng(0)
    masks = [noise_mask(128, 0.15, 3.0, generator) for _ in range(500)]
    assert {int(mask.sum()) for mask in masks} == {19}  # round(128 * 0.15)
    spans = [int((mask & ~np.r_[False, mask[:-1]]).sum()) for mask in masks]
    assert set(spans) == {6}  # round(19 / 3) spans that never touch
    assert all(not mask[0] and mask[-1] for mask in masks)
    frequency = np.mean(masks, axis=0)
    assert frequency[10:110].min() > 0.08
    assert frequency[10:110].max() < 0.25
    assert len({mask.tobytes() for mask in masks}) > 490


def test_text_is_cut_into_pieces_without_loss() -> None:
    rows = [np.arange(n, dtype=np.int32) for n in (5, 9, 3)]
    pieces = chunks(rows, 8)
    assert [len(piece) for piece in pieces] == [8, 8]  # a single token cannot be corrupted, so it is dropped
    assert np.concatenate(pieces).tolist() == np.concatenate(rows)[:16].tolist()


def test_a_continuation_splits_the_text_in_two() -> None:
    ids = np.arange(100, 140, dtype=np.int32)
    source, target = continuation(ids, 12, EOS)
    assert source[-1] == target[-1] == EOS
    assert (source[:-1].tolist(), target[:-1].tolist()) == (list(range(100, 112)), list(range(112, 140)))


def test_a_decoder_continues_the_source_with_the_target() -> None:
    """Only the target is learned, and nothing lies between it and the source's closing token."""
    source, target = np.array([10, 1000, 12, EOS], dtype=np.int32), np.array([1000, 11, EOS], dtype=np.int32)
    ids, labels = followed(source, target, bos_id=EOS)
    assert ids.tolist() == [EOS, 10, 1000, 12, EOS, 1000, 11, EOS]
    assert labels.tolist() == [-100] * 5 + [1000, 11, EOS]


def test_the_split_point_lies_in_the_middle_half() -> None:
    assert {middle(40, np.random.default_rng(seed)) for seed in range(200)} == set(range(10, 31))
    assert middle(2, np.random.default_rng(0)) == 1


def test_annotated_spans_are_hidden(tokenizer: Any, tmp_path: Path) -> None:
    """A span inside a text is masked, one at its end is continued; without spans, or in a cut text, settings decide."""
    texts = [
        CorpusText("red is the garden, blue is the river, red the river", ((0, 3), (31, 36))),
        CorpusText("the garden is red, what is red? the garden", ((36, 42),)),
        CorpusText("the lamp and the paper and the window were red in the garden"),
    ]
    pq.write_table(corpus_table([*texts * 20]), tmp_path / "corpus.parquet")
    rows, _ = read_corpus(tmp_path / "corpus.parquet", tokenizer, settings(packed=False, continuation_share=0.0))
    batch = rows.collate(np.arange(len(rows.pieces)), 0)
    labels = batch["labels"].masked_fill(batch["labels"] == -100, tokenizer.pad_token_id)
    pairs = zip(*(tokenizer.batch_decode(ids) for ids in (batch["input_ids"], labels)), strict=True)
    found = {tuple(text.split("</s>")[0].strip() for text in pair) for pair in pairs}
    assert (
        "<extra_id_0> is the garden, blue is the<extra_id_1>, red the river",
        "<extra_id_0> red<extra_id_1> river",
    ) in {(source, target.removesuffix("<extra_id_2>")) for source, target in found}
    assert ("the garden is red, what is red? the", "garden") in found
    assert any("<extra_id_0>" in source and source.startswith("the lamp") for source, _ in found)  # a random span
    packed, _ = read_corpus(tmp_path / "corpus.parquet", tokenizer, settings(packed=True, length=16))
    assert all(piece.hidden is None for piece in packed.pieces)
    cut, _ = read_corpus(tmp_path / "corpus.parquet", tokenizer, settings(packed=False, length=8))
    assert all(piece.hidden is None for piece in cut.pieces)


def test_the_share_of_continuations_follows_the_settings(tokenizer: Any) -> None:
    pieces = [Piece(np.arange(110, 150, dtype=np.int32))] * 400
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")

    def share(configured: float) -> float:
        batch = PretrainingRows(pieces, tokenizer, settings(continuation_share=configured)).collate(np.arange(400), 0)
        return float((batch["input_ids"] != sentinel).all(dim=1).float().mean())

    assert (share(0.0), share(1.0)) == (0.0, 1.0)
    assert 0.4 < share(0.5) < 0.6


def test_unpacked_texts_are_not_joined_and_are_cut_at_the_length(tokenizer: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.parquet"
    texts = [f"the garden {number} is red and the window is blue" for number in range(60)] + ["red"]
    pq.write_table(corpus_table(map(CorpusText, texts)), corpus)
    training, validation = read_corpus(corpus, tokenizer, settings(packed=False, length=8))
    pieces = [tokenizer.decode(piece.ids) for piece in [*training.pieces, *validation.pieces]]
    assert len(pieces) == 60  # "red" alone is too short and is dropped
    assert {len(piece.ids) for piece in training.pieces} == {8}
    whole, _ = read_corpus(corpus, tokenizer, settings(packed=False, length=400))
    assert {tokenizer.decode(piece.ids) for piece in whole.pieces} <= set(texts)


def test_a_new_model_attends_to_like_words_and_to_neighbours(tokenizer: Any) -> None:
    model = new_model(settings(size="nano"), tokenizer)
    config = model.config
    first = model.encoder.block[0].layer[0].SelfAttention
    assert torch.equal(first.q.weight, first.k.weight * config.d_kv**-0.5)
    assert torch.equal(first.o.weight, first.v.weight.T)
    assert (model.decoder.final_layer_norm.weight == OUTPUT_SCALE).all()
    with torch.no_grad():
        bias = first.compute_bias(9, 9)[0]  # (heads, query, key)
    for head, preferred in ((0, 3), (2, 3), (1, 5), (3, 5)):  # as seen from position 4
        others = [bias[head, 4, key].item() for key in range(9) if key not in (4, preferred)]
        assert bias[head, 4, preferred] > max(others), head


def test_a_new_llama_copies_from_like_words_and_its_local_heads_look_left(tokenizer: Any) -> None:
    """The attention of the first layer is transformers' own, over random words."""
    model = new_model(settings(family="Llama", size="nano"), tokenizer).eval()
    first, width = model.model.layers[0].self_attn, model.config.head_dim
    assert torch.equal(first.q_proj.weight, first.k_proj.weight)
    assert torch.equal(first.o_proj.weight, first.v_proj.weight.T)
    model.set_attn_implementation("eager")
    ids = torch.randint(3, len(tokenizer), (64, 12), generator=torch.Generator().manual_seed(0))
    ids[:, 2] = ids[:, -1]
    with torch.no_grad():
        output = model(ids, output_attentions=True)
    attention = output.attentions[0][:, :, -1].mean(0)  # (heads, key) from the last position
    for head, distance in enumerate(DISTANCES[:2]):
        assert attention[head, :-1].argmax() == 11 - distance, head
    assert (attention[4:, 2] > 2 * attention[4:, 3:11].mean(1)).all()
    assert (first.q_proj.bias[4 * width :] == 0).all()
    assert output.logits.std().item() == pytest.approx(OUTPUT_SCALE, rel=0.1)


def test_a_decoders_rows_are_a_t5s_rows_one_after_the_other(tokenizer: Any) -> None:
    pieces = [Piece(np.arange(110, 110 + length, dtype=np.int32)) for length in (30, 40, 20)]
    rows = np.arange(3)
    pairs = PretrainingRows(pieces, tokenizer, settings()).collate(rows, 0)
    batch = PretrainingRows(pieces, tokenizer, settings(family="Llama")).collate(rows, 0)
    for row in rows:
        source = pairs["input_ids"][row][pairs["attention_mask"][row] == 1].tolist()
        target = pairs["labels"][row][pairs["labels"][row] != -100].tolist()
        real = batch["attention_mask"][row] == 1
        assert batch["input_ids"][row][real].tolist() == [tokenizer.eos_token_id, *source, *target]
        assert batch["labels"][row][batch["labels"][row] != -100].tolist() == target
        assert (batch["input_ids"][row][~real] == tokenizer.pad_token_id).all()
    model = new_model(settings(family="Llama"), tokenizer).eval()
    expected = [model(batch["input_ids"][row : row + 1], labels=batch["labels"][row : row + 1]).loss for row in rows]
    counts = (batch["labels"] != -100).sum(1).tolist()
    mean = sum(loss.item() * count for loss, count in zip(expected, counts, strict=True)) / sum(counts)
    assert model(**batch).loss.item() == pytest.approx(mean, rel=1e-5)  # padding changes nothing


def test_a_decoder_also_learns_the_text_in_training_alone(tokenizer: Any) -> None:
    """The losses of text and target are sums of torch's log-probabilities over their tokens."""
    model = new_model(settings(family="Llama"), tokenizer)
    ids = torch.tensor([[EOS, 110, 111, EOS, 120, EOS], [EOS, 112, EOS, 121, EOS, 0]])
    labels = torch.tensor([[-100, -100, -100, -100, 120, EOS], [-100, -100, -100, 121, EOS, -100]])
    batch = {"input_ids": ids, "attention_mask": torch.tensor([[1] * 6, [1] * 5 + [0]]), "labels": labels}
    logp = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    text = [(0, 1, 110), (0, 2, 111), (0, 3, EOS), (1, 1, 112), (1, 2, EOS)]
    target = [(0, 4, 120), (0, 5, EOS), (1, 3, 121), (1, 4, EOS)]
    of_text, of_target = (
        -sum(logp[row, place - 1, token].item() for row, place, token in part) / len(part) for part in (text, target)
    )
    pretraining = Pretraining(model, text_weight=0.25).train()
    assert pretraining(**batch).loss.item() == pytest.approx(of_target + 0.25 * of_text, rel=1e-5)
    assert pretraining.eval()(**batch).loss.item() == pytest.approx(of_target, rel=1e-5)
    t5 = Pretraining(new_model(settings(), tokenizer), text_weight=0.25)
    assert t5.text_weight == 0


def test_noise_depends_on_seed_epoch_and_row_alone(tokenizer: Any) -> None:
    pieces = [Piece(np.arange(110, 150, dtype=np.int32)) for _ in range(4)]
    rows = np.array([2, 0])

    def batch(seed: int, epoch: int, rows: NDArray[np.int64] = rows) -> dict[str, Any]:
        return PretrainingRows(pieces, tokenizer, settings(seed=seed, continuation_share=0.0)).collate(rows, epoch)

    first = batch(1, 0)
    assert all(torch.equal(value, batch(1, 0)[name]) for name, value in first.items())
    assert torch.equal(first["input_ids"][0], batch(1, 0, np.array([2]))["input_ids"][0])  # whatever the batch
    assert not torch.equal(first["input_ids"], batch(1, 1)["input_ids"])
    assert not torch.equal(first["input_ids"], batch(2, 0)["input_ids"])
    assert not torch.equal(first["input_ids"][0], first["input_ids"][1])  # equal pieces, different noise


def test_learning_rates_of_pretraining_follow_the_size_of_the_weights(tokenizer: Any) -> None:
    pretraining = Pretraining(new_model(settings(size="nano"), tokenizer))
    factors = pretraining.learning_rate_factors()
    assert factors["shared.weight"] == pytest.approx(1.0, abs=0.01)  # T5 draws embeddings from N(0, 1)
    assert factors["decoder.final_layer_norm.weight"] == OUTPUT_SCALE
    key = factors["encoder.block.0.layer.0.SelfAttention.k.weight"]
    assert key == pytest.approx(96**-0.5, rel=0.05)
    assert set(factors) == set(pretraining.trained)


def test_too_many_spans_or_missing_sentinels_are_errors(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"backbone\.length 4096 .* 205 spans, but there are 100 sentinels"):
        PretrainingRows([], tokenizer, settings(length=4096))
    bare = load_tokenizer(str(shutil.copytree(Path(tokenizer.name_or_path), tmp_path / "bare")))
    state = json.loads(bare.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] != "<extra_id_7>"]
    bare._tokenizer = type(bare.backend_tokenizer).from_str(json.dumps(state))
    with pytest.raises(DataError, match="<extra_id_7>"):
        PretrainingRows([], bare, settings())


# --- tokenizers

TRAIN = """
import sys
from pathlib import Path
from pemt_core.backbone.tokenizer import train_tokenizer
train_tokenizer(Path(sys.argv[1]), 400).save_pretrained(sys.argv[2])
"""


def test_two_processes_train_the_same_tokenizer(tmp_path: Path) -> None:
    """Also with another string hash seed and another number of threads."""
    corpus = write_corpus(tmp_path / "corpus.parquet")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(corpus), str(tmp_path / name)],
            env={"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "PYTHONPATH": str(REPOSITORY)},
        )
        for name, seed, threads in (("a", "1", "1"), ("b", "2", "4"))
    ]
    assert [process.wait() for process in processes] == [0, 0]
    first, second = (sha256_of_file(tmp_path / name / "tokenizer.json") for name in ("a", "b"))
    assert first == second


def test_a_trained_tokenizer_round_trips_and_has_t5s_special_tokens(tokenizer: Any) -> None:
    text = "The garden, red: window? 12 (ab) isn't"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in ids
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") == 300
    assert len(tokenizer) == 400
    kept = tokenizer.decode([ids[0], 300, ids[1]])
    assert "<extra_id_0>" in kept
    assert tokenizer("red<extra_id_5>")["input_ids"] == [*tokenizer("red")["input_ids"][:-1], 305, 1]
    assert tokenizer.unk_token_id in tokenizer("Ω")["input_ids"]  # an unseen character is unknown, not an error


def test_label_words_round_trip_exactly(tokenizer: Any) -> None:
    """Model outputs are compared with the exact label words."""
    words = ["not_paraphrase", "entailment", "not_entailment", "True", "3.4", "equivalent"]
    decoded = tokenizer.batch_decode(tokenizer(words)["input_ids"], skip_special_tokens=True)
    assert [text.strip() for text in decoded] == words


def test_words_of_tasks_become_whole_tokens(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.parquet")
    task_texts = ["contradiction", "Decide whether it follows."]
    trained = train_tokenizer(corpus, 500, task_texts)
    assert trained.tokenize("contradiction follows") == ["▁contradiction", "▁follows"]
    assert len(train_tokenizer(corpus, 500).tokenize("contradiction")) > 1


def test_t5s_tokenizer_loads_completely(given_tokenizer: Any) -> None:
    assert len(given_tokenizer) == 32_100
    text = "Thank you for inviting me to your party last week."
    assert given_tokenizer.decode(given_tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert given_tokenizer.convert_tokens_to_ids("<extra_id_0>") == 32_099
    chosen = obtain_tokenizer(settings(tokenizer=str(GIVEN_TOKENIZER)), Path("unread.parquet"))
    assert chosen.backend_tokenizer.to_str() == given_tokenizer.backend_tokenizer.to_str()


def test_a_folder_without_the_vocabulary_is_an_error(tmp_path: Path, given_tokenizer: Any) -> None:
    """Transformers would continue with a tokenizer of special tokens only."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(GIVEN_TOKENIZER / name, tmp_path / name)
    with pytest.raises(DataError, match="files are incomplete"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("content", [None, "", "{", "half"], ids=["missing", "empty", "brace", "half"])
def test_a_damaged_tokenizer_file_is_an_error(tmp_path: Path, tokenizer: Any, content: str | None) -> None:
    folder = shutil.copytree(tokenizer.name_or_path, tmp_path / "tokenizer")
    path = folder / "tokenizer.json"
    whole = path.read_text()
    path.unlink()
    if content is not None:
        path.write_text(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(DataError, match="tokenizer"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("damage", ["deep", "wrong types", "a byte"])
def test_a_tokenizer_with_damaged_content_is_an_error(tmp_path: Path, tokenizer: Any, damage: str) -> None:
    folder = shutil.copytree(tokenizer.name_or_path, tmp_path / "tokenizer")
    path = folder / "tokenizer.json"
    content = path.read_bytes()
    path.write_bytes(
        {
            "deep": b"[" * 99_999,
            "wrong types": json.dumps({**json.loads(content), "model": 5}).encode(),
            "a byte": content.replace(b"BPE", b"BPF", 1),
        }[damage]
    )
    with pytest.raises(DataError, match=f"tokenizer '{re.escape(str(folder))}'") as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere/of/all", "nowhere/of/all: no such folder; the nearest one that exists is "),
        ("./nowhere", "nowhere: no such folder"),
        ("~/nowhere", "no such folder"),
        ("nowhere/", "no such folder"),
        ("/nowhere", "/nowhere: no such folder; the nearest one that exists is '/'"),
        ("file", "file: is a file, expected a folder"),
        ("link", "link: a link to nothing, which does not exist"),
        (" ", "the name is empty"),
        ("a name", "no such folder"),
    ],
)
def test_a_name_that_can_only_be_a_folder_is_not_asked_for_on_the_hub(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection is even opened: the hub's client takes a minute to give up."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    monkeypatch.setattr(socket, "socket", None)
    for fetch in (lambda: fetch_checkpoint(name, ""), lambda: fetch_tokenizer(name)):
        with pytest.raises(ArtifactError, match=re.escape(expected)):
            fetch()


def test_a_tokenizer_folder_is_never_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(DataError, match="data/tokenizer': no such folder; the step that writes it has not run"):
        load_tokenizer("data/tokenizer")


# --- scratch models


class Vocabulary:
    """The part of a tokenizer that `new_model` uses: the size of T5's vocabulary, without its files."""

    pad_token_id, eos_token_id = 0, 1

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize(
    ("size", "vocabulary", "smallest", "largest"),
    [
        ("nano", 4096, 1.0e6, 1.3e6),
        ("tiny", 4096, 2e6, 3e6),
        ("mini", 4096, 8e6, 10e6),
        ("small", 32_128, 58e6, 61e6),
    ],
)
@pytest.mark.parametrize("family", SCRATCH_FAMILIES)
def test_scratch_models_have_the_sizes_stated(
    family: str, size: str, vocabulary: int, smallest: float, largest: float
) -> None:
    with torch.device("meta"):
        model = new_model(settings(family=family, size=size), Vocabulary(vocabulary))
    assert family_of(model).name == family
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert smallest <= parameters <= largest
    if (family, size) == ("T5", "small"):
        assert parameters == 60_506_624  # t5-small


def test_a_scratch_model_follows_its_seed_and_leaves_torchs_generator_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        weight: torch.Tensor = new_model(settings(seed=seed), Vocabulary(300)).shared.weight
        return weight

    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = weights(1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(1), first)
    assert not torch.equal(weights(2), first)


def test_validation_pieces_are_not_trained_on(tmp_path: Path, tokenizer: Any) -> None:
    corpus = write_corpus(tmp_path / "corpus.parquet")
    training, validation = read_corpus(corpus, tokenizer, settings(length=16, training={"validation_rows": None}))
    assert len(validation.pieces) == -(-(len(training.pieces) + len(validation.pieces)) // 20)
    bounded = read_corpus(corpus, tokenizer, settings(length=16, training={"validation_rows": 3}))[1]
    assert len(bounded.pieces) == 3
    with pytest.raises(DataError, match="too few to pretrain on"):
        read_corpus(write_corpus(tmp_path / "small.parquet", rows=4), tokenizer, settings())


@pytest.mark.parametrize("family", SCRATCH_FAMILIES)
def test_pretraining_learns_and_writes_a_backbone(tmp_path: Path, world: World, family: str) -> None:
    training = {"max_steps": 12, "batch_size": 8, "warmup_steps": 0, "evaluate_every": 6}
    facts = make_backbone(
        settings(family=family, length=32, training=training),
        tokenizer_dir=world.folder / "tokenizer",
        corpus_path=world.folder / "corpus.parquet",
        output_dir=tmp_path / "backbone",
        checkpoint_dir=tmp_path / "checkpoints",
        open_run=logging_runs(tmp_path / "log.jsonl"),
    )
    points = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [point["validation/loss"] for point in points if "validation/loss" in point]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert facts["validation/loss"] == min(losses)
    backbone = load_backbone(tmp_path / "backbone")
    assert backbone.fingerprint == facts["fingerprint"]
    assert not backbone.model.training
    assert list((tmp_path / "checkpoints").iterdir()) == []
    if family == "Llama":
        config = backbone.model.config
        assert (config.prompt_layout, config.bos_token_id) == ("behind", backbone.tokenizer.eos_token_id)


class HaltedError(Exception):
    """Ends a pretraining as a kill would."""


@pytest.mark.parametrize("family", SCRATCH_FAMILIES)
def test_a_killed_pretraining_resumes_exactly(
    tmp_path: Path, world: World, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"max_steps": 6, "batch_size": 4, "warmup_steps": 1, "evaluate_every": 3, "checkpoint_every": 2}

    def pretrain(name: str) -> str:
        facts = make_backbone(
            settings(family=family, length=32, training=training),
            tokenizer_dir=world.folder / "tokenizer",
            corpus_path=world.folder / "corpus.parquet",
            output_dir=tmp_path / name / "backbone",
            checkpoint_dir=tmp_path / name / "checkpoints",
            open_run=silent_runs,
        )
        return str(facts["fingerprint"])

    calls, step = [], Trainer._step

    def halting(trainer: Trainer, rows: NDArray[np.int64]) -> None:
        calls.append(rows)
        if len(calls) == 6:
            raise HaltedError
        step(trainer, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", halting)
        with pytest.raises(HaltedError):
            pretrain("killed")
    assert not (tmp_path / "killed/backbone").exists()
    assert pretrain("killed") == pretrain("whole")


def test_a_layout_that_a_scratch_family_lacks_is_an_error(tmp_path: Path, world: World) -> None:
    with pytest.raises(SettingsError, match=r"backbone\.layout is 'behind': T5 has only front or auto"):
        make_backbone(
            settings(layout="behind"),
            tokenizer_dir=world.folder / "tokenizer",
            corpus_path=world.folder / "corpus.parquet",
            output_dir=tmp_path / "backbone",
            checkpoint_dir=tmp_path / "checkpoints",
            open_run=silent_runs,
        )


# --- the stored form


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_backbone_loads_unchanged(tmp_path: Path, tokenizer: Any, kind: str) -> None:
    """Fingerprint, logits and generation match, also for an untied output layer (T5 v1.1, mT5)."""
    model, batch = tiny_t5(kind, vocab_size=400), tiny_batch(vocab_size=400)
    fingerprint = save_backbone(tmp_path / "backbone", model, tokenizer)
    loaded = load_backbone(tmp_path / "backbone")
    assert loaded.fingerprint == fingerprint == fingerprint_of(model, tokenizer)
    assert type(loaded.model) is type(model)
    with torch.no_grad():
        assert torch.equal(loaded.model(**batch).logits, model(**batch).logits)
    untied = kind in ("v1.1", "mt5")
    assert (loaded.model.lm_head.weight is not loaded.model.shared.weight) == untied
    assert read_json(tmp_path / "backbone" / "backbone.json")["parameters"] == sum(
        parameter.numel() for parameter in model.parameters()
    )
    again = save_backbone(tmp_path / "again", loaded.model, loaded.tokenizer)
    assert again == fingerprint


def test_a_fingerprint_covers_weights_architecture_and_tokenizer(tmp_path: Path, tokenizer: Any) -> None:
    model = tiny_t5(vocab_size=400)
    found = {"same": fingerprint_of(model, tokenizer), "again": fingerprint_of(tiny_t5(vocab_size=400), tokenizer)}
    assert len(set(found.values())) == 1
    found["dropout"] = fingerprint_of(tiny_t5(vocab_size=400, dropout=0.3), tokenizer)
    assert len(set(found.values())) == 1  # dropout changes no output in evaluation
    with torch.no_grad():
        model.encoder.block[0].layer[0].layer_norm.weight[3] += 1e-6
    found["weight"] = fingerprint_of(model, tokenizer)
    epsilon = tiny_t5(vocab_size=400, layer_norm_epsilon=1e-5)
    found["configuration"] = fingerprint_of(epsilon, tokenizer)
    other = train_tokenizer(write_corpus(tmp_path / "corpus.parquet", rows=40), 400)
    found["tokenizer"] = fingerprint_of(tiny_t5(vocab_size=400), other)
    found["half precision"] = fingerprint_of(tiny_t5(vocab_size=400).to(torch.bfloat16), tokenizer)
    assert len(set(found.values())) == 5


def test_padding_a_batch_does_not_change_the_fingerprint(tokenizer: Any) -> None:
    """`tokenizers` remembers the truncation and padding of its last call."""
    model = tiny_t5(vocab_size=400)
    before = fingerprint_of(model, tokenizer)
    tokenizer(["red", "blue lamp"], padding=True, truncation=True, max_length=3)
    assert fingerprint_of(model, tokenizer) == before


@pytest.fixture
def stored(tmp_path: Path, tokenizer: Any) -> Path:
    save_backbone(tmp_path / "backbone", tiny_t5(vocab_size=400), tokenizer)
    return tmp_path / "backbone"


FILES = ("model.safetensors", "config.json", "tokenizer.json", "backbone.json")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((file, damage) for file in FILES for damage in ("truncated", "missing", "empty")),
        ("tokenizer_config.json", "truncated"),  # transformers works without this file
    ],
)
def test_a_damaged_backbone_is_refused(stored: Path, file: str, damage: str) -> None:
    content = (stored / file).read_bytes()
    (stored / file).unlink()
    if damage != "missing":
        (stored / file).write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(ArtifactError, match="backbone"):
        load_backbone(stored)


@pytest.mark.parametrize("change", ["weight", "configuration", "tokenizer", "fingerprint"])
def test_an_altered_backbone_is_refused_with_both_fingerprints(stored: Path, tokenizer: Any, change: str) -> None:
    recorded = read_json(stored / "backbone.json")["fingerprint"]
    if change == "weight":
        content = bytearray((stored / "model.safetensors").read_bytes())
        content[-3] ^= 1
        (stored / "model.safetensors").write_bytes(content)
    elif change == "configuration":
        write_json(stored / "config.json", read_json(stored / "config.json") | {"layer_norm_epsilon": 1e-3})
    elif change == "tokenizer":
        text = (stored / "tokenizer.json").read_text()
        (stored / "tokenizer.json").write_text(text.replace("NFKC", "NFC"))
    else:
        write_record(stored / "backbone.json", {"fingerprint": "0" * 64, "parameters": 1})
        recorded = "0" * 64
    with pytest.raises(ArtifactError, match=f"its backbone.json says {recorded[:12]}: files were altered"):
        load_backbone(stored)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"fingerprint": 3}'])
def test_an_invalid_backbone_json_is_refused(stored: Path, content: str) -> None:
    (stored / "backbone.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"backbone"):
        load_backbone(stored)


# --- checkpoints from folders


def published(folder: Path, kind: str) -> Any:
    """A checkpoint as published on the hub; the configurations of v1.1 and mT5 say that embeddings are not tied."""
    model = tiny_t5(kind, vocab_size=400)
    model.save_pretrained(folder)
    if kind in ("v1.1", "mt5"):
        config = read_json(folder / "config.json")
        config.pop("scale_decoder_outputs", None)
        write_json(folder / "config.json", config | {"tie_word_embeddings": False})
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_in_a_folder_becomes_the_backbone(tmp_path: Path, world: World, kind: str) -> None:
    """As `backbone.kind: hub` does it; the stored backbone gives the published model's logits."""
    model, batch = published(tmp_path / "checkpoint", kind), tiny_batch(vocab_size=400)
    facts = make_backbone(
        settings(kind="hub", name=str(tmp_path / "checkpoint")),
        tokenizer_dir=world.folder / "tokenizer",
        corpus_path=tmp_path / "unread.parquet",
        output_dir=tmp_path / "backbone",
        checkpoint_dir=tmp_path / "checkpoints",
        open_run=logging_runs(None),
    )
    assert facts["revision"] == ""
    backbone = load_backbone(tmp_path / "backbone")
    assert facts["fingerprint"] == backbone.fingerprint
    with torch.no_grad():
        torch.testing.assert_close(backbone.model(**batch).logits, model(**batch).logits)
    assert all(parameter.dtype == torch.float32 for parameter in backbone.model.parameters())


@pytest.mark.parametrize("has_own_head", [True, False])
def test_umt5_reads_an_output_layer_of_its_own_unscaled(tmp_path: Path, has_own_head: bool) -> None:
    """As mT5 does; transformers scales the decoder's states also where the output layer is not the embeddings."""
    published = tiny_model("umt5")
    if has_own_head:
        published.lm_head.weight = nn.Parameter(torch.randn(120, 32, generator=torch.Generator().manual_seed(1)))
    published.save_pretrained(tmp_path / "checkpoint")
    fetched, _ = fetch_checkpoint(str(tmp_path / "checkpoint"), "")
    save_backbone(tmp_path / "backbone", fetched, tiny_tokenizer(tmp_path))
    again, _ = fetch_checkpoint(str(tmp_path / "backbone"), "")
    ids, prefix = torch.tensor([[5, 9, 3, 1]]), torch.tensor([[0, 7]])
    with torch.no_grad():
        states = published.encoder(ids).last_hidden_state
        states = published.decoder(prefix, encoder_hidden_states=states).last_hidden_state
        expected = published.lm_head(states if has_own_head else states * 32**-0.5)
        for model in (fetched, load_backbone(tmp_path / "backbone").model, again):
            torch.testing.assert_close(model.eval()(ids, decoder_input_ids=prefix).logits, expected)


def test_a_checkpoint_in_half_precision_is_read_in_float32(tmp_path: Path) -> None:
    """FLAN's checkpoints are in half precision; T5 overflows in float16, and `wo` must have the same type."""
    model = tiny_t5().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    found, _ = fetch_checkpoint(str(tmp_path), "")
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    assert torch.equal(found.shared.weight, model.shared.weight.float())


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(
        ArtifactError, match=r"model type 'bert', which is not supported; supported are t5, .*gemma3_text"
    ):
        fetch_checkpoint(str(tmp_path), "")


def test_an_unknown_model_type_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "t6"})
    with pytest.raises(ArtifactError, match="t6"):
        fetch_checkpoint(str(tmp_path), "")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 10**9},
        {"d_model": "x"},
        {"vocab_size": -1},
        {"d_ff": 10**30},
        {"dense_act_fn": None},
        {"d_kv": 0},
    ],
    ids=str,
)
def test_a_configuration_that_no_t5_has_is_refused_before_a_model_is_made(tmp_path: Path, changes: Any) -> None:
    tiny_t5().save_pretrained(tmp_path)
    write_json(tmp_path / "config.json", {**read_json(tmp_path / "config.json"), **changes})
    for read in (lambda: fetch_checkpoint(str(tmp_path), ""), lambda: backbone_of_shapes(str(tmp_path))):
        with pytest.raises(ArtifactError, match=re.escape(str(tmp_path))) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_damaged_corpus_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "corpus.parquet"
    for content in (None, b"", b"PAR1" * 9):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ArtifactError, match=re.escape(str(path))):
            read_corpus(path, tokenizer, settings())


class Trap:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_checkpoint_that_is_only_a_pickle_is_refused_and_never_read(tmp_path: Path) -> None:
    tiny_t5().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    trace = tmp_path / "trace"
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(ArtifactError, match="no checkpoint with safetensors"):
        fetch_checkpoint(str(tmp_path), "")
    assert not trace.exists()


@pytest.mark.parametrize("damage", ["truncated", "without a tensor", "half a configuration"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    """A missing tensor would be initialised at random, with only a log line to show it."""
    tiny_t5().save_pretrained(tmp_path)
    path = tmp_path / ("config.json" if "configuration" in damage else "model.safetensors")
    content = path.read_bytes()
    if damage == "without a tensor":
        tensors = load_file(path)
        del tensors["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        fetch_checkpoint(str(tmp_path), "")
