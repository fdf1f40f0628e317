"""The project's rules as tests: layers, sizes, no task by name, and dvc.yaml consistent with the code that it runs."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from networkx import DiGraph, strongly_connected_components
from ruamel.yaml import YAML
from source_code import (
    PACKAGES,
    REPOSITORY,
    closure,
    imported_by,
    is_only_docstring,
    modules,
    path_of,
    tree_of,
)

from components.cli import COMMANDS
from pemt_core.backbone.families import FAMILIES
from pemt_core.provenance.code import WITHOUT_EFFECT, code_files
from pemt_core.settings import load_settings
from pemt_core.settings.groups import STEPS
from pemt_core.steps import plan
from pemt_core.tasks import SOURCES, TARGETS, TASKS

NOT_STEPS = (
    "components",
    "components.program",
    "components.executor",
    "components.command",
    "components.parser",
    "components.fork_server",
    "components.handover",
    "components.parent",
    "components.server",
    "components.trainer_job",
    "components.trainer_api",
    "components.trainer_manifest",
    "components.cli",
    *(command.module for command in COMMANDS.values()),  # interactive commands
)
MOST_LINES_OF_FILE, MOST_LINES_OF_FUNCTION = 300, 50

CORE, COMPONENTS, PIPELINES = (modules(package) for package in PACKAGES)
PROGRAMS = [module.removeprefix("components.") for module in COMPONENTS if module not in NOT_STEPS]

# Files that a stage's program loads but its plan's code hash leaves out, and why
NOT_OF_THE_STEP = {
    "components": "parse and print; a stage depends on its own program",
    "pemt_core/paths.py": "refuses flags",
    **WITHOUT_EFFECT,
}
NOT_OF_A_STEP = {
    ("report", "pemt_core/steps/plan.py"): "what a run on a cluster gathers; DVC's report has files",
    ("report", "pemt_core/steps/record.py"): "the same",
    ("report", "pemt_core/report/methods.py"): "the same",
    ("prepare", "pemt_core/artifacts/description.py"): "names tracking runs, of which it has none",
    **{
        (step, place): "how programs that train share a batch among processes"
        for step in ("prepare", "collect_experts", "record", "register", "report")
        for place in ("pemt_core/training/accelerator.py", "pemt_core/backbone/processor.py")
    },
    **{
        (step, place): "checks settings, whose values reach a step as its plan"
        for step in STEPS
        for place in ("pemt_core/methods", "pemt_core/tasks", "pemt_core/metrics", "pemt_core/training/settings.py",
                      "pemt_core/artifacts/cell.py", "pemt_core/answering/rule.py", "pemt_core/data/suites.py")
    },
}  # fmt: skip
PLAN_OF_TASK = {
    "train_source": "plan/train_source/${item.source}.json",
    "transfer": "plan/transfer/${item.target}.json",
}
AFTER_PLAN = [step for step in STEPS if step != "plan"]


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
    """Distinct pairs of a module and what it imports."""
    for module in packages:
        yield from ((module, name) for name in sorted(imported_by(module)))


@pytest.mark.parametrize("banned", ["kfp", "dvc", "argparse", "components", "pipelines", "optparse", "click"])
def test_the_library_does_not_import_its_callers(banned: str) -> None:
    assert [pair for pair in imports_of(CORE) if pair[1].split(".")[0] == banned] == []


def test_only_two_modules_import_mlflow() -> None:
    found = {module for module, name in imports_of(CORE + COMPONENTS + PIPELINES) if name.split(".")[0] == "mlflow"}
    assert found == {"pemt_core.tracking.store", "pemt_core.tracking.models"}


def test_few_modules_use_environment_variables() -> None:
    """MLflow and tokenizers can be configured in some respects only through environment variables."""
    reading = re.compile(r"\bos\.environ|\bgetenv\b|\bputenv\b|import environ\b")
    found = {module for module in CORE if reading.search((REPOSITORY / path_of(module)).read_text())}
    assert found == {"pemt_core.tracking.mlflow_defaults", "pemt_core.tracking.store", "pemt_core.processes.forked"}


def test_components_import_the_standard_library_and_the_core() -> None:
    def allowed(name: str) -> bool:
        shared = ("program", "command", "parser", "handover", "parent", "server", "executor", "trainer_api",
                  "trainer_manifest")  # fmt: skip
        return name.split(".")[0] in {*sys.stdlib_module_names, "pemt_core"} or name in map(
            "components.{}".format, shared
        )

    programs = [module for module in COMPONENTS if module != "components.cli"]
    pairs = [(module, name) for module, name in imports_of(programs) if name not in ("components", "__future__")]
    excepted = {
        ("components.trainer_api", "kubernetes"),  # starts a job on several nodes through the cluster's API
        ("components.trainer_api", "urllib3"),
        ("components.trainer_manifest", "kubeflow_trainer_api"),
        ("components.completion", "shtab"),  # generates the shell completion
    }
    assert {(module, name.split(".")[0]) for module, name in pairs if not allowed(name)} == excepted


def test_pipelines_import_neither_torch_nor_components() -> None:
    banned = {"torch", "transformers", "components", "datasets", "mlflow", "dvc"}
    assert [pair for pair in imports_of(PIPELINES) if pair[1].split(".")[0] in banned] == []


def test_imports_have_no_circle() -> None:
    """Circles through imports in functions, for type checkers, or by a name in a string (`import_module`) count too."""
    circles = strongly_connected_components(import_graph())
    assert [sorted(circle) for circle in circles if len(circle) > 1] == []


def import_graph() -> DiGraph:
    """Each module and the modules it loads. Importing a module from another package also loads that package."""
    names, graph = {*CORE, *COMPONENTS, *PIPELINES}, DiGraph()
    for module in names:
        for name in (name for node in ast.walk(tree_of(module)) for name in named_by(node, names)):
            packages = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
            others = [package for package in packages if not f"{module}.".startswith(f"{package}.")]
            graph.add_edges_from((module, loaded) for loaded in (name, *others))
    return graph


def named_by(node: ast.AST, modules: set[str]) -> set[str]:
    """The modules that a node imports or names in a string."""
    found: set[Any] = set()
    if isinstance(node, ast.Import):
        found = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        found = {name if name in modules else node.module for name in inner}
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        found = {node.value}
    return found & modules


def test_tasks_and_settings_load_without_heavy_libraries() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'mlflow', 'sklearn', 'pandas', 'pyarrow', 'accelerate'}"
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


def test_no_module_has_a_catch_all_name() -> None:
    drawers = re.compile(r"(utils?|common|helpers?|misc|base_\w+)")
    assert [m for m in CORE + COMPONENTS + PIPELINES if drawers.fullmatch(m.rpartition(".")[2])] == []


def test_no_code_branches_on_a_task_name() -> None:
    """A task's name appears in its record and in the list of sources; no other code compares a value with it."""
    records = [module for module in CORE if is_below(path_of(module), "pemt_core/tasks")]
    found = [
        (module, node.lineno)
        for module in CORE + COMPONENTS
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Compare | ast.MatchValue | ast.Dict | ast.Subscript)
        and any(isinstance(leaf, ast.Constant) and leaf.value in {*TASKS} - {*STEPS} for leaf in operands(node))
    ]
    assert [place for place in found if place[0] not in records] == []


