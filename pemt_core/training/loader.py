"""Batches on the device that trains. For a GPU, a thread makes the next ones while a step runs."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class TrainingData(Protocol):
    """Rows in batches: the rows of each batch, and their tensors."""

    def batches(self, epoch: int) -> list[NDArray[np.int64]]: ...

    def collate(self, rows: NDArray[np.int64], epoch: int) -> dict[str, Tensor]: ...


class Loader:
    """Collates rows, and copies them to the device.

    With `ahead`, what is announced is collated in a thread, for a GPU in pinned memory, from which a copy does not wait
    for the steps before it. What is loaded does not depend on it.
    """

    def __init__(self, data: TrainingData, device: torch.device, *, ahead: bool) -> None:
        self.data, self.device = data, device
        self._executor = ThreadPoolExecutor(1, "loader") if ahead else None
        self._announced: dict[tuple[int, bytes], Future[dict[str, Tensor]]] = {}

    def announce(self, parts: Iterable[NDArray[np.int64]], epoch: int) -> None:
        """Collate in the background what `load` will be called for next."""
        if self._executor is not None:
            for rows in parts:
                self._announced[epoch, rows.tobytes()] = self._executor.submit(self._collate, rows, epoch)

    def load(self, rows: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        """The rows' tensors on the device. Raises what collating them raises."""
        announced = self._announced.pop((epoch, rows.tobytes()), None)
        batch = self._collate(rows, epoch) if announced is None else announced.result()
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def close(self) -> None:
        """End the thread. What is loaded afterwards is collated when it is asked for."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        self._executor = None
        self._announced.clear()

    def _collate(self, rows: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        batch = self.data.collate(rows, epoch)
        return {n: t.pin_memory() for n, t in batch.items()} if self.device.type == "cuda" else batch
