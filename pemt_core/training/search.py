"""The search of one cell: which of its configurations train to the end, and which one is kept.

`full` trains all of them. `halving` is successive halving (Jamieson and Talwalkar 2016) with a single round: all start,
and at the first evaluation at or after a third of the steps the worse half by best validation so far stops. Of equal
scores all go on, because their order is no evidence. A configuration that goes on does so from its checkpoint, and ends
as it does with `full`.
"""

import math
from collections.abc import Sequence

from pemt_core.artifacts.cost import TrainingCost
from pemt_core.errors import TrainingError
from pemt_core.training.checkpoint import TrainingState
from pemt_core.training.configuration import CellTraining, Configuration, Trial
from pemt_core.training.course import DivergenceError


def better_half(scores: Sequence[float]) -> list[int]:
    """The places of the better half of `scores`, rounded up, and of all that equal its last; in ascending order."""
    last = sorted(scores, reverse=True)[math.ceil(len(scores) / 2) - 1]
    return [place for place, score in enumerate(scores) if score >= last]


def num_trials(training: CellTraining) -> int:
    """The number of trials in a cell's search, if no training ends early and no two scores are equal."""
    started = len(training.configurations)
    return started + math.ceil(started / 2) if _halves(training) else started


class Search:
    """One cell's search: the trials to begin with, those that follow from how others ended, and the result."""

    def __init__(self, training: CellTraining) -> None:
        self.training = training
        self.states: dict[int, TrainingState] = {}  # the last of each configuration, by its place
        self.errors: dict[int, TrainingError] = {}  # of configurations that diverged
        self._going = list(range(len(training.configurations)))  # the places of those that train to the end
        self._is_decided = not _halves(training)

    @property
    def first_trials(self) -> list[Trial]:
        return [Trial(self.training, place, to_end=self._is_decided) for place in self._going]

    def ended(self, trial: Trial, state: TrainingState) -> list[Trial]:
        """Take in the state in which a trial ended; returns the trials that follow."""
        self.states[trial.place] = state
        following: list[Trial] = []
        if not self._is_decided and len(self.states) == len(self._going):
            self._is_decided = True
            self._going = better_half([_early_score(self.states[place]) for place in self._going])
            following = [Trial(self.training, p, to_end=True) for p in self._going if not self.states[p].finished]
        if self._is_decided:
            self._drop_tensors()
        return following

    def diverged(self, trial: Trial, error: TrainingError) -> list[Trial]:
        """Take in that a trial diverged, which makes its configuration the worst; returns the trials that follow.

        If all of the better half diverge in the end, those that stopped go on.
        """
        self.errors[trial.place] = error
        spent = error.spent if isinstance(error, DivergenceError) else TrainingState(finished=True)
        following = self.ended(trial, spent)
        if following or not self.errors.keys() >= {*self._going}:
            return following
        stopped = [place for place in self.states if place not in self._going]
        self._going += stopped
        return [Trial(self.training, place, to_end=True) for place in stopped]

    @property
    def is_complete(self) -> bool:
        return self._is_decided and all(p in self.states and self.states[p].finished for p in self._going)

    @property
    def chosen(self) -> tuple[Configuration, TrainingState]:
        """Of the configurations that trained to the end, the best on validation, the first of equals.

        Raises TrainingError if all of them diverged.
        """
        place = self._best
        if place in self.errors:
            raise self.errors[place]
        return self.training.configurations[place], self.states[place]

    @property
    def trials(self) -> dict[str, float | None]:
        """The validation score of every configuration, by its label; None if it diverged."""
        return {self.training.configurations[p].label: self.states[p].best_score for p in sorted(self.states)}

    @property
    def cost(self) -> TrainingCost:
        """What all configurations took together."""
        states = self.states.values()
        return TrainingCost(
            configurations=len(states),
            steps=sum(state.step for state in states),
            seconds=round(sum(state.seconds for state in states), 3),
            peak_memory_mib=max(state.peak_memory_mib for state in states),
        )

    @property
    def _best(self) -> int:
        return max((p for p in self._going if p in self.states), key=lambda place: _score(self.states[place]))

    def _drop_tensors(self) -> None:
        """Keep in memory only tensors that may still be the cell's: another state of that place replaces those."""
        for place, state in self.states.items():
            if place != self._best:
                state.best_tensors = {}


def _halves(training: CellTraining) -> bool:
    return training.method.search == "halving" and len(training.configurations) > 1


def _score(state: TrainingState) -> float:
    """The validation score of the tensors that a training keeps."""
    return -math.inf if state.best_score is None else state.best_score


def _early_score(state: TrainingState) -> float:
    return _score(state) if state.early_score is None else state.early_score
