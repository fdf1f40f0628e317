"""The current context's cluster, as JSON: `python -m pemt_core.doctor.cluster_probe`.

A process of its own, which can be ended: what a context names as its way to log in may wait for a person.
"""

import json

from kubernetes import client, config
from urllib3 import Retry
from urllib3.exceptions import HTTPError

SECONDS = 3.0


def see() -> dict[str, str]:
    """Context, server, and version or error; nothing where there is no context."""
    settings = client.Configuration()
    settings.retries = Retry(0)
    try:
        _, context = config.list_kube_config_contexts()
        config.load_kube_config(client_configuration=settings)
    except config.ConfigException:
        return {}
    seen = {"context": str(context["name"]), "server": str(settings.host)}
    try:
        version = client.VersionApi(client.ApiClient(settings)).get_code(_request_timeout=SECONDS)
        return {**seen, "version": str(version.git_version)}
    except (client.ApiException, HTTPError) as error:
        return {**seen, "error": str(getattr(error, "reason", error)).split("\n")[0]}


if __name__ == "__main__":
    print(json.dumps(see()))
