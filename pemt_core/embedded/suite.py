"""The embedded datasets: their schemas, the sizes of their splits, and their loader."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import datasets

from pemt_core.embedded import schemas
from pemt_core.embedded.acceptability import cola
from pemt_core.embedded.answering import boolq, multirc, qnli
from pemt_core.embedded.cloze import record
from pemt_core.embedded.inference_rows import cb, mnli, rte, scitail
from pemt_core.embedded.paraphrase import mrpc, paws, qqp
from pemt_core.embedded.reading import hotpotqa, natural_questions, newsqa, searchqa, squad
from pemt_core.embedded.reference import winogrande, wsc
from pemt_core.embedded.sentiment import sst2, yelp
from pemt_core.embedded.similarity import stsb
from pemt_core.embedded.word_sense import wic
from pemt_core.embedded.world import DeadEndError, World
from pemt_core.errors import DataError, nearest
from pemt_core.tasks.record import HubDataset

Row = dict[str, Any]
Maker = Callable[[World, int], list[Row]]  # makes a group of rows, given its index

_TRAIN = "train"
_SOURCE = {_TRAIN: 6_000, "validation": 400}
_SMALL = {_TRAIN: 1_500, "validation": 800}  # halved into validation and test
_LARGE = {_TRAIN: 1_500, "validation": 400}
_GLUE, _SUPER_GLUE, _MRQA = "nyu-mll/glue", "aps/super_glue", "mrqa-workshop/mrqa"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddedDataset:
    """A generated dataset with the name and the schema of a real one."""

    dataset: HubDataset
    make: Maker
    features: datasets.Features
    sizes: Mapping[str, int]  # rows of each official split
    key: str | None = "idx"  # the column that numbers the rows; None if there is none or the maker fills it


def _mrqa(subset: str, make: Maker) -> EmbeddedDataset:
    return EmbeddedDataset(HubDataset(_MRQA, "plain_text", subset), make, schemas.MRQA, _LARGE, key="qid")


DATASETS = (
    EmbeddedDataset(
        HubDataset(_GLUE, "mnli"),
        mnli,
        schemas.MNLI,
        {_TRAIN: 6_000, "validation_matched": 400, "validation_mismatched": 400},
    ),
    EmbeddedDataset(HubDataset(_GLUE, "qnli"), qnli, schemas.QNLI, _SOURCE),
    EmbeddedDataset(HubDataset(_GLUE, "qqp"), qqp, schemas.QQP, _SOURCE),
    EmbeddedDataset(HubDataset(_GLUE, "sst2"), sst2, schemas.SST2, _SOURCE),
    EmbeddedDataset(HubDataset("rajpurkar/squad", "plain_text"), squad, schemas.SQUAD, _SOURCE, key="id"),
    EmbeddedDataset(HubDataset(_SUPER_GLUE, "record"), record, schemas.RECORD, _SOURCE, key=None),
    EmbeddedDataset(HubDataset(_GLUE, "cola"), cola, schemas.COLA, _SMALL),
    EmbeddedDataset(HubDataset(_GLUE, "stsb"), stsb, schemas.STSB, _SMALL),
    EmbeddedDataset(HubDataset(_GLUE, "mrpc"), mrpc, schemas.MRPC, _SMALL),
    EmbeddedDataset(HubDataset(_GLUE, "rte"), rte, schemas.RTE, _SMALL),
    EmbeddedDataset(HubDataset(_SUPER_GLUE, "multirc"), multirc, schemas.MULTIRC, _SMALL, key=None),
    EmbeddedDataset(HubDataset(_SUPER_GLUE, "boolq"), boolq, schemas.BOOLQ, _SMALL),
    EmbeddedDataset(HubDataset(_SUPER_GLUE, "wic"), wic, schemas.WIC, _SMALL),
    EmbeddedDataset(HubDataset(_SUPER_GLUE, "wsc.fixed"), wsc, schemas.WSC, _SMALL),
    EmbeddedDataset(HubDataset(_SUPER_GLUE, "cb"), cb, schemas.CB, _SMALL),
    _mrqa("NaturalQuestionsShort", natural_questions),
    _mrqa("HotpotQA", hotpotqa),
    _mrqa("SearchQA", searchqa),
    _mrqa("NewsQA", newsqa),
    EmbeddedDataset(
        HubDataset("allenai/winogrande", "winogrande_xl"), winogrande, schemas.WINOGRANDE, _LARGE, key=None
    ),
    EmbeddedDataset(
        HubDataset("fancyzhx/yelp_polarity", "plain_text"), yelp, schemas.YELP, {_TRAIN: 1_500, "test": 400}, key=None
    ),
    EmbeddedDataset(HubDataset("allenai/scitail", "snli_format"), scitail, schemas.SCITAIL, _SMALL, key=None),
    EmbeddedDataset(
        HubDataset("google-research-datasets/paws", "labeled_final"),
        paws,
        schemas.PAWS,
        {_TRAIN: 1_500, "validation": 400, "test": 400},
        key="id",
    ),
)


def load_embedded(dataset: HubDataset, seed: int) -> dict[str, datasets.Dataset]:
    """Generate the official splits of a dataset, always the same for the same seed.

    Raises:
        DataError: the embedded suite has no such dataset; the message names the nearest one.
    """
    known = {str(each.dataset): each for each in DATASETS}
    if str(dataset) not in known:
        raise DataError(f"the embedded suite has no dataset '{dataset}': {nearest(str(dataset), known)}")
    found = known[str(dataset)]
    return {
        split: datasets.Dataset.from_list(rows_of(found, split, seed), features=found.features) for split in found.sizes
    }


def rows_of(embedded: EmbeddedDataset, split: str, seed: int) -> list[Row]:
    """Generate the rows of a split. Labels take turns, so they are balanced; the order is random."""
    world = World(seed, str(embedded.dataset), split, training=split == _TRAIN)
    groups: list[list[Row]] = []
    num_rows = 0
    made = _different(world, embedded.make)
    while num_rows < embedded.sizes[split]:
        groups.append(next(made))
        num_rows += len(groups[-1])
    rows = [row for group in world.draw.shuffled(groups) for row in group]
    return [_numbered(row, embedded, split, number) for number, row in enumerate(rows)]


def _different(world: World, make: Maker) -> Iterator[list[Row]]:
    """Yield groups of rows, no two of which have the same texts."""
    seen: set[tuple[str, ...]] = set()
    for number in count():
        while True:
            world.begin_row()
            try:
                rows = make(world, number)
            except DeadEndError:
                continue
            texts = tuple(value for row in rows for value in row.values() if isinstance(value, str))
            if world.row_is_complete and texts not in seen:
                break
        seen.add(texts)
        yield rows


def _numbered(row: Row, embedded: EmbeddedDataset, split: str, number: int) -> Row:
    if embedded.key is None:
        return row
    is_text = embedded.features[embedded.key].dtype == "string"
    return {**row, embedded.key: f"{split}-{number:05}" if is_text else number}
