"""Write a source adapter and its prompt as PEFT stores a LoRA, for use outside the pipeline.

Writes OUTPUT/{adapter_config.json,adapter_model.safetensors,prompt.safetensors,README.md}.
"""

import argparse
from pathlib import Path

from components.command import OutputFolder, explained, run


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.artifacts.source import load_source
    from pemt_core.backbone.shapes import outline
    from pemt_core.lora.writer import save_lora

    backbone = outline(arguments.backbone)
    adapter = load_source(arguments.adapter, backbone)
    save_lora(arguments.output, adapter, backbone, arguments.base_model or str(arguments.backbone))


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "export_adapter")
    parser.add_argument("adapter", type=Path, help="folder that train_source wrote, such as adapters/sources/mnli")
    parser.add_argument("--output", type=OutputFolder, required=True, help="folder to write")
    parser.add_argument("--backbone", type=Path, default=Path("backbone"), help="folder of its backbone (%(default)s)")
    parser.add_argument(
        "--base-model", help="name by which PEFT loads the backbone, such as google-t5/t5-base (default: --backbone)"
    )
    return parser


if __name__ == "__main__":
    run(main, make_parser())
