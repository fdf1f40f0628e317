"""What holds of the paper's claims in the committed experiments: the first section of docs/comparison.md.

Verdicts, differences and p are read from the claims in paragraph.md, and means from table.md, which one report wrote.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SUPPORTED, NOT_SUPPORTED, UNDECIDABLE = "supported", "not supported", "undecidable"
CLAIM = re.compile(
    r"^- PEMT is better than (?P<title>.+?): (?P<verdict>supported|not supported|undecidable), because .*"
    r"\(mean difference (?P<gap>[+−]?[\d.]+), .*Holm p (?P<p>[=<] [\d.]+)",
    re.MULTILINE,
)
CHANGED = re.compile(r"Without them, the verdict changes on (.+)\.$", re.MULTILINE)
MEAN = re.compile(r"^\| (?P<title>[^|]+?) \| (?P<mean>−?-?[\d.]+)(?: ± [\d.∞]+)? \|", re.MULTILINE)
HEADING = re.compile(r"^### k = (\d+)$", re.MULTILINE)
TITLE = "What holds of the paper's claims"
ABOUT = """\
The paper claims that PEMT is better than the methods of a row, or for the reason that the row gives. On this suite, a
claim is supported if the experiment's test supports it against every method of the row, not supported if that is its
verdict against one of them, and undecidable otherwise. Differences are the mean of PEMT minus that of the other method,
in points, with Holm's p. Nothing here is about T5-base on real data."""


@dataclass(frozen=True)
class Finding:
    """A verdict of an experiment on the claim that PEMT is better than a method."""

    verdict: str
    gap: str  # points
    p: str  # Holm's, with its relation


Found = Mapping[str, Mapping[int | None, Mapping[str, Finding]]]  # by experiment, k and title


@dataclass(frozen=True)
class Evidence:
    """Where a claim is tested: an experiment, a k if it has several, and the titles of methods."""

    experiment: str
    titles: Sequence[str]
    k: int | None = None


_SMALL = ("Adapter", "LoRA", "lora_biases", "LoRA on wo", "IA3", "BitFit", "Layer norms", "Prompt tuning", "DePT")
_FEW = ("Full fine-tuning", "Adapter", "LoRA", "IA3", "BitFit", "Prompt tuning", "SPoT", "Joint source")
_GATES = (
    "uniform",
    "Single source",
    "static",
    "scalearn",
    "lorahub",
    "arrow",
    "token_gate",
    "text_gate",
    "top1",
    "fusion",
)
CLAIMS: Mapping[str, Sequence[Evidence]] = {
    "better than full fine-tuning": [Evidence("table1", ["Full fine-tuning"])],
    "better than other parameter-efficient methods": [Evidence("table1", _SMALL)],
    "better than other ways to transfer": [
        Evidence("table1", ["SPoT", "ATTEMPT", "MPT without distillation", "Sequential transfer", "Joint source"])
    ],
    "better with few examples": [Evidence("few_shot", _FEW, k) for k in (4, 16, 32)],
    "because its sources are trained: better without sources, and with untrained ones": [
        Evidence("controls", ["control", "random_bank"])
    ],
    "because their prompts guide it: better than with shuffled ones": [Evidence("controls", ["shuffled_prompts"])],
    "because its gates weigh related sources: better than other gates, and than the best single source": [
        Evidence("router_swap", _GATES)
    ],
}


def section(folder: Path, rows: Mapping[str, pd.DataFrame]) -> str:
    """The section, from the folder of the experiments' files and the rows of those that have been run."""
    found = {name: read_findings(folder / name) for name in rows}
    seeds = {name: each["seed"].nunique() for name, each in rows.items()}
    lines = [
        f"| {claim} | {_verdict(parts, found)} | {_numbers(parts, found, seeds)} |" for claim, parts in CLAIMS.items()
    ]
    table = ["| PEMT is | Verdict | Differences |", "| --- | --- | --- |", *lines]
    remarks = [*(line for name in found if (line := _higher(folder, name, found[name]))), _equal_weights(found)]
    remarks += [
        f"Without the targets on which every method scores like a constant answer or a guess, the verdict in `{name}`"
        f"{_at(k)} changes on {changed}."
        for name in found
        for k, text in _parts(folder / name / "paragraph.md").items()
        for changed in CHANGED.findall(text)
    ]
    return "\n".join([f"## {TITLE}", "", ABOUT, "", *table, "", *(f"- {line}" for line in remarks if line), ""])