def test_only_the_families_records_name_types_and_places_of_models() -> None:
    """A model's type, class and submodules are values of its family's record; published checkpoints have a type."""
    types = {name for family in FAMILIES for pair in family.models.items() for name in pair}
    places = {name for family in FAMILIES for stack in family.stacks for part in stack.sublayers
              for name in (stack.layers, part.path)}  # fmt: skip
    found = {
        (module, node.value)
        for module in CORE + COMPONENTS + PIPELINES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in types | places
    }
    assert {module for module, _ in found} == {"pemt_core.backbone.families", "pemt_core.backbone.published"}
    assert {name for _, name in found} == types | places


def operands(node: ast.AST) -> list[ast.AST]:
    """The values that a comparison, case, dictionary key or index selects by, with the members of tuples and lists."""
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


def test_a_step_has_the_same_name_everywhere() -> None:
    steps = [module.removeprefix("pemt_core.steps.") for module in CORE if module.startswith("pemt_core.steps.")]
    assert sorted(steps) == sorted(PROGRAMS) == sorted(STEPS)
    assert list(pipeline()["stages"]) == list(STEPS)


@pytest.mark.parametrize("step", AFTER_PLAN)
def test_a_stage_depends_on_its_plan_and_its_program(step: str) -> None:
    stage = pipeline()["stages"][step]
    expected = PLAN_OF_TASK.get(step, f"plan/{step}.json")
    assert f"--settings {expected}" in stage["cmd"]
    tracking = {"plan/tracking.json"} if step in ("record", "register") else set()  # affects no result of other steps
    assert {dep for dep in stage["deps"] if dep.startswith("plan/")} == {expected} | tracking
    assert [dep for dep in stage["deps"] if dep.startswith("components/")] == [f"components/{step}.py"]
    assert "params" not in stage


def test_plan_depends_on_everything_that_it_resolves() -> None:
    stage = pipeline()["stages"]["plan"]
    assert set(stage["deps"]) == {"components/plan.py", "pemt_core", "recipes"}
    assert [list(each) for each in stage["params"]] == [["params.yaml"]]


