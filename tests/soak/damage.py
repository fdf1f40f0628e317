"""Damaged files where a hash is promised: each is refused, unless what is read of it equals what was written."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from pemt_core.artifacts.description import load_training_record
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.result import load_results
from pemt_core.artifacts.source import load_source
from pemt_core.artifacts.target import load_target
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import PemtError
from pemt_core.prediction.model_folder import load_model_folder
from soak.ground import Ground
from soak.pool import Clock, Failure, generator, run_cases
from soak.tensors import read_prepared

REFUSED, EQUAL = "refused", "equal"


class AcceptedError(Exception):
    """Damage was read as if nothing were wrong."""


@dataclass(frozen=True)
class Promise:
    """A folder whose files are checked by hash when they are read, and a sibling, whose files replace them."""

    share: int
    place: str
    sibling: str
    read: Callable[[Ground, Path], Any]  # to what a step gets of it, or None if it starts without it


def _cell(ground: Ground, folder: Path) -> Any:
    adapter = load_target(folder, "cb", ground.backbone, ground.bank)
    return [adapter.description, adapter.tensors, load_training_record(folder)]


def _source(ground: Ground, folder: Path) -> Any:
    adapter = load_source(folder, ground.backbone)
    return [adapter.description, adapter.tensors, load_training_record(folder)]


def _experts(ground: Ground, folder: Path) -> Any:
    bank = load_experts(folder, ground.backbone)
    return [[(e.task, e.tensors, e.scale) for e in bank.experts], bank.contents]


def _backbone(ground: Ground, folder: Path) -> Any:
    backbone = load_backbone(folder)
    words = backbone.tokenizer(["the first ten minutes of day 7", "é <extra_id_3> </s>"])["input_ids"]
    return [backbone.fingerprint, backbone.model.config.dropout_rate, words, backbone.tokenizer.decode(words[1])]


def _state(ground: Ground, folder: Path) -> Any:
    """What a training resumes from; None if it starts anew."""
    store, trained, optimizer = ground.store(folder)
    state = store.restore(trained, optimizer)
    if state is None:
        return None
    counters = {name: value for name, value in vars(state).items() if name != "best_tensors"}
    moments = [optimizer.state[parameter] for parameter in trained.values()]
    return [counters, state.best_tensors, dict(trained), moments]


def _model(ground: Ground, folder: Path) -> Any:
    predictor = load_model_folder(folder)
    targets = {name: [t.task, t.adapter.description, t.adapter.tensors] for name, t in predictor.targets.items()}
    return [predictor.backbone.fingerprint, targets, predictor.batch_size]


PROMISES: Mapping[str, Promise] = {
    "cell": Promise(5, "adapters/targets/cb/pemt-kfull-seed4096", "adapters/targets/rte/pemt-kfull-seed4096",
                    _cell),
    "source": Promise(4, "adapters/alpha", "adapters/beta", _source),
    "experts": Promise(4, "experts", "experts", _experts),
    "prepared task": Promise(5, "data/cb", "data/rte", lambda ground, folder: read_prepared(folder)),
    "result": Promise(4, "alone/cb/pemt-kfull-seed4096", "scores/rte/pemt-kfull-seed4096",
                      lambda ground, folder: [asdict(result) for result in load_results(folder.parents[1])]),
    "training state": Promise(5, "checkpoints", "checkpoints", _state),
    "backbone": Promise(2, "backbone", "model/backbone", _backbone),
    "model": Promise(1, "model", "model", _model),
}  # fmt: skip
UNREAD = (
    "README.md",
    "generation_config.json",
    "predictions.jsonl",
    "inputs.json",
    ".gitkeep",
)  # no step reads their content


@dataclass(frozen=True)
class Figures:
    """The outcome of all damaged files."""

    outcomes: Counter[str]
    failures: Sequence[Failure]

    def __str__(self) -> str:
        accepted = sum(map(_was_accepted, self.failures))
        return (
            f"{self.outcomes.total() + len(self.failures):,} damaged files: {accepted} accepted, "
            f"{len(self.failures) - accepted} other exceptions, {self.outcomes[EQUAL]} equal in content"
        )


def _was_accepted(failure: Failure) -> bool:
    return failure.kind.startswith(AcceptedError.__name__)


def damage_files(
    ground: Ground, count: int, seed: int, workers: int, failures: Path, kinds: Sequence[str] = ()
) -> Figures:
    """Damage `count` files, one at a time, and read each as a step would."""
    names = list(kinds or PROMISES)
    shares = [PROMISES[name].share for name in names]
    whole: dict[str, Any] = {}

    def trial(number: int, _: Clock) -> str:
        random = generator(seed, "damage", number)
        name = random.choices(names, shares)[0]
        if name not in whole:
            whole[name] = PROMISES[name].read(ground, ground.folder / PROMISES[name].place)
        with TemporaryDirectory(prefix="soak-") as folder:
            return read_damaged(ground, name, whole[name], random, Path(folder))

    outcomes, found = run_cases(trial, range(count), workers, failures / "damage", "damage")
    places: dict[str, list[Failure]] = {}
    for failure in found:
        last = failure.details.strip().splitlines()[-1]
        places.setdefault(last.partition(", ")[0] if _was_accepted(failure) else failure.kind, []).append(failure)
    for place, listed in sorted(places.items(), key=lambda each: -len(each[1])):
        last = listed[0].details.strip().splitlines()[-1]
        print(f"damage: {len(listed):4} {place}; for example number {listed[0].number}: {last[:200]}")
    return Figures(outcomes, found)


def read_damaged(ground: Ground, name: str, whole: Any, random: Random, folder: Path) -> str:
    """Damage one file of a copy in `folder` and read it. Raises AcceptedError if another content comes back."""
    promise = PROMISES[name]
    copy = Path(shutil.copytree(ground.folder / promise.place, folder / promise.place))
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name not in UNREAD)
    path = random.choice(files)
    relative = path.relative_to(copy)
    how = _damage(path, ground.folder / promise.sibling / relative, random)
    if path.is_file() and path.read_bytes() == (ground.folder / promise.place / relative).read_bytes():
        return EQUAL
    try:
        read = promise.read(ground, copy)
    except PemtError:
        return REFUSED
    if read is None:
        return REFUSED
    if not _equal(read, whole):
        raise AcceptedError(f"{name}/{relative}, {how}")
    return EQUAL


def _damage(path: Path, sibling: Path, random: Random) -> str:
    """Spoil a file as disks, editors and people do; returns what was done."""
    content = bytearray(path.read_bytes())
    place = random.randrange(len(content)) if content else 0
    match random.choices(("bit", "number", "cut", "zeros", "lost", "swapped", "folder"), (8, 3, 2, 2, 1, 2, 0.2))[0]:
        case "number" if digits := [i for i, byte in enumerate(content[:100_000]) if byte in b"0123456789"]:
            place = random.choice(digits)
            content[place] = random.choice([digit for digit in b"0123456789" if digit != content[place]])
            how = f"digit {place} changed"
        case "cut":
            del content[place:]
            how = f"cut at {place}"
        case "zeros":
            content[place : place + 512] = bytes(len(content[place : place + 512]))
            how = f"zeros at {place}"
        case "lost":
            path.unlink()
            return "deleted"
        case "swapped" if sibling.is_file():
            content[:] = sibling.read_bytes()
            how = f"swapped with that of {sibling.parent.parent.name}"
        case "folder":
            path.unlink()
            path.mkdir()
            return "a folder in its place"
        case _ if content:
            content[place] ^= 1 << random.randrange(8)
            how = f"bit of byte {place} flipped"
        case _:
            how = "unchanged"
    path.write_bytes(content)
    return how


def _equal(one: Any, other: Any) -> bool:
    """Whether two contents are the same, in type, value and every bit of a tensor."""
    return _plain(one) == _plain(other)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().contiguous()
        return [
            str(value.dtype),
            list(value.shape),
            value.reshape(-1).view(torch.uint8).tolist() if value.numel() else [],
        ]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return [type(value).__name__, {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}]
    return json.dumps(value, default=str)
