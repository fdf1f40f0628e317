"""Loading from the hub: the real client libraries, in a fresh process, against a server that speaks its protocol."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from mirrors import cb_rows, write_repository
from source_code import REPOSITORY
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

SUPER_GLUE = "aps/super_glue"

# Evaluates the expressions in sys.argv[2]; prints the value of each or the error that it raises
PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
import pemt_core.tasks.record as record
from pemt_core.errors import DataError
from pemt_core.preparation import prepare_task, resolve_revisions, write_pins
from pemt_core.tasks import HubDataset, get_task

folder = Path(sys.argv[1])
record.PINS_PATH = folder / "revisions.json"

def prepare(task):
    options = {"source": "hub", "embedded_seed": 0, "split_seed": 42, "max_rows": {}}
    return prepare_task(task, **options, output_dir=folder / "prepared").as_json()

cb = get_task("cb")
results = []
for step in json.loads(sys.argv[2]):
    try:
        results.append(eval(step))
    except DataError as error:
        results.append(f"DataError: {error}")
print(json.dumps(results))
"""

LOAD_MODEL = """
import json, sys
import torch
from transformers import AutoConfig, AutoTokenizer, T5ForConditionalGeneration

name, revision = sys.argv[1:]
config = AutoConfig.from_pretrained(name, revision=revision)
tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
model = T5ForConditionalGeneration.from_pretrained(name, revision=revision).eval()
tokens = tokenizer("one two", return_tensors="pt").input_ids
with torch.no_grad():
    logits = model(input_ids=tokens, labels=tokens).logits
print(json.dumps({"d_model": config.d_model, "tokens": tokens.tolist(), "sum": logits.double().sum().item()}))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def run(program: str, arguments: list[str], url: str, home: Path) -> Any:
    """Run `program` in a process with the hub at `url` and its caches in `home`; return the JSON that it prints."""
    settings = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in offline} | settings
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def steps(folder: Path, url: str, *expressions: str) -> list[Any]:
    (folder / "revisions.json").touch()
    if not (folder / "revisions.json").read_text():
        (folder / "revisions.json").write_text("{}")
    results: list[Any] = run(PROGRAM, [str(folder), json.dumps(expressions)], url, folder / "home")
    return results


def publish_cb(hub: HubServer, folder: Path, num_rows: int) -> str:
    splits = {"train": cb_rows(num_rows), "validation": cb_rows(10)}
    return hub.publish("datasets", SUPER_GLUE, write_repository(folder, SUPER_GLUE, {"cb": splits}))


def test_the_newest_commit_is_read_recorded_and_pinned(hub: HubServer, tmp_path: Path) -> None:
    old = publish_cb(hub, tmp_path / "old", 12)
    new = publish_cb(hub, tmp_path / "new", 15)
    pin_old = f"write_pins({{'{SUPER_GLUE}': '{old}'}}, record.PINS_PATH)"
    pin_absent = f"write_pins({{'{SUPER_GLUE}': '{'0' * 40}'}}, record.PINS_PATH)"
    newest, _, pinned, resolved, _, absent = steps(
        tmp_path, hub.url, "prepare(cb)", pin_old, "prepare(cb)", "resolve_revisions([cb])", pin_absent, "prepare(cb)"
    )
    assert (newest["revision"], newest["splits"]["train"]["rows"]) == (new, 15)
    assert (pinned["revision"], pinned["splits"]["train"]["rows"]) == (old, 12)
    assert resolved == {SUPER_GLUE: new}
    assert absent.startswith(f"DataError: the hub's dataset '{SUPER_GLUE}' has no commit '{'0' * 40}'")
    files = [request for request in hub.requests if "/resolve/" in request and ".parquet" in request]
    assert files
    assert all(f"/resolve/{old}/" in request or f"/resolve/{new}/" in request for request in files)


def test_missing_repositories_are_named(hub: HubServer, tmp_path: Path) -> None:
    publish_cb(hub, tmp_path / "cb", 12)
    results = steps(
        tmp_path,
        hub.url,
        "prepare(replace(cb, dataset=HubDataset('aps/superglue', 'cb')))",
        f"prepare(replace(cb, dataset=HubDataset('{SUPER_GLUE}', 'cbx')))",
        "resolve_revisions([get_task('rte')])",
    )
    assert results[0].startswith("DataError: the hub has no dataset 'aps/superglue'")
    assert results[1] == f"DataError: {SUPER_GLUE} has no configuration 'cbx': did you mean 'cb'?"
    assert results[2].startswith("DataError: the hub has no dataset 'nyu-mll/glue'")


def test_an_unreachable_hub_is_named(tmp_path: Path) -> None:
    with HubServer() as server:
        url = server.url
    (result,) = steps(tmp_path, url, "prepare(cb)")
    assert result.startswith(f"DataError: the hub cannot be reached for '{SUPER_GLUE}'")
    assert result.endswith("set prepare.source (in the recipe, if it sets it) to a folder that mirrors the hub")


@pytest.mark.mirror
def test_the_mirror_through_the_hub_equals_the_mirror(hub: HubServer, tmp_path: Path, mirror: Path) -> None:
    commit = hub.publish("datasets", "mrqa-workshop/mrqa", mirror / "mrqa-workshop" / "mrqa")
    of_folder = (
        f"prepare_task(get_task('nq'), source={str(mirror)!r}, embedded_seed=0, split_seed=42, max_rows={{}}, "
        "output_dir=folder / 'local').as_json()"
    )
    remote, local = steps(tmp_path, hub.url, "prepare(get_task('nq'))", of_folder)
    assert remote["splits"] == local["splits"]
    assert (remote["revision"], local["revision"]) == (commit, "")


def tiny_checkpoint(folder: Path) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerFast]:
    """A random T5 and a tokenizer with one token per word, saved as a checkpoint."""
    words = {word: number for number, word in enumerate(("<pad>", "</s>", "<unk>", "one", "two"))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = T5Config(vocab_size=8, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def test_a_checkpoint_loads_at_its_revision(hub: HubServer, tmp_path: Path) -> None:
    model, tokenizer = tiny_checkpoint(tmp_path / "model")
    commit = hub.publish("models", "tests/tiny-t5", tmp_path / "model")
    found = run(LOAD_MODEL, ["tests/tiny-t5", commit], hub.url, tmp_path / "home")
    tokens = torch.tensor(found["tokens"])
    assert tokens.tolist() == [tokenizer("one two").input_ids]
    with torch.no_grad():
        expected = model(input_ids=tokens, labels=tokens).logits.double().sum().item()
    assert found["d_model"] == 16
    assert found["sum"] == pytest.approx(expected, rel=1e-6)
    assert any(f"/tests/tiny-t5/resolve/{commit}/model.safetensors" in request for request in hub.requests)


FETCH_TOKENIZER = """
import json, sys, time
from pemt_core.backbone.tokenizer import fetch_tokenizer
from pemt_core.errors import PemtError

