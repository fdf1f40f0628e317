"""Which versions a server answers with: those that have the alias, until a call replaces or removes one."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pemt_core.errors import DataError, PemtError, nearest
from pemt_core.prediction.predictor import Predictor
from pemt_core.prediction.rows import TASK, known_columns
from pemt_core.prediction.trained import ReadRow, TrainedTarget
from pemt_core.serving.errors import BusyError, UnknownTargetError, VersionError
from pemt_core.serving.metrics import Metrics
from pemt_core.serving.requests import rows_of
from pemt_core.serving.versions import VersionLoader
from pemt_core.serving.wanted import Wanted, is_of
from pemt_core.tasks.values import is_absent
from pemt_core.tracking import CELL, TrackingError
from pemt_core.tracking.models import FINGERPRINT, UnknownModelError, Version, find_version, version_at
from pemt_core.tracking.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetState:
    """A target as the server has it."""

    target: str
    model: str
    version: int | None = None  # the one that answers
    run: str | None = None  # its cell
    follows_alias: bool = True
    error: str | None = None  # why the last change failed
    refused: int | None = field(default=None, repr=False)  # the version that failed


class ServedTargets:
    """The targets of a server. One change happens at a time; rows are read and answered meanwhile."""

    def __init__(self, store: Store, wanted: Wanted, metrics: Metrics) -> None:
        self.wanted, self.metrics = wanted, metrics
        self._store = store
        self._loader: VersionLoader | None = None
        self._states: dict[str, TargetState] = {}
        self._removed: set[str] = set()
        self._changing = threading.Lock()

    @property
    def is_ready(self) -> bool:
        """Whether the targets were loaded."""
        return self._loader is not None

    @property
    def predictor(self) -> Predictor:
        """The predictor of all targets. Raises BusyError until they are loaded."""
        if self._loader is None:
            raise BusyError("the targets are being loaded", 1)
        return self._loader.predictor

    @property
    def states(self) -> list[TargetState]:
        states = self._states  # other threads replace it, and change none
        return [states[name] for name in sorted(states)]

    def read(self, body: bytes, content_type: str) -> list[ReadRow]:
        """Return the rows of a request, ready to be answered.

        All are read for the targets of one moment. Raises RequestError if the body is not readable, DataError if a row
        is not what its target expects, or names one that is not served.
        """
        predictor = self.predictor
        targets = predictor.targets
        if not targets:
            raise UnknownTargetError("no target is served now; POST /targets/<name> adds one")
        rows = rows_of(body, content_type, _number_columns(targets))
        known = known_columns(target.conversion for target in targets.values())
        if not any(column in row for row in rows for column in (*known, TASK)):
            raise DataError(f"no row has a known column; expected some of: {', '.join(known)}")
        if len(targets) == 1 and TASK not in known:  # of several targets, each row must name one
            _check_named(rows, targets)
        return predictor.read(rows, targets=targets)

    def load(self) -> None:
        """Load the backbone and all targets, at the start.

        Raises PemtError if a named target cannot be served, or without names, if none can.
        """
        with self._changing:
            versions = self.wanted.versions(self._store)
            prints = Counter(version.tags.get(FINGERPRINT, "") for version in versions.values())
            (common, _), *_ = prints.most_common(1)
            first = next(version for version in versions.values() if version.tags.get(FINGERPRINT, "") == common)
            loader = VersionLoader(self._store, first, self.wanted.backbone_dir)
            for target, version in versions.items():
                self._states = {**self._states, target: TargetState(target, self.wanted.model(target))}
                try:
                    self._replace(loader, target, version, follows_alias=True)
                except VersionError:
                    if self.wanted.targets:
                        raise
            if not loader.predictor.targets:
                raise next(VersionError(each.error or "") for each in self.states)
            loader.release(loader.predictor.targets.values())
            self._loader = loader
            self.metrics.registry_reached.set(1)

    def put(self, target: str, number: int | None) -> TargetState:
        """Serve a version of a target from now on; without a number, the one with the alias, and follow that.

        Raises UnknownTargetError if there is none, VersionError if it cannot be served: what is served stays.
        """
        model, alias = self.wanted.model(target), self.wanted.alias
        with self._changing:
            loader = self._loaded()
            try:
                version = find_version(self._store, f"models:/{model}" + (f"/{number}" if number else f"@{alias}"))
            except UnknownModelError as error:
                raise UnknownTargetError(str(error)) from error
            except TrackingError as error:
                raise BusyError(str(error), 10) from error
            before = self._states.get(target)
            self._states = {**self._states, target: before or TargetState(target, model, follows_alias=number is None)}
            self._removed.discard(target)
            self._replace(loader, target, version, follows_alias=number is None)
            loader.release(loader.predictor.targets.values())
            return self._states[target]

    def remove(self, target: str) -> TargetState:
        """Serve a target no more, whatever the alias says, until it is put again."""
        with self._changing:
            loader = self._loaded()
            if target not in self._states:
                raise UnknownTargetError(f"there is no target {target!r} here; {nearest(target, self._states)}")
            state = self._states[target]
            self._removed.add(target)
            self._drop(loader, target, "by a call")
            return state

    def follow(self) -> None:
        """Look at the registry once, and serve what has the alias there. If it cannot be reached, nothing changes."""
        with self._changing:
            loader = self._loaded()
            try:
                numbers = self._numbers()
                changed = {
                    target: version_at(self._store, self.wanted.model(target), number)
                    for target, number in numbers.items()
                    if self._differs(target, number)
                }
            except TrackingError as error:
                self.metrics.registry_reached.set(0)
                logger.warning("serve: %s; the versions stay", error)
                return
            self.metrics.registry_reached.set(1)
            for target in [t for t, state in self._states.items() if state.follows_alias and t not in numbers]:
                self._drop(loader, target, f"{self.wanted.model(target)} has no alias '{self.wanted.alias}' now")
            for target, number in numbers.items():
                if (known := self._states.get(target)) and known.refused and known.version == number:  # it is back
                    self._states = {**self._states, target: replace(known, error=None, refused=None)}
            for target, version in changed.items():
                if not is_of(version, target):
                    continue
                state = self._states.get(target, TargetState(target, self.wanted.model(target)))
                self._states = {**self._states, target: state}
                try:
                    self._replace(loader, target, version, follows_alias=True)
                except VersionError:
                    continue  # logged, and in its state
            if changed:
                loader.release(loader.predictor.targets.values())

    def _loaded(self) -> VersionLoader:
        if self._loader is None:
            raise BusyError("the targets are being loaded", 1)
        return self._loader

    def _numbers(self) -> dict[str, int]:
        """The version that has the alias, by target, of the targets that follow it."""
        numbers = self.wanted.numbers(self._store)
        named = self.wanted.targets or [*numbers]
        return {name: numbers[name] for name in dict.fromkeys((*named, *self._states))
                if name in numbers and name not in self._removed and self._follows(name)}  # fmt: skip

    def _follows(self, target: str) -> bool:
        return target not in self._states or self._states[target].follows_alias

    def _differs(self, target: str, number: int) -> bool:
        state = self._states.get(target)
        return state is None or number not in (state.version, state.refused)

    def _replace(self, loader: VersionLoader, target: str, version: Version, *, follows_alias: bool) -> None:
        """Load a version, and answer with it from then on. Raises VersionError, and keeps the last one, if it fails."""
        state = self._states[target]
        place = f"version {version.number} of {state.model}"
        try:
            _check(version, target, place, loader.backbone.fingerprint)
            trained = loader.load(target, version)
        except Exception as error:
            reason = str(error) if isinstance(error, PemtError) else f"{type(error).__name__}: {error}"
            kept = f"; version {state.version} stays" if state.version else ""
            message = f"{place} cannot be served: {reason}{kept}"
            asks_again = isinstance(error, TrackingError) or not follows_alias  # of a failing store, or after a call
            refused = None if asks_again else version.number
            self._states = {**self._states, target: replace(state, error=message, refused=refused)}
            self.metrics.failures.labels(target).inc()
            logger.warning("serve: %s", message, exc_info=not isinstance(error, PemtError))
            raise VersionError(message) from error
        loader.predictor.add(target, trained)
        made = TargetState(target, state.model, version.number, version.tags.get(CELL), follows_alias)
        self._states = {**self._states, target: made}
        self.metrics.versions.labels(target).set(version.number)
        logger.info("serve: %s answers by %s, %s", target, place, made.run)

    def _drop(self, loader: VersionLoader, target: str, reason: str) -> None:
        if target in loader.predictor.targets:
            loader.predictor.remove(target)
            self.metrics.versions.remove(target)
        self._states = {name: state for name, state in self._states.items() if name != target}
        loader.release(loader.predictor.targets.values())
        logger.info("serve: %s is removed: %s", target, reason)


def _check(version: Version, target: str, place: str, fingerprint: str) -> None:
    """Raise VersionError if a version is of another target or of another backbone."""
    if not is_of(version, target):
        raise VersionError(f"it is the cell {version.tags.get(CELL)}, expected one of {target}")
    found = version.tags.get(FINGERPRINT, fingerprint)
    if found != fingerprint:
        raise VersionError(
            f"it was trained on the backbone {found[:12]}, but this server has {fingerprint[:12]}; "
            f"`pemt serve {target}` serves it by itself"
        )


def _number_columns(targets: Mapping[str, TrainedTarget]) -> set[str]:
    """The columns that every target which reads them reads as a number."""
    kinds = [(c, each.conversion.kinds.get(c, "text")) for each in targets.values() for c in each.conversion.inputs]
    return {column for column, kind in kinds if kind == "number"} - {c for c, kind in kinds if kind != "number"}


def _check_named(rows: Sequence[Mapping[str, Any]], targets: Mapping[str, Any]) -> None:
    """Raise DataError if a row names another target than the only one that is served, which does not answer for it."""
    for number, row in enumerate(rows):
        name = row.get(TASK)
        if not is_absent(name) and not (isinstance(name, str) and name in targets):
            raise DataError(f"row {number}: there is no target {name!r} here; {nearest(name, targets)}")
