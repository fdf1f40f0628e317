"""A source adapter and its prompt in the layout in which PEFT stores a LoRA, for use outside of the pipeline.

Writes OUTPUT/{adapter_config.json,adapter_model.safetensors,prompt.safetensors,README.md}.
"""

import argparse
import sys
from pathlib import Path

from pemt_core.errors import PemtError


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.artifacts.adapter import load_adapter
    from pemt_core.backbone.store import recorded_fingerprint
    from pemt_core.lora.writer import save_lora

    adapter = load_adapter(arguments.adapter, recorded_fingerprint(arguments.backbone))
    save_lora(arguments.output, adapter, arguments.base_model or str(arguments.backbone))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m components.export_adapter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--adapter", type=Path, required=True, help="folder that train_source wrote")
    parser.add_argument("--backbone", type=Path, required=True, help="folder that backbone wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--base-model", help="what PEFT is to load the backbone by, such as google-t5/t5-base (default: --backbone)"
    )
    return parser


if __name__ == "__main__":
    try:
        main(make_parser().parse_args())
    except PemtError as error:
        sys.exit(f"error: {error}")
