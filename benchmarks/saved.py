"""The memory that autograd keeps from forward to backward."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], Tensor], constants: Iterable[Tensor]) -> int:
    """The bytes that a forward pass keeps for the backward pass, each storage once, without those of `constants`."""
    known = {each.untyped_storage().data_ptr() for each in constants}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storages.values())
