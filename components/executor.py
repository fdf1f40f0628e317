"""Kubeflow's contract with a container: --executor-input says what is given, a file that it names takes the answer.

Outputs count only once that file names them, under the local runner as well as under a cluster's launcher:
https://www.kubeflow.org/docs/components/pipelines/reference/local-execution/ and `ExecutorInput` and `ExecutorOutput`
in pipeline_spec.proto of kubeflow/pipelines.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import write_json
from pemt_core.errors import ArtifactError, SettingsError

MOUNTS = {"minio://": "/minio/", "s3://": "/s3/", "gs://": "/gcs/"}  # where a launcher keeps what a URI names
METRICS = "metrics"  # the output artifact that has a step's numbers as its metadata
ERROR = "error.txt"  # beside the answer: why there is none


@dataclass(frozen=True)
class Outcome:
    """What a program gives back beside the files that it writes."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Executor:
    """One container's input and answer."""

    def __init__(self, text: str) -> None:
        """Read --executor-input. SettingsError where it is not what Kubeflow gives."""
        try:
            self._inputs, self._outputs = json.loads(text).get("inputs", {}), json.loads(text)["outputs"]
            self._answer = Path(self._outputs["outputFile"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(
                f"--executor-input: not what Kubeflow gives a container, '{{{{$}}}}' in its arguments ({error!r})"
            ) from error

    def paths(self, name: str) -> list[Path]:
        """Where the input artifacts called `name` are: several where the step collects a loop's."""
        listed = self._inputs.get("artifacts", {}).get(name, {}).get("artifacts", [])
        paths = [local_path(artifact["uri"]) for artifact in listed]
        for path in paths:
            if not path.exists():
                raise ArtifactError(
                    f"{path}: Kubeflow named it as one of {len(paths)} {name}, and did not bring it; a backend older "
                    "than 2.5 brings the first of a list alone"
                )
        return paths

    def finish(self, outcome: Outcome) -> None:
        """Name every output artifact, with metrics as the metadata of that one, and every output parameter."""
        artifacts = {}
        for name, listed in self._outputs.get("artifacts", {}).items():
            (artifact,) = listed["artifacts"]
            metadata = dict(outcome.metrics) if name == METRICS else {}
            if name == METRICS:  # a cache takes an artifact without a file for lost
                write_json(local_path(artifact["uri"]), metadata)
            named = {"name": artifact["name"], "uri": artifact["uri"], "metadata": metadata}
            artifacts[name] = {"artifacts": [named]}
        self._answer.with_name(ERROR).unlink(missing_ok=True)  # of an attempt before this one
        write_json(self._answer, {"artifacts": artifacts, "parameterValues": dict(outcome.parameters)})

    def fail(self, message: str) -> None:
        """Leave the message where a runner or a person finds it."""
        path = self._answer.with_name(ERROR)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{message}\n", encoding="utf-8")
        termination_log = Path("/dev/termination-log")  # Kubernetes shows it as the reason why a pod ended
        if termination_log.is_file():
            termination_log.write_text(message, encoding="utf-8")


def local_path(uri: str) -> Path:
    """Where a launcher keeps the artifact with this URI."""
    for scheme, mount in MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    return Path(uri)
