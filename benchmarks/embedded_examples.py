"""Print rows of the embedded suite as a model sees them: a Markdown list, two rows per task.

    python benchmarks/embedded_examples.py --seed 0

docs/embedded_world.md has its output.
"""

import argparse

from pemt_core.embedded.suite import load_embedded
from pemt_core.tasks import TASKS


def examples(seed: int, rows: int) -> str:
    """The first `rows` training rows of every task."""
    lines = []
    for name, task in TASKS.items():
        lines.append(f"- **{name}**")
        for row in load_embedded(task.dataset, seed)["train"].select(range(rows)):
            pair = task.conversion.pair(row)
            lines.append(f"  - {pair.source} → **{pair.target}**")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the world's seed (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=2, help="rows per task (default: %(default)s)")
    arguments = parser.parse_args()
    print(examples(arguments.seed, arguments.rows))


if __name__ == "__main__":
    main()
