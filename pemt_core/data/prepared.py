"""The prepared form of one task: a folder with a description and three parquet files of text pairs.

    data/<task>/task.json             what later steps need from the task's record, and the SHA-256 of each file
    data/<task>/{train,validation,test}.parquet   columns of ROW_SCHEMA

Later steps read this folder, never the record: a change of the record retrains a task only if it changes the folder.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pemt_core.artifacts.files import read_record, sha256_of_file, sha256_of_json, write_record
from pemt_core.errors import ArtifactError

SPLITS = ("train", "validation", "test")
DESCRIPTION = "task.json"
AGAIN = "run the prepare step again"

ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # unique within the task; from the dataset's id if it has one
        ("group", pa.string()),  # shared by the rows of a question (MultiRC, ReCoRD); otherwise the id
        ("cluster", pa.string()),  # shared by the rows of a question or passage, if there are; otherwise the group
        ("source", pa.string()),  # what the model reads
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
    generation_length: int  # tokens, including the closing one; the same for selection and test. A longer label counts
    shown: dict[str, str] | None = None  # the user's label for each label word, if the model writes other words

    def shown_as(self, text: str) -> str:
        """What a person sees of a text that the model wrote: the user's label if it is a label word."""
        shown = self.shown or {}
        return shown.get(text, shown.get(" ".join(text.split()), text))


@dataclass(frozen=True)
class PreparedTask:
    """The opened folder of a prepared task."""

    directory: Path
    task: TaskDescription
    files: Mapping[str, str]  # split to the SHA-256 of its file

    @classmethod
    def load(cls, directory: Path, name: str | None = None) -> "PreparedTask":
        """Open a folder that `prepare` wrote, for the task `name` if it is given.

        Raises ArtifactError if the folder is missing or incomplete, or holds another task.
        """
        directory = Path(directory)
        task, files = _load(directory, name)
        missing = [split for split in SPLITS if split not in files or not (directory / f"{split}.parquet").is_file()]
        if missing:
            raise ArtifactError(f"{directory}: {missing[0]}.parquet is missing; {AGAIN}")
        return cls(directory, task, files)

    def rows(self, split: str) -> pa.Table:
        """All rows of `split`, with the columns of ROW_SCHEMA.

        Raises ArtifactError if the file is missing, altered, or has anything but text in these columns.
        """
        path = self.directory / f"{split}.parquet"
        try:
            found = sha256_of_file(path)
            if found != self.files[split]:
                raise ArtifactError(
                    f"{path}: altered: its SHA-256 is {found[:12]}, but {DESCRIPTION} says {self.files[split][:12]}; "
                    f"{AGAIN}"
                )
            schema = pq.read_schema(path)
            table = pq.read_table(path, schema=ROW_SCHEMA)
            table.validate(full=True)  # that texts are UTF-8, too
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{path}: not readable as parquet ({error}); {AGAIN}") from error
        if not schema.equals(ROW_SCHEMA):
            found, expected = (", ".join(f"{each.name} ({each.type})" for each in s) for s in (schema, ROW_SCHEMA))
            raise ArtifactError(f"{path}: has the columns {found}, expected {expected}; {AGAIN}")
        if any(column.null_count for column in table.columns):
            raise ArtifactError(f"{path}: has empty cells, expected a text in each; {AGAIN}")
        return table

    def content_hash(self) -> str:
        """Hash the description and every row; the hash is equal exactly if later steps see the same data."""
        return sha256_of_json({"task": asdict(self.task), "files": dict(self.files)})


def write_description(directory: Path, task: TaskDescription) -> None:
    """Write `task` as the folder's task.json, with a hash of each split that is in the folder."""
    paths = {split: Path(directory) / f"{split}.parquet" for split in SPLITS}
    files = {split: sha256_of_file(path) for split, path in paths.items() if path.is_file()}
    write_record(Path(directory) / DESCRIPTION, {**asdict(task), "files": files})


def load_task_description(directory: Path, name: str | None = None) -> TaskDescription:
    """Read a folder's task.json, of the task `name` if it is given.

    Raises ArtifactError if it is missing, altered, from another version, or of another task.
    """
    return _load(directory, name)[0]


def _load(directory: Path, name: str | None) -> tuple[TaskDescription, dict[str, str]]:
    path = Path(directory) / DESCRIPTION
    values = read_record(path, AGAIN)
    try:
        files: dict[str, str] = values.pop("files")
        task = TaskDescription(**values)
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: {error}; another version wrote it, {AGAIN}") from error
    if name is not None and task.name != name:
        raise ArtifactError(f"{directory}: is the data of '{task.name}', expected that of '{name}'")
    return task, files
