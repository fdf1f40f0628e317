"""Start a run on a cluster, through the API of Kubeflow Pipelines.

pemt submit --host http://localhost:8080 --wait
pemt submit --host https://kubeflow.example/pipeline --namespace team --token-file token --targets rte

The pipeline is registered there as pemt, with one version per image and settings. Inside a cluster, the default is the
token that Kubernetes mounts for Kubeflow Pipelines.
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
from pemt_core.provenance.image import image_name
from pemt_core.settings import Settings
from pipelines.command import (
    add_choices,
    add_image,
    add_params,
    chosen,
    load,
    namespace_name,
    run,
    settings_of_run,
    unfit_for_a_cluster,
)
from pipelines.compile import compile_pipeline, version_name
from pipelines.pipeline import NAME

ANSWER_SECONDS = (3.0, 10.0)  # to connect and to answer; each request is tried four times
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between two checks of a run
AWAY_PAUSE = 3.0  # seconds after a check that got no answer
SILENT_SECONDS = 900.0  # of silence end the waiting: a cluster's API restarts now and then
SUCCEEDED, FAILED = "SUCCEEDED", "FAILED"
ENDS = (SUCCEEDED, FAILED, "SKIPPED", "CANCELED")


class SubmitError(PemtError):
    """The API does not answer or refuses a request, or the run did not succeed."""


class Api(kfp.Client):
    """kfp's client for one namespace, with errors that say what to do."""

    def __init__(
        self, host: str, *, namespace: str | None, token_file: Path | None, cookie_file: Path | None, ca: Path | None
    ) -> None:
        """Connect. SubmitError if no API answers, or a file or the namespace is missing."""
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
                namespace=namespace or "kubeflow",  # kfp's default: it then uses its saved settings
                # Read for each request, so that a token that is renewed in its file outlasts a long run
                credentials=ServiceAccountTokenVolumeCredentials(str(read_from)) if read_from else None,
                cookies=_read_secret(cookie_file, "--cookie-file") if cookie_file else None,
                ssl_ca_cert=str(ca) if ca else None,
            )
            multi_user = self.get_kfp_healthz().multi_user
        if multi_user and not self.namespace:
            raise SubmitError(f"{self._host}: each user has a namespace there; name yours in --namespace")

    @property
    def namespace(self) -> str | None:
        """The user's namespace; None if the deployment has a single user."""
        return self._asked_namespace or self.get_user_namespace() or None

    def get_kfp_healthz(self, sleep_duration: int = 0) -> V2beta1GetHealthzResponse:
        """Ask for the API's health once. kfp's method asks five times in 20 seconds, and prints a trace each time."""
        answer = self.healthzs.healthz_service_get_healthz(_preload_content=False, _request_timeout=ANSWER_SECONDS)
        try:
            return V2beta1GetHealthzResponse(multi_user=json.loads(answer.data).get("multi_user"))
        except (ValueError, AttributeError) as error:
            raise SubmitError(
                f"{self._host}: the server is not the API of Kubeflow Pipelines; it sent "
                f"{answer.headers['content-type']}: a login page (pass --token-file or --cookie-file) or the page of "
                "another program (correct --host)"
            ) from error

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Raise SubmitError, with the server's message, if it refuses the request `what` or does not answer."""
        try:
            yield
        except ApiException as error:
            raise SubmitError(f"{self._host}: {self._refusal(error, what)}") from error
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            raise SubmitError(
                f"{self._host}: no answer to the request {what} ({reason}); correct --host, or forward a port to it: "
                "`kubectl port-forward --namespace kubeflow service/ml-pipeline 8888`"
            ) from error

    def _refusal(self, error: ApiException, what: str) -> str:
        """Explain a status other than success, and what to do."""
        words = f"{error.status} {_words(error)}"
        if error.status == 404 and not (error.body or "").startswith("{"):
            return f"the server is not the API of Kubeflow Pipelines ({words}, request {what}); correct --host"
        if error.status == 403 and self._asked_namespace:
            return f"it refuses the request {what} ({words}); may you use the namespace {self._asked_namespace}?"
        if error.status in (401, 403):
            file = self._secret_file
            fix = f"the content of {file} is wrong or expired" if file else "pass --token-file or --cookie-file"
            return f"it rejects the login for the request {what} ({words}); {fix}"
        return f"it refuses the request {what} ({words})"


