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
import comparison_claims
import comparison_facts

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


def test_the_core_hours_of_the_experiments_are_those_of_their_cells() -> None:
    text = (REPOSITORY / "docs/comparing.md").read_text(encoding="utf-8")
    stated = {
        name: cell for name, cell in re.findall(r"^\| `(\w+)` \| .* \| ([^|]*) \|$", text, flags=re.MULTILINE) if cell
    }
    rows = comparison_facts.rows_in(comparison.FILES, (*comparison.EXPERIMENTS, *comparison.DECODERS))
    assert set(stated) == set(rows)
    for name, each in rows.items():
        seeds, targets = each["seed"].nunique(), each["target"].nunique()
        made = f"{seeds} seed{'s' * (seeds > 1)}{f', {targets} targets' * (targets < 17)}"
        assert stated[name] == f"{comparison_facts.core_hours(each):.2f} ({made})"


def test_claims_and_means_are_read_as_the_reports_state_them() -> None:
    """Every verdict counts among those of the first paragraph, and means are those of the cells."""
    for name, rows in comparison_facts.rows_in(comparison.FILES, comparison.EXPERIMENTS).items():
        folder = comparison.FILES / name
        text = (folder / "paragraph.md").read_text(encoding="utf-8")
        counted = re.findall(
            r"claims that PEMT is better: (\d+) supported, (\d+) not supported, (\d+) undecidable", text
        )
        found = comparison_claims.read_findings(folder)
        for verdicts, counts in zip(found.values(), counted, strict=True):
            made = [each.verdict for each in verdicts.values()]
            assert [made.count(each) for each in ("supported", "not supported", "undecidable")] == [*map(int, counts)]
        for k, means in comparison_claims.read_means(folder).items():
            of_k = rows if k is None else rows[rows["k"] == k]
            expected = of_k.groupby(["method", "variant"])["score"].mean().sort_values(ascending=False)
            assert list(means.values()) == pytest.approx(list(expected), abs=0.051)


@pytest.mark.parametrize("others", [(), ("table.csv", "comparisons.csv")])
def test_a_report_s_tables_are_kept_and_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
) -> None:
    report, kept = tmp_path / "report", tmp_path / "docs"
    report.mkdir()
    for name in ("report.html", "rows.csv", "paragraph.md", "table.md", *others):
        (report / name).write_text("text\n", encoding="utf-8")
    trials = 'method,trials\nuniform,"{""0.01"": 1.0, ""0.5"": 2.0}"\n'
    (report / "rows.csv").write_text(trials, encoding="utf-8")
    monkeypatch.setattr(comparison, "FILES", kept)
    monkeypatch.setattr(comparison, "made", lambda *_: "one target\n")
    comparison.keep(report, kept / "controls", tmp_path)
    assert {path.name for path in (kept / "controls").iterdir()} == {
        "rows.csv", "paragraph.md", "table.md", "made.md", *others,
    }  # fmt: skip
    section = comparison.section("controls")
    assert [f"(comparison/controls/{name})" in section for name in ("table.csv", "comparisons.csv")] == [
        bool(others)
    ] * 2
    assert "here are `uniform` with 0.01 and 0.5 (now 0.01 and 0.03)." in section


def test_claims_in_other_words_are_an_error(tmp_path: Path) -> None:
    """A report whose wording has changed does not become an experiment without verdicts."""
    claim = (
        "- PEMT is better than LoRA: supported, because of it (mean difference +2.0, median +1.5, Holm p = 0.002).\n"
    )
    (tmp_path / "paragraph.md").write_text(f"The highest mean.\n\n{claim}", encoding="utf-8")
    found = comparison_claims.read_findings(tmp_path)
    assert found == {None: {"LoRA": comparison_claims.Finding("supported", "+2.0", "= 0.002")}}
    for other in ("", claim + claim.replace("mean difference", "gap").replace("LoRA", "IA3")):
        (tmp_path / "paragraph.md").write_text(f"The highest mean.\n\n{other}", encoding="utf-8")
        with pytest.raises(ValueError, match="claims are not worded as"):
            comparison_claims.read_findings(tmp_path)


def test_the_comparison_s_page_is_what_its_script_writes() -> None:
    """From the reports in docs/comparison/: no number on the page is written by hand."""
    assert comparison.PAGE.read_text(encoding="utf-8") == comparison.page()
