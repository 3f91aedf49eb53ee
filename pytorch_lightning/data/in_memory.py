"""Batches of a ``TensorDataset`` by one index per tensor, where that gives what the ``DataLoader`` would give.

A ``DataLoader`` takes each sample out by itself and stacks them: 163 us for 32 samples of two tensors, where one
``index_select`` per tensor takes a few. The first batch of each size is made both ways; only where both are alike,
layout in memory and bytes, are further ones of that size made the short way.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate

WHOLE = {int, np.int64}
"""Types of index that mean the same one by one as together (a bool doesn't)."""


def is_in_memory(loader: DataLoader[Any]) -> bool:
    """Whether ``loader`` only takes samples out of tensors and stacks them, in this process."""
    return (
        type(loader.dataset) is TensorDataset
        and loader.collate_fn is default_collate
        and loader.batch_sampler is not None
        and not loader.num_workers
        and not (loader.pin_memory and torch.accelerator.is_available())
    )


class InMemory:
    """The batches of a ``TensorDataset`` as ``default_collate`` makes them."""

    def __init__(self, dataset: TensorDataset) -> None:
        self._dataset = dataset
        self._tensors: Any = None
        self._alike: dict[int, bool] = {}
        """By the size of a batch, whether the short way gives what the long one gives."""

    def batches(self, drawn: Iterable[tuple[int, Any, "array[int] | None", int]]) -> Iterator[Any]:
        """The batches of the indices that ``drawn`` gives (see ``IndexPlan.drawn``)."""
        dataset, alike, select, from_buffer = self._dataset, self._alike, torch.index_select, torch.frombuffer
        for _, indices, whole, _ in drawn:
            if dataset.tensors is not self._tensors:  # at first, and where a user puts others in their place
                self._tensors = dataset.tensors
                alike.clear()
            if whole is not None and alike.get(len(indices)) and WHOLE.issuperset(map(type, indices)):
                rows = from_buffer(whole, dtype=torch.int64)
                batch = []
                try:
                    for tensor in dataset.tensors:  # not a comprehension: that would be one more call a batch
                        batch.append(select(tensor, 0, rows))
                except IndexError:  # below zero, or too large: the long way knows
                    batch = default_collate([dataset[index] for index in indices])
            else:
                batch = default_collate([dataset[index] for index in indices])
                if whole is not None and len(indices) not in alike:
                    alike[len(indices)] = _is_alike(dataset.tensors, batch, whole)
            yield batch


def _is_alike(tensors: Sequence[Tensor], batch: Any, whole: "array[int]") -> bool:
    """Whether ``index_select`` gives this ``batch``: type, dtype, strides and bytes."""
    if not all(map(_is_plain, tensors)) or type(batch) is not list:
        return False
    rows = torch.frombuffer(whole, dtype=torch.int64)
    if int(rows.min()) < 0 or not all(map(_is_plain, batch)):
        return False
    selected = [torch.index_select(tensor, 0, rows) for tensor in tensors]
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride() and _bytes(a).equal(_bytes(b))
        for a, b in zip(batch, selected, strict=True)
    )


def _is_plain(tensor: Any) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.requires_grad or tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and not tensor.is_inference()
    )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)
