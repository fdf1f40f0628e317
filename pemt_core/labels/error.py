"""The error about labels that no model can write or tell apart, with the remedy."""

from collections.abc import Mapping

from pemt_core.data.prepared import TaskDescription
from pemt_core.data.suites import OWN
from pemt_core.errors import DataError
from pemt_core.schema.flow import flow


class LabelError(DataError):
    """Labels of a task cannot be used; `words` proposes what the model writes for each."""

    def __init__(self, task: TaskDescription, problem: str, words: Mapping[str, str]) -> None:
        self.problem, self.words = problem, {task.shown_as(word): proposed for word, proposed in words.items()}
        super().__init__(f"{task.name}: {problem}; {self._remedy(task)}")

    @property
    def pasted(self) -> str:
        """The proposal in YAML."""
        return flow(self.words)

    def _remedy(self, task: TaskDescription) -> str:
        if task.suite != OWN:
            return f"give other words in params.yaml: prepare: {{label_words: {{{task.name}: {self.pasted}}}}}"
        return f"correct the file, or add to own_tasks.{task.name} what the model writes: label_words: {self.pasted}"
