"""Every kind of loader, cut anywhere: the rest of the run is what it would have been."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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

from pytorch_lightning.data.replayable import replayable
from pytorch_lightning.data.sharing import IDLE, RoundsLoader
from pytorch_lightning.errors import FitError
from pytorch_lightning.processes import Share
from tests.equality.models import Classifier, samples
from tests.equality.test_resume import SaveAt, comparable, differences
from tests.recorder import quiet_trainer

pytestmark = pytest.mark.slow

NB, SIZE = 18, 4
"""Five batches an epoch, the last of two."""


class Drawing(Dataset[Any]):
    """Changes each sample by every kind of generator, its own included."""

    def __init__(self) -> None:
        self.x, self.y = samples()
        self.own, self.legacy = np.random.default_rng(3), np.random.RandomState(3)
        self.nested = [{"torch": torch.Generator().manual_seed(3), "python": random.Random(3)}]

    def __getstate__(self) -> dict[str, Any]:
        own = self.nested[0]  # a Generator can't be sent to a spawned worker: torch fails there
        return {**vars(self), "nested": [{**own, "torch": own["torch"].get_state().numpy()}]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        kept, self.nested[0]["torch"] = self.nested[0]["torch"], torch.Generator()
        self.nested[0]["torch"].set_state(torch.from_numpy(kept))

    def __len__(self) -> int:
        return NB

    def __getitem__(self, i: int) -> Any:
        drawn = [random.random(), float(np.random.rand()), float(torch.rand(())), float(self.own.random())]
        own = self.nested[0]
        drawn += [float(self.legacy.rand()), own["python"].random(), float(torch.rand((), generator=own["torch"]))]
        return self.x[i] + sum(drawn) / 7, self.y[i]


class Fetching(Drawing):
    """Fetches whole batches."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        shift = float(torch.rand(()))
        return [(x + shift, y) for x, y in map(self.__getitem__, indices)]


class OwnBatches(Sampler[list[int]]):
    """A batch sampler on python's and numpy's global streams."""

    def __iter__(self) -> Iterator[list[int]]:
        indices = random.sample(range(NB), NB)
        for start in range(0, NB, SIZE):
            yield [*indices[start : start + SIZE], int(np.random.randint(NB))]

    def __len__(self) -> int:
        return 5


class OwnGenerator(Sampler[int]):
    """A numpy generator of its own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(5)

    def __iter__(self) -> Iterator[int]:
        yield from self.generator.permutation(NB).tolist()

    def __len__(self) -> int:
        return NB


class Rotating(Sampler[int]):
    """An order that depends on all that was drawn before, and a state that says so."""

    def __init__(self) -> None:
        self.nb_drawn = 0

    def __iter__(self) -> Iterator[int]:
        for i in range(NB):
            self.nb_drawn += 1
            yield (i * 5 + self.nb_drawn // NB * 7 + self.nb_drawn) % NB

    def __len__(self) -> int:
        return NB

    def state_dict(self) -> dict[str, int]:
        return {"nb_drawn": self.nb_drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.nb_drawn = state["nb_drawn"]


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.data = Drawing()

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        for i in range(0 if info is None else info.id, NB, 1 if info is None else info.num_workers):
            yield self.data[i]


class Generating:
    """A loader of one's own: only ``__iter__``."""

    def __iter__(self) -> Iterator[Any]:
        data = Drawing()
        for start in range(0, NB - 2, SIZE):
            yield torch.utils.data.default_collate([data[i] for i in range(start, start + SIZE)])


def random_collate(items: list[Any]) -> Any:
    x, y = torch.utils.data.default_collate(items)
    return x + random.random() + float(torch.rand(())), y


def loader_of(data: Any, w: int, **options: Any) -> Any:
    if "batch_sampler" not in options and "batch_size" not in options:
        options["batch_size"] = SIZE
    return DataLoader(data, num_workers=w, **options)


def split(w: int) -> Any:
    return loader_of(random_split(Drawing(), [14, 4], torch.Generator().manual_seed(0))[0], w, shuffle=True)


