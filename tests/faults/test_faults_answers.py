"""Every input that once failed, through the command that a user calls: its exit code, and the line that it prints."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from faults.answers import ADD, ANSWERS, Answer, write_input
from faults.conftest import TARGET, Pemt
from pemt_core.settings import load_settings
from pemt_core.tasks.files import read_rows

pytestmark = pytest.mark.usefixtures("fresh_accelerator", "datasets_cache")
LONGEST = 1_500  # characters of an error


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_an_input_gets_the_right_answer(answer: Answer, project: Path, settings: Path, pemt: Pemt) -> None:
    words = [write_input(flag, settings.parent) if "." in flag[:40] and "_" in flag else flag for flag in answer.flags]
    path = write_input(answer.input, settings.parent)
    before = (settings / "params.yaml").read_text()
    if answer.command == ADD:
        shared = ["--params", settings / "params.yaml"]
        given = [
            word
            for name, value in (("--name", "t"), ("--target", "label"))
            if name not in words
            for word in (name, value)
        ]
        ended = pemt(settings, ADD, path, *shared, *given, *words)
    else:
        output = settings.parent / "answers.jsonl"
        ended = pemt(project, answer.command, path, "--output", output, "--target", TARGET, *words)
        assert output.exists() == (answer.code == 0)
    assert ended.code == answer.code, ended.output
    assert len(ended.errors) == answer.code
    assert "Traceback" not in ended.output
    for pattern in answer.says:
        assert re.search(pattern, ended.output), ended.output
    if answer.code:
        assert len(ended.errors[0]) < LONGEST
        assert (settings / "params.yaml").read_text() == before
    elif answer.command == ADD:
        assert "t" in load_settings(settings / "params.yaml").own_tasks
    else:
        assert output.read_text().count("\n") >= 30


def test_a_float32_is_its_shortest_text() -> None:
    path = write_input("f32.parquet", Path())
    column = pq.read_schema(path).names[-1]
    texts = {row[column] for _, row in read_rows(path, (column,))}
    assert max(map(len, map(str, texts))) <= 4
