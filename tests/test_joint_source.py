"""The source `joint`: the other listed sources as one task, from preparation to an expert."""

from pathlib import Path
from typing import Any

import pytest
from mirrors import cb_rows, write_repository
from tiny import World, write_task

from pemt_core.artifacts.experts import load_experts
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import SPLITS, PreparedTask
from pemt_core.errors import SettingsError
from pemt_core.preparation import prepare_joint
from pemt_core.schema.validation import merged
from pemt_core.settings import PrepareSettings, TokenizerSettings, parse_settings, read_params
from pemt_core.settings.groups import MaxRows
from pemt_core.steps.collect_experts import collect_experts
from pemt_core.steps.plan import Plan, make_plan
from pemt_core.steps.prepare import prepare
from pemt_core.tasks import JOINT, SOURCES, get_task

pytestmark = pytest.mark.usefixtures("fresh_accelerator", "datasets_cache")

REPOSITORY = Path(__file__).parents[1]
VALUES = read_params(REPOSITORY / "params.yaml")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- settings


def plan_with(sources: list[str], **differences: Any) -> Plan:
    values = merged(VALUES, {"tasks": {"sources": sources, "targets": ["cb"]}, **differences})
    return make_plan(parse_settings(values, "params.yaml"), REPOSITORY)


def test_the_plan_trains_it_like_any_source() -> None:
    plan = plan_with([*SOURCES, JOINT], per_source={JOINT: {"training": {"max_steps": 2400}}})
    assert plan.prepare.tasks == [*SOURCES, "cb"]
    assert plan.prepare.joined == [*SOURCES]
    assert plan.collect_experts.sources == [*plan.train_source] == [*SOURCES, JOINT]
    assert plan.train_source[JOINT].train_source.training.max_steps == 2400
    without = plan_with([*SOURCES])
    assert without.prepare.joined == []
    assert {name: plan.train_source[name] for name in SOURCES} == without.train_source
    assert (plan.prepare.tasks, plan.backbone) == (without.prepare.tasks, without.backbone)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({"tasks": {"sources": [JOINT]}}, "sources lists joint, the other sources together; expected at least two"),
        ({"tasks": {"sources": ["mnli", JOINT]}}, "expected at least two others"),
        ({"tasks": {"targets": [JOINT]}}, "targets lists joint, which can only be a source"),
        ({"per_target": {JOINT: {"k": [4]}}}, "per_target.joint: there is no such task"),
        ({"imported_sources": {JOINT: {"adapter": "x", "description": "y"}}}, "imported_sources.joint: tasks.sources"),
    ],
)
def test_where_it_cannot_be_listed(differences: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_settings(merged(VALUES, differences), "params.yaml")
    assert expected in str(error.value)


def test_no_task_of_the_user_has_its_name() -> None:
    entry = {
        "files": {"train": "x.csv"}, "text": {"a": "b"}, "target": "c", "labels": None,
        "description": "Do it.", "metrics": ["qa_em"],
    }  # fmt: skip
    settings = parse_settings(merged(VALUES, {"own_tasks": {JOINT: entry}}), "params.yaml")
    with pytest.raises(SettingsError, match=r"own_tasks\.joint: invalid name; .* and not all, tokenizer or joint"):
        make_plan(settings, REPOSITORY)


# --- its rows


def rows_of(prepared: PreparedTask, split: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = prepared.rows(split).to_pylist()
    return rows


def test_every_source_gives_as_many_rows_and_each_row_keeps_its_text(tmp_path: Path) -> None:
    write_task(tmp_path, "small", rows={"train": 10, "validation": 5, "test": 8})
    write_task(tmp_path, "large", rows={"train": 30, "validation": 4, "test": 9}, labels=("red", "green", "river"))
    folders = [tmp_path / "small", tmp_path / "large"]
    report = prepare_joint(folders, source="hub", split_seed=42, output_dir=tmp_path / JOINT)
    joint = PreparedTask.load(tmp_path / JOINT, JOINT)
    assert (joint.task.labels, joint.task.metrics, joint.task.description) == (None, ["qa_em"], "Solve the task.")
    assert [report.splits[split].rows for split in SPLITS] == [20, 8, 16]
    originals = {folder.name: PreparedTask.load(folder) for folder in folders}
    for split, number in zip(SPLITS, (10, 4, 8), strict=True):
        mixed = rows_of(joint, split)
        for name, original in originals.items():
            expected = rows_of(original, split)[:number]
            for row in expected:
                row |= {column: f"{name}/{row[column]}" for column in ("id", "group", "cluster")}
            found = {row["id"]: row for row in mixed if row["id"].startswith(f"{name}/")}
            assert found == {row["id"]: row for row in expected}
        names = [row["id"].split("/")[0] for row in mixed]
        assert names not in (sorted(names), sorted(names, reverse=True))  # mixed
    for seed, same in ((42, True), (43, False)):
        prepare_joint(folders, source="hub", split_seed=seed, output_dir=tmp_path / "again")
        assert (files(tmp_path / "again") == files(tmp_path / JOINT)) is same


def test_listing_it_adds_a_folder_and_changes_no_other(tmp_path: Path) -> None:
    """Corpus and tokenizer, and so the backbone, do not depend on it."""
    write_repository(tmp_path / "m", "aps/super_glue", {"cb": {"train": cb_rows(40), "validation": cb_rows(8)}})
    rte = [{"sentence1": f"{n}", "sentence2": f"{n}", "label": n % 2, "idx": n} for n in range(9)]
    write_repository(tmp_path / "m", "nyu-mll/glue", {"rte": {"train": rte, "validation": rte}})
    settings = PrepareSettings(
        source=str(tmp_path / "m"), embedded_seed=0, split_seed=42, corpus_rows_per_task=9, plain_texts=0,
        label_words={}, max_rows=MaxRows(train=None, validation=None, test=None),
    )  # fmt: skip
    tokenizer = TokenizerSettings(kind="scratch", name="", revision="", tokenizer="train", vocab_size=400, chat=False)
    tasks = [get_task("cb"), get_task("rte")]
    prepare(tasks, settings, tokenizer, output_dir=tmp_path / "without")
    prepare(tasks, settings, tokenizer, joined=["cb", "rte"], output_dir=tmp_path / "with")
    without, with_it = files(tmp_path / "without"), files(tmp_path / "with")
    added = {name for name in with_it if with_it[name] != without.get(name)}
    assert added == {
        "statistics.json",
        *(f"{JOINT}/{name}" for name in ("task.json", *map("{}.parquet".format, SPLITS))),
    }
    assert PreparedTask.load(tmp_path / "with" / JOINT).rows("train").num_rows == 18


# --- its expert


def test_it_becomes_an_expert(world: World, tmp_path: Path) -> None:
    data = [world.folder / "data" / name for name in World.SOURCES]
    copy = World(tmp_path)
    for name in ("backbone", "adapters"):
        (tmp_path / name).symlink_to(world.folder / name)
    prepare_joint(data, source="hub", split_seed=1, output_dir=tmp_path / "data" / JOINT)
    record = copy.train_source(tmp_path / "trained" / JOINT, task=JOINT, answer="score", epochs=1)
    assert [*record.validation] == ["qa_em", "main"]
    assert record.steps == 12
    folders = [*(world.folder / "adapters" / name for name in World.SOURCES), tmp_path / "trained" / JOINT]
    order = [*World.SOURCES, JOINT]
    collect_experts(folders, order, backbone_dir=world.folder / "backbone", output_dir=tmp_path / "experts")
    bank = load_experts(tmp_path / "experts", load_backbone(world.folder / "backbone"))
    assert bank.sources == order