import transformers
begin = time.perf_counter()
try:
    found = len(fetch_tokenizer(*sys.argv[1:]))
except PemtError as error:
    found = str(error)
print(json.dumps([found, time.perf_counter() - begin]))
"""


def test_a_hub_without_an_answer_is_named_within_seconds(tmp_path: Path) -> None:
    with HubServer() as server:
        url = server.url
    found, seconds = run(FETCH_TOKENIZER, ["tests/tiny-t5"], url, tmp_path / "home")
    assert found.startswith("tokenizer 'tests/tiny-t5': not readable as a tokenizer (We couldn't connect to")
    assert "in the cached files" in found
    assert seconds < 20  # the client alone tries for 47 seconds


def test_a_tokenizer_comes_from_the_hub_and_later_from_its_cache(hub: HubServer, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "pemt_core" / "embedded" / "backbone", tmp_path / "model")
    hub.publish("models", "tests/tiny-t5", tmp_path / "model")
    whole, _ = run(FETCH_TOKENIZER, ["tests/tiny-t5"], hub.url, tmp_path / "home")
    with HubServer() as other:
        gone = other.url
    assert isinstance(whole, int)
    commit = next(request.split("/resolve/")[1].split("/")[0] for request in hub.requests if "/resolve/" in request)
    found, seconds = run(FETCH_TOKENIZER, ["tests/tiny-t5", commit], gone, tmp_path / "home")
    assert (found, seconds < 20) == (whole, True)


def test_byte_ranges_and_headers(hub: HubServer, tmp_path: Path) -> None:
    """The parts of the protocol that the clients above may not use."""
    from urllib.request import Request, urlopen

    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "letters.txt").write_text("abcdefgh")
    commit = hub.publish("models", "tests/letters", tmp_path / "files")
    url = f"{hub.url}/tests/letters/resolve/main/letters.txt"
    with urlopen(Request(url, headers={"Range": "bytes=2-4"})) as answer:
        assert (answer.status, answer.read()) == (206, b"cde")
        assert answer.headers["Content-Range"] == "bytes 2-4/8"
    with urlopen(Request(url, method="HEAD")) as answer:
        assert (answer.headers["X-Repo-Commit"], answer.headers["Content-Length"]) == (commit, "8")
        assert answer.headers["ETag"].strip('"')
    request = Request(f"{hub.url}/api/models/tests/letters/paths-info/main", data=b"paths=letters.txt")
    with urlopen(request) as answer:
        assert [entry["path"] for entry in json.load(answer)] == ["letters.txt"]
