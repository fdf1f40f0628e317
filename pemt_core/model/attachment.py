"""Putting modules in the place of a backbone's own, and taking them out again exactly."""

from torch import Tensor, nn


class Attachment:
    """The record of what was replaced in a backbone, so that `detach` is the exact inverse and `attach` undoes that.

    No tensor of the backbone is written to: a new module owns the one whose place it takes.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._replaced: list[tuple[nn.Module, str, nn.Module, nn.Module]] = []  # parent, name, original, new
        self._required_grad: list[Tensor] = []
        self._attached = True
        self._freeze()

    def replace(self, parent: nn.Module, name: str, new: nn.Module) -> None:
        """Put `new` in the place of `parent.name`."""
        self._replaced.append((parent, name, getattr(parent, name), new))
        setattr(parent, name, new)

    def detach(self) -> None:
        """Put every original back, last replaced first, and let train what was trainable. Repeating it does nothing."""
        if self._attached:
            for parent, name, original, _ in reversed(self._replaced):
                setattr(parent, name, original)
            while self._required_grad:
                self._required_grad.pop().requires_grad_(True)
            self._attached = False

    def attach(self) -> None:
        """Put every new module in again, and freeze. RuntimeError where another model's stand in their places."""
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
