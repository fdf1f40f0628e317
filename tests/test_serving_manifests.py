"""The manifests that `pemt serve --manifests` writes: what the container is told, and what is refused."""

import re
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML
from source_code import REPOSITORY

from components import serve
from pemt_core.errors import SettingsError


def manifests(folder: Path, *words: str, params: Path = REPOSITORY / "params.yaml") -> dict[str, Any]:
    """Write manifests by the command, and return their content by the name of the file."""
    given = ["cb", "--manifests", str(folder), "--image", "pemt:1", "--params", str(params), *words]
    serve.main(serve.make_parser().parse_args(given))
    return {path.stem: YAML(typ="safe").load(path) for path in folder.iterdir()}


def test_manifests_pass_flags_on(tmp_path: Path) -> None:
    words = ["--wait", "0.5", "--batch", "1000000", "--queue", "2000000", "--poll", "0.0", "--admin"]
    others = ["--wait", "3", "--batch", "256", "--queue", "1024", "--poll", "10"]  # the defaults
    for given, expected in ((words, words), (others, []), (["--no-admin"], ["--no-admin"])):
        resources = manifests(tmp_path, *given)
        (container,) = resources["deployment"]["spec"]["template"]["spec"]["containers"]
        (predictor,) = resources["inferenceservice"]["spec"]["predictor"]["containers"]
        assert container["args"][container["args"].index("8080") + 1 :] == expected
        assert predictor["args"] == container["args"]
        flags = serve.make_parser().parse_args(container["args"])
        asked = serve.make_parser().parse_args(given)
        names = ("wait", "batch", "queue", "poll", "admin")
        assert [getattr(flags, name) for name in names] == [getattr(asked, name) for name in names]


@pytest.mark.parametrize("name", ["/Users/ann@example.org/été", "x" * 200])
def test_an_experiment_of_any_name_is_a_label(tmp_path: Path, name: str) -> None:
    found = manifests(tmp_path, "--experiment", name)
    for resource in (found["deployment"], found["service"]):
        label = resource["metadata"]["labels"]["app.kubernetes.io/instance"]
        assert re.fullmatch("[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", label)


def test_manifests_are_checked(tmp_path: Path) -> None:
    folder, params = tmp_path / "k8s", tmp_path / "params.yaml"
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    with pytest.raises(SettingsError, match=r"^--queue is 0, expected 1 or more$"):
        manifests(folder, "--queue", "0")
    with pytest.raises(SettingsError, match=r"^--wait is -1, expected 0 or more$"):
        manifests(folder, "--wait", "-1")
    text = (REPOSITORY / "params.yaml").read_text()
    assert "secret: pemt-tracking" in text
    params.write_text(text.replace("secret: pemt-tracking", 'secret: ""'))
    with pytest.raises(SettingsError, match=r"^kubeflow.secret is empty, .* a Secret with MLFLOW_TRACKING_URI$"):
        manifests(folder, params=params)
    assert not folder.exists()


def test_the_inference_service_has_no_unknown_part(tmp_path: Path) -> None:
    """Its predictor is a pod beside the numbers of its replicas, and its metadata are those of any resource."""
    found = manifests(tmp_path)["inferenceservice"]
    assert found.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert found["spec"].keys() == {"predictor"}
    predictor = dict(found["spec"]["predictor"])
    least, most = predictor.pop("minReplicas"), predictor.pop("maxReplicas")
    assert (type(least), type(most)) == (int, int)
    assert 0 < least <= most
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": found["metadata"], "spec": predictor}
    kubernetes_validate.validate(pod, "1.31", strict=True)
