"""What a cell took to train, beside its artifacts: time differs from run to run, and DVC compares artifacts."""

from dataclasses import asdict, dataclass
from pathlib import Path

from pemt_core.artifacts.description import TargetDescription, load_description
from pemt_core.artifacts.files import read_record, write_record
from pemt_core.errors import ArtifactError

REMEDY = "remove the cell's folder, and the transfer step trains and measures it again"


@dataclass(frozen=True)
class TrainingCost:
    """What all configurations of a cell took together, over all resumptions; what a kill undid is not counted."""

    configurations: int  # started
    steps: int  # optimizer steps
    seconds: float  # of the processor, over all threads
    peak_memory_mib: int  # the highest of a configuration: on a GPU all that torch allocates, else what training adds


def cost_path(costs_dir: Path, cell_name: str) -> Path:
    return Path(costs_dir) / f"{cell_name}.json"


def save_cost(costs_dir: Path, description: TargetDescription, cost: TrainingCost) -> None:
    """Write `costs_dir`/<cell>.json."""
    write_record(cost_path(costs_dir, description.cell.name), {"key": description.key, **asdict(cost)})


def load_cost(costs_dir: Path, cell_dir: Path) -> TrainingCost:
    """What the cell in the folder `cell_dir` took.

    Raises ArtifactError if it is missing, altered, or that of an earlier training.
    """
    path = cost_path(costs_dir, Path(cell_dir).name)
    values = read_record(path, REMEDY)
    if values.pop("key", None) != load_description(cell_dir, TargetDescription)[0].key:
        raise ArtifactError(f"{path}: not of the training that {cell_dir} holds; {REMEDY}")
    try:
        return TrainingCost(**values)
    except TypeError as error:
        raise ArtifactError(f"{path}: not the cost of a training ({error})") from error
