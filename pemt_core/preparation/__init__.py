"""The prepare step: datasets become folders of text pairs."""

from pemt_core.preparation.corpus import write_corpus
from pemt_core.preparation.joint import prepare_joint
from pemt_core.preparation.prepare import prepare_task
from pemt_core.preparation.revisions import resolve_revisions, write_pins
from pemt_core.preparation.statistics import SplitStatistics, TaskReport, token_lengths

__all__ = [
    "SplitStatistics",
    "TaskReport",
    "prepare_joint",
    "prepare_task",
    "resolve_revisions",
    "token_lengths",
    "write_corpus",
    "write_pins",
]
