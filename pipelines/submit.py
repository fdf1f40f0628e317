"""Start a run on a cluster, through the API of Kubeflow Pipelines.

pemt submit --host http://localhost:8080 --wait
pemt submit --host https://kubeflow.example/pipeline --namespace team --token-file token --targets rte

The pipeline is registered there as pemt, with a version for each image and settings: the same ones make no new version.
In a cluster, the token that Kubernetes mounts for Kubeflow Pipelines serves where no file is named.
"""

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import kfp
from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH, ServiceAccountTokenVolumeCredentials
from kfp_server_api import (
    ApiException,
    V2beta1GetHealthzResponse,
    V2beta1Pipeline,
    V2beta1PipelineTaskDetail,
    V2beta1Run,
)
from urllib3.exceptions import HTTPError, MaxRetryError

from pemt_core.errors import PemtError
from pemt_core.settings import Settings
from pipelines.command import add_choices, add_params, chosen, load, run, settings_of_run, unfit_for_a_cluster
from pipelines.compile import compile_pipeline, version_name
from pipelines.image import image_name
from pipelines.pipeline import NAME

ANSWER_SECONDS = (3.0, 10.0)  # to connect, and to answer; tried four times
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between two looks at a run
AWAY_PAUSE = 3.0  # where it did not answer
SILENT_SECONDS = 900.0  # without an answer until waiting is given up: a cluster's API restarts now and then
SUCCEEDED, FAILED = "SUCCEEDED", "FAILED"
ENDS = (SUCCEEDED, FAILED, "SKIPPED", "CANCELED")


class SubmitError(PemtError):
    """The API is not there or refuses what it is asked, or the run did not succeed."""


