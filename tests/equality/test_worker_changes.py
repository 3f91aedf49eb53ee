"""``auto_nb_workers`` with another number of workers every two batches: what a plain torch loop without workers trains,
to the bit, also where the run is killed and resumed."""

import os
import random
import signal
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, WeightedRandomSampler, default_collate

from pytorch_lightning import LightningModule
from pytorch_lightning.data import worker_tuning
from pytorch_lightning.data.replayable import IndexedLoader
from pytorch_lightning.seeding import order_scope, step_scope
from tests.data.forced.sitecustomize import force_tuner
from tests.equality.models import SEED
from tests.faults import warm
from tests.faults.killing import train_with_worker_changes
from tests.recorder import quiet_trainer

NB, SIZE, NB_EPOCHS = 25, 4, 2
"""Seven batches an epoch, the last of one sample."""


class Drawing(Dataset[Any]):
    """Each sample is drawn anew, by the three global streams."""

    def __init__(self) -> None:
        self.x = torch.randn(NB, 6, generator=torch.Generator().manual_seed(1))
        self.y = self.x[:, :3].argmax(dim=1)

    def __len__(self) -> int:
        return NB

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + random.random() + float(np.random.rand()) + torch.rand(6), self.y[i]


class Fetching(Drawing):
    """Fetches whole batches."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        shift = float(torch.rand(()))
        return [(x + shift, y) for x, y in map(self.__getitem__, indices)]


def noisy_collate(items: list[Any]) -> Any:
    x, y = default_collate(items)
    return x * (1 + random.random()) + torch.rand(len(x), 1), y


def greet(worker_id: int) -> None:
    random.seed(worker_id)
    np.random.seed(worker_id)
    torch.manual_seed(worker_id)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(9)


LOADERS: dict[str, Callable[[], DataLoader[Any]]] = {
    "in order": lambda: DataLoader(Drawing(), SIZE),
    "shuffle": lambda: DataLoader(Drawing(), SIZE, shuffle=True),
    "drop_last": lambda: DataLoader(Drawing(), SIZE, shuffle=True, drop_last=True),
    "generator": lambda: DataLoader(Drawing(), 3, shuffle=True, generator=generator()),
    "weighted": lambda: DataLoader(Drawing(), SIZE, sampler=WeightedRandomSampler(torch.arange(1.0, NB + 1), 23)),
    "replacement": lambda: DataLoader(Drawing(), 5, sampler=RandomSampler(range(NB), replacement=True)),
    "subset": lambda: DataLoader(Subset(Drawing(), range(3, NB)), 1 + SIZE, shuffle=True),
    "getitems": lambda: DataLoader(Fetching(), SIZE, shuffle=True),
    "collate_fn": lambda: DataLoader(Drawing(), SIZE, shuffle=True, collate_fn=noisy_collate),
    "worker_init_fn": lambda: DataLoader(Drawing(), SIZE, shuffle=True, worker_init_fn=greet),
    "workers": lambda: DataLoader(Drawing(), SIZE, shuffle=True, num_workers=2, prefetch_factor=3),
    "persistent": lambda: DataLoader(
        Drawing(), SIZE, shuffle=True, num_workers=2, persistent_workers=True, worker_init_fn=greet
    ),
}


class Net(LightningModule):
    """``at_step`` is called before each step, with its number."""

    def __init__(self, name: str, validates: bool = False, at_step: Callable[[int], None] = lambda n: None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
        self.name, self.validates = name, validates
        self._at_step = at_step

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.layers(x), y)

    def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        self._at_step(self.global_step)
        return self.loss(data_batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.02)

    @property
    def tng_dataloader(self) -> Any:
        return LOADERS[self.name]()


class Validated(Net):
    """Its validation draws, and has workers."""

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.loss(data_batch)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(Drawing(), SIZE, num_workers=1)


def seed_batch(epoch: int, batch_nb: int) -> None:
    """What a batch of training draws, by itself: a hash of the seed, of a 2 for data, of the epoch and its number."""
    words = unpack_from("<QQI", blake2b(pack("<5Q", SEED, 2, epoch, batch_nb, 0), digest_size=24).digest())
    torch.manual_seed(words[0] >> 1)
    random.seed(words[1])
    np.random.seed(words[2])


def batches_by_hand(loader: DataLoader[Any], epoch: int) -> Iterator[Any]:
    """Those of one epoch, in torch alone, each made when it is needed."""
    whole: Any = loader.dataset
    with order_scope(SEED, epoch, loader.generator):
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)  # as iter(loader) does
        order = [*loader.batch_sampler]  # type: ignore[misc]
    for batch_nb, indices in enumerate(order):
        seed_batch(epoch, batch_nb)
        fetch = getattr(whole, "__getitems__", None)
        yield loader.collate_fn([whole[i] for i in indices] if fetch is None else fetch(indices))


def by_hand(name: str, accumulate: int = 1) -> dict[str, Tensor]:
    net, loader, global_step = Net(name), LOADERS[name](), 0
    optimizer: Any = net.configure_optimizers()
    for epoch in range(NB_EPOCHS):
        batches = [*batches_by_hand(loader, epoch)]
        for first in range(0, len(batches), accumulate):
            window = batches[first : first + accumulate]
            optimizer.zero_grad()
            for batch in window:
                with step_scope(SEED, global_step):
                    (net.loss(batch) / len(window)).backward()
                global_step += 1
            optimizer.step()
    return net.state_dict()


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Forces changes of the number of workers, and collects them."""
    used: list[int] = []
    for name in ("__init__", "_choice", "_settle"):
        monkeypatch.setattr(worker_tuning.WorkerTuner, name, getattr(worker_tuning.WorkerTuner, name))
    for name in ("CHECK_SHARE", "LEAST_SHARE_FREE", "cores_for"):
        monkeypatch.setattr(worker_tuning, name, getattr(worker_tuning, name))
    force_tuner(worker_tuning)
    use = IndexedLoader._use
    monkeypatch.setattr(IndexedLoader, "_use", lambda loader, nb: (used.append(nb), use(loader, nb))[1])
    return used


