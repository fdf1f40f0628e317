"""Links, targets and manifests in the documents are valid."""

import re
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML
from source_code import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "docs"))  # scripts that write documents, which are in no package
import comparison

DOCUMENTS = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_resolve(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    relative = [link for link in links if not link.startswith("http")]
    assert [link for link in relative if not (document.parent / link).exists()] == []


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)\b", (REPOSITORY / "README.md").read_text(encoding="utf-8")))
    assert named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Every Kubernetes resource that a document shows."""
    blocks = [
        (path.name, block)
        for path in DOCUMENTS
        for block in re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    ]
    resources = [(name, resource) for name, block in blocks for resource in YAML(typ="safe").load_all(block)]
    return [(name, resource) for name, resource in resources if "apiVersion" in resource]


@pytest.mark.parametrize(("document", "resource"), manifests(), ids=lambda value: str(value)[:40])
def test_manifests_are_valid(document: str, resource: dict[str, Any]) -> None:
    """Checked against the schemas of Kubernetes; unknown keys are refused."""
    if "." not in resource["apiVersion"].partition("/")[0] or "k8s.io" in resource["apiVersion"]:
        kubernetes_validate.validate(resource, "1.31", strict=True)


def test_manifests_are_shown() -> None:
    kinds = {resource["kind"] for _, resource in manifests()}
    assert {"Secret", "PersistentVolumeClaim"} <= kinds


def test_the_comparison_s_page_is_what_its_script_writes() -> None:
    """From the reports in docs/comparison/: no number on the page is written by hand."""
    assert comparison.PAGE.read_text(encoding="utf-8") == comparison.page()
