"""What live runs have still to write to a store: it goes there from one thread, so that no training waits for it.

MLflow's own asynchronous logging (`log_batch(..., synchronous=False)`) does not do: it only logs that a request failed
and drops its points, sends the batches of a run from ten threads in any order, holds any number of them, and waits for
a server without a limit, also when the process ends. Here points stay until the store has them. A request may be
repeated, as its answer may have been lost: points bear the time when they were logged, by which MLflow recognizes them.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from pemt_core.tracking.address import TrackingError, check_reachable
from pemt_core.tracking.store import METRICS_PER_BATCH, Store, TimedPoint

logger = logging.getLogger(__name__)

GATHERING_SECONDS = 1.0  # for which points are gathered into one request, unless somebody waits for them
PAUSES = (1.0, 30.0)  # seconds between attempts at a store that fails: the first, which doubles up to the last
MOST_POINTS = 100_000  # held for a store; further ones are left to the step `record`


@dataclass(eq=False)
class Unsent:
    """What the store lacks of one run. It is sent in this order."""

    opening: "Callable[[Unsent, Store], None] | None"  # makes the run, and sets `run_id`; may be repeated
    run_id: str = ""
    points: deque[TimedPoint] = field(default_factory=deque)
    tags: dict[str, str] = field(default_factory=dict)
    status: str = ""  # with which the run ends
    failures: int = 0

    @property
    def is_sent(self) -> bool:
        return not (self.opening or self.points or self.tags or self.status)


class Outbox:
    """Sends what runs lack, from a thread that lives as long as there is something to send."""

    def __init__(self, store: Store, *, keeps_trying: bool) -> None:
        """If the store fails, `keeps_trying` has it tried again and again; without it, `flush` raises the error."""
        self._store, self._keeps_trying = store, keeps_trying
        self._changed = threading.Condition()  # also the lock of all that follows
        self._runs: list[Unsent] = []  # those that lack something
        self._thread: threading.Thread | None = None
        self._somebody_waits = False
        self._fails = self._is_full = False
        self._error: TrackingError | None = None

    def open(self, run: Unsent) -> None:
        """Make the run now; if the store fails, and is tried again, later. Raises TrackingError if it is not."""
        opening = run.opening
        if opening and not self._fails:
            try:
                opening(run, self._store)
                run.opening = None
            except TrackingError as error:
                if not self._keeps_trying:
                    raise
                self._failed(run, error)
        self._put(run)

    def log(self, run: Unsent, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to the curve of each of `metrics`, without waiting."""
        now = int(time.time() * 1000)
        with self._changed:
            if sum(len(each.points) for each in self._runs) < MOST_POINTS:
                run.points += [(name, value, step, now) for name, value in metrics.items()]
            elif not self._is_full:
                self._is_full = True
                logger.warning(
                    "%s: behind by %d points; `dvc repro -f -s record` adds those that follow",
                    self._store.place, MOST_POINTS,
                )  # fmt: skip
        self._put(run)

    def tag(self, run: Unsent, tags: Mapping[str, str]) -> None:
        """Set tags, without waiting."""
        with self._changed:
            run.tags |= tags
        self._put(run)

    def end(self, run: Unsent, status: str, seconds: float) -> bool:
        """Give a run its final status; otherwise as `flush`."""
        run.status = status
        self._put(run)
        return self.flush(run, seconds)

    def flush(self, run: Unsent, seconds: float, *, retries: bool = True) -> bool:
        """Send now what the store lacks of a run, and wait for that; return whether the store has all of it.

        It waits for up to `seconds`, and for one attempt at a store that fails; without `retries`, for none. Raises the
        TrackingError of a store that failed since the last call, unless it is tried again and again.
        """
        with self._changed:
            before = run.failures
            if not (self._error or run.is_sent or (self._fails and not retries)):
                self._somebody_waits = True
                self._start()
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._error or run.is_sent or run.failures > before, seconds)
            error, self._error = self._error, None
        if error:
            raise error
        return run.is_sent

    def forget(self, run: Unsent) -> None:
        """Send nothing more of a run."""
        with self._changed:
            self._runs = [each for each in self._runs if each is not run]

    def end_at_once(self, run: Unsent, status: str) -> None:
        """Try to give a run its final status as the process ends, whatever the thread does."""
        with suppress(TrackingError):
            if run.run_id:
                self._store.end(run.run_id, status)

    def _put(self, run: Unsent) -> None:
        with self._changed:
            if not run.is_sent and run not in self._runs:
                self._runs.append(run)
            if not self._error:
                self._start()

    def _start(self) -> None:
        if self._thread is None and self._runs:
            self._thread = threading.Thread(target=self._send_all, name="tracking", daemon=True)
            self._thread.start()

    def _send_all(self) -> None:
        """Send until the store lacks nothing; what is added meanwhile is gathered for the next round."""
        pause = 0.0
        while True:
            with self._changed:
                if not self._runs or self._error:
                    self._thread = None
                    return
                self._changed.wait_for(lambda: self._somebody_waits, pause or GATHERING_SECONDS)
                self._somebody_waits, runs = False, list(self._runs)
            pause = 0.0 if self._round(runs) else min(2 * pause, PAUSES[1]) or PAUSES[0]

    def _round(self, runs: list[Unsent]) -> bool:
        """Send what each run lacks; return whether all of it was sent."""
        fine = True
        for run in runs:
            try:
                if self._fails:
                    check_reachable(self._store.uri)  # MLflow would wait longer
                self._send(run)
            except Exception as error:  # also an unknown one: the thread has to go on
                fine = False
                self._failed(run, error)
                if not self._keeps_trying:
                    break
            with self._changed:
                self._runs = [each for each in self._runs if not each.is_sent]
                self._changed.notify_all()
        if fine and self._fails:
            self._fails = False
            logger.info("%s: answers again, and has what it missed", self._store.place)
        return fine

    def _send(self, run: Unsent) -> None:
        if run.opening:
            run.opening(run, self._store)
            run.opening = None
        while part := self._next_points(run):
            self._store.add_timed(run.run_id, part)
            with self._changed:
                for _ in part:
                    run.points.popleft()
        if tags := dict(run.tags):
            self._store.set_tags(run.run_id, tags)
            with self._changed:
                run.tags = {name: value for name, value in run.tags.items() if tags.get(name) != value}
        if run.status and not run.points:
            self._store.end(run.run_id, run.status)
            run.status = ""

    def _next_points(self, run: Unsent) -> list[TimedPoint]:
        with self._changed:
            return list(islice(run.points, METRICS_PER_BATCH))

    def _failed(self, run: Unsent, error: Exception) -> None:
        known = error if isinstance(error, TrackingError) else TrackingError(f"{self._store.place}: {error!r}")
        with self._changed:
            if not self._keeps_trying:
                self._error = known
            elif not self._fails:
                logger.warning("%s; going on, and sending what the store misses when it answers again", known)
            self._fails = self._keeps_trying
            run.failures += 1
            self._changed.notify_all()
