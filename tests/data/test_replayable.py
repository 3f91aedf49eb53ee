"""The batches of any loader as a function of (seed, epoch, batch number)."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from pytorch_lightning import seeding
from pytorch_lightning.data.replayable import replayable
from pytorch_lightning.errors import MisconfigurationException

NB = 23


class Augmented(Dataset[Any]):
    """Draws from every kind of generator for each item."""

    def __init__(self) -> None:
        self.own = np.random.default_rng(3)
        self.nested = {"torch": [torch.Generator().manual_seed(3)], "python": random.Random(3)}
        self.legacy = np.random.RandomState(3)

    def __len__(self) -> int:
        return NB

    def __getitem__(self, index: int) -> Any:
        drawn = [
            float(index),
            float(torch.rand(())),
            random.random(),
            float(np.random.rand()),
            float(self.own.random()),
            float(torch.rand((), generator=self.nested["torch"][0])),
            self.nested["python"].random(),
            float(self.legacy.rand()),
        ]
        return torch.tensor(drawn, dtype=torch.float64)


class Batched(Augmented):
    """Fetches whole batches."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[i] + float(torch.rand(())) for i in indices]


class OwnBatches(Sampler[list[int]]):
    """A batch sampler on python's and numpy's streams."""

    def __iter__(self) -> Iterator[list[int]]:
        indices = list(range(NB))
        random.shuffle(indices)
        for start in range(0, NB, 4):
            yield [*indices[start : start + 4], int(np.random.randint(NB))]

    def __len__(self) -> int:
        return 6


class OwnGenerator(Sampler[int]):
    """A sampler with a numpy generator of its own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(5)

    def __iter__(self) -> Iterator[int]:
        yield from self.generator.permutation(NB).tolist()

    def __len__(self) -> int:
        return NB


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        for i in range(NB):
            if info is None or i % info.num_workers == info.id:
                yield torch.tensor([float(i), random.random(), float(np.random.rand()), float(torch.rand(()))])


class Generating:
    """A loader of one's own: only ``__iter__``."""

    def __iter__(self) -> Iterator[Any]:
        for _ in range(6):
            yield torch.tensor([random.random(), float(np.random.rand()), float(torch.rand(()))])