def read_findings(folder: Path) -> dict[int | None, dict[str, Finding]]:
    """The verdicts of an experiment by k (None if it has one) and title. Raises ValueError if it states none."""
    parts = _parts(folder / "paragraph.md")
    found = {
        k: {each["title"]: Finding(each["verdict"], each["gap"], each["p"]) for each in CLAIM.finditer(text)}
        for k, text in parts.items()
    }
    for k, text in parts.items():
        if not found[k] or len(found[k]) != text.count("- PEMT is better than "):
            raise ValueError(
                f"{folder}/paragraph.md{_at(k)}: claims are not worded as docs/comparison_claims.py expects"
            )
    return found


def read_means(folder: Path) -> dict[int | None, dict[str, float]]:
    """The means of an experiment by k and title, the highest first."""
    tables = {
        k: text.partition("| Method | Mean |")[2].partition("\n\n")[0]
        for k, text in _parts(folder / "table.md").items()
    }
    return {
        k: {each["title"].removesuffix(" ‡"): float(each["mean"].replace("−", "-")) for each in MEAN.finditer(table)}
        for k, table in tables.items()
    }


def _parts(path: Path) -> dict[int | None, str]:
    """The text of each k; None if the file has one."""
    first, *others = HEADING.split(path.read_text(encoding="utf-8"))
    return {int(k): text for k, text in zip(others[::2], others[1::2], strict=True)} if others else {None: first}


def _of(part: Evidence, found: Found) -> dict[str, Finding]:
    known = found.get(part.experiment, {}).get(part.k, {})
    return {title: known[title] for title in part.titles if title in known}


def _verdict(parts: Sequence[Evidence], found: Found) -> str:
    """That on all methods of a row; undecidable if one has no results."""
    verdicts = [each.verdict for part in parts for each in _of(part, found).values()]
    if NOT_SUPPORTED in verdicts:
        return NOT_SUPPORTED
    is_whole = len(verdicts) == sum(len(part.titles) for part in parts)
    return SUPPORTED if is_whole and {*verdicts} == {SUPPORTED} else UNDECIDABLE


def _numbers(parts: Sequence[Evidence], found: Found, seeds: Mapping[str, int]) -> str:
    """Each verdict with its methods; many that a claim is supported against are counted."""
    shown = []
    for part in parts:
        of_part = _of(part, found)
        groups = {
            verdict: {title: each for title, each in of_part.items() if each.verdict == verdict}
            for verdict in (SUPPORTED, UNDECIDABLE, NOT_SUPPORTED)
        }
        texts = [_group(verdict, group, len(part.titles)) for verdict, group in groups.items() if group]
        missing = [title for title in part.titles if title not in of_part]
        texts += [f"no results against {', '.join(missing)}"] if missing else []
        number = seeds.get(part.experiment, 0)
        where = f"`{part.experiment}`{_at(part.k)}, {number} seed{'s' * (number != 1)}"
        shown.append(f"{where}: {'; '.join(texts)}")
    return "<br>".join(shown)


def _group(verdict: str, group: Mapping[str, Finding], size: int) -> str:
    if len(group) > 3 and verdict == SUPPORTED:
        gaps = sorted((each.gap for each in group.values()), key=lambda gap: float(gap.replace("−", "-")))
        return f"{verdict} against {len(group)} of {size} ({gaps[0]} to {gaps[-1]})"
    return f"{verdict} against " + ", ".join(f"{title} {each.gap} (p {each.p})" for title, each in group.items())


def _higher(folder: Path, name: str, found: Mapping[int | None, Mapping[str, Finding]]) -> str:
    """The methods whose mean is higher than that of PEMT, with the verdicts; of more than three, the first."""
    texts = []
    for k, means in read_means(folder / name).items():
        own = means["PEMT"]
        above = [
            f"{title} {mean:.1f} ({found[k][title].verdict if title in found[k] else 'not tested'})"
            for title, mean in means.items()
            if mean > own
        ]
        if above:
            rest = f" and {len(above) - 1} others of {len(means) - 1}" if len(above) > 3 else ""
            named = above[:1] if rest else above
            texts.append(f"{', '.join(named)}{rest}, where PEMT has {own:.1f}{'' if k is None else f' (k = {k})'}")
    return f"Higher means than that of PEMT in `{name}`: {'; '.join(texts)}." if texts else ""


def _equal_weights(found: Found) -> str:
    """How PEMT compares with equal weights of all sources, wherever that was tested."""
    texts = [
        f"{of_k['uniform'].gap} in `{name}`{_at(k)} ({of_k['uniform'].verdict})"
        for name, of_name in found.items()
        for k, of_k in of_name.items()
        if "uniform" in of_k
    ]
    return f"Against equal weights of all sources (uniform), PEMT has {', '.join(texts)}." if texts else ""


def _at(k: int | None) -> str:
    return "" if k is None else f", k = {k}"
