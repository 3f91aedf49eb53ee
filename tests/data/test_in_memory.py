"""Tensors in memory, fetched whole: the same batches, made faster."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from pytorch_lightning import LightningModule, seeding
from pytorch_lightning.data.replayable import replayable
from tests.recorder import quiet_trainer

NB = 23


def image() -> Tensor:
    return torch.randn(NB, 3, 4, 5)


class OwnBatches(Sampler[list[Any]]):
    """Indices of every kind, batch after batch."""

    def __init__(self, batches: list[list[Any]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


TENSORS: dict[str, Any] = {
    "plain": lambda: torch.randn(NB, 7),
    "one number": lambda: torch.arange(NB),
    "bool": lambda: torch.arange(NB) % 2 == 0,
    "bfloat16": lambda: torch.randn(NB, 2).bfloat16(),
    "complex": lambda: torch.randn(NB, 2, dtype=torch.complex64),
    "conjugated": lambda: torch.randn(NB, 2, dtype=torch.complex64).conj(),
    "not a number": lambda: torch.full((NB, 2), float("nan")),
    "image": image,
    "channels last": lambda: image().contiguous(memory_format=torch.channels_last),
    "one channel last": lambda: torch.randn(NB, 1, 4, 5).contiguous(memory_format=torch.channels_last),
    "channels last in 3d": lambda: torch.randn(NB, 2, 3, 4, 5).contiguous(memory_format=torch.channels_last_3d),
    "frames, channels last": lambda: (
        torch.randn(2 * NB, 3, 4, 5).contiguous(memory_format=torch.channels_last).unflatten(0, (NB, 2))
    ),
    "transposed": lambda: torch.randn(7, NB).t(),
    "permuted": lambda: torch.randn(4, NB, 3).permute(1, 2, 0),
    "every other": lambda: torch.randn(NB, 8)[:, ::2],
    "expanded": lambda: torch.randn(NB, 1).expand(NB, 5),
    "one for all": lambda: torch.randn(1, 4).expand(NB, 4),
    "empty": lambda: torch.randn(NB, 0, 3),
    "ones": lambda: torch.randn(NB, 1, 1, 1),
    "requires grad": lambda: torch.randn(NB, 3, requires_grad=True),
    "parameter": lambda: nn.Parameter(torch.randn(NB, 3)),
    "quantized": lambda: torch.quantize_per_tensor(torch.randn(NB, 3), 0.1, 0, torch.qint8),
}

LOADERS: dict[str, Any] = {
    "shuffled": lambda data: DataLoader(data, 4, shuffle=True),
    "in order": lambda data: DataLoader(data, 4),
    "drop_last": lambda data: DataLoader(data, 5, shuffle=True, drop_last=True),
    "generator": lambda data: DataLoader(data, 4, shuffle=True, generator=torch.Generator().manual_seed(9)),
    "weighted": lambda data: DataLoader(data, 4, sampler=WeightedRandomSampler(torch.arange(1.0, NB + 1), NB)),
    "subset": lambda data: DataLoader(data, 4, sampler=SubsetRandomSampler(range(3, NB))),
    "numpy subset": lambda data: DataLoader(data, 4, sampler=SubsetRandomSampler(np.arange(3, NB))),
    "tensor subset": lambda data: DataLoader(data, 4, sampler=SubsetRandomSampler(torch.arange(3, NB))),
    "negative": lambda data: DataLoader(data, batch_sampler=OwnBatches([[0, 1], [2, -1], [-2, 3], [4, 5]])),
    "bools": lambda data: DataLoader(data, batch_sampler=OwnBatches([[0, 1], [True, True], [2, 3]])),
    "slices": lambda data: DataLoader(data, batch_sampler=OwnBatches([[slice(0, 2), slice(2, 4)], *[[0, 1]] * 3])),
    "sizes": lambda data: DataLoader(data, batch_sampler=OwnBatches([[0], [1], [2, 3], [4, 5], [6], [7, 8, 9]])),
    "one sample": lambda data: DataLoader(data, 1, shuffle=True),
    "no batches": lambda data: DataLoader(data, batch_size=None, shuffle=True),
}


def describe(batch: Any) -> Any:
    """All that a user could see of a batch."""
    assert isinstance(batch, (list, tuple))
    return type(batch), [
        (type(t), t.dtype, t.shape, t.stride(), t.storage_offset(), t.requires_grad, t.is_conj(), t.is_contiguous())
        for t in batch
    ]


def assert_same_bits(a: Tensor, b: Tensor) -> None:
    if a.is_quantized:
        a, b = a.int_repr(), b.int_repr()
    assert a.detach().resolve_conj().tolist().__repr__() == b.detach().resolve_conj().tolist().__repr__()


def assert_as_torch_gives(loader: Any, epoch: int = 3) -> None:
    """The loader's own batches, in the order of ``epoch``, and a cut in the middle."""
    with seeding.order_scope(1, epoch, loader.generator):
        expected = list(loader)
    for start in (0, 2):
        got = list(replayable(loader, 1, 0).batches(epoch, start))
        assert len(got) == len(expected) - start > 0
        for a, b in zip(expected[start:], got, strict=True):
            assert describe(a) == describe(b)
            for x, y in zip(a, b, strict=True):
                assert_same_bits(x, y)


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
@pytest.mark.filterwarnings("ignore:.*quantiz.*")
@pytest.mark.filterwarnings("ignore:.*Sparse.*")
def test_batches_are_those_of_torch_strides_included(tensor: Any) -> None:
    assert_as_torch_gives(DataLoader(TensorDataset(tensor(), torch.arange(NB)), 4, shuffle=True))


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_batches_are_those_of_torch_for_any_sampler(loader: Any) -> None:
    assert_as_torch_gives(loader(TensorDataset(torch.randn(NB, 3), torch.arange(NB))))


