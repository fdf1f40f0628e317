"""Generated inputs on every loader: each is read, or refused by a documented error within ten seconds."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pemt_core.errors import PemtError
from soak.ground import Ground
from soak.loaders import LOADERS
from soak.pool import Failure, generator, run_cases

READ, REFUSED = "read", "refused"
KEPT = 3  # inputs that are kept of each kind of failure


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

    def loader_of(number: int) -> str:
        return generator(seed, "loader", number).choices(names, shares)[0]

    def trial(number: int) -> str:
        with TemporaryDirectory(prefix="soak-") as folder:
            return read_input(ground, loader_of(number), seed, number, Path(folder))

    outcomes, found = run_cases(trial, range(count), workers, failures / "inputs", "inputs")
    kinds: Counter[str] = Counter()
    for failure in found:
        name = loader_of(failure.number)
        kinds[f"{name}: {failure.kind}"] += 1
        if kinds[f"{name}: {failure.kind}"] <= KEPT:
            _keep(ground, name, seed, failure, failures / "inputs")
    for kind, number in kinds.most_common():
        print(f"inputs: {number:4} {kind}")
    return Figures(outcomes, found)


def read_input(ground: Ground, loader: str, seed: int, number: int, folder: Path) -> str:
    """Write the input of a number to `folder`, and read it."""
    try:
        LOADERS[loader].trial(ground, folder, generator(seed, loader, number))
    except PemtError as error:
        if not str(error).strip():
            raise ValueError("the error has no message") from error
        return REFUSED
    return READ


def _keep(ground: Ground, loader: str, seed: int, failure: Failure, folder: Path) -> None:
    """Write the input again, beside its trace; the files that it was made of are left out."""
    kept = folder / f"{loader.replace(' ', '_').replace('/', '_')}-{failure.number}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    (kept / "trace.txt").write_text(f"{loader}, seed {seed}, input {failure.number}: {failure.kind}\n{failure.details}")

    def write(_: int) -> str:
        return read_input(ground, loader, seed, failure.number, kept)

    run_cases(write, [failure.number], 1, folder / "again", "again")
