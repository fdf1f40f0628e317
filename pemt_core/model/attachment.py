"""Putting modules in the place of a backbone's own, and taking them out again exactly."""

from torch import Tensor, nn


class Attachment:
    """The record of what was replaced in a backbone, so that `detach` is the exact inverse.

    No tensor of the backbone is written to: a new module owns the one whose place it takes.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []
        self._required_grad: list[Tensor] = [p for p in backbone.parameters() if p.requires_grad]
        for parameter in self._required_grad:
            parameter.requires_grad_(False)

    def replace(self, parent: nn.Module, name: str, new: nn.Module) -> None:
        """Put `new` in the place of `parent.name`."""
        self._replaced.append((parent, name, getattr(parent, name)))
        setattr(parent, name, new)

    def detach(self) -> None:
        """Put every original back, last replaced first, and let train what was trainable. Repeating it does nothing."""
        while self._replaced:
            parent, name, original = self._replaced.pop()
            setattr(parent, name, original)
        while self._required_grad:
            self._required_grad.pop().requires_grad_(True)
