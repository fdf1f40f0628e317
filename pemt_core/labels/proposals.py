"""Words to write instead of labels that a model cannot write."""

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterator, Sequence

from pemt_core.labels.looks import number_in, seen

LONGEST = 60  # characters of a proposed word
_MOST_NUMBERS = 1_000  # of "label1" and so on: a tokenizer that can write none of them can write nothing


def is_simple(word: str) -> bool:
    """Whether any tokenizer for English can be expected to keep a word."""
    return word.isascii() and word.isprintable()


def proposed_words(
    labels: Sequence[str],
    words: Sequence[str],
    can_write: Callable[[str], bool] = is_simple,
    read_back: Callable[[str], str] = seen,
) -> dict[str, str]:
    """Propose a word for each of `labels`, different from each other and from the rest of `words`.

    Args:
        words: all label words of the task.
        can_write: whether the model can write a word.
        read_back: what its tokenizer makes of a label.
    """
    taken, found = {_identity(word) for word in words if word not in labels}, {}
    for label in labels:
        for word in _candidates(label, read_back):
            is_short_word = word != label and len(word) <= LONGEST and any(map(str.isalnum, word))
            if is_short_word and _identity(word) not in taken and can_write(word):
                break
        found[label] = word
        taken.add(_identity(word))
    return found


def _identity(word: str) -> Hashable:
    number = number_in(seen(word))
    return seen(word).casefold() if number is None else number


def _candidates(label: str, read_back: Callable[[str], str]) -> Iterator[str]:
    yield seen(read_back(label))
    yield seen(label)
    letters = "".join(c for c in unicodedata.normalize("NFKD", seen(label)) if not unicodedata.combining(c))
    yield re.sub(r"\W+", "_", letters).strip("_")
    yield _spelled(seen(label))
    yield _spelled(label)
    for number in range(1, _MOST_NUMBERS):
        yield f"label{number}"


def _spelled(label: str) -> str:
    """The label with the name of each sign; empty if it has a letter that is not Latin, whose name is no word."""
    if any(c.isalpha() and not c.isascii() for c in label):
        return ""
    names = "".join(c if c.isascii() and c.isalnum() else f" {unicodedata.name(c, '').lower()} " for c in label)
    return "_".join(re.findall(r"[^\W_]+", names))
