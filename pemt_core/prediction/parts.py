"""Answers to a file's rows, part by part and in order, in this process or in forked workers.

Parts are tokenized ahead: by this process while workers answer, by a thread while this process answers. A part is
answered alike wherever that happens, so the number of workers does not show in the answers.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemt_core.errors import PemtError
from pemt_core.prediction.predictor import Predictor
from pemt_core.prediction.trained import ReadRow
from pemt_core.processes.forked import Workers, forked_workers
from pemt_core.processes.schedule import Schedule

PARTS_PER_WORKER = 2  # under way: one that is answered, and one that waits, tokenized
KILLED = "a worker was killed, perhaps for lack of memory; nothing is written. Ask for fewer workers"

Sent = list[tuple[str, NDArray[np.int32], bool]]  # of each row its target, and what else a worker needs of it
Answers = list[dict[str, Any]]  # of a part's rows, by column


class PredictionError(PemtError):
    """Predicting cannot continue."""


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a file."""

    rows: Sequence[ReadRow]
    kept: Sequence[dict[str, str | None]]  # the columns of each that are copied to the output


AnsweredPart = tuple[Part, Answers]


@contextmanager
def answering(predictor: Predictor, parts: Iterator[Part], workers: int | None) -> Iterator[Iterator[AnsweredPart]]:
    """Yield an iterator over the parts with their answers, which runs in the block, by so many workers.

    Raises SettingsError if this machine cannot run `workers` (None: as many as suit it).
    """
    model = predictor.backbone.model
    schedule = Schedule.of_predictions(workers, model.num_parameters(), model.device)
    answer = partial(_answers_to_sent, predictor)
    first = list(islice(parts, schedule.workers))  # a short file needs no workers
    parts = chain(first, parts)
    if len(first) > 1:
        with forked_workers(answer, len(first), killed=PredictionError(KILLED)) as forked:
            yield _answered_by(forked, parts, PARTS_PER_WORKER * len(first))
    else:
        with schedule.threads(), ThreadPoolExecutor(1) as thread:
            yield ((part, _answers(predictor, part.rows)) for part in _made_ahead(parts, thread))


def _answered_by(forked: Workers[Sent, Answers], parts: Iterator[Part], most: int) -> Iterator[AnsweredPart]:
    """Have workers answer `most` parts ahead of the one that is yielded."""
    under_way = deque((part, forked.start(_sent(part))) for part in islice(parts, most))
    while under_way:
        part, call = under_way.popleft()
        answers = forked.end(call).answer
        assert answers is not None
        under_way += ((part, forked.start(_sent(part))) for part in islice(parts, 1))
        yield part, answers


def _made_ahead(parts: Iterator[Part], thread: ThreadPoolExecutor) -> Iterator[Part]:
    """Yield the parts; the thread makes the next one meanwhile."""
    upcoming = thread.submit(next, parts, None)
    while (part := upcoming.result()) is not None:
        upcoming = thread.submit(next, parts, None)
        yield part


def _sent(part: Part) -> Sent:
    return [(row.target.task.name, row.ids, row.truncated) for row in part.rows]


def _answers_to_sent(predictor: Predictor, sent: Sent) -> Answers:
    return _answers(predictor, [ReadRow(predictor.targets[name], ids, cut) for name, ids, cut in sent])


def _answers(predictor: Predictor, rows: Sequence[ReadRow]) -> Answers:
    return [answer.record() for answer in predictor.answer(rows)]