MAP_STYLE: dict[str, Any] = {
    "in order": lambda w: loader_of(Drawing(), w),
    "shuffle": lambda w: loader_of(Drawing(), w, shuffle=True),
    "generator": lambda w: loader_of(Drawing(), w, shuffle=True, generator=torch.Generator().manual_seed(9)),
    "batch sampler": lambda w: loader_of(Drawing(), w, batch_sampler=OwnBatches()),
    "own generator": lambda w: loader_of(Drawing(), w, sampler=OwnGenerator()),
    "weighted": lambda w: loader_of(Drawing(), w, sampler=WeightedRandomSampler(torch.arange(1.0, NB + 1), NB)),
    "replacement": lambda w: loader_of(Drawing(), w, sampler=RandomSampler(range(NB), replacement=True)),
    "subset": lambda w: loader_of(Subset(Drawing(), range(3, NB)), w, shuffle=True),
    "split": split,
    "drop_last": lambda w: loader_of(Drawing(), w, shuffle=True, drop_last=True),
    "persistent": lambda w: loader_of(Drawing(), w, shuffle=True, persistent_workers=w > 0),
    "getitems": lambda w: loader_of(Fetching(), w, shuffle=True),
    "no batches": lambda w: loader_of(Drawing(), w, batch_size=None, shuffle=True),
    "collate": lambda w: loader_of(Drawing(), w, shuffle=True, collate_fn=random_collate),
    "in memory": lambda w: loader_of(TensorDataset(*samples()), w, shuffle=True),
    "sampler with a state": lambda w: loader_of(Drawing(), w, sampler=Rotating()),
    "state below a batch sampler": lambda w: loader_of(Drawing(), w, batch_sampler=BatchSampler(Rotating(), 3, False)),
}
OTHERS: dict[str, Any] = {
    "stream": lambda w: loader_of(Stream(), w),
    "persistent stream": lambda w: loader_of(Stream(), w, persistent_workers=w > 0),
    "generating": lambda w: Generating(),
    "list": lambda w: [tuple(t[i : i + SIZE] for t in samples()) for i in range(0, NB, SIZE)],
}
LOADERS = {**MAP_STYLE, **OTHERS}


class Loaded(Classifier):
    """Trains on a loader of the table."""

    def __init__(self, name: str, workers: int, context: str | None = None) -> None:
        super().__init__(norm=True, dropout=0.2)
        self.name, self.workers, self.context = name, workers, context

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        many = x.reshape(-1, 6), y.reshape(-1)
        return super().training_step(tuple(torch.cat([part, part]) for part in many), batch_nb)

    @property
    def tng_dataloader(self) -> Any:
        loader = LOADERS[self.name](self.workers)
        if self.context is not None:
            loader.multiprocessing_context = self.context
        return loader


def trained(folder: Path, model: Any, **options: Any) -> Any:
    trainer = quiet_trainer(folder, max_nb_epochs=3, **options)
    assert trainer.fit(model) == 1
    trainer.save_checkpoint(folder / "end.ckpt")
    found = comparable(torch.load(folder / "end.ckpt", weights_only=True))
    found["parts"].pop("callbacks")
    found["parts"]["data"].pop("workers")
    found.pop("init_arguments")  # the number of workers is one of them
    found["parts"]["attributes"].pop("for_workers", None)  # what persistent workers have; without them there is none
    return found


def assert_goes_on(folder: Path, name: str, workers: int, cut: int, then: int, context: str | None = None) -> None:
    whole = trained(folder / "whole", Loaded(name, workers, context), callbacks=[SaveAt(folder / "cut.ckpt", cut)])
    torch.manual_seed(12345), random.seed(1), np.random.seed(1)  # another process has other streams
    rest = trained(folder / "rest", Loaded(name, then, context), resume=folder / "cut.ckpt")
    assert differences(whole, rest) == []


# SaveAt asks when so many batches are done before the one that is ending: the save has one more
CUTS = {"epoch 0": 1, "epoch 1": 6, "end of epoch 0": 4, "end of epoch 1": 9}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("name", LOADERS)
def test_an_interrupted_run_resumes_with_the_same_batches(tmp_path: Path, name: str, cut: int) -> None:
    assert_goes_on(tmp_path, name, 0, cut, 0)


