"""Print how far shortcuts get in the embedded suite: a Markdown table, one row per task.

    python benchmarks/embedded_shortcuts.py --seed 0

Baselines are trained on the official training split and scored on the first official evaluation split. Tasks with
classes have the majority class, logistic regression on the bag of words of all fields, and the best regression on a
single field (such as the hypothesis alone); tasks with two texts also have boosted trees on the number of shared words,
the lengths, and which text says "not". STS-B has the same with regression, by Pearson's r. Question answering has, by
exact match, the most frequent answer and the expected score of a random word of the passage that the question does not
name and that answers a training question with the same first word.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
ANY_WORD = r"\w+|[^\w\s]"  # single letters and marks also count
NO_FIELDS = ("id", "qid", "gold_label")
OPTION = "option1"


@dataclass(frozen=True)
class Split:
    """What a baseline sees of a split: each field by name, and the targets."""

    fields: dict[str, list[str]]
    targets: list[str]
    is_scored: bool  # targets are numbers on a scale

    @property
    def joined(self) -> list[str]:
        return [" ".join(texts) for texts in zip(*self.fields.values(), strict=True)]


def read(task: Task, rows: Sequence[RawRow]) -> Split:
    """The fields of the source text, in any order, and the target texts."""
    targets = [task.conversion.pair(row).target for row in rows]
    names = [name for name in task.columns if isinstance(rows[0][name], str) and name not in NO_FIELDS]
    if OPTION in names:  # which option is right, not its text
        targets = [str(target == row[OPTION]) for target, row in zip(targets, rows, strict=True)]
        names.remove("answer")
    return Split({name: [row[name] for row in rows] for name in names}, targets, task.metrics[0] == "pearson")


def points(classifier: Any, regressor: Any, features: Sequence[Any], train: Split, test: Split) -> float:
    """Accuracy of the classifier, or, if targets are scores, 100 times Pearson's r of the regressor."""
    if not train.is_scored:
        return 100 * float(classifier.fit(features[0], train.targets).score(features[1], test.targets))
    predicted = regressor.fit(features[0], [float(target) for target in train.targets]).predict(features[1])
    return 100 * float(np.corrcoef(predicted, [float(target) for target in test.targets])[0, 1])


def linear(train: Split, test: Split, texts: tuple[list[str], list[str]]) -> float:
    """Linear models on counts of words."""
    models = (LogisticRegression(C=0.3, max_iter=1_000), Ridge(alpha=10.0))
    classifier, regressor = (make_pipeline(CountVectorizer(token_pattern=ANY_WORD), model) for model in models)
    return points(classifier, regressor, texts, train, test)


def overlap(train: Split, test: Split) -> str:
    """Boosted trees on counts from two texts; empty if there is only one text."""
    if len(train.fields) < 2:
        return ""
    counted = [
        np.array([_counts(*pair[:2]) for pair in zip(*split.fields.values(), strict=True)]) for split in (train, test)
    ]
    trees = HistGradientBoostingClassifier(random_state=0), HistGradientBoostingRegressor(random_state=0)
    return f"{points(*trees, counted, train, test):.1f}"


def _counts(first: str, second: str) -> list[float]:
    words = [words_of(text.lower()) for text in (first, second)]
    shared = len(set(words[0]) & set(words[1]))
    denials = [sum(word in DENIALS for word in each) for each in words]
    return [shared, shared / max(1, len(set(words[1]))), len(words[0]), len(words[1]), *denials]


def classified(train: Split, test: Split) -> list[str]:
    """Majority, bag of words, best single field, shared words."""
    bag = linear(train, test, (train.joined, test.joined))
    singles = {name: linear(train, test, (train.fields[name], test.fields[name])) for name in train.fields}
    best = max(singles, key=lambda name: singles[name])
    majority = 0.0 if train.is_scored else commonest(train, test)
    return [f"{majority:.1f}", f"{bag:.1f}", f"{singles[best]:.1f} ({best})", overlap(train, test)]


def commonest(train: Split, test: Split) -> float:
    target = Counter(train.targets).most_common(1)[0][0]
    return 100 * test.targets.count(target) / len(test.targets)


def answered(train: Split, test: Split) -> list[str]:
    """The most frequent answer; a random word of the passage that answers questions with the same first word."""
    asking, reading = ("question", "context") if "context" in test.fields else ("query", "passage")
    known: dict[str, set[str]] = defaultdict(set)
    for text, target in zip(train.fields[asking], train.targets, strict=True):
        known[_beginning(text)].add(target)
    chances = []
    for text, passage, target in zip(test.fields[asking], test.fields[reading], test.targets, strict=True):
        candidates = set(words_of(passage)) & known[_beginning(text)] - set(words_of(text))
        chances.append((target in candidates) / max(1, len(candidates)))
    return [f"{commonest(train, test):.1f}", f"{100 * float(np.mean(chances)):.1f}", "", ""]


def _beginning(text: str) -> str:
    """The first word of a question; empty for texts with a gap."""
    return "" if "@placeholder" in text else text.split()[0].lower()


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
        scores = (answered if task.metrics[0].startswith("qa_") else classified)(train, test)
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
