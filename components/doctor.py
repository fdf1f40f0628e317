"""Check whether this machine and project can run the pipeline, and say how to fix problems.

The exit code is 1 if a problem blocks `make demo` or something that the settings ask for, 0 otherwise.
"""

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict

from components.command import add_json, add_params, explained, run
from pemt_core.doctor import Finding, Status, Surroundings, examine

COLOURS = {Status.OK: "32", Status.WARNING: "33", Status.FAILURE: "31", Status.SKIPPED: "2"}  # of ANSI terminals
NAME_WIDTH, STATUS_WIDTH = 14, 9


def main(arguments: argparse.Namespace) -> int:
    place = Surroundings.of(arguments.params, os.environ, arguments.host)
    findings = []
    for finding in examine(place, waiting):
        findings.append(finding)
        if not arguments.json:
            print_finding(finding)
    counts = Counter(finding.status for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": not counts[Status.FAILURE], "checks": [asdict(one) for one in findings]}, indent=2))
    else:
        summary = ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])
        print(f"\n{summary}: {'fix the failures first' if counts[Status.FAILURE] else '`make demo` can run'}")
    return 1 if counts[Status.FAILURE] else 0


def waiting(name: str) -> None:
    """Show on a terminal which check is still running."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r... {name}\x1b[K\r")
        sys.stderr.flush()


def print_finding(finding: Finding) -> None:
    """Print a finding on one line, and its fix on the next."""
    mark = f"{finding.status:{STATUS_WIDTH}}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        mark = f"\x1b[{COLOURS[finding.status]}m{mark}\x1b[0m"
    clear = "\x1b[K" if sys.stdout.isatty() else ""  # erase what `waiting` wrote
    print(f"{mark}{finding.name:{NAME_WIDTH}}{finding.found}{clear}", flush=True)
    if finding.fix:
        print(f"{'':{STATUS_WIDTH + NAME_WIDTH}}-> {finding.fix}")


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "doctor")
    parser.add_argument("--host", metavar="URL", help="also check the API of Kubeflow Pipelines there")
    add_params(parser)
    add_json(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
