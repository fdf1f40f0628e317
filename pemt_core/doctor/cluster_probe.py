"""Probe the cluster of the current context and print JSON: `python -m pemt_core.doctor.cluster_probe`.

It runs in a separate process that can be killed, since the login command of a context may wait for input.
"""

import json

from kubernetes import client, config
from urllib3 import Retry
from urllib3.exceptions import HTTPError

SECONDS = 3.0


def see() -> dict[str, str]:
    """Return context, server, and version or error; an empty dict without a current context."""
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
