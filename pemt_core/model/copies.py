"""Copies to the device that computes."""

import torch
from torch import Tensor


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on `device`. The copy to a GPU waits for nothing that the GPU still has to do."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