def _read_secret(path: Path, flag: str) -> str:
    """Read a token or cookies from a file. SubmitError if that is impossible."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SubmitError(f"{flag} is {path}: not readable ({error}); write the token or cookies there") from error
    if not secret:
        raise SubmitError(f"{flag} is {path}: it is empty; write the token or cookies there")
    if not secret.isprintable() or not secret.isascii():
        raise SubmitError(f"{flag} is {path}: expected one line of ASCII text, as in an HTTP header")
    return secret


def _words(error: ApiException) -> str:
    """Return the server's message, or the name of the status if there is none, as when a proxy sends a page."""
    try:
        answer = json.loads(error.body)
        text = answer.get("message") or answer["error_message"]  # the latter from uploads
    except (ValueError, TypeError, KeyError, AttributeError):
        text = error.reason if (error.body or "<").lstrip().startswith("<") else error.body
    return _one_line(str(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def check(settings: Settings, origin: Path) -> None:
    """Raise SubmitError if a run with these settings would fail."""
    for reason in unfit_for_a_cluster(settings):
        raise SubmitError(f"{origin}: {reason}")


def register(api: Api, package: Path, version: str) -> dict[str, str]:
    """Upload the pipeline and the version unless they exist; return their identifiers."""
    with api.asking(f"for the pipeline {NAME}"):
        found = api.list_pipelines(filter=_named(NAME), namespace=api.namespace).pipelines
        new = V2beta1Pipeline(display_name=NAME, namespace=api.namespace)
        # kfp's upload_pipeline would also create a first version with the pipeline's name
        pipeline = found[0] if found else api.pipelines.pipeline_service_create_pipeline(new)
    with api.asking(f"for the version {version} of the pipeline {NAME}"):
        found = api.list_pipeline_versions(pipeline.pipeline_id, filter=_named(version)).pipeline_versions
        uploaded = found[0] if found else api.upload_pipeline_version(str(package), version, pipeline.pipeline_id)
    return {"pipeline_id": pipeline.pipeline_id, "version_id": uploaded.pipeline_version_id}


def _named(name: str) -> str:
    """Return the API's filter for a display name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def wait(api: Api, started: V2beta1Run) -> None:
    """Wait until a run ends, and print what changes. SubmitError if the run does not succeed.

    kfp's method prints nothing, keeps waiting for a canceled run, and ends when the API is unavailable for a moment.
    """
    current, printed, pause = started, set[str](), FIRST_PAUSE
    while True:
        state = current.state or "PENDING"
        news = [line for line in (state, *(f"failed: {line}" for line in failures(current))) if line not in printed]
        printed.update(news)
        for line in news:
            print(f"{datetime.now():%H:%M:%S} {line}", flush=True)
        if state in ENDS:
            break
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        current = _look(api, started.run_id)
    if state != SUCCEEDED:
        reasons = failures(current) or [current.error.message if current.error else "no step gives a reason"]
        raise SubmitError(f"the run {started.run_id} ended as {state}: {_one_line('; '.join(reasons))}")


def _look(api: Api, run_id: str) -> V2beta1Run:
    """Return the run as it is now, asking again while the API does not answer."""
    begin = time.monotonic()
    while True:
        try:
            with api.asking(f"for the run {run_id}, which continues"):
                return api.runs.run_service_get_run(run_id, _request_timeout=ANSWER_SECONDS)
        except SubmitError as error:
            cause = error.__cause__
            refused = isinstance(cause, ApiException) and cause.status < 500
            if refused or time.monotonic() - begin > SILENT_SECONDS:
                raise
        time.sleep(AWAY_PAUSE)


def failures(current: V2beta1Run) -> list[str]:
    """Return name and message of each failed step, in the order of failure, without the loops that fail with it."""
    details = (current.run_details and current.run_details.task_details) or []
    failed = [task for task in details if task.state == FAILED]
    names = {name for task in failed for name in (task.task_id, task.pod_name) if name}
    inner = [task for task in failed if not any({c.task_id, c.pod_name} & names for c in task.child_tasks or [])]
    inner.sort(key=lambda task: (str(task.end_time or ""), task.display_name))
    return [f"{task.display_name}: {_reason(task)}" for task in inner]


def _reason(task: V2beta1PipelineTaskDetail) -> str:
    """Return why a step failed, if the API knows."""
    errors = [task.error, *(status.error for status in task.state_history or [])]
    return next((_one_line(error.message) for error in errors if error and error.message), "see its log")


def main(arguments: argparse.Namespace) -> None:
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of every retry
    settings, params = load(arguments.params)
    check(settings_of_run(params, chosen(arguments), arguments.params), arguments.params)
    image = arguments.image or image_name(settings.kubeflow)
    files = {name: getattr(arguments, name) for name in ("token_file", "cookie_file", "ca")}
    api = Api(arguments.host, namespace=arguments.namespace, **files)
    name = arguments.experiment or settings.tracking.experiment
    with api.asking(f"for the experiment {name}"):  # kfp prints the page of what it creates
        experiment = api.create_experiment(name, namespace=api.namespace)
    with TemporaryDirectory() as folder:
        package = Path(folder) / "pemt.yaml"
        # kfp's own switch for the cache skips registered pipelines and the steps inside loops
        compile_pipeline(settings, params, image, package, cache=not arguments.no_cache)
        version = version_name(image, package)
        registered = register(api, package, version)
    name = arguments.run_name or f"{NAME} {datetime.now():%Y-%m-%d %H-%M-%S}"
    root = arguments.pipeline_root
    with api.asking(f"for a run of {version}"):
        started = api.run_pipeline(
            experiment.experiment_id, name, params=chosen(arguments), pipeline_root=root, **registered
        )
    print(f"Image: {image}" + ("" if "/" in image else ", which has no registry: the nodes must already have it"))
    if arguments.wait:
        try:
            wait(api, started)
        except KeyboardInterrupt:
            raise SubmitError(f"stopped waiting for the run {started.run_id}, which continues") from None


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_params(parser)
    add_choices(parser)
    parser.add_argument("--host", required=True, metavar="URL", help="the API's address, as http://localhost:8080")
    parser.add_argument("--namespace", type=namespace_name, help="your namespace, if the deployment has several users")
    parser.add_argument("--experiment", metavar="NAME", help="experiment of the run (default: tracking.experiment)")
    parser.add_argument("--run-name", metavar="NAME", help="name of the run (default: pemt and the time)")
    parser.add_argument("--pipeline-root", metavar="URI", help="where artifacts go (default: the deployment's)")
    add_image(parser)
    parser.add_argument("--no-cache", action="store_true", help="run every step again")
    parser.add_argument("--wait", action="store_true", help="wait until the run ends; exit code 0 only if it succeeds")
    secrets = parser.add_mutually_exclusive_group()
    secrets.add_argument("--token-file", type=Path, metavar="FILE", help="file with a bearer token")
    secrets.add_argument("--cookie-file", type=Path, metavar="FILE", help="file with cookies, name=value; name=value")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust (default: the well-known ones)")
    return parser


if __name__ == "__main__":
    run(main, make_parser())