class Api(kfp.Client):
    """kfp's client for one namespace, with errors that say what to do."""

    def __init__(
        self, host: str, *, namespace: str | None, token_file: Path | None, cookie_file: Path | None, ca: Path | None
    ) -> None:
        """SubmitError where no API answers, or a file or the namespace is missing."""
        self._host, self._asked_namespace, self._secret_file = host.rstrip("/"), namespace, token_file or cookie_file
        if not host.startswith(("http://", "https://")):
            raise SubmitError(f"--host is '{host}': expected a URL that begins with http:// or https://")
        if ca and not ca.is_file():
            raise SubmitError(f"--ca is {ca}: no such file; expected certificates in PEM format")
        if token_file:
            _read_secret(token_file, "--token-file")
        mounted = Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV) or KF_PIPELINES_SA_TOKEN_PATH)
        read_from = token_file or (mounted if not cookie_file and mounted.is_file() else None)
        with self.asking("for its health"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This client only works with", category=FutureWarning)
            super().__init__(
                host=self._host,
                namespace=namespace or "kubeflow",  # which stands for what kfp's own settings say
                # Read for each request: a token that is renewed in its file outlives a long run
                credentials=ServiceAccountTokenVolumeCredentials(str(read_from)) if read_from else None,
                cookies=_read_secret(cookie_file, "--cookie-file") if cookie_file else None,
                ssl_ca_cert=str(ca) if ca else None,
            )
            multi_user = self.get_kfp_healthz().multi_user
        if multi_user and not self.namespace:
            raise SubmitError(f"{self._host}: each of its users has a namespace; name yours in --namespace")

    @property
    def namespace(self) -> str | None:
        """None where the deployment has a single user."""
        return self._asked_namespace or self.get_user_namespace() or None

    def get_kfp_healthz(self, sleep_duration: int = 0) -> V2beta1GetHealthzResponse:
        """Asked for once. kfp's own asks five times in 20 seconds, and prints a trace each time."""
        answer = self.healthzs.healthz_service_get_healthz(_preload_content=False, _request_timeout=ANSWER_SECONDS)
        try:
            return V2beta1GetHealthzResponse(multi_user=json.loads(answer.data).get("multi_user"))
        except (ValueError, AttributeError) as error:
            raise SubmitError(
                f"{self._host}: what answers is not the API of Kubeflow Pipelines, but {answer.headers['content-type']}"
                ": a page to log in, where --token-file or --cookie-file is missing, or another program; correct --host"
            ) from error

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """SubmitError with the server's words where it is asked for `what` and refuses, or does not answer."""
        try:
            yield
        except ApiException as error:
            raise SubmitError(f"{self._host}: {self._refusal(error, what)}") from error
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            raise SubmitError(
                f"{self._host}: no answer, asked {what} ({reason}); correct --host, or open the way there, "
                "as `kubectl port-forward --namespace kubeflow service/ml-pipeline 8888` does"
            ) from error

    def _refusal(self, error: ApiException, what: str) -> str:
        """What a status other than success means here, and what to do."""
        words = f"{error.status} {_words(error)}"
        if error.status == 404 and not (error.body or "").startswith("{"):
            return f"what answers is not the API of Kubeflow Pipelines ({words}, asked {what}); correct --host"
        if error.status == 403 and self._asked_namespace:
            return f"asked {what}, it refuses ({words}); is {self._asked_namespace} a namespace that you may use?"
        if error.status in (401, 403):
            file = self._secret_file
            mend = f"what is in {file} is wrong or too old" if file else "name a --token-file or --cookie-file"
            return f"asked {what}, it does not let you in ({words}); {mend}"
        return f"asked {what}, it refuses ({words})"


def _read_secret(path: Path, flag: str) -> str:
    """The content of a file. SubmitError where there is none."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SubmitError(f"{flag} is {path}: not readable ({error}); write the token or cookies there") from error
    if not secret:
        raise SubmitError(f"{flag} is {path}: it is empty; write the token or cookies there")
    if not secret.isprintable() or not secret.isascii():
        raise SubmitError(f"{flag} is {path}: expected one line of ASCII text, as a header of HTTP can hold")
    return secret


def _words(error: ApiException) -> str:
    """The server's own words, or the name of the status where it has none, as where a proxy answers with a page."""
    try:
        answer = json.loads(error.body)
        text = answer.get("message") or answer["error_message"]  # the latter where files are uploaded
    except (ValueError, TypeError, KeyError, AttributeError):
        text = error.reason if (error.body or "<").lstrip().startswith("<") else error.body
    return _one_line(str(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def check(settings: Settings, origin: Path) -> None:
    """SubmitError where a run with these settings could only fail."""
    for reason in unfit_for_a_cluster(settings):
        raise SubmitError(f"{origin}: {reason}")


def register(api: Api, package: Path, version: str) -> dict[str, str]:
    """Upload what is not there yet; returns the identifiers of pipeline and version."""
    with api.asking(f"for the pipeline {NAME}"):
        found = api.list_pipelines(filter=_named(NAME), namespace=api.namespace).pipelines
        wanted = V2beta1Pipeline(display_name=NAME, namespace=api.namespace)
        # Not kfp's upload_pipeline: that makes a first version with the pipeline's name
        pipeline = found[0] if found else api.pipelines.pipeline_service_create_pipeline(wanted)
    with api.asking(f"for the version {version} of the pipeline {NAME}"):
        found = api.list_pipeline_versions(pipeline.pipeline_id, filter=_named(version)).pipeline_versions
        uploaded = found[0] if found else api.upload_pipeline_version(str(package), version, pipeline.pipeline_id)
    return {"pipeline_id": pipeline.pipeline_id, "version_id": uploaded.pipeline_version_id}


def _named(name: str) -> str:
    """The filter for what has this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def wait(api: Api, started: V2beta1Run) -> None:
    """Look at a run until it ends, and say what is new. SubmitError where it does not succeed.

    kfp's own wait is silent, takes a canceled run for one that goes on, and ends when the API is away for a moment.
    """
    current, told, pause = started, set[str](), FIRST_PAUSE
    while True:
        state = current.state or "PENDING"
        news = [line for line in (state, *(f"failed: {line}" for line in failures(current))) if line not in told]
        told.update(news)
        for line in news:
            print(f"{datetime.now():%H:%M:%S} {line}", flush=True)
        if state in ENDS:
            break
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        current = _look(api, started.run_id)
    if state != SUCCEEDED:
        reasons = failures(current) or [current.error.message if current.error else "no step says why"]
        raise SubmitError(f"the run {started.run_id} ended as {state}: {_one_line('; '.join(reasons))}")


def _look(api: Api, run_id: str) -> V2beta1Run:
    """The run as it is now, asked for again while the API is away."""
    begin = time.monotonic()
    while True:
        try:
            with api.asking(f"for the run {run_id}, which goes on"):
                return api.runs.run_service_get_run(run_id, _request_timeout=ANSWER_SECONDS)
        except SubmitError as error:
            cause = error.__cause__
            refused = isinstance(cause, ApiException) and cause.status < 500
            if refused or time.monotonic() - begin > SILENT_SECONDS:
                raise
        time.sleep(AWAY_PAUSE)


def failures(current: V2beta1Run) -> list[str]:
    """Name and message of each step that failed, in that order; not of the loops around it, which fail with it."""
    details = (current.run_details and current.run_details.task_details) or []
    failed = [task for task in details if task.state == FAILED]
    names = {name for task in failed for name in (task.task_id, task.pod_name) if name}
    inner = [task for task in failed if not any({c.task_id, c.pod_name} & names for c in task.child_tasks or [])]
    inner.sort(key=lambda task: (str(task.end_time or ""), task.display_name))
    return [f"{task.display_name}: {_reason(task)}" for task in inner]


def _reason(task: V2beta1PipelineTaskDetail) -> str:
    """Why a step failed, where the API knows."""
    errors = [task.error, *(status.error for status in task.state_history or [])]
    return next((_one_line(error.message) for error in errors if error and error.message), "its log says why")


def main(arguments: argparse.Namespace) -> None:
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # which warns of every retry
    settings, params = load(arguments.params)
    check(settings_of_run(params, chosen(arguments), arguments.params), arguments.params)
    image = arguments.image or image_name(settings.kubeflow)
    files = {name: getattr(arguments, name) for name in ("token_file", "cookie_file", "ca")}
    api = Api(arguments.host, namespace=arguments.namespace, **files)
    name = arguments.experiment or settings.tracking.experiment
    with api.asking(f"for the experiment {name}"):  # each of these prints where it is to be seen
        experiment = api.create_experiment(name, namespace=api.namespace)
    with TemporaryDirectory() as folder:
        package = Path(folder) / "pemt.yaml"
        # Not by kfp's own switch: it leaves out registered pipelines, and what is inside loops
        compile_pipeline(settings, params, image, package, cache=not arguments.no_cache)
        version = version_name(image, package)
        registered = register(api, package, version)
    name = arguments.run_name or f"{NAME} {datetime.now():%Y-%m-%d %H-%M-%S}"
    root = arguments.pipeline_root
    with api.asking(f"for a run of {version}"):
        started = api.run_pipeline(
            experiment.experiment_id, name, params=chosen(arguments), pipeline_root=root, **registered
        )
    print(f"It runs in {image}" + ("" if "/" in image else ", a name without a registry: nodes must have it already"))
    if arguments.wait:
        try:
            wait(api, started)
        except KeyboardInterrupt:
            raise SubmitError(f"no longer waiting for the run {started.run_id}, which goes on") from None


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_params(parser)
    add_choices(parser)
    parser.add_argument("--host", required=True, metavar="URL", help="where the API is, such as http://localhost:8080")
    parser.add_argument("--namespace", help="yours, where the deployment keeps its users apart")
    parser.add_argument("--experiment", metavar="NAME", help="to list the run under (default: tracking.experiment)")
    parser.add_argument("--run-name", metavar="NAME", help="of the run (default: pemt and the time)")
    parser.add_argument("--pipeline-root", metavar="URI", help="where artifacts go (default: as the deployment says)")
    parser.add_argument("--image", help="image of all steps (default: kubeflow.image, tagged by its content)")
    parser.add_argument("--no-cache", action="store_true", help="run every step again")
    parser.add_argument("--wait", action="store_true", help="until the run ends; exit code 0 only if it succeeded")
    secrets = parser.add_mutually_exclusive_group()
    secrets.add_argument("--token-file", type=Path, metavar="FILE", help="holds a bearer token")
    secrets.add_argument("--cookie-file", type=Path, metavar="FILE", help="holds cookies, as name=value; name=value")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust (default: the well-known ones)")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
