"""Replace modules and parameters of a backbone, and restore them exactly."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

_Part = nn.Module | nn.Parameter


class Change(NamedTuple):
    """A module or parameter that takes the place of `parent.attribute`, and what it trains, by names in artifacts."""

    parent: nn.Module
    attribute: str
    new: _Part
    trained: Mapping[str, nn.Parameter]


class Attachment:
    """A record of what was replaced in a backbone: `detach` restores it exactly, `attach` puts the new modules back.

    The backbone's tensors are never written to: a new module holds the module that it replaces, and a new parameter is
    another tensor.
    """

    @classmethod
    @contextmanager
    def whole(cls, backbone: nn.Module) -> Iterator["Attachment"]:
        """Yield an attachment for the block that makes it; an error in the block leaves the backbone as it was."""
        attachment = cls(backbone)
        try:
            yield attachment
        except BaseException:
            attachment.detach()
            raise

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._replaced: list[tuple[nn.Module, str, _Part, _Part]] = []  # parent, name, original, new
        self._required_grad: list[Tensor] = []
        self._attached = True
        self._freeze()

    def replace(self, parent: nn.Module, name: str, new: _Part) -> None:
        """Replace `parent.name` with `new`; once, because `attach` expects the backbone's at every place."""
        self._replaced.append((parent, name, getattr(parent, name), new))
        setattr(parent, name, new)

    def make(self, changes: Iterable[Change]) -> dict[str, nn.Parameter]:
        """Make all `changes`, and return what they train. All are made of the backbone as it was."""
        trained: dict[str, nn.Parameter] = {}
        for change in list(changes):
            self.replace(change.parent, change.attribute, change.new)
            trained |= change.trained
        return trained

    def detach(self) -> None:
        """Restore every original, last replaced first, and every `requires_grad`. Repeated calls do nothing."""
        if self._attached:
            for parent, name, original, _ in reversed(self._replaced):
                setattr(parent, name, original)
            while self._required_grad:
                self._required_grad.pop().requires_grad_(True)
            self._attached = False

    def attach(self) -> None:
        """Put every new module back, and freeze the backbone. Raises RuntimeError if another model is attached."""
        if not self._attached:
            for parent, name, original, _ in self._replaced:
                if getattr(parent, name) is not original:
                    raise RuntimeError(f"the backbone's '{name}' is already replaced: detach the other model first")
            self._freeze()
            for parent, name, _, new in self._replaced:
                setattr(parent, name, new)
            self._attached = True

    def _freeze(self) -> None:
        self._required_grad = [parameter for parameter in self._backbone.parameters() if parameter.requires_grad]
        for parameter in self._required_grad:
            parameter.requires_grad_(False)


def copied(tensors: Mapping[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """Copy tensors to the backbone's device, so that training does not change the caller's."""
    device = backbone.get_input_embeddings().weight.device
    return {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}
