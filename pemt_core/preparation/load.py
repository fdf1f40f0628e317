"""Load a task's official splits: from the hub, a folder that mirrors its layout, the embedded world, or files."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HTTPError

from pemt_core.artifacts.files import sha256_of_file, sha256_of_json
from pemt_core.backbone.location import one_line
from pemt_core.embedded.suite import load_embedded
from pemt_core.errors import DataError, nearest
from pemt_core.preparation.revisions import resolve_revision
from pemt_core.provenance.code import code_hash
from pemt_core.settings import EMBEDDED, HUB
from pemt_core.tasks.files import check_file, place_of, read_rows
from pemt_core.tasks.files.parquet_records import parquet_rows
from pemt_core.tasks.record import FileDataset, HubDataset

_SUBSET_COLUMN = "subset"
_SHARD = re.compile(r"(.*-)\d{5}-of-(\d{5})(\.\w+)", re.DOTALL)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OfficialSplits:
    """The splits that a dataset has, with the columns that the record reads; memory-mapped if they come from files."""

    splits: Mapping[str, datasets.Dataset]
    revision: str  # the hub's commit for all splits, or a hash of the user's files, or empty
    place: Callable[[str, int], str]  # the place of a row of a split, for messages; rows count from 0


def load_official_splits(
    dataset: HubDataset | FileDataset,
    *,
    source: str,
    embedded_seed: int,
    names: Iterable[str],
    columns: tuple[str, ...],
) -> OfficialSplits:
    """Load the splits in `names` that the dataset has, each with `columns` and the rows of its subset.

    Args:
        source: "hub", "embedded", or a folder that mirrors the hub's layout; unused for the user's files.
        embedded_seed: the seed of the embedded world; unused for other sources.

    Raises:
        DataError: the hub is unreachable, or the repository, configuration, split "train", subset or a column is
            missing; the message names it, its place, and the nearest that exists. For files, as `read_rows`.
    """
    if isinstance(dataset, FileDataset):
        return _load_files(dataset, columns)
    revision = resolve_revision(dataset) if source == HUB else ""
    loaded = load_embedded(dataset, embedded_seed) if source == EMBEDDED else _load(dataset, source, revision)
    splits = {}
    for split in names:
        if split in loaded:
            rows = _of_subset(loaded[split], dataset, split)
            splits[split] = _with_columns(rows, columns, f"{dataset}, split '{split}'")
    return OfficialSplits(splits, revision, dataset.place)


def _load(dataset: HubDataset, source: str, revision: str) -> Mapping[str, datasets.Dataset]:
    """Load all splits of the dataset from the hub or the folder `source`."""
    location = dataset.repo if source == HUB else str(_mirrored_repository(dataset, Path(source)))
    cache_dir = None if source == HUB else _cache_of(Path(location).resolve().rglob("*"))
    with _reading(dataset, source):
        # named, since `datasets` else fails where a mirror lacks the files of another configuration of the card
        files = None if source == HUB else _files_of_card(Path(location), dataset.config)
        _check_configuration(dataset, location, revision, files)
        chosen: dict[str, Any] = {"name": dataset.config, "data_files": files, "cache_dir": cache_dir}
        if source != HUB:
            builder = datasets.load_dataset_builder(location, **chosen)
            _check_shards([*chain.from_iterable((builder.config.data_files or {}).values())])
        loaded = datasets.load_dataset(location, **chosen, revision=revision or None)
    if "train" not in loaded:
        raise DataError(f"{dataset}: no split 'train' in {location}; it has {_listed(loaded)}")
    return loaded


def _load_files(dataset: FileDataset, columns: tuple[str, ...]) -> OfficialSplits:
    """Load each file as a split. Raises DataError as `read_rows` does."""
    read = {split: _load_file(dataset.path(split), columns) for split in dataset.files}
    hashes = {split: sha256_of_file(dataset.path(split)) for split in dataset.files}

    def place(split: str, row: int) -> str:
        return place_of(dataset.path(split), read[split][row][_number_column(columns)])

    splits = {split: rows.select_columns(list(columns)) for split, rows in read.items()}
    return OfficialSplits(splits, f"sha256:{sha256_of_json(hashes)}", place)


def _load_file(path: Path, columns: tuple[str, ...]) -> datasets.Dataset:
    """Load the rows of a file as text, each with its number from the reader."""
    features = {column: datasets.Value("string") for column in columns}
    features[_number_column(columns)] = datasets.Value("int64")
    check_file(path)
    cache_dir = _cache_of([path])
    try:
        return datasets.Dataset.from_generator(
            _numbered_rows,
            features=datasets.Features(features),
            gen_kwargs={"path": path, "columns": columns},
            cache_dir=cache_dir,
        )
    except (DatasetsError, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, DataError):  # raised in the generator
            raise cause from error
        raise DataError(f"{path}: its rows cannot be stored in the cache {cache_dir} ({cause})") from error


def _numbered_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    with closing(read_rows(path, columns)) as rows:
        for number, row in rows:
            yield {**row, _number_column(columns): number}


def _number_column(columns: tuple[str, ...]) -> str:
    """Return a name that is longer than each of `columns`, so different from all."""
    return "number beside " + ", ".join(columns)


def _mirrored_repository(dataset: HubDataset, folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(
            f"prepare.source '{folder}' is not a folder; expected '{HUB}', '{EMBEDDED}' or a mirror of the hub"
        )
    if not (folder / dataset.repo).is_dir():
        present = [f"{path.parent.name}/{path.name}" for path in folder.glob("*/*") if path.is_dir()]
        hint = nearest(dataset.repo, present) if present else "it has no datasets"
        raise DataError(f"the folder {folder} has no dataset '{dataset.repo}'; {hint}")
    return folder / dataset.repo


def _cache_of(paths: Iterable[Path]) -> str:
    """Return a separate cache for every state of the files and of the code that reads users' files.

    `datasets` identifies a folder only by its last name and README: with a shared cache, another folder or another
    version of a file would get the rows of the first one.
    """
    files = sorted(path.resolve() for path in paths if path.is_file())
    state = {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}
    key = sha256_of_json([state, code_hash("pemt_core.tasks.files", "pemt_core.preparation.load")])
    return str(Path(datasets.config.HF_DATASETS_CACHE) / f"folder-{key[:16]}")


@contextmanager
def _reading(dataset: HubDataset, source: str) -> Iterator[None]:
    """Turn errors of the client library into a DataError that names the dataset and what to do."""
    try:
        yield
    except (ConnectionError, HTTPError) as error:
        raise DataError(
            f"{dataset}: the hub is unreachable or broke the connection ({error}); "
            "try again, or set prepare.source (in the recipe, if it sets it) to a folder that mirrors it"
        ) from error
    except DataError:
        raise
    except Exception as error:  # `datasets` does not document what it raises
        cause = error.__cause__ or error  # the library's message often says only that something failed
        reason = _broken_files(Path(source) / dataset.repo) or f"{type(cause).__name__}: {one_line(cause)}"
        raise DataError(f"{dataset}: not readable from '{source}' ({reason})") from error


def _broken_files(repository: Path) -> str:
    """Name the parquet files that are of another kind, damaged or without rows; of these, `datasets` names none."""
    empty = []
    for path in sorted(repository.rglob("*.parquet")):
        try:
            if parquet_rows(path) == 0:
                empty.append(path.name)
        except DataError as error:
            return str(error)
    return f"files without rows: {', '.join(empty)}" if empty else ""


def _check_shards(files: Sequence[str]) -> None:
    """Raise DataError if a file is numbered, as train-00000-of-00002.parquet is, and another one is missing."""
    present = set(files)
    for begin, count, ending in dict.fromkeys(match.groups() for match in map(_SHARD.fullmatch, files) if match):
        every = [f"{begin}{number:05}-of-{count}{ending}" for number in range(int(count))]
        missing = [file for file in every if file not in present]
        if missing:
            more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
            raise DataError(f"{missing[0]}{more}: no such file, but others of {len(every)} are there; get all of them")


def _files_of_card(repository: Path, configuration: str) -> Any:
    """The files of a configuration as README.md lists them, a pattern for each split; None if it does not.

    Patterns of a configuration with a `data_dir` begin there, not in the repository, and are left to `datasets`.
    """
    card = repository / "README.md"
    listed = DatasetCard.load(card).data.to_dict().get("configs") if card.is_file() else None
    own: dict[str, Any] = next((each for each in listed or [] if each["config_name"] == configuration), {})
    files = None if "data_dir" in own else own.get("data_files")
    for pattern in [each["path"] for each in files or [] if isinstance(each, dict)]:
        if isinstance(pattern, str) and not any(repository.glob(pattern)):
            raise DataError(f"{repository}: no file fits '{pattern}', which README.md lists for '{configuration}'")
    return files


def _check_configuration(dataset: HubDataset, location: str, revision: str, files: Any) -> None:
    names = datasets.get_dataset_config_names(location, revision=revision or None, data_files=files)
    if dataset.config not in names:
        raise DataError(f"{location} has no configuration '{dataset.config}': {nearest(dataset.config, names)}")


def _of_subset(rows: datasets.Dataset, dataset: HubDataset, split: str) -> datasets.Dataset:
    """Select the rows of the dataset's subset. This reads only one column, and `datasets` caches the selection."""
    if dataset.subset is None:
        return rows
    _check_columns(rows, (_SUBSET_COLUMN,), f"{dataset}, split '{split}'")
    chosen = rows.filter(
        _equals, input_columns=[_SUBSET_COLUMN], batched=True, batch_size=10_000, fn_kwargs={"value": dataset.subset}
    )
    if len(chosen) == 0:
        present = _listed(rows.unique(_SUBSET_COLUMN))
        raise DataError(
            f"{dataset.repo} ({dataset.config}) has no rows of subset '{dataset.subset}' in split '{split}'; "
            f"its subsets are {present}"
        )
    logger.info("%s: %d of %d rows of split '%s'", dataset, len(chosen), len(rows), split)
    return chosen


def _equals(values: list[str], value: str) -> list[bool]:
    return [found == value for found in values]


def _with_columns(rows: datasets.Dataset, columns: tuple[str, ...], place: str) -> datasets.Dataset:
    _check_columns(rows, columns, place)
    return rows.select_columns(list(columns))


def _check_columns(rows: datasets.Dataset, columns: tuple[str, ...], place: str) -> None:
    for column in columns:
        if column not in rows.column_names:
            raise DataError(f"{place}: there is no column '{column}': {nearest(column, rows.column_names)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, names))) or "nothing"
