"""Load trained models by name: targets of a project, a registered model, or a model's folder."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from pemt_core.artifacts.adapter import best_on_validation
from pemt_core.artifacts.description import trained_cells
from pemt_core.errors import ArtifactError, SettingsError, nearest
from pemt_core.prediction.model_folder import MODEL, load_model_folder
from pemt_core.prediction.predictor import Predictor, load_predictor
from pemt_core.prediction.project import Project
from pemt_core.settings import Settings, load_settings
from pemt_core.tasks import get_task, known_tasks
from pemt_core.tracking.models import BACKBONE_DIR, fetch_version, find_version
from pemt_core.tracking.store import ANY_EXPERIMENT, open_store, tracking_dir, tracking_uri

REGISTERED = "models:/"


def load(
    what: str | Path | Sequence[str],
    *,
    project: Project | Path | str = ".",
    cell: str | None = None,
    tracking: str | None = None,
) -> Predictor:
    """Load a predictor of trained models, on the GPU if there is one.

    Args:
        what: a list of trained targets of the project, as in ["cb", "rte"]; or a registered model,
            models:/<name>@<alias> or models:/<name>/<version>; or the folder of a model.
        project: the project's folder, or a `Project` that names each of its folders.
        cell: the cell of every target in a list, such as pemt-k32-seed31; None: the best on validation of each.
        tracking: the store of a registered model; None: MLFLOW_TRACKING_URI, or that of the project's params.yaml.

    Raises:
        SettingsError: a target is unknown (the message names the nearest), a model has no cells to choose from, or
            params.yaml is not valid.
        ArtifactError: a trained file is missing or altered, or there is no such cell or folder.
        TrackingError: the store cannot be reached, or has no such model.
    """
    place = project if isinstance(project, Project) else Project.at(project)
    if not isinstance(what, str | Path):
        return _load_targets(list(what), place, cell)
    if cell is not None:
        raise SettingsError(f"the cell is {cell!r}, but {what} has one cell; expected no cell, or a list of targets")
    if str(what).startswith(REGISTERED):
        return _load_registered(str(what), place, tracking)
    if not (Path(what) / MODEL).is_file():
        raise ArtifactError(_no_model(what, place))
    return load_model_folder(Path(what))


def _load_targets(targets: list[str], project: Project, cell: str | None) -> Predictor:
    settings = load_settings(project.params)
    known = known_tasks(settings.own_tasks, project.params.parent)
    if not targets:
        raise SettingsError(f"no target given; {project.adapters} has: {', '.join(_folders(project.adapters))}")
    conversions = {target: get_task(target, known).conversion for target in targets}
    for target in targets:
        if (project.adapters / target).is_dir() and not (project.data / target).is_dir():
            raise ArtifactError(
                f"{project.data / target}: no such folder; list {target} in tasks.targets again and run `dvc repro`, "
                f"or load its registered model, {REGISTERED}<experiment>-{target}@<alias>"
            )
    cells = {target: _cell(project.adapters / target, cell, settings) for target in targets}
    data, size = {target: project.data / target for target in targets}, settings.evaluate.batch_size
    return load_predictor(project.backbone, project.experts, cells, data, conversions, batch_size=size)


def _cell(target_dir: Path, cell: str | None, settings: Settings) -> Path:
    cells = [directory.name for directory in trained_cells(target_dir)]
    if cell is None or not cells:
        return best_on_validation(target_dir, settings.models.metric, list(settings.methods))
    if cell not in cells:
        raise ArtifactError(f"{target_dir}: there is no cell '{cell}'; {nearest(cell, cells)}")
    return target_dir / cell


def _load_registered(model: str, project: Project, tracking: str | None) -> Predictor:
    uri = tracking or tracking_uri("") or _uri_of(project.params)
    store = open_store(uri, ANY_EXPERIMENT, tracking_dir(project.params))
    version = find_version(store, model)
    backbone = version.tags.get(BACKBONE_DIR)  # in a copied project, its own; model.json names the original's
    with TemporaryDirectory() as temporary:
        folder = fetch_version(store, version, Path(temporary))
        return load_model_folder(folder, Path(backbone) if backbone else None)


def _uri_of(params: Path) -> str:
    if not params.is_file():
        raise SettingsError(f"{params}: no such file, and MLFLOW_TRACKING_URI is not set: where are the models?")
    return load_settings(params).tracking.uri


def _no_model(what: str | Path, project: Project) -> str:
    path, expected = Path(what), f"expected a model's folder, {REGISTERED}<name>@<alias>, or a list of targets"
    if path.is_dir():
        inside = next(chain.from_iterable(map(path.glob, (f"*/{MODEL}", f"*/*/{MODEL}"))), None)
        return f"{path}: has no {MODEL}; {expected}" + (f"; did you mean '{inside.parent}'?" if inside else "")
    if path.is_file():
        return f"{path}: is a file; {expected}" + (f"; did you mean '{path.parent}'?" if path.name == MODEL else "")
    if str(what) in _folders(project.adapters):
        return f"{what}: no such folder; for the trained target, give [{str(what)!r}]; {expected}"
    beside = _folders(path.parent)
    return f"{what}: no such folder; {expected}" + (f"; {nearest(path.name, beside)}" if beside else "")


def _folders(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
