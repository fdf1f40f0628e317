"""Make the model that all adapters attach to: load a checkpoint from the hub, a folder or a package, or pretrain one.

Writes OUTPUT in transformers' layout, with the fingerprint that every adapter records.
"""

import argparse
from pathlib import Path

from components.program import Job, add_settings, add_training, new_parser, run, tracker_of
from pemt_core.paths import OutputFolder
from pemt_core.provenance.provenance import provenance
from pemt_core.settings.steps import Backbone


def main(arguments: argparse.Namespace, job: Job[Backbone]) -> None:
    from pemt_core.steps.backbone import make_backbone

    tracker = tracker_of(arguments)
    with provenance(job.provenance) as facts:
        facts |= make_backbone(
            job.settings.backbone,
            tokenizer_dir=arguments.tokenizer,
            corpus_path=arguments.corpus,
            output_dir=arguments.output,
            checkpoint_dir=arguments.checkpoints,
            open_run=tracker.open_run,
        )


def make_parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__, "backbone")
    add_settings(parser)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer that prepare wrote")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus that prepare wrote")
    parser.add_argument("--output", type=OutputFolder, required=True, help="folder to write")
    add_training(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser(), Backbone)