def test_a_tensor_of_another_class_keeps_its_class() -> None:
    class Labelled(Tensor):
        pass

    labelled = torch.randn(NB, 2).as_subclass(Labelled)
    (batch,) = next(replayable(DataLoader(TensorDataset(labelled), 4), 1, 0).batches(0))
    assert type(batch) is Labelled


def test_an_index_that_is_too_large_is_torch_s_own_error() -> None:
    data = TensorDataset(torch.randn(NB, 3))
    loader = DataLoader(data, batch_sampler=OwnBatches([[0, 1], [2, 3], [4, NB]]))
    with pytest.raises(IndexError, match=f"index {NB} is out of bounds"):
        list(replayable(loader, 1, 0).batches(0))


def test_tensors_put_in_the_place_of_others_are_used_from_the_next_batch_on() -> None:
    data = TensorDataset(torch.zeros(NB, 3))
    batches = replayable(DataLoader(data, 4), 1, 0).batches(0)
    next(batches), next(batches)
    data.tensors = (torch.ones(NB, 3, requires_grad=True),)
    (first,), (second,) = next(batches), next(batches)
    assert bool((first == 1).all())
    assert second.requires_grad


def test_a_batch_is_the_user_s_own_to_change() -> None:
    data = TensorDataset(torch.zeros(NB, 3))
    for (batch,) in replayable(DataLoader(data, 4), 1, 0).batches(0):
        batch.add_(1)
    assert not data.tensors[0].any()


class Fitted(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.calls = Counter[str]()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.layer(data_batch[0]).pow(2).mean()}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch[0]).mean()

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(160, 3)), 16, shuffle=True)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(160, 3)), 16)


def test_neither_training_nor_validation_takes_samples_one_by_one(tmp_path: Path) -> None:
    calls = Counter[str]()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is TensorDataset.__getitem__.__code__:
            calls["samples"] += 1

    sys.setprofile(count)
    try:
        quiet_trainer(tmp_path, max_nb_epochs=2).fit(Fitted())
    finally:
        sys.setprofile(None)
    assert calls["samples"] == 2 * 16  # the first batch of each loader, to compare
