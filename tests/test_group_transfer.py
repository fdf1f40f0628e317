"""How a transfer feeds its groups: the device."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import World

from pemt_core.steps import transfer as transfer_step

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


class StoppedError(Exception):
    """Ends a transfer where the test has seen enough."""


def test_the_backbone_is_on_the_device_before_groups_are_sized(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group is built where the backbone is. `meta` is a device that every machine has."""
    found: list[set[str]] = []

    def sized(_asked: Any, backbone: Any, _methods: Any) -> int:
        found.append({parameter.device.type for parameter in backbone.parameters()})
        raise StoppedError

    elsewhere = SimpleNamespace(device=torch.device("meta"), num_processes=1, is_main_process=True)
    monkeypatch.setattr(transfer_step, "make_accelerator", lambda _precision: elsewhere)
    monkeypatch.setattr(transfer_step, "rows_of", sized)
    with pytest.raises(StoppedError):
        world.transfer(tmp_path / "out")
    assert found == [{"meta"}]