class OwnIter(DataLoader[Any]):
    """A DataLoader that overrides ``__iter__``."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch + random.random()


def random_collate(items: list[Any]) -> Any:
    return torch.stack(items) + random.random()


LOADERS: dict[str, Any] = {
    "shuffled": lambda w: DataLoader(Augmented(), 4, shuffle=True, num_workers=w),
    "generator": lambda w: DataLoader(
        Augmented(), 4, shuffle=True, generator=torch.Generator().manual_seed(9), num_workers=w
    ),
    "in order": lambda w: DataLoader(Augmented(), 4, num_workers=w),
    "drop_last": lambda w: DataLoader(Augmented(), 4, shuffle=True, drop_last=True, num_workers=w),
    "batch sampler": lambda w: DataLoader(Augmented(), batch_sampler=OwnBatches(), num_workers=w),
    "own generator": lambda w: DataLoader(Augmented(), 4, sampler=OwnGenerator(), num_workers=w),
    "weighted": lambda w: DataLoader(
        Augmented(), 4, sampler=WeightedRandomSampler(torch.arange(1.0, NB + 1), NB), num_workers=w
    ),
    "replacement": lambda w: DataLoader(
        Augmented(),
        4,
        sampler=RandomSampler(Augmented(), replacement=True, generator=torch.Generator().manual_seed(2)),
        num_workers=w,
    ),
    "subset": lambda w: DataLoader(Subset(Augmented(), range(3, NB)), 4, shuffle=True, num_workers=w),
    "split": lambda w: DataLoader(
        random_split(Augmented(), [20, 3], torch.Generator().manual_seed(0))[0], 4, shuffle=True, num_workers=w
    ),
    "getitems": lambda w: DataLoader(Batched(), 4, shuffle=True, num_workers=w),
    "no batches": lambda w: DataLoader(Augmented(), batch_size=None, shuffle=True, num_workers=w),
    "collate": lambda w: DataLoader(Augmented(), 4, shuffle=True, collate_fn=random_collate, num_workers=w),
    "tensors": lambda w: DataLoader(TensorDataset(torch.arange(float(NB))), 4, shuffle=True, num_workers=w),
    "stream": lambda w: DataLoader(Stream(), 4, num_workers=w),
    "own iter": lambda w: OwnIter(Augmented(), 4, num_workers=w),
    "generating": lambda w: Generating(),
    "list": lambda w: [torch.full((2,), float(i)) for i in range(6)],
}
MAP_STYLE = [name for name in LOADERS if name not in ("stream", "own iter", "generating", "list")]


def flat(batches: Any) -> list[list[float]]:
    return [(b[0] if isinstance(b, list) else b).flatten().tolist() for b in batches]


def disturb() -> None:
    """What another history would have left behind."""
    torch.rand(17), random.random(), np.random.rand(3)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 3, 5, 6])
def test_the_rest_of_an_epoch_is_what_it_was(name: str, epoch: int, start: int) -> None:
    whole = flat(replayable(LOADERS[name](0), 7, 0).batches(epoch))
    disturb()
    assert flat(replayable(LOADERS[name](0), 7, 0).batches(epoch, start)) == whole[start:]


@pytest.mark.parametrize("name", MAP_STYLE)
def test_workers_change_nothing(name: str) -> None:
    alone = flat(replayable(LOADERS[name](0), 7, 0).batches(1, 2))
    disturb()
    assert flat(replayable(LOADERS[name](2), 7, 0).batches(1, 2)) == alone


def test_a_stream_with_workers_is_replayed() -> None:
    whole = flat(replayable(LOADERS["stream"](2), 7, 0).batches(1))
    disturb()
    assert flat(replayable(LOADERS["stream"](2), 7, 0).batches(1, 3)) == whole[3:]


def test_persistent_workers_get_each_epochs_numbers() -> None:
    def epochs(persistent: bool) -> list[Any]:
        loader = DataLoader(Augmented(), 4, shuffle=True, num_workers=1, persistent_workers=persistent)
        ours = replayable(loader, 7, 0)
        return [flat(ours.batches(epoch)) for epoch in range(3)]

    kept = epochs(True)
    assert kept == epochs(False)
    assert kept[0] != kept[1] != kept[2]


@pytest.mark.parametrize("name", ["shuffled", "generator", "batch sampler", "own generator", "generating"])
def test_seed_epoch_and_loader_all_decide(name: str) -> None:
    def first(seed: int, loader_id: int, epoch: int) -> Any:
        return flat(replayable(LOADERS[name](0), seed, loader_id).batches(epoch))[0]

    assert len({tuple(first(s, i, e)) for s in (1, 2) for i in (0, 1) for e in (0, 1)}) == 8


def test_the_seed_of_a_users_generator_decides_too() -> None:
    def order(n: int) -> Any:
        generator = torch.Generator().manual_seed(n)
        loader = DataLoader(list(range(NB)), 4, shuffle=True, generator=generator)  # type: ignore[arg-type]
        batches = flat(replayable(loader, 7, 0).batches(0))
        assert generator.initial_seed() == n, "the user's generator is left as it was"
        return batches

    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize("name", ["shuffled", "batch sampler", "stream", "tensors"])
def test_the_users_loader_and_the_global_streams_are_left_alone(name: str) -> None:
    loader = LOADERS[name](0)
    torch.manual_seed(1)
    ours = replayable(loader, 7, 0)
    before = seeding.get_generator_states()["torch"] if name == "tensors" else None
    flat(ours.batches(0))
    assert type(loader.dataset) in (Augmented, Stream, TensorDataset)
    if before is not None:  # a TensorDataset draws nothing, so its batches seed nothing
        assert torch.equal(before, torch.default_generator.get_state())


def test_the_order_is_that_of_list_in_an_order_scope() -> None:
    loader = DataLoader(TensorDataset(torch.arange(float(NB))), 4, shuffle=True)
    for epoch in range(2):
        with seeding.order_scope(7, epoch):
            by_hand = flat(list(loader))
        assert flat(replayable(loader, 7, 0).batches(epoch)) == by_hand


def test_each_sample_comes_once_an_epoch() -> None:
    loader = DataLoader(TensorDataset(torch.arange(float(NB))), 4, shuffle=True)
    seen = [x for batch in flat(replayable(loader, 7, 0).batches(3)) for x in batch]
    assert sorted(seen) == list(range(NB))


def test_set_epoch_is_called_on_the_sampler() -> None:
    class Told(OwnGenerator):
        epochs: list[int] = []

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    sampler = Told()
    ours = replayable(DataLoader(Augmented(), 4, sampler=sampler), 7, 0)
    flat(ours.batches(0)), flat(ours.batches(5))
    assert sampler.epochs == [0, 5]


def test_the_limit_is_kept_without_fetching_more() -> None:
    fetched: list[int] = []

    class Noting(Augmented):
        def __getitem__(self, index: int) -> Any:
            fetched.append(index)
            return super().__getitem__(index)

    assert len(flat(replayable(DataLoader(Noting(), 4), 7, 0).batches(0, 1, 3))) == 2
    assert fetched == list(range(4, 12))


def test_in_order_gives_the_same_batches_each_epoch() -> None:
    shuffled = DataLoader(TensorDataset(torch.arange(float(NB))), 4, shuffle=True)
    ours = replayable(shuffled, 7, 0, in_order=True)
    assert flat(ours.batches(0)) == flat(ours.batches(1))
    assert flat(ours.batches(0))[0] == [0.0, 1.0, 2.0, 3.0]
    own = replayable(
        DataLoader(TensorDataset(torch.arange(float(NB))), batch_sampler=OwnBatches()), 7, 0, in_order=True
    )
    assert flat(own.batches(0)) == flat(own.batches(1))


def test_another_order_than_the_expected_one_is_noticed() -> None:
    ours = replayable(LOADERS["shuffled"](0), 7, 0)
    flat(ours.batches(0))
    crc = ours.crc_at(3)
    assert crc is not None
    noticed: list[bool] = []
    again = replayable(LOADERS["shuffled"](0), 7, 0)
    again.expect(crc, lambda: noticed.append(True))
    flat(again.batches(0, 3))
    assert noticed == []
    other = replayable(LOADERS["shuffled"](0), 8, 0)
    other.expect(crc, lambda: noticed.append(True))
    flat(other.batches(0, 3))
    assert noticed == [True]
    shorter = replayable(DataLoader(list(range(6)), 4), 7, 0)  # type: ignore[arg-type]
    shorter.expect(crc, lambda: noticed.append(True))
    assert flat(shorter.batches(0, 3)) == []
    assert noticed == [True, True]


def test_a_batch_sampler_of_ones_own_keeps_its_batches() -> None:
    sampler = BatchSampler(RandomSampler(range(NB)), 5, drop_last=True)
    loader = DataLoader(TensorDataset(torch.arange(float(NB))), batch_sampler=sampler)
    assert [len(b) for b in flat(replayable(loader, 7, 0).batches(0))] == [5] * 4


def test_what_cannot_be_iterated_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="must have __iter__"):
        replayable(3, 7, 0)