@pytest.mark.parametrize(("workers", "then"), [(2, 2), (2, 0), (0, 2)])
@pytest.mark.parametrize("name", MAP_STYLE)
def test_the_number_of_workers_may_change(tmp_path: Path, name: str, workers: int, then: int) -> None:
    assert_goes_on(tmp_path, name, workers, 6, then)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize(("name", "workers", "then"), [("shuffle", 0, 4), ("persistent", 4, 2), ("persistent", 2, 4)])
def test_there_may_be_more_workers_than_an_epoch_has_work_for(
    tmp_path: Path, name: str, workers: int, then: int
) -> None:
    assert_goes_on(tmp_path, name, workers, 6, then)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize(
    ("name", "workers", "cut"),
    [("stream", 2, 1), ("stream", 2, 4), ("stream", 2, 6), ("stream", 4, 6), ("persistent stream", 4, 6)],
)
def test_a_stream_resumes_with_as_many_workers(tmp_path: Path, name: str, workers: int, cut: int) -> None:
    assert_goes_on(tmp_path, name, workers, cut, workers)


@pytest.mark.parametrize("name", ["collate", "sampler with a state", "persistent stream"])
def test_workers_may_be_spawned(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_goes_on(tmp_path, name, 1, 6, 1, "spawn")
    assert "is dead" not in capsys.readouterr().err


def test_a_stream_with_other_workers_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "whole", Loaded("stream", 2), callbacks=[SaveAt(tmp_path / "cut.ckpt", 6)])
    with pytest.raises(FitError, match="num_workers was 2 and is 0"):
        trained(tmp_path / "rest", Loaded("stream", 0), resume=tmp_path / "cut.ckpt")


# ---------------------------------------------------------------------------------------------- each sample once
def epoch_of(loader: Any, share: Share, epoch: int, start: int) -> list[list[list[int]]]:
    """The rounds of one process from ``start`` on, each a list of its batches' samples."""
    replay = replayable(loader, 5, 0, share=share)
    if share.nb > 1:
        replay = RoundsLoader(replay, share)
    slots = [[] if batch is IDLE else batch[0].tolist() for batch in replay.batches(epoch, start)]
    width = len(share.mine)
    return [slots[i : i + width] for i in range(0, len(slots), width)]


@settings(max_examples=150, deadline=None)
@given(
    nb=st.integers(1, 40),
    size=st.integers(1, 9),
    shape=st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (6, 3)]),
    drop_last=st.booleans(),
    cut=st.integers(0, 12),
    then=st.integers(0, 20),
    epoch=st.integers(0, 3),
)
def test_each_sample_comes_exactly_once_wherever_it_is_interrupted(
    nb: int, size: int, shape: tuple[int, int], drop_last: bool, cut: int, then: int, epoch: int
) -> None:
    """V virtual ranks on W processes, cut after some rounds, resumed on one process and on W."""
    nb_virtual, nb_processes = shape
    loader = DataLoader(TensorDataset(torch.arange(nb)), size, shuffle=True, drop_last=drop_last)
    if not len(loader):
        return
    width = nb_virtual // nb_processes
    shares = [Share(nb_virtual, range(p * width, (p + 1) * width)) for p in range(nb_processes)]
    everyone = Share(nb_virtual, range(nb_virtual))
    together = [epoch_of(loader, share, epoch, 0) for share in shares]
    assert len({len(rounds) for rounds in together}) == 1  # no process waits for a round that doesn't come
    rounds = [[batch for own in parts for batch in own] for parts in zip(*together, strict=True)]
    alone = epoch_of(loader, everyone, epoch, 0)
    assert rounds == alone
    seen = [sample for batches in rounds for batch in batches for sample in batch]
    assert len(seen) == len(set(seen)) == (nb // size * size if drop_last else nb)
    cut = min(cut, len(rounds))
    assert rounds[:cut] + epoch_of(loader, everyone, epoch, cut) == alone
    again = min(cut + then, len(rounds))
    assert [epoch_of(loader, share, epoch, again) for share in shares] == [own[again:] for own in together]
