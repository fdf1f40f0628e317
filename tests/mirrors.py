"""Write small folders in the hub's layout for tests: parquet files and the README that names configurations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, Any]]


def write_repository(folder: Path, repository: str, configurations: Mapping[str, Mapping[str, Rows]]) -> Path:
    """Write {configuration: {split: rows}} to `folder`/`repository` and return that path."""
    target = folder / repository
    card = ["---", "configs:"]
    for configuration, splits in configurations.items():
        (target / configuration).mkdir(parents=True, exist_ok=True)
        card += [f"- config_name: {configuration}", "  data_files:"]
        for split, rows in splits.items():
            card += [f"  - split: {split}", f"    path: {configuration}/{split}-*"]
            path = target / configuration / f"{split}-00000-of-00001.parquet"
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    (target / "README.md").write_text("\n".join([*card, "---", ""]))
    return target


def cb_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Distinct rows in the schema of CB."""
    return [
        {"premise": f"premise {n}", "hypothesis": f"hypothesis {n}", "label": n % 3, "idx": n}
        for n in range(start, start + count)
    ]
