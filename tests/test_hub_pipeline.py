"""The pipeline from the hub: datasets and a checkpoint by name, the real client libraries, a local server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from tiny import tiny_t5, tiny_tokenizer
from workspace import TINY, Repro, Workspace, new_workspace

from pemt_core.backbone.store import fingerprint_of
from pemt_core.tasks import TASKS

pytestmark = [pytest.mark.slow, pytest.mark.mirror]

CHECKPOINT = "tests/tiny-t5"
REPOSITORIES = {"sst2": "nyu-mll/glue", "cb": "aps/super_glue"}
SETTINGS = {
    "tasks": {"sources": ["sst2"], "targets": ["cb"]},
    "prepare": {"source": "hub"},
    "backbone": {"kind": "hub", "name": CHECKPOINT, "revision": ""},
}


@dataclass(frozen=True)
class FromHub:
    """A project that has run from the hub, and the hub's commits."""

    workspace: Workspace
    first: Repro
    hub: HubServer
    commits: dict[str, str]  # by repository
    fingerprint: str  # of the published checkpoint


@pytest.fixture(scope="module")
def from_hub(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Iterator[FromHub]:
    root = tmp_path_factory.mktemp("hub")
    words = [word for name in REPOSITORIES for word in TASKS[name].labels or ()]
    tokenizer = tiny_tokenizer(root / "made", words=words)
    model = tiny_t5(vocab_size=len(tokenizer))
    model.save_pretrained(root / "checkpoint")
    tokenizer.save_pretrained(root / "checkpoint")
    with HubServer() as hub:
        commits = {name: hub.publish("datasets", name, mirror / name) for name in REPOSITORIES.values()}
        commits[CHECKPOINT] = hub.publish("models", CHECKPOINT, root / "checkpoint")
        workspace = new_workspace(root / "project", root / "caches", [TINY, SETTINGS])
        workspace = replace(workspace, environment={**workspace.environment, "HF_ENDPOINT": hub.url})
        first = workspace.repro("evaluate", forks=True)
        yield FromHub(workspace, first, hub, commits, fingerprint_of(model, tokenizer))


def read(workspace: Workspace, path: str) -> Any:
    return json.loads((workspace.folder / path).read_text())


def test_the_pipeline_runs_from_names_to_results(from_hub: FromHub) -> None:
    assert from_hub.first.executed == [
        "plan", "prepare", "backbone", "train_source@sst2", "collect_experts", "transfer@cb", "evaluate"
    ]  # fmt: skip
    result = read(from_hub.workspace, "scores/cb/pemt-kfull-seed4096/result.json")
    assert (result["sources"], result["backbone"]) == (["sst2"], from_hub.fingerprint)


def test_the_commits_read_are_logged_and_recorded(from_hub: FromHub) -> None:
    recorded = read(from_hub.workspace, "provenance/prepare.json")
    assert recorded["revisions"] == {task: from_hub.commits[name] for task, name in REPOSITORIES.items()}
    for name in REPOSITORIES.values():
        assert f"reading commit {from_hub.commits[name]} (the newest)" in from_hub.first.output
    backbone = read(from_hub.workspace, "provenance/backbone.json")
    assert (backbone["name"], backbone["revision"]) == (CHECKPOINT, from_hub.commits[CHECKPOINT])
    assert f"revision newest is commit {from_hub.commits[CHECKPOINT]}" in from_hub.first.output


def test_every_file_came_from_the_recorded_commit(from_hub: FromHub) -> None:
    fetched = [request for request in from_hub.hub.requests if "/resolve/" in request]
    datasets = [request for request in fetched if ".parquet" in request]
    weights = [request for request in fetched if "model.safetensors" in request]
    assert datasets
    assert all(any(f"/resolve/{commit}/" in request for commit in from_hub.commits.values()) for request in datasets)
    assert weights
    assert all(f"/resolve/{from_hub.commits[CHECKPOINT]}/" in request for request in weights)


def test_the_backbone_is_the_checkpoint(from_hub: FromHub) -> None:
    assert read(from_hub.workspace, "backbone/backbone.json")["fingerprint"] == from_hub.fingerprint
    adapter = read(from_hub.workspace, "adapters/sources/sst2/adapter.json")
    assert adapter["backbone"] == from_hub.fingerprint


def test_pinned_commits_are_written_into_the_records(from_hub: FromHub) -> None:
    workspace = from_hub.workspace
    pins = workspace.folder / "pemt_core" / "tasks" / "revisions.json"
    assert json.loads(pins.read_text()) == {}
    workspace.run(
        "python", "-m", "components.prepare", "--pin", "--settings", "plan/prepare.json",
        "--output", "no", "--provenance", "no/p.json",
    )  # fmt: skip
    assert json.loads(pins.read_text()) == {name: from_hub.commits[name] for name in REPOSITORIES.values()}
    assert not (workspace.folder / "no").exists()
    again = workspace.repro("evaluate")
    assert again.executed == ["plan", "prepare"]  # the same commits hold the same data
    for name in REPOSITORIES.values():
        assert f"reading commit {from_hub.commits[name]} (pinned)" in again.output
