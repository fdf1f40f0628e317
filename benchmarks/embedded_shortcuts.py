"""How far shortcuts get in the embedded suite: a Markdown table, one row per task.

    python benchmarks/embedded_shortcuts.py --seed 0

Trained on the official training split, scored on the first official evaluation split. Tasks with classes: the majority
class, logistic regression on the bag of words of all fields together, and the best one on a single field (such as the
hypothesis alone); where there are two texts, boosted trees on how many words they share, how long they are and which of
them says "not". STS-B: the same with regression, Pearson's r. Question answering, exact match: the most
frequent answer, and the expected score of a random word of the passage that is an answer somewhere in training.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from pemt_core.embedded.language import words_of
from pemt_core.embedded.suite import load_embedded
from pemt_core.tasks import TASKS, Task
from pemt_core.tasks.values import RawRow

DENIALS = ("not", "no", "never", "cannot")
ANY_WORD = r"\w+|[^\w\s]"  # single letters and marks count as well
NO_FIELDS = ("id", "qid", "gold_label")
OPTION = "option1"


@dataclass(frozen=True)
class Split:
    """What a baseline sees of a split: each field by name, and the targets."""

    fields: dict[str, list[str]]
    targets: list[str]

    @property
    def joined(self) -> list[str]:
        return [" ".join(texts) for texts in zip(*self.fields.values(), strict=True)]


def read(task: Task, rows: Sequence[RawRow]) -> Split:
    """The fields that stand in the source text, in any order, and the target texts."""
    targets = [task.conversion.pair(row).target for row in rows]
    names = [name for name in task.columns if isinstance(rows[0][name], str) and name not in NO_FIELDS]
    if OPTION in names:  # which option is right, not its text
        targets = [str(target == row[OPTION]) for target, row in zip(targets, rows, strict=True)]
        names.remove("answer")
    return Split({name: [row[name] for row in rows] for name in names}, targets)


def linear(task: Task, train: Split, test: Split, texts: tuple[list[str], list[str]]) -> float:
    """The score of a linear model on counts of words, in points."""
    counts = CountVectorizer(token_pattern=ANY_WORD)
    if task.labels is None and task.metrics[0] == "pearson":
        model = make_pipeline(counts, Ridge(alpha=10.0)).fit(texts[0], [float(target) for target in train.targets])
        predicted = model.predict(texts[1])
        return 100 * float(np.corrcoef(predicted, [float(target) for target in test.targets])[0, 1])
    model = make_pipeline(counts, LogisticRegression(C=0.3, max_iter=1_000)).fit(texts[0], train.targets)
    return 100 * float(model.score(texts[1], test.targets))


def overlap(train: Split, test: Split, is_score: bool) -> str:
    """The score of boosted trees on what can be counted of two texts, in points; empty where there is one text."""
    if len(train.fields) < 2:
        return ""
    counted = [
        np.array([_counts(*pair[:2]) for pair in zip(*split.fields.values(), strict=True)]) for split in (train, test)
    ]
    if is_score:
        trees = HistGradientBoostingRegressor(random_state=0).fit(counted[0], [float(t) for t in train.targets])
        return f"{100 * np.corrcoef(trees.predict(counted[1]), [float(t) for t in test.targets])[0, 1]:.1f}"
    found = HistGradientBoostingClassifier(random_state=0).fit(counted[0], train.targets)
    return f"{100 * found.score(counted[1], test.targets):.1f}"


def _counts(first: str, second: str) -> list[float]:
    words = [words_of(text.lower()) for text in (first, second)]
    shared = len(set(words[0]) & set(words[1]))
    denials = [sum(word in DENIALS for word in each) for each in words]
    return [shared, shared / max(1, len(set(words[1]))), len(words[0]), len(words[1]), *denials]


def classified(task: Task, train: Split, test: Split) -> list[str]:
    """Majority, bag of words, best single field, shared words."""
    common = Counter(train.targets).most_common(1)[0][0]
    majority = 100 * sum(target == common for target in test.targets) / len(test.targets)
    bag = linear(task, train, test, (train.joined, test.joined))
    singles = {name: linear(task, train, test, (train.fields[name], test.fields[name])) for name in train.fields}
    best = max(singles, key=lambda name: singles[name])
    is_score = task.metrics[0] == "pearson"
    return [
        "0.0" if is_score else f"{majority:.1f}",
        f"{bag:.1f}",
        f"{singles[best]:.1f} ({best})",
        overlap(train, test, is_score),
    ]


def answered(train: Split, test: Split) -> list[str]:
    """Most frequent answer, random answer of the passage."""
    common = Counter(train.targets).most_common(1)[0][0]
    majority = 100 * sum(target == common for target in test.targets) / len(test.targets)
    known = set(train.targets) | set(test.targets)
    passages = test.fields["context" if "context" in test.fields else "passage"]
    chances = []
    for passage, target in zip(passages, test.targets, strict=True):
        candidates = set(words_of(passage)) & known
        chances.append((target in candidates) / max(1, len(candidates)))
    return [f"{majority:.1f}", f"{100 * float(np.mean(chances)):.1f}"]


def table(seed: int, names: Sequence[str]) -> str:
    lines = [
        "| task | rows: train / evaluation | majority or commonest | bag of words or random | best single field "
        "| shared words |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        task = TASKS[name]
        splits = load_embedded(task.dataset, seed)
        held_out = task.splits.test.split
        rows = {split: splits[split].to_list() for split in ("train", held_out)}
        train, test = (read(task, rows[split]) for split in ("train", held_out))
        is_reading = task.metrics[0].startswith("qa_")
        scores = [*answered(train, test), "", ""] if is_reading else classified(task, train, test)
        lines.append(f"| {name} | {len(train.targets):,} / {len(test.targets):,} | {' | '.join(scores)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the world's seed (default: %(default)s)")
    parser.add_argument("tasks", nargs="*", help="tasks (default: all)")
    arguments = parser.parse_args()
    print(table(arguments.seed, arguments.tasks or list(TASKS)))


if __name__ == "__main__":
    main()
