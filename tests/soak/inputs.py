"""Generated inputs on every loader: each is read, or refused by a documented error within ten seconds."""

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import hypothesis

from pemt_core.errors import PemtError
from soak.ground import Ground
from soak.loaders import LOADERS
from soak.pool import Clock, Failure, generator, run_cases

READ, REFUSED = "read", "refused"
EXAMPLES = 100  # inputs of one run of Hypothesis, which ends at the first that fails


@dataclass(frozen=True)
class Figures:
    """The outcome of all inputs of a run."""

    outcomes: Counter[str]
    failures: Sequence[Failure]

    def __str__(self) -> str:
        hangs = sum(failure.kind == "hang" for failure in self.failures)
        total = self.outcomes.total() + len(self.failures)
        return (
            f"{total:,} inputs ({self.outcomes[READ]:,} read, {self.outcomes[REFUSED]:,} refused): "
            f"{len(self.failures) - hangs} undocumented exceptions, {hangs} hangs"
        )


def generate_inputs(
    ground: Ground, count: int, seed: int, workers: int, failures: Path, loaders: Sequence[str] = ()
) -> Figures:
    """Feed `count` inputs to the loaders by their shares, or to the named ones; failing ones are kept in `failures`."""
    names = list(loaders or LOADERS)
    shares = [LOADERS[name].share for name in names]
    runs = generator(seed, "loaders").choices(names, shares, k=math.ceil(count / EXAMPLES))

    def trial(number: int, clock: Clock) -> str:
        return explore(ground, runs[number], seed, number, clock)

    outcomes, found = run_cases(trial, range(len(runs)), workers, failures / "inputs", "inputs")
    kinds = Counter(f"{runs[failure.number]}: {failure.kind}" for failure in found)
    for failure in found:
        _keep(ground, runs[failure.number], seed, failure, failures / "inputs")
    for kind, number in kinds.most_common():
        print(f"inputs: {number:4} {kind}")
    return Figures(outcomes, found)


def explore(
    ground: Ground,
    loader: str,
    seed: int,
    number: int,
    clock: Clock,
    *,
    examples: int = EXAMPLES,
    kept: Path | None = None,
) -> str:
    """Have Hypothesis generate inputs for one loader; returns their outcomes, or raises what one of them raised.

    Each input has all of the time that `clock` gives. With `kept`, Hypothesis looks for the simplest input that fails,
    and that folder holds it in the end.
    """
    outcomes: list[str] = []

    @hypothesis.seed(f"{seed}/{loader}/{number}")
    @hypothesis.settings(
        max_examples=examples,
        phases=[hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if kept else [])],
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(hypothesis.strategies.randoms(use_true_random=False))
    def read(random: Random) -> None:
        clock()
        with _emptied(kept) if kept else TemporaryDirectory(prefix="soak-") as folder:
            outcomes.append(_outcome(ground, loader, random, Path(folder)))

    read()
    return " ".join(outcomes)


def _outcome(ground: Ground, loader: str, random: Random, folder: Path) -> str:
    """Write an input to `folder`, and read it."""
    try:
        LOADERS[loader].trial(ground, folder, random)
    except PemtError as error:
        if not str(error).strip():
            raise ValueError("the error has no message") from error
        return REFUSED
    return READ


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder


def _keep(ground: Ground, loader: str, seed: int, failure: Failure, folder: Path) -> None:
    """Write the simplest input that fails alike, and its trace; the files that it was made of are left out."""
    kept = folder / f"{loader.replace(' ', '_').replace('/', '_')}-{failure.number}"

    def write(number: int, clock: Clock) -> str:
        return explore(ground, loader, seed, number, clock, kept=kept)

    run_cases(write, [failure.number], 1, folder / "again", "again")
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "trace.txt").write_text(f"{loader}, seed {seed}, run {failure.number}: {failure.kind}\n{failure.details}")
