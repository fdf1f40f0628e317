"""Write an adapter for use outside the pipeline.

Of a source, writes OUTPUT/{adapter_config.json,adapter_model.safetensors,prompt.safetensors,README.md}, as PEFT stores
a LoRA. Of a target's cell, writes a model of transformers with the mean of every gate in its weights, and measures how
many answers stay the same (OUTPUT/agreement.json).
"""

import argparse
from pathlib import Path

from components.command import changed_flags, explained, run
from pemt_core.errors import SettingsError
from pemt_core.paths import OutputFolder

OF_TARGETS = ("experts", "data", "split", "least_agreement", "force")


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.artifacts.description import is_target

    if is_target(arguments.adapter):
        export_target(arguments)
    else:
        export_source(arguments)


def export_source(arguments: argparse.Namespace) -> None:
    from pemt_core.artifacts.source import load_source
    from pemt_core.backbone.shapes import outline
    from pemt_core.lora.writer import save_lora

    if ignored := changed_flags(arguments, make_parser(), OF_TARGETS):
        raise SettingsError(f"{arguments.adapter} is a source; {ignored}: expected only for targets")
    backbone = outline(arguments.backbone)
    adapter = load_source(arguments.adapter, backbone)
    save_lora(arguments.output, adapter, backbone, arguments.base_model or str(arguments.backbone))


def export_target(arguments: argparse.Namespace) -> None:
    from pemt_core.export.target import export_target

    if arguments.base_model:
        raise SettingsError("--base-model is for sources; the export of a target holds its whole model")
    agreement = export_target(
        arguments.adapter,
        arguments.output,
        backbone_dir=arguments.backbone,
        experts_dir=arguments.experts,
        data_dir=arguments.data,
        split=arguments.split,
        least_agreement=arguments.least_agreement,
        force=arguments.force,
    )
    print(f"{arguments.output}: {agreement}")


def share(text: str) -> float:
    """Read a share from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "export_adapter")
    parser.add_argument(
        "adapter",
        type=Path,
        help="folder such as adapters/sources/mnli, or adapters/targets/cb/pemt-k32-seed31",
    )
    parser.add_argument("--output", type=OutputFolder, required=True, help="folder to write")
    parser.add_argument("--backbone", type=Path, default=Path("backbone"), help="folder of its backbone (%(default)s)")
    source = parser.add_argument_group("source")
    source.add_argument(
        "--base-model", help="name by which PEFT loads the backbone, such as google-t5/t5-base (default: --backbone)"
    )
    target = parser.add_argument_group("target")
    target.add_argument("--experts", type=Path, default=Path("experts"), help="folder of the experts (%(default)s)")
    target.add_argument("--data", type=Path, default=Path("data"), help="folder of the prepared tasks (%(default)s)")
    target.add_argument(
        "--split",
        choices=("train", "validation"),
        default="validation",
        help="rows over which gates are averaged and answers compared (%(default)s)",
    )
    target.add_argument(
        "--least-agreement",
        type=share,
        default=0.95,
        metavar="SHARE",
        help="share of rows whose answer must stay the same (%(default)s)",
    )
    target.add_argument("--force", action="store_true", help="write it whatever the agreement is")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
