"""Collect the adapters of all sources in the order of params.yaml, so that expert k is the same source everywhere.

Reads ADAPTERS/<source> for each source, or the adapters that Kubeflow collected from its loop over the sources; appends
the LoRAs of imported_sources. Writes OUTPUT/{experts.safetensors,experts.json}.
"""

import argparse
from pathlib import Path

from components.program import Job, add_settings, new_parser, run
from pemt_core.errors import SettingsError
from pemt_core.paths import OutputFolder
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import CollectExperts


def main(arguments: argparse.Namespace, job: Job[CollectExperts]) -> None:
    from pemt_core.steps.collect_experts import collect_experts, import_experts

    sources = job.settings.sources
    if arguments.adapters:
        adapters = [arguments.adapters / source for source in sources]
    elif job.executor:
        adapters = job.executor.paths("adapters")
    else:
        raise SettingsError("--adapters is missing: expected the folder with one adapter per source")
    with provenance(job.provenance):
        imported = import_experts(job.settings.imported_sources, arguments.backbone)
        collect_experts(
            adapters,
            sources,
            imported,
            lone_prompts=job.settings.lone_prompts,
            backbone_dir=arguments.backbone,
            output_dir=arguments.output,
        )


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "collect_experts")
    add_settings(parser)
    parser.add_argument("--adapters", type=Path, help="folder with one adapter per source; not needed on Kubeflow")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote, to check tensors")
    parser.add_argument("--output", type=OutputFolder, required=True, help="folder to write")
    return parser


if __name__ == "__main__":
    run(main, make_parser(), CollectExperts)
