"""Methods side by side in the tracking store: a parent run per method and k, pages for all runs, a view of the table.

Runs are found by the hash of their adapter, so it does not matter which process recorded a cell.
"""

import json
from collections.abc import Collection, Mapping, Sequence

from tqdm import tqdm

from pemt_core.artifacts.files import sha256_of_json
from pemt_core.artifacts.result import CellResult
from pemt_core.report.files import png
from pemt_core.report.heat_map import draw_weights_of
from pemt_core.report.markdown import write_cell_page, write_sources_page
from pemt_core.report.methods import Comparison, MethodSummary, compare_methods
from pemt_core.report.table import Tables
from pemt_core.settings import ReportSettings
from pemt_core.tracking.parents import COLOUR, CURRENT, NOTE, WIDTH, Parent, record_parent, show
from pemt_core.tracking.store import Store, StoredRun
from pemt_core.tracking.tracker import ARTIFACT, CELL, KEY, Tracker, flat_params

PAGE = "pemt.shown"  # tag: the hash of what a run's page shows
VIEW = "mlflow.sharedViewState.methods"  # tag of the experiment: the table that the menu "Views" opens
LONGEST_OVERVIEW = 19000  # characters; MLflow refuses more than 20000 in an experiment's tag


def record_comparison(
    tables: Tables, settings: ReportSettings, tracker: Tracker, adapters: Collection[str] = ()
) -> int:
    """Write missing and outdated pages and parents of results; return the number of runs that were written.

    `adapters` has the hashes of the source adapters, as far as they are known.
    """
    comparison = compare_methods(tables, settings.layer_groups)
    written = 0
    with tracker.tolerance() as store:
        if store:
            written += _record_sources(store, tables.results, adapters)
            for summary in tqdm(comparison.methods, desc="record methods", unit="method"):
                runs = [(run, result) for result in summary.results for run in _runs_of(store, result)]
                written += sum(_show_cell(store, run, result) for run, result in runs)
                written += record_parent(store, _parent_of(summary, settings), [run for run, _ in runs])
            _describe_experiment(store, comparison)
    return written


def _runs_of(store: Store, result: CellResult) -> list[StoredRun]:
    """Return the run that trained or recorded what `result` scored; empty if tracking was off."""
    runs = store.runs_with(ARTIFACT, result.artifact)
    return [run for run in runs if (run.tags.get(CELL), run.tags.get(KEY)) == (result.cell.run, result.key)][:1]


def _show_cell(store: Store, run: StoredRun, result: CellResult) -> bool:
    """Add the page, the heat map and the dataset to a cell's run unless it has them; return whether it changed."""
    state = result.content_hash()
    if run.tags.get(PAGE) == state:
        return False
    has_experts = result.expert_weights is not None
    images = {"expert_weights.png": png(draw_weights_of(result), WIDTH)} if has_experts else {}
    show(store, run.run_id, write_cell_page(result), images)
    _add_dataset(store, run)
    store.set_tags(run.run_id, {PAGE: state})
    return True


def _add_dataset(store: Store, run: StoredRun) -> None:
    task = run.tags["pemt.task"]
    store.add_dataset(run.run_id, task, run.tags["pemt.data"], f"data/{task}", "train, validation, test")


def _record_sources(store: Store, results: Sequence[CellResult], adapters: Collection[str]) -> int:
    """Record datasets and the parent for the runs of all sources that `results` draw on; return the runs written."""
    names = list(dict.fromkeys(source for result in results for source in result.sources))
    backbones = {result.backbone for result in results}
    found = {name: _run_of_source(store, name, backbones, adapters) for name in names}
    runs = {name: run for name, run in found.items() if run is not None}
    if not runs:
        return 0
    new = [run for run in runs.values() if run.tags.get(PAGE) != run.tags[ARTIFACT]]
    for run in new:
        _add_dataset(store, run)
        store.set_tags(run.run_id, {PAGE: run.tags[ARTIFACT]})
    metrics = {f"train_source/{name}": run.metrics["validation/main"] for name, run in runs.items()}
    artifacts = {name: run.tags[ARTIFACT] for name, run in runs.items()}
    parent = Parent(
        name="sources",
        state=sha256_of_json([artifacts, metrics]),
        tags={"pemt.step": "report"},
        params={**_shared([run.params for run in runs.values()]), "sources": list(runs)},
        metrics=metrics,
        page=write_sources_page({name: run.metrics for name, run in runs.items()}),
        draw=dict,
    )
    return len(new) + record_parent(store, parent, list(runs.values()))


def _run_of_source(store: Store, name: str, backbones: Collection[str], adapters: Collection[str]) -> StoredRun | None:
    """The run of a source that trained one of `adapters`; if they are unknown, the newest on one of `backbones`."""
    trained = [run for run in store.runs_with(CELL, f"train_source/{name}") if ARTIFACT in run.tags]
    own = [run for run in trained if run.tags[ARTIFACT] in adapters]
    return next(iter(own or [run for run in trained if run.tags.get("pemt.backbone") in backbones]), None)


def _parent_of(summary: MethodSummary, settings: ReportSettings) -> Parent:
    results = summary.results
    sources = list(dict.fromkeys(source for result in results for source in result.sources))
    shared = _shared([flat_params({"settings": result.settings, "backbone": result.backbone}) for result in results])
    return Parent(
        name=summary.name,
        state=sha256_of_json([[r.content_hash() for r in results], summary.metrics, settings.model_dump()]),
        tags={"pemt.step": "report", "pemt.method": summary.method, COLOUR: summary.style.colour},
        params={
            "method": summary.method,
            "k": summary.k,
            "seeds": sorted({result.seed for result in results}),
            "sources": sources,
            "targets": list(dict.fromkeys(result.task for result in results)),
            **shared,
        },
        metrics=summary.metrics,
        page=summary.page,
        draw=lambda: {f"{name}.png": png(figure, WIDTH) for name, figure in summary.draw().items()},
    )


def _shared(params: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the parameters that have the same value in all of `params`."""
    return {name: value for name, value in params[0].items() if all(other.get(name) == value for other in params)}


def _describe_experiment(store: Store, comparison: Comparison) -> None:
    """Set the experiment's description and view if they changed."""
    link = f"[Methods side by side](#/experiments/{store.experiment_id}/runs?viewStateShareKey=methods)"
    page = f"{link}. {comparison.overview[:LONGEST_OVERVIEW]}"
    before = store.tags()
    for name, value in ((NOTE, page), (VIEW, _view(comparison))):
        if before.get(name) != value:
            store.set_tag(name, value)


def _view(comparison: Comparison) -> str:
    """Return a view as MLflow saves it: a table of the newest parents, best first, a column per mean and target."""
    metrics = list(dict.fromkeys(name for summary in comparison.methods for name in summary.metrics))
    shown = sorted(name for name in metrics if "half_width" not in name)
    state = {
        "searchFilter": f"tags.`{CURRENT}` = 'true' AND tags.`pemt.method` != ''",
        "orderByKey": "metrics.`mean/All`",
        "orderByAsc": False,
        "selectedColumns": [f"metrics.`{name}`" for name in shown],
    }
    return json.dumps({"name": "Methods side by side", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})
