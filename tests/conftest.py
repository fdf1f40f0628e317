"""Fixtures that several test files share."""

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from tiny import World

REPOSITORY = Path(__file__).parent.parent
DEFAULT_MIRROR = Path("..") / "shared" / "hub"
STORES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "HF_ENDPOINT")

# Every test checks the shapes that signatures state, but for whole trainings by `World.transfer`
GATES = sorted(path.stem for path in (REPOSITORY / "pemt_core" / "methods" / "gates").glob("[a-z]*.py"))
SHAPED = ["pemt_core.model", "pemt_core.statistics", *(f"pemt_core.methods.gates.{name}" for name in GATES)]
install_import_hook(SHAPED, "beartype.beartype")


def pytest_collection_finish() -> None:
    """Leave all that was imported out of garbage collections, as worker processes do; a training ends with one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def unchanged_stores() -> Iterator[None]:
    """Fail a test that leaves a store to those after it: `mlflow.set_tracking_uri` sets a variable of this process."""
    before = [os.environ.get(name) for name in STORES]
    yield
    assert [os.environ.get(name) for name in STORES] == before


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of real datasets in the hub's layout: the environment variable DATA, or the default."""
    folder = (REPOSITORY / os.environ.get("DATA", DEFAULT_MIRROR)).resolve()
    if not (folder / "nyu-mll" / "glue").is_dir():
        pytest.skip(f"{folder} holds no mirror of the hub's datasets; name one in the variable DATA")
    return folder


@pytest.fixture(scope="session")
def datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache for `datasets`, so that tests neither read nor fill the user's cache."""
    import datasets

    cache = tmp_path_factory.mktemp("datasets_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        datasets.disable_progress_bars()
        yield cache
        datasets.enable_progress_bars()


@pytest.fixture(scope="session")
def engine_image() -> str:
    """The Docker image of the code under test; skips where no engine has it."""
    from pemt_core.provenance.image import image_name
    from pemt_core.settings import load_settings
    from pipelines.local import LocalRunError, check_image

    image = image_name(load_settings(REPOSITORY / "params.yaml").kubeflow)
    reason = ""
    try:
        check_image(image)
    except LocalRunError as error:
        reason = str(error)
    if reason:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # docker's client stays open if nothing answers
            gc.collect()
        pytest.skip(f"{reason}: `. tests/engine.sh` makes both")
    return image


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Reset accelerate before and after a test: it keeps the first precision used in a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The targets of the members of every group that is trained."""
    from pemt_core.training import together

    found: list[list[str]] = []
    train = together._train_group

    def watched(group: Any) -> Any:
        found.append([each.job.target.prepared.task.name for each in group])
        return train(group)

    monkeypatch.setattr(together, "_train_group", watched)
    return found


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> "World":
    """Tiny data, backbone, source adapters and experts, made once by the steps themselves. Tests must not change it."""
    from tiny import World

    return World.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory, world: "World") -> "World":
    """The world with three targets, each trained with two methods and two seeds, and the results in scores."""
    from tiny import World

    return World.scored(tmp_path_factory.mktemp("scored") / "world", world)


@pytest.fixture(scope="session")
def still_world(tmp_path_factory: pytest.TempPathFactory) -> "World":
    """A world without dropout and with rows of equal length: splitting a batch differently changes no number."""
    from tiny import World

    return World.make(tmp_path_factory.mktemp("still"), dropout=0.0, fillers=0)
