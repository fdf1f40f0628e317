"""A bounded queue of rows, and the one thread that answers those of concurrent requests together."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from pemt_core.prediction.trained import Prediction, ReadRow
from pemt_core.serving.errors import BusyError, TooLargeError

logger = logging.getLogger(__name__)

Rows = Sequence[ReadRow]
Answer = Callable[[Rows], list[Prediction]]
RECENT = 0.2  # weight of the last batch in the mean time per row


@dataclass(frozen=True)
class QueueLimits:
    """How long rows wait, and how many may."""

    wait_seconds: float  # for rows of other requests
    most_rows: int  # that may wait
    batch_rows: int  # answered together; a larger request is answered as a whole


@dataclass(frozen=True)
class _Waiting:
    """The rows of one request."""

    rows: Rows
    answers: "Future[list[Prediction]]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class RowQueue:
    """Answers requests in their order, in one thread.

    The thread takes what waits, at most `batch_rows` rows, once the first has waited `wait_seconds` or a batch is full.
    """

    def __init__(self, answer: Answer, limits: QueueLimits, batch_answered: Callable[[int, float], None]) -> None:
        """`batch_answered` is told the rows and the seconds of every batch."""
        self.limits = limits
        self._answer, self._batch_answered = answer, batch_answered
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._num_rows, self._seconds_per_row, self._closed = 0, 0.0, False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether rows that are queued will be answered."""
        return self._thread.is_alive()

    @property
    def num_rows(self) -> int:
        """The number of rows that wait."""
        return self._num_rows

    def submit(self, rows: Rows) -> "Future[list[Prediction]]":
        """Queue the rows of a request. Raises BusyError if they do not fit now, TooLargeError if they never will."""
        most = self.limits.most_rows
        if len(rows) > most:
            raise TooLargeError(
                f"the request has {len(rows):,} rows, and the queue takes {most:,}: send them in several requests"
            )
        with self._changed:
            if self._closed:
                raise BusyError("the server is stopping", 1)
            if self._num_rows + len(rows) > most:
                seconds = max(1, math.ceil(self._num_rows * self._seconds_per_row))
                raise BusyError(
                    f"{self._num_rows:,} rows are waiting, and the queue takes {most:,}: try again in {seconds} s",
                    seconds,
                )
            waiting = _Waiting(rows)
            self._waiting.append(waiting)
            self._num_rows += len(rows)
            self._changed.notify()
        return waiting.answers

    def close(self) -> None:
        """Take no more rows, answer those that wait, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while taken := self._next():
            batch = [each for each in taken if each.answers.set_running_or_notify_cancel()]  # its client may be gone
            begin, rows = time.monotonic(), [row for each in batch for row in each.rows]
            self._answer_together(batch, rows)
            seconds = time.monotonic() - begin
            recent = seconds / max(1, len(rows))
            self._seconds_per_row += RECENT * (recent - self._seconds_per_row) if self._seconds_per_row else recent
            self._batch_answered(len(rows), seconds)

    def _next(self) -> list[_Waiting]:
        """Wait for the next batch; empty once the queue is closed and empty."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            enough = min(self.limits.batch_rows, self.limits.most_rows)
            while self._waiting and not self._closed and self._num_rows < enough:
                left = self._waiting[0].since + self.limits.wait_seconds - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch, num_rows = list[_Waiting](), 0
            while self._waiting and (not batch or num_rows + len(self._waiting[0].rows) <= self.limits.batch_rows):
                batch.append(self._waiting.popleft())
                num_rows += len(batch[-1].rows)
            self._num_rows -= num_rows
        return batch

    def _answer_together(self, batch: Sequence[_Waiting], rows: Rows) -> None:
        try:
            answers = iter(self._answer(rows))
        except Exception as error:  # of one request perhaps, which must not harm the others
            if len(batch) == 1:
                logger.exception("serve: a request of %d rows failed", len(rows))
                batch[0].answers.set_exception(error)
                return
            for each in batch:
                self._answer_together([each], each.rows)
            return
        for each in batch:
            each.answers.set_result([next(answers) for _ in each.rows])
