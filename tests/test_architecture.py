"""The rules of the project as tests: layers, sizes, no task by name, and dvc.yaml against the code that it runs."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from source_code import (
    PACKAGES,
    REPOSITORY,
    attributes_of,
    closure,
    function_in,
    imported_by,
    is_only_docstring,
    modules,
    path_of,
    tree_of,
)

from components.cli import COMMANDS
from pemt_core.settings import RECIPE_GROUPS, Settings
from pemt_core.tasks import SOURCES, TARGETS, TASKS

NOT_STEPS = (
    "components",
    "components.program",
    "components.executor",
    "components.command",
    "components.trainer_job",
    "components.trainer_api",
    "components.cli",
    *(command.module for command in COMMANDS.values()),  # for people
)
OF_A_CLUSTER = ("plan",)  # dvc.yaml has lists and params of its own
MOST_LINES_OF_FILE, MOST_LINES_OF_FUNCTION = 300, 50

CORE, COMPONENTS, PIPELINES = (modules(package) for package in PACKAGES)
PROGRAMS = [module.removeprefix("components.") for module in COMPONENTS if module not in NOT_STEPS]
STEPS = [program for program in PROGRAMS if program not in OF_A_CLUSTER]

# Files that a step may load without a dep on them: they change no byte of any output
NO_DEPS = {
    "components/command.py": "parses and prints errors",
    "components/executor.py": "answers Kubeflow",
    "components/program.py": "parses, logs and prints errors",
    "pemt_core/__init__.py": "the version",
    "pemt_core/artifacts/files.py": "writes what it is given",
    "pemt_core/provenance": "describes how a result came about, beside the result",
    "pemt_core/schema": "checks the values, which reach a stage as its params",
    "pemt_core/artifacts/run_info.py": "names tracking runs",
    "pemt_core/errors.py": "words of errors",
    "pemt_core/settings": "the values reach a stage as its params",
    "pemt_core/tracking": "shows results",
    "pemt_core/training/run.py": "shows a training",
}
NO_DEPS_OF_STEP = {
    ("backbone", "pemt_core/artifacts/adapter.py"): "the checkpoint's TrainingRecord, which no backbone has",
    ("prepare", "pemt_core/metrics"): "the check that an own task names metrics that suit it",
    ("report", "pemt_core/steps/plan.py"): "what a run on a cluster gathers; DVC's report has files",
    ("report", "pemt_core/tasks"): "the same",
    ("report", "pemt_core/metrics"): "the same",
    ("register", "pemt_core/metrics"): "the check that an own task names metrics that suit it",
    **{
        ("evaluate", place): "what it registers on a cluster; DVC has a stage for that"
        for place in ("pemt_core/prediction", "pemt_core/steps/register.py", "pemt_core/tasks")
    },
    **{
        (step, "pemt_core/training/accelerator.py"): "how programs that train share a batch among processes"
        for step in ("prepare", "collect_experts", "report", "register")
    },
    **{
        (step, "pemt_core/answering/rule.py"): "the check that settings name a rule of answering that there is"
        for step in ("prepare", "backbone", "collect_experts", "report")
    },
    **{
        (step, "pemt_core/artifacts/cell.py"): "the check that settings name methods that there are"
        for step in ("prepare", "backbone", "train_source", "collect_experts")
    },
}


KEPT_BACKBONE = "pemt_core/embedded/backbone"  # data, not code


@cache
def pipeline() -> Any:
    return YAML(typ="safe").load(REPOSITORY / "dvc.yaml")


@cache
def params() -> Any:
    return YAML(typ="safe").load(REPOSITORY / "params.yaml")


def is_below(file: Path, place: str | Path) -> bool:
    return file == Path(place) or Path(place) in file.parents


# Layers


def imports_of(packages: list[str]) -> Iterator[tuple[str, str]]:
    """(module, what it imports), once each."""
    for module in packages:
        yield from ((module, name) for name in sorted(imported_by(module)))


@pytest.mark.parametrize("banned", ["kfp", "dvc", "argparse", "components", "pipelines", "optparse", "click"])
def test_the_library_knows_no_program_that_calls_it(banned: str) -> None:
    assert [pair for pair in imports_of(CORE) if pair[1].split(".")[0] == banned] == []


def test_two_modules_import_mlflow() -> None:
    found = {module for module, name in imports_of(CORE + COMPONENTS + PIPELINES) if name.split(".")[0] == "mlflow"}
    assert found == {"pemt_core.tracking.store", "pemt_core.tracking.models"}


def test_two_modules_touch_environment_variables() -> None:
    """MLflow and tokenizers can be told some things in no other way."""
    reading = re.compile(r"\bos\.environ|\bgetenv\b|\bputenv\b|import environ\b")
    found = {module for module in CORE if reading.search((REPOSITORY / path_of(module)).read_text())}
    assert found == {"pemt_core.tracking.store", "pemt_core.training.workers"}


def test_components_import_the_standard_library_and_the_core() -> None:
    def allowed(name: str) -> bool:
        shared = ("components.program", "components.command", "components.executor", "components.trainer_api")
        return name.split(".")[0] in {*sys.stdlib_module_names, "pemt_core"} or name in shared

    programs = [module for module in COMPONENTS if module != "components.cli"]
    pairs = [(module, name) for module, name in imports_of(programs) if name not in ("components", "__future__")]
    excepted = {
        ("components.trainer_api", "kubernetes"),  # a job for several nodes is started through the cluster's API
        ("components.trainer_api", "urllib3"),
        ("components.completion", "shtab"),  # writes what completes the whole command line in a shell
        ("components.completion", "components.cli"),
    }
    others = {(module, name) for module, name in pairs if not allowed(name)}
    assert {(module, name if name == "components.cli" else name.split(".")[0]) for module, name in others} == excepted


def test_pipelines_import_neither_torch_nor_components() -> None:
    banned = {"torch", "transformers", "components", "datasets", "mlflow", "dvc"}
    assert [pair for pair in imports_of(PIPELINES) if pair[1].split(".")[0] in banned] == []


def test_tasks_and_settings_load_without_heavy_libraries() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'mlflow', 'sklearn', 'pandas', 'accelerate'}"
    program = f"import sys, pemt_core.tasks, pemt_core.settings, pemt_core.metrics; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Sizes and names


@pytest.mark.parametrize("module", CORE + COMPONENTS + PIPELINES)
def test_files_and_functions_stay_short(module: str) -> None:
    assert len((REPOSITORY / path_of(module)).read_text().splitlines()) <= MOST_LINES_OF_FILE
    functions = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_FUNCTION} == {}


def test_no_module_is_a_drawer() -> None:
    drawers = re.compile(r"(utils?|common|helpers?|misc|base_\w+)")
    assert [m for m in CORE + COMPONENTS + PIPELINES if drawers.fullmatch(m.rpartition(".")[2])] == []


def test_no_code_asks_which_task_it_has() -> None:
    """A task's name may stand in its record and in the list of sources, nowhere else as a value to compare with."""
    records = [module for module in CORE if is_below(path_of(module), "pemt_core/tasks")]
    found = [
        (module, node.lineno)
        for module in CORE + COMPONENTS
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Compare | ast.MatchValue | ast.Dict | ast.Subscript)
        and any(isinstance(leaf, ast.Constant) and leaf.value in TASKS for leaf in operands(node))
    ]
    assert [place for place in found if place[0] not in records] == []


