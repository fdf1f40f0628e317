"""Kubeflow's contract with a container: --executor-input describes inputs and outputs, and names the answer's file.

An output counts only if the answer names it, both under the local runner and under a cluster's launcher:
https://www.kubeflow.org/docs/components/pipelines/reference/local-execution/ and `ExecutorInput` and `ExecutorOutput`
in pipeline_spec.proto of kubeflow/pipelines.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import write_json
from pemt_core.errors import ArtifactError, SettingsError, cut

MOUNTS = {
    "minio://": "/minio/",
    "s3://": "/s3/",
    "gs://": "/gcs/",
}  # local folders of artifacts by URI
METRICS = "metrics"  # the output artifact whose metadata are a step's metrics
ERROR = "error.txt"  # beside the answer's file: why the step failed


@dataclass(frozen=True)
class Outcome:
    """What a program returns besides the files that it writes."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Executor:
    """The input and the answer of one container."""

    def __init__(self, text: str) -> None:
        """Parse --executor-input. SettingsError if it does not come from Kubeflow."""
        try:
            values = json.loads(text)
            self._inputs, self._outputs = values.get("inputs", {}), values["outputs"]
            self._answer = Path(self._outputs["outputFile"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = cut(repr(error))
            raise SettingsError(
                f"--executor-input: expected the JSON that Kubeflow passes to a container for '{{{{$}}}}' ({reason})"
            ) from error

    def paths(self, name: str) -> list[Path]:
        """Return the paths of the input artifacts `name`, several if the step collects a loop's outputs.

        ArtifactError if one is missing.
        """
        listed = self._inputs.get("artifacts", {}).get(name, {}).get("artifacts", [])
        paths = [local_path(artifact["uri"]) for artifact in listed]
        for path in paths:
            if not path.exists():
                raise ArtifactError(
                    f"{path}: Kubeflow lists it as one of {len(paths)} {name}, but did not provide it; backends older "
                    "than 2.5 provide only the first of a list"
                )
        return paths

    def finish(self, outcome: Outcome) -> None:
        """Write the answer: every output artifact, the metrics as metadata of METRICS, and every output parameter."""
        artifacts = {}
        for name, listed in self._outputs.get("artifacts", {}).items():
            (artifact,) = listed["artifacts"]
            metadata = dict(outcome.metrics) if name == METRICS else {}
            if name == METRICS:  # a cache treats an artifact without a file as lost
                write_json(local_path(artifact["uri"]), metadata)
            named = {"name": artifact["name"], "uri": artifact["uri"], "metadata": metadata}
            artifacts[name] = {"artifacts": [named]}
        self._answer.with_name(ERROR).unlink(missing_ok=True)  # of an earlier attempt
        write_json(self._answer, {"artifacts": artifacts, "parameterValues": dict(outcome.parameters)})

    def fail(self, message: str) -> None:
        """Write the message to the error file, and to the termination log of a pod, as far as that is possible."""
        path = self._answer.with_name(ERROR)
        termination_log = Path("/dev/termination-log")  # Kubernetes shows it as the reason for the pod's end
        readable = message.encode(errors="backslashreplace")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(readable + b"\n")
        with suppress(OSError):
            if termination_log.is_file():
                termination_log.write_bytes(readable)


def local_path(uri: str) -> Path:
    """Return the local path of the artifact with this URI."""
    for scheme, mount in MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    return Path(uri)
