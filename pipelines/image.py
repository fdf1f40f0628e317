"""Build the image that every step runs in, tagged by its content.

pemt image            builds it on the local Docker engine
pemt image --push     also pushes it to the registry in its name (kubeflow.image of params.yaml)
"""

import argparse
import os
import subprocess
from pathlib import Path

from pemt_core import __version__
from pemt_core.provenance.image import REPOSITORY, ImageError, content_commit, image_name
from pipelines.command import add_params, load, run

TORCH_BUILDS = "https://download.pytorch.org/whl"


def build(image: str, torch_index: str, *, base_image: str | None, ca: Path | None) -> None:
    """Run `docker build` and show its output. ImageError if it fails."""
    revision = "".join(content_commit())
    given = {"BASE_IMAGE": base_image, "TORCH_INDEX": torch_index, "VERSION": __version__, "COMMIT": revision}
    arguments = [word for key, value in given.items() if value for word in ("--build-arg", f"{key}={value}")]
    secret = ["--secret", f"id=ca,src={ca}"] if ca else []
    _docker("build", "--network", "host", *arguments, *secret, "--tag", image, str(REPOSITORY))


def _docker(*arguments: str) -> None:
    try:
        done = subprocess.run(["docker", *arguments], env={**os.environ, "DOCKER_BUILDKIT": "1"})
    except OSError as error:
        raise ImageError(f"docker did not start: {error}") from error
    if done.returncode:
        raise ImageError(f"docker {arguments[0]} failed with exit code {done.returncode}; its output is above")


def main(arguments: argparse.Namespace) -> None:
    settings, _ = load(arguments.params)
    image = image_name(settings.kubeflow)
    if arguments.push and "/" not in image:
        raise ImageError(f"kubeflow.image is {settings.kubeflow.image}: to push it, put a registry before the name")
    torch_index = arguments.torch_index or f"{TORCH_BUILDS}/{settings.kubeflow.torch}"
    build(image, torch_index, base_image=arguments.base_image, ca=arguments.ca)
    if arguments.push:
        _docker("push", image)
    print(image)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.image", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_params(parser)
    parser.add_argument("--base-image", help="any Debian or Ubuntu with Python 3.11 (default: the Dockerfile's)")
    parser.add_argument("--torch-index", help="index with torch (default: PyTorch's for kubeflow.torch)")
    parser.add_argument("--ca", type=Path, help="certificates to trust in the build, behind a proxy that opens TLS")
    parser.add_argument("--push", action="store_true", help="push the image to its registry")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
