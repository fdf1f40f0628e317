"""Write the pipeline to a file: YAML for Kubeflow's UI, API and SDK, or manifests for `kubectl apply`.

pemt compile --output pemt.yaml
pemt compile --output manifests.yaml --manifests --namespace team
"""

import argparse
import hashlib
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from pemt_core.artifacts.files import atomic_file
from pemt_core.errors import PemtError
from pemt_core.paths import OutputFile
from pemt_core.provenance.image import image_name
from pemt_core.settings import Settings
from pipelines.command import add_image, add_params, load, namespace_name, run, unfit_for_a_cluster
from pipelines.pipeline import NAME, make_pipeline


class CompileError(PemtError):
    """Flags that do not fit together."""


def compile_pipeline(
    settings: Settings,
    params: str,
    image: str,
    output: Path,
    *,
    cache: bool = True,
    manifests: KubernetesManifestOptions | None = None,
) -> None:
    """Write the pipeline, with `image` for its steps, as YAML, or as Kubernetes manifests if `manifests` is given."""
    with TemporaryDirectory() as folder, atomic_file(output) as temporary:
        compiled = Path(folder) / "pipeline.yaml"  # kfp requires the suffix
        compiler.Compiler().compile(
            make_pipeline(settings, params, image, cache=cache),
            str(compiled),
            kubernetes_manifest_format=manifests is not None,
            kubernetes_manifest_options=manifests,
        )
        temporary.write_bytes(compiled.read_bytes())


def version_name(image: str, package: Path) -> str:
    """Name a compiled pipeline's version after its image's tag and a hash of the file, as Kubernetes allows names."""
    tag = image.rpartition("/")[2].partition(":")[2] or "untagged"
    content = hashlib.sha256(package.read_bytes()).hexdigest()[:8]
    return f"{NAME}-{re.sub('[^a-z0-9]+', '-', tag.lower())[:40].strip('-')}-{content}"


def main(arguments: argparse.Namespace) -> None:
    settings, params = load(arguments.params)
    image = arguments.image or image_name(settings.kubeflow)
    if arguments.namespace and not arguments.manifests:
        raise CompileError(f"--namespace is {arguments.namespace}, but only --manifests write it; add --manifests")
    compile_pipeline(settings, params, image, arguments.output)
    if arguments.manifests:
        manifests = KubernetesManifestOptions(
            pipeline_name=NAME,
            pipeline_version_name=version_name(image, arguments.output),
            namespace=arguments.namespace,
            include_pipeline_manifest=True,
        )
        compile_pipeline(settings, params, image, arguments.output, manifests=manifests)
    print(f"{arguments.output}: the pipeline in {image}")
    for reason in unfit_for_a_cluster(settings):
        print(f"warning: on a cluster it would fail: {arguments.params}: {reason}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.compile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_params(parser)
    parser.add_argument("--output", type=OutputFile, required=True, help="file to write")
    add_image(parser)
    parser.add_argument("--manifests", action="store_true", help="write Pipeline and PipelineVersion resources")
    parser.add_argument("--namespace", type=namespace_name, help="namespace of these resources")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
