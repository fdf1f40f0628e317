"""Show the table of the last report, and where its page is."""

import argparse
import json
import sys
import webbrowser
from pathlib import Path

from components.command import add_json, explained, run
from pemt_core.artifacts.files import read_json
from pemt_core.errors import ArtifactError


def main(arguments: argparse.Namespace) -> None:
    table, page = arguments.results / "table.md", arguments.results / "report.html"
    if not table.is_file():
        raise ArtifactError(f"{table}: no results yet; run `make demo` or `dvc repro`")
    if arguments.json:
        print(json.dumps(read_json(arguments.results / "summary.json"), indent=2))
    else:
        sys.stdout.write(table.read_text(encoding="utf-8", errors="replace"))
        print(f"\nFull report: {page if page.is_file() else arguments.results}")
    if arguments.open and not webbrowser.open((page if page.is_file() else table).resolve().as_uri()):
        raise ArtifactError(f"{page}: no browser could be started")


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "results")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder that the report step wrote")
    parser.add_argument("--open", action="store_true", help="also open the page in a browser")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