@pytest.fixture(scope="module")
def planned() -> dict[str, set[Path]]:
    """The library files that the code hash in each step's plan covers."""

    def files(*named: str) -> str:
        return "\n".join(str(file.relative_to(REPOSITORY)) for file in code_files(*named))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "code_hash", files)
        made = plan.make_plan(load_settings(REPOSITORY / "params.yaml"), REPOSITORY)
    first = {name: next(iter(getattr(made, name).values())) for name in PLAN_OF_TASK}
    return {step: {*map(Path, each.code.splitlines())} for step, each in {**made.steps, **first}.items()}


@pytest.mark.parametrize("step", AFTER_PLAN)
def test_a_plan_hashes_the_code_that_its_step_runs(step: str, planned: dict[str, set[Path]]) -> None:
    excepted = [*NOT_OF_THE_STEP, *(place for name, place in NOT_OF_A_STEP if name == step)]
    loaded = [file for file in closure(f"components.{step}") if not is_only_docstring(file)]
    missing = [file for file in loaded if not any(is_below(file, place) for place in excepted)]
    assert [str(file) for file in missing if file not in planned[step]] == []


def test_every_exception_is_still_needed() -> None:
    """An obsolete exception would hide the next mistake."""
    loaded = {step: closure(f"components.{step}") for step in AFTER_PLAN}
    for place in NOT_OF_THE_STEP:
        assert any(is_below(file, place) for files in loaded.values() for file in files), place
    for step, place in NOT_OF_A_STEP:
        assert step == "plan" or any(is_below(file, place) for file in loaded[step]), (step, place)


def test_changing_code_that_training_does_not_run_retrains_nothing(planned: dict[str, set[Path]]) -> None:
    """Changing the report, registering or recording retrains no cell and invalidates no training state."""
    for place in ("pemt_core/report", "pemt_core/tracking", *(f"pemt_core/steps/{s}.py" for s in STEPS[6:])):
        users = {step for step, files in planned.items() if any(is_below(file, place) for file in files)}
        assert users <= {"evaluate", "record", "register", "report"}, place


def test_the_code_of_a_target_includes_its_kind_of_method(planned: dict[str, set[Path]]) -> None:
    kind = {Path("pemt_core/methods/pemt.py"), Path("pemt_core/methods/gates/input.py")}
    assert {step for step, files in planned.items() if kind <= files} == {"transfer", "evaluate", "register"}


def test_listed_tasks_are_tasks() -> None:
    assert set(params()["tasks"]["sources"]) <= set(SOURCES)
    assert set(params()["tasks"]["targets"]) <= set(TARGETS)


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_passes_flags_that_its_program_has(step: str) -> None:
    command = pipeline()["stages"][step]["cmd"].split()
    assert command[:3] == ["python", "-m", f"components.{step}"]
    given = {word for word in command if word.startswith("--")}
    flags = {action.option_strings[-1]: action.required for action in actions_of(step) if action.option_strings}
    assert {flag for flag, is_required in flags.items() if is_required} <= given <= set(flags)


def actions_of(step: str) -> list[Any]:
    """The arguments of a step's program."""
    return list(import_module(f"components.{step}").make_parser()._actions)


@pytest.mark.parametrize("step", STEPS)
def test_a_stage_names_every_path_of_its_command(step: str) -> None:
    """A path that the command reads or writes but DVC does not know would be a hidden dependency."""
    stage = pipeline()["stages"][step]
    known = [Path(path) for path in [*stage["deps"], *outputs_of(stage), "plan/tracking.json"]]
    values = [Path(value) for flag, value in pairwise(stage["cmd"].split()) if flag.startswith("--")]
    paths = [value for value in values if len(value.parts) > 1 or (value.name in {p.parts[0] for p in known})]
    assert paths
    assert [p for p in paths if not any(is_below(p, k) or is_below(k, p) for k in known)] == []


def outputs_of(stage: Any) -> list[str]:
    """The paths that a stage writes, including metrics."""
    listed = [*stage["outs"], *stage.get("metrics", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def test_no_stage_depends_on_provenance() -> None:
    """Provenance holds commit and time: every re-run would look changed to later stages."""
    for name, stage in pipeline()["stages"].items():
        assert [dep for dep in stage["deps"] if dep.startswith("provenance")] == []
        assert [out for out in outputs_of(stage) if out.startswith("provenance/")], name


def test_git_ignores_the_outputs_of_dvc() -> None:
    """Otherwise DVC writes .gitignore files into folders that later stages hash, and clones do not have those files."""
    for stage in pipeline()["stages"].values():
        for out in outputs_of({"outs": stage["outs"]}):
            path = out.replace("${item.", "a_").replace("}", "")
            ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=REPOSITORY)
            assert ignored.returncode == 0, path
