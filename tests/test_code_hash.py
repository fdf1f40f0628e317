"""The hash of the code behind a result, on a copy of the library that each test changes."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from source_code import REPOSITORY, closure, imported_by, path_of

from pemt_core.provenance.code import WITHOUT_EFFECT, code_files, code_hash

TRANSFER, GATE = "pemt_core.steps.transfer", "model/gate.py"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy") / "pemt_core"
    return Path(shutil.copytree(REPOSITORY / "pemt_core", folder, ignore=shutil.ignore_patterns("__pycache__")))


def hash_in(library: Path, module: str) -> str:
    program = f"from pemt_core.provenance.code import code_hash; print(code_hash({module!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=library.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def at_the_end(text: str) -> Callable[[str], str]:
    return lambda source: f"{source}\n{text}\n"


def after(old: str, added: str) -> Callable[[str], str]:
    return lambda source: source.replace(old, old + added, 1)


@pytest.mark.parametrize(
    ("module", "file", "edit", "stays"),
    [
        (TRANSFER, GATE, after('"""', "In other words: "), True),
        (TRANSFER, GATE, at_the_end("# a comment with é\n\n"), True),
        (TRANSFER, "steps/transfer.py", after("import logging", "  # a reason"), True),
        (TRANSFER, "report/table.py", at_the_end("NUMBER = 1"), True),
        (TRANSFER, "tracking/store.py", at_the_end("NUMBER = 1"), True),
        (TRANSFER, "tasks/revisions.json", after("{", "\n"), True),
        (TRANSFER, GATE, at_the_end("NUMBER = 1"), False),
        (TRANSFER, "steps/transfer.py", at_the_end("from pemt_core import report"), False),
        ("pemt_core.steps.prepare", "tasks/revisions.json", after("{", "\n"), False),
    ],
)
def test_edits_that_change_the_hash(
    library: Path, module: str, file: str, edit: Callable[[str], str], stays: bool
) -> None:
    path = library / file
    source = path.read_text()
    try:
        path.write_text(edit(source))
        assert path.read_text() != source
        assert (hash_in(library, module) == code_hash(module)) is stays
    finally:
        path.write_text(source)


def test_blank_lines_count_only_inside_strings(library: Path) -> None:
    def hash_with(text: str) -> str:
        (library / "model" / "signal.py").write_text(text)
        return hash_in(library, TRANSFER)

    plain = hash_with('TEXT = """a\nb"""\nNUMBER = 1\n')
    assert hash_with('TEXT = """a\nb"""  # words\n\n\nNUMBER = 1\n') == plain
    assert hash_with('TEXT = """a\n\nb"""\nNUMBER = 1\n') != plain


def without_effect(file: Path) -> bool:
    return any(str(place) in WITHOUT_EFFECT for place in (file, *file.parents))


@pytest.mark.parametrize("step", ["transfer", "evaluate", "prepare"])
def test_the_hash_covers_all_imports_of_a_step_that_affect_results(step: str) -> None:
    """It covers the step's module and what covered modules import, and only files that the step loads."""
    module = f"pemt_core.steps.{step}"
    covered = {path.relative_to(REPOSITORY) for path in code_files(module) if path.suffix == ".py"}
    assert path_of(module) in covered
    assert covered <= {file for file in closure(module) if not without_effect(file)}
    for file in covered:
        name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        imported = {path_of(each) for each in imported_by(name) if each.split(".")[0] == "pemt_core"}
        assert {each for each in imported if not without_effect(each)} <= covered


def test_the_hash_leaves_out_what_only_settings_import() -> None:
    """Settings, which are an input, list cells."""
    cell = REPOSITORY / "pemt_core" / "artifacts" / "cell.py"
    assert cell in code_files(TRANSFER)
    assert cell not in code_files("pemt_core.steps.prepare")


def test_an_unknown_module_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"there is no module 'pemt_core\.step'"):
        code_hash("pemt_core.step")