def train(folder: Path, net: Net, auto: bool = True, **options: Any) -> dict[str, Tensor]:
    quiet_trainer(folder, max_nb_epochs=NB_EPOCHS, seed=SEED, auto_nb_workers=auto, **options).fit(net)
    return net.state_dict()


def assert_same(trained: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert [name for name, value in wanted.items() if not value.equal(trained[name])] == []


class Cut(Exception):
    pass


def cut_at(step: int) -> Callable[[int], None]:
    def at_step(now: int) -> None:
        if now == step:
            raise Cut

    return at_step


@pytest.mark.parametrize("name", LOADERS)
def test_any_loader(tmp_path: Path, name: str, numbers: list[int]) -> None:
    assert_same(train(tmp_path, Net(name)), by_hand(name))
    assert len({*numbers}) >= 2, "it did change"


@pytest.mark.parametrize("then", [True, False], ids=["resumed with it", "resumed without"])
@pytest.mark.parametrize(("name", "cut"), [("weighted", 3), ("collate_fn", 7), ("persistent", 9), ("generator", 12)])
def test_a_run_that_is_cut(tmp_path: Path, name: str, cut: int, then: bool, numbers: list[int]) -> None:
    options: dict[str, Any] = {"save_every_nb_batches": 1, "resume": "auto"}
    with pytest.raises(Cut):
        train(tmp_path, Net(name, at_step=cut_at(cut)), **options)
    assert numbers
    assert_same(train(tmp_path, Net(name), then, **options), by_hand(name))


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 3},
        {"reload_dataloaders_every_nb_epochs": 1},
        {"max_nb_val_batches": 3, "val_check_interval": 0.4},
        {"accumulate_grad_batches": 2, "val_check_interval": 0.5, "save_every_nb_batches": 2},
    ],
    ids=["windows", "reloaded", "validated", "all"],
)
def test_any_loop(tmp_path: Path, options: dict[str, Any], numbers: list[int]) -> None:
    kind = Validated if "val_check_interval" in options else Net
    wanted = by_hand("shuffle", options.get("accumulate_grad_batches", 1))
    assert_same(train(tmp_path, kind("shuffle"), **options), wanted)
    assert numbers


def train_and_kill(folder: Path, name: str, auto: bool, at: int) -> None:
    """A program that kills itself before step ``at``."""

    def at_step(step: int) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGKILL)

    net = Net(name, at_step=at_step)
    train(folder, net, auto, save_every_nb_batches=1, resume="auto")
    torch.save(net.state_dict(), folder / "end.pt")


@pytest.mark.parametrize(("name", "turns"), [("shuffle", [True, False]), ("workers", [False, True])])
def test_a_run_that_is_killed(tmp_path: Path, name: str, turns: list[bool]) -> None:
    """Once with each of ``turns``, then to its end with the last."""
    for at, auto in zip((5, 11, -1), [*turns, True], strict=True):
        ended = warm.run(train_with_worker_changes, str(tmp_path), name, auto, at, output=tmp_path / "said")
        assert ended.code == (0 if at < 0 else -signal.SIGKILL), ended.said
    assert_same(torch.load(tmp_path / "end.pt"), by_hand(name))
