"""The adapters of all sources in one file, in the order of params.yaml: expert k is the same source everywhere.

Reads ADAPTERS/<source> for each of tasks.sources, writes OUTPUT/{experts.safetensors,experts.json}.
"""

import argparse
from pathlib import Path

from components.program import new_parser, run
from pemt_core.artifacts.provenance import provenance
from pemt_core.settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    from pemt_core.steps.collect_experts import collect_experts

    with provenance(arguments.provenance):
        collect_experts([arguments.adapters / task for task in settings.tasks.sources], output_dir=arguments.output)


if __name__ == "__main__":
    parser = new_parser(__doc__, "collect_experts")
    parser.add_argument("--adapters", type=Path, required=True, help="folder with one adapter per source")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    run(main, parser)
