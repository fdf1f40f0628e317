"""Write the corpus for training a tokenizer and pretraining a scratch backbone: training texts of all tasks."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pemt_core.artifacts.files import atomic_file
from pemt_core.data.corpus import CORPUS_SCHEMA, CorpusText, corpus_table
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import ArtifactError

_BATCH_ROWS = 1_000


def write_corpus(
    prepared_dirs: Iterable[Path], rows_per_task: int, path: Path, plain_text: Sequence[CorpusText] = ()
) -> int:
    """Write the first `rows_per_task` different source texts of every training split, then `plain_text`, to parquet.

    Prepared rows are in a seeded random order, so the first ones are a random sample. Tasks are sorted by name, so the
    same data gives the same bytes in any order of the folders.

    Returns:
        The number of texts written.
    """
    tasks = sorted((PreparedTask.load(directory) for directory in prepared_dirs), key=lambda task: task.task.name)
    num_rows = 0
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, CORPUS_SCHEMA) as writer:
        for task in tasks:
            texts = list(islice(_different_texts(task.directory / "train.parquet"), rows_per_task))
            writer.write_table(corpus_table(CorpusText(text) for text in texts))
            num_rows += len(texts)
        writer.write_table(corpus_table(plain_text))
    return num_rows + len(plain_text)


def _different_texts(path: Path) -> Iterator[str]:
    seen: set[str] = set()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=["source"]):
                for text in batch.column("source").to_pylist():
                    if text not in seen:
                        seen.add(text)
                        yield text
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"{path}: not readable as parquet ({error}); it is truncated or altered") from error