def operands(node: ast.AST) -> list[ast.AST]:
    """What a comparison, a case, a dictionary's keys or an index choose by, with the members of tuples and lists."""
    parts: list[Any] = []
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
    elif isinstance(node, ast.MatchValue):
        parts = [node.value]
    elif isinstance(node, ast.Dict):
        parts = [key for key in node.keys if key is not None]
    elif isinstance(node, ast.Subscript):
        parts = [node.slice]
    inner = [leaf for part in parts for leaf in getattr(part, "elts", [])]
    return [*parts, *inner]


# dvc.yaml


def test_one_word_per_step() -> None:
    steps = [module.removeprefix("pemt_core.steps.") for module in CORE if module.startswith("pemt_core.steps.")]
    assert sorted(steps) == sorted(PROGRAMS)
    assert sorted(pipeline()["stages"]) == sorted(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_depends_on_the_code_that_it_runs(step: str) -> None:
    deps = pipeline()["stages"][step]["deps"]
    excepted = [*NO_DEPS, *(place for name, place in NO_DEPS_OF_STEP if name == step)]
    loaded = [file for file in closure(f"components.{step}") if not is_only_docstring(file)]
    missing = [file for file in loaded if not any(is_below(file, place) for place in [*deps, *excepted])]
    assert [str(file) for file in sorted(missing)] == []


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_depends_on_no_other_code(step: str) -> None:
    needed = closure(f"components.{step}")
    for dep in pipeline()["stages"][step]["deps"]:
        if Path(dep).parts[0] in PACKAGES and dep != KEPT_BACKBONE:
            files = [path_of(module) for module in CORE + COMPONENTS if is_below(path_of(module), dep)]
            assert files, f"{dep} is no code"
            assert [str(file) for file in files if file not in needed and not is_only_docstring(file)] == []


def test_every_exception_is_still_one() -> None:
    """An exception that nothing needs any more would hide the next mistake."""
    loaded = {step: closure(f"components.{step}") for step in STEPS}
    for place in NO_DEPS:
        assert any(is_below(file, place) for files in loaded.values() for file in files), place
    for step, place in NO_DEPS_OF_STEP:
        assert any(is_below(file, place) for file in loaded[step]), (step, place)
        assert not any(is_below(Path(place), dep) for dep in pipeline()["stages"][step]["deps"]), (step, place)


def test_what_invalidates_a_result_invalidates_its_stage() -> None:
    """evaluate keeps results by a hash of code of its own: the code that DVC watches, less the component."""
    from pemt_core.steps.evaluate import CODE

    deps = pipeline()["stages"]["evaluate"]["deps"]
    assert sorted(f"pemt_core/{part}" for part in CODE) == sorted(dep for dep in deps if dep.startswith("pemt_core/"))


def test_a_checkpoint_is_not_resumed_by_other_code() -> None:
    from pemt_core.training.checkpoint import CODE

    for step in ("backbone", "train_source", "transfer"):
        listed = pipeline()["stages"][step]["deps"]
        deps = [dep for dep in listed if dep.startswith("pemt_core/") and dep != KEPT_BACKBONE]
        assert [dep for dep in deps if not any(is_below(Path(dep), f"pemt_core/{part}") for part in CODE)] == []


def test_a_changed_report_trains_nothing() -> None:
    users = [
        name
        for name, stage in pipeline()["stages"].items()
        if any(is_below(Path("pemt_core/report/table.py"), dep) for dep in stage["deps"])
    ]
    assert users == ["report"]


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_depends_on_the_settings_that_it_reads(step: str) -> None:
    listed = set(map(str, pipeline()["stages"][step]["params"]))
    plain = {name for name in listed if not name.startswith("recipes.")}
    assert {name.split(".")[0] for name in plain} == groups_read(step)
    recipes = {name.removeprefix("recipes.${recipe}.") for name in listed - plain}
    assert recipes == {name for name in plain_groups(plain) if name.split(".")[0] in RECIPE_GROUPS}


def plain_groups(names: set[str]) -> set[str]:
    """Whole groups, and single tasks of the groups per task: the grain at which recipes are laid over them."""
    return {name if name.startswith("per_") else name.split(".")[0] for name in names}


def groups_read(step: str) -> set[str]:
    """The groups of params.yaml that reach the step's result, from what its component reads of the settings."""
    tree = tree_of(f"components.{step}")
    groups = {name.split(".")[0] for name in attributes_of(tree, "settings")}
    per_task = {"train_source_for": ("train_source", "per_source"), "transfer_for": ("transfer", "per_target")}
    found = {group for name in groups for group in per_task.get(name, (name,))}
    assert found <= set(Settings.model_fields)
    if step == "evaluate":
        found -= {"models", "own_tasks", "tracking"}  # what it registers on a cluster; DVC has a stage for that
    return found | ({"tracking"} if step == "report" else set())  # for the others it changes no result


def test_prepare_depends_on_the_parts_of_backbone_that_the_tokenizer_needs() -> None:
    listed = {name for name in pipeline()["stages"]["prepare"]["params"] if name.startswith("backbone.")}
    read = attributes_of(function_in("pemt_core.backbone.tokenizer", "obtain_tokenizer"), "settings")
    passed_on = [
        node
        for node in ast.walk(function_in("pemt_core.steps.prepare", "prepare"))
        if isinstance(node, ast.Call) and any(isinstance(a, ast.Name) and a.id == "backbone" for a in node.args)
    ]
    assert [ast.unparse(call.func) for call in passed_on] == ["obtain_tokenizer"]
    assert not attributes_of(function_in("pemt_core.steps.prepare", "prepare"), "backbone")
    assert listed == {f"backbone.{name}" for name in read}


@pytest.mark.parametrize(
    ("step", "lists"),
    [
        ("collect_experts", {"tasks.sources"}),
        ("evaluate", {"tasks.targets"}),
        ("report", {"tasks.sources", "tasks.targets"}),
    ],
)
def test_a_stage_depends_on_the_list_of_tasks_that_it_reads(step: str, lists: set[str]) -> None:
    read = {name for name in attributes_of(tree_of(f"components.{step}"), "settings") if name.startswith("tasks.")}
    assert read == lists == {name for name in pipeline()["stages"][step]["params"] if name.startswith("tasks")}


def test_every_task_has_its_line() -> None:
    assert set(params()["tasks"]["sources"]) <= set(SOURCES)
    assert set(params()["tasks"]["targets"]) <= set(TARGETS)
    for groups in (params(), *params()["recipes"].values()):
        assert list(groups["per_source"]) == list(SOURCES)
        assert set(groups["per_target"]) == set(TARGETS)


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_gives_flags_that_its_program_has(step: str) -> None:
    command = pipeline()["stages"][step]["cmd"].split()
    assert command[:3] == ["python", "-m", f"components.{step}"]
    given = {word for word in command if word.startswith("--")}
    flags = [*flags_of(f"components.{step}"), *flags_of("components.program")]
    required = {flag for flag, is_required in flags if is_required}
    assert required <= given <= {flag for flag, _ in flags}


def flags_of(module: str) -> list[tuple[str, bool]]:
    """The flags that a program adds to its parser, and whether each must be given."""
    return [
        (node.args[0].value, any(k.arg == "required" and ast.literal_eval(k.value) for k in node.keywords))
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_names_every_path_of_its_command(step: str) -> None:
    """A path that the command reads or writes and DVC does not know of would be a hidden input."""
    stage = pipeline()["stages"][step]
    known = [Path(path) for path in [*stage["deps"], *outputs_of(stage)]]
    values = [Path(value) for flag, value in pairwise(stage["cmd"].split()) if flag.startswith("--")]
    paths = [value for value in values if len(value.parts) > 1 or (value.name in {p.parts[0] for p in known})]
    assert paths
    assert [p for p in paths if not any(is_below(p, k) or is_below(k, p) for k in known)] == []


def outputs_of(stage: Any) -> list[str]:
    """The paths that a stage writes, metrics included."""
    listed = [*stage["outs"], *stage.get("metrics", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def test_no_stage_depends_on_provenance() -> None:
    """It holds commit and time: every re-run would look changed to what follows."""
    for name, stage in pipeline()["stages"].items():
        assert [dep for dep in stage["deps"] if dep.startswith("provenance")] == []
        assert [out for out in outputs_of(stage) if out.startswith("provenance/")], name


def test_outputs_are_left_to_dvc_by_git() -> None:
    """Else DVC writes .gitignore files into folders that later stages hash, and no clone has those."""
    for stage in pipeline()["stages"].values():
        for out in outputs_of({"outs": stage["outs"]}):
            path = out.replace("${item.", "a_").replace("}", "")
            ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=REPOSITORY)
            assert ignored.returncode == 0, path
