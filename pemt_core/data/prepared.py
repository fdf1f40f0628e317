"""The prepared form of one task: a folder with a description and three parquet files of text pairs.

    data/<task>/task.json             what later steps need from the task's record
    data/<task>/{train,validation,test}.parquet   columns of ROW_SCHEMA

Later steps read this folder, never the record: a change of the record retrains a task only if it changes the folder.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pemt_core.artifacts.files import read_json, sha256_of_file, sha256_of_json, write_json
from pemt_core.errors import ArtifactError

SPLITS = ("train", "validation", "test")
DESCRIPTION = "task.json"

ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # unique within the task; from the dataset's id if it has one
        ("group", pa.string()),  # shared by the rows of a question (MultiRC, ReCoRD); otherwise the id
        ("source", pa.string()),  # what the encoder reads
        ("target", pa.string()),  # what the decoder is trained to write
        ("references", pa.list_(pa.string())),  # every right answer; [target] for labels
    ]
)


@dataclass(frozen=True)
class TaskDescription:
    """What later steps need to know about a task (task.json)."""

    name: str
    suite: str  # source, GLUE, SuperGLUE, MRQA, Others or Own
    description: str  # one sentence; its tokens start the task prompt
    labels: list[str] | None  # label words in class order; None for free text
    metrics: list[str]  # names in pemt_core.metrics, the main one first
    generation_length: int  # tokens, including the closing one; the same for selection and test
    shown: dict[str, str] | None = None  # the user's label for each label word, if the model writes other words

    def shown_as(self, text: str) -> str:
        """What a person sees of a text that the model wrote: the user's label if it is a label word."""
        return (self.shown or {}).get(" ".join(text.split()), text)


@dataclass(frozen=True)
class PreparedTask:
    """The opened folder of a prepared task."""

    directory: Path
    task: TaskDescription

    @classmethod
    def load(cls, directory: Path) -> "PreparedTask":
        """Open a folder that `prepare` wrote. Raises ArtifactError if it is missing or incomplete."""
        directory = Path(directory)
        task = load_task_description(directory)
        missing = [split for split in SPLITS if not (directory / f"{split}.parquet").is_file()]
        if missing:
            raise ArtifactError(f"{directory}: {missing[0]}.parquet is missing; run the prepare step again")
        return cls(directory, task)

    def rows(self, split: str) -> pa.Table:
        """All rows of `split`, with the columns of ROW_SCHEMA."""
        path = self.directory / f"{split}.parquet"
        try:
            absent = set(ROW_SCHEMA.names) - set(pq.read_schema(path).names)  # read_table would fill it with nulls
            table = pq.read_table(path, schema=ROW_SCHEMA)
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactError(f"{path}: not readable as parquet ({error}); it is truncated or altered") from error
        if absent:
            raise ArtifactError(f"{path}: the columns {sorted(absent)} are missing; run the prepare step again")
        return table

    def content_hash(self) -> str:
        """Hash the description and every row; the hash is equal exactly if later steps see the same data."""
        files = {split: sha256_of_file(self.directory / f"{split}.parquet") for split in SPLITS}
        return sha256_of_json({"task": asdict(self.task), "files": files})


def write_description(directory: Path, task: TaskDescription) -> None:
    """Write `task` as the folder's task.json."""
    values: dict[str, Any] = asdict(task)
    write_json(directory / DESCRIPTION, values)


def load_task_description(directory: Path) -> TaskDescription:
    """Read a folder's task.json. Raises ArtifactError if it is missing or was written by another version."""
    path = Path(directory) / DESCRIPTION
    try:
        return TaskDescription(**read_json(path))
    except TypeError as error:
        raise ArtifactError(f"{path}: {error}; another version wrote it, run the prepare step again") from error
