"""Modules whose loaders, in several processes, deal out their data in one way or another."""

import contextlib
import io
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    get_worker_info,
)

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import SHOWN, LightningError

NB, SIZE = 41, 4


def place() -> tuple[int, int]:
    """The rank of this process, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Numbers(Dataset[Any]):
    """The samples 0.0 to NB - 1, or ``those`` of them."""

    def __init__(self, those: Any = range(NB)) -> None:
        self.those = list(those)

    def __len__(self) -> int:
        return len(self.those)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([float(self.those[index])])


class AtAccess(Numbers):
    """Knows its rank, as a name for its cache may need it, and gives the same samples everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = f"cache-{place()[0]}"


class Mine(DistributedSampler[Any]):
    """As many write one to add something."""


class Strided(Sampler[int]):
    """Every n-th sample, of an order that a seed of its own decides."""

    def __init__(self) -> None:
        self.rank, self.nb = place()

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(NB, generator=torch.Generator().manual_seed(5)).tolist()
        return iter(order[self.rank :: self.nb])

    def __len__(self) -> int:
        return len(range(self.rank, NB, self.nb))


class Moves(Strided):
    """Begins each time where it was left, as its own state says, or an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.place = self.rank

    def __iter__(self) -> Iterator[int]:
        mine = range(self.rank, NB, self.nb)
        for _ in mine:
            self.place = (self.place + 3 * (1 + self.rank)) % len(mine)
            yield mine[self.place]


class Keeps(Moves):
    """Says so itself."""

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


class Batches(Sampler[list[int]]):
    """A batch sampler of one's own, around a sampler."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[int]]:
        yield from BatchSampler(self.sampler, SIZE, False)

    def __len__(self) -> int:
        return -(-len(self.sampler) // SIZE)


class Stream(IterableDataset[Any]):
    """Samples in an order that ``rng`` shuffles; with ``sharded`` each process and worker takes its own of them."""

    def __init__(self, sharded: bool, rng: Any = None) -> None:
        self.sharded, self.rng = sharded, rng

    def __iter__(self) -> Iterator[Any]:
        order = list(range(NB))
        (random if self.rng is None else self.rng).shuffle(order)
        worker = get_worker_info()
        rank, nb = place() if self.sharded else (0, 1)
        number, of = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for i in order[rank * of + number :: nb * of]:
            yield torch.tensor([float(i)])


class Unlucky:
    """A loader of one's own, whose order no seed decides."""

    def __iter__(self) -> Iterator[Any]:
        order = torch.tensor([*range(NB)])[torch.tensor(random.SystemRandom().sample(range(NB), NB))]
        return iter(order.float()[:, None].split(SIZE))

    def __len__(self) -> int:
        return -(-NB // SIZE)


def distributed(shuffle: bool = True, **options: Any) -> Any:
    data, (rank, nb) = Numbers(), place()
    return DataLoader(data, SIZE, sampler=DistributedSampler(data, nb, rank, shuffle=shuffle), **options)


def unseeded() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


LOADERS: dict[str, Callable[[], Any]] = {
    "distributed": distributed,
    "distributed, in order": lambda: distributed(False),
    "distributed, by workers": lambda: distributed(num_workers=2, persistent_workers=True),
    "distributed, batched outside": lambda: DataLoader(
        Numbers(), batch_sampler=BatchSampler(DistributedSampler(Numbers(), *place()[::-1]), SIZE, False)
    ),
    "shuffled": lambda: DataLoader(Numbers(), SIZE, shuffle=True),
    "shuffled by an unseeded generator": lambda: DataLoader(Numbers(), SIZE, shuffle=True, generator=unseeded()),
    "sampled by an unseeded generator": lambda: DataLoader(
        Numbers(), SIZE, sampler=RandomSampler(Numbers(), generator=unseeded())
    ),
    "names by rank": lambda: DataLoader(AtAccess(), SIZE, shuffle=True),
    "names by rank, by workers": lambda: DataLoader(AtAccess(), SIZE, shuffle=True, num_workers=1),
    "stream": lambda: DataLoader(Stream(False), SIZE),
    "stream of its own generator, by workers": lambda: DataLoader(Stream(False, random.Random(3)), SIZE, num_workers=2),
    "list": lambda: list(torch.arange(float(NB))[:, None].split(SIZE)),
}
"""Loaders of the whole data."""

SHARDED: dict[str, Callable[[], Any]] = {
    "subclass of DistributedSampler": lambda: DataLoader(
        Numbers(), SIZE, sampler=Mine(Numbers(), *place()[::-1], drop_last=False)
    ),
    "DistributedSampler in a batch sampler": lambda: DataLoader(
        Numbers(), batch_sampler=Batches(DistributedSampler(Numbers(), *place()[::-1]))
    ),
    "own sampler": lambda: DataLoader(Numbers(), SIZE, sampler=Strided()),
    "subset": lambda: DataLoader(Subset(Numbers(), range(place()[0], NB, place()[1])), SIZE, shuffle=True),
    "subset of equal lengths": lambda: DataLoader(Subset(Numbers(), range(place()[0], 40, place()[1])), SIZE),
    "own dataset, by workers": lambda: DataLoader(Numbers(range(place()[0], 40, place()[1])), SIZE, num_workers=1),
    "stream": lambda: DataLoader(Stream(True), SIZE),
    "stream of its own generator, by workers": lambda: DataLoader(Stream(True, random.Random(3)), SIZE, num_workers=2),
    "list": lambda: list(torch.arange(float(NB))[place()[0] :: place()[1], None].split(SIZE)),
    "order that no seed decides": Unlucky,
}
"""Loaders that give each process a share of its own."""

RESUMED: dict[str, Callable[[], Any]] = {
    "own sampler": SHARDED["own sampler"],
    "subset": SHARDED["subset"],
    "stream": SHARDED["stream"],
    "stream of its own generator, by workers": SHARDED["stream of its own generator, by workers"],
    "sampler that moves": lambda: DataLoader(Numbers(), SIZE, sampler=Moves()),
    "sampler with a state": lambda: DataLoader(Numbers(), SIZE, sampler=Keeps()),
}


class Net(LightningModule):
    """Notes in ``folder`` which samples each process trains on, validates and predicts."""

    def __init__(self, loader: Callable[[], Any], folder: str, own_validation: bool = True) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.layer.weight, 0.1)
        torch.nn.init.zeros_(self.layer.bias)
        self.loader, self.folder, self.own_validation = loader, folder, own_validation

    def note(self, what: str, batch: torch.Tensor) -> None:
        with open(Path(self.folder, f"{what}-{place()[0]}"), "a") as file:
            print(self.current_epoch, *batch.flatten().int().tolist(), file=file)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.note("trained", data_batch)
        return {"loss": self.layer(data_batch / NB).pow(2).mean(), "loss_count": len(data_batch)}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return data_batch

    def validation_end(self, outputs: Any) -> Any:
        seen = torch.cat(outputs).flatten().int().tolist()
        return {"nb_validated": len(seen), "nb_distinct": len(set(seen)), "first": seen[0]}

    test_step, test_end = validation_step, validation_end

    def forward(self, data_batch: Any) -> Any:
        return data_batch

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self) -> Any:
        return self.loader()

    @property
    def val_dataloader(self) -> Any:
        return self.loader() if self.own_validation else DataLoader(Numbers(), SIZE)

    @property
    def test_dataloader(self) -> Any:
        return self.loader()


def seen(folder: Path, what: str = "trained", epoch: int = 0) -> list[list[int]]:
    """What each process noted, in its order."""
    found = []
    for path in sorted(folder.glob(f"{what}-*")):
        rows = [[int(word) for word in line.split()] for line in path.read_text().splitlines()]
        found.append([number for row in rows if row[0] == epoch for number in row[1:]])
    return found


def trainer(folder: Path, **options: Any) -> Trainer:
    fixed = {"max_nb_epochs": 2, "seed": 1, "progress_bar": False, "print_weights_summary": False}
    return Trainer(**{"experiment": False, "default_save_path": str(folder), **fixed, **options})


def fit_all(folder: Path) -> None:
    """Fit on each loader, and note what came of it."""
    options: dict[str, Any]
    for table, loaders, options in (
        ("whole", LOADERS, {}),
        ("refused", SHARDED, {}),
        ("own", SHARDED, {"data_is_sharded": True}),
        ("all read all", {n: LOADERS[n] for n in ("shuffled", "list")}, {"data_is_sharded": True}),
    ):
        for name, loader in loaders.items():
            here = folder / table / name
            here.mkdir(parents=True, exist_ok=True)
            there, told = trainer(here, **options), dict[str, Any]()
            SHOWN.clear()  # each is a program of its own
            model = Net(loader, str(here), own_validation=table != "refused")
            try:
                with contextlib.redirect_stderr(io.StringIO()) as stderr:
                    there.fit(model)
                told = {"metrics": there.tqdm_metrics, "rounds": there.global_step, "said": stderr.getvalue()}
                told["test"] = there.test(model)
                told["predicted"] = torch.cat(there.predict(model)).flatten().tolist()
            except LightningError as error:
                told["error"] = str(error)
            tell(here, told)
    download(folder / "download")
    uneven(folder / "uneven")
    (folder / "tutorial").mkdir(exist_ok=True)
    tutorial(folder / "tutorial")
    for name, loader in RESUMED.items():
        resume(folder / "resumed" / name, loader)


def tutorial(folder: Path, nb_epochs: int = 3) -> None:
    """The data loading of torch's tutorial on DistributedDataParallel, by hand and in a fit."""
    rank, nb = place()
    nb_samples = 4 * nb * SIZE  # a multiple: then that sampler repeats nothing

    def loader() -> Any:
        data = Numbers(range(nb_samples))
        return DataLoader(data, SIZE, sampler=DistributedSampler(data, nb, rank))

    model = Net(loader, str(folder), own_validation=False)
    by_hand = torch.nn.parallel.DistributedDataParallel(Net(loader, str(folder)).layer)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    batches = loader()
    for epoch in range(nb_epochs):
        batches.sampler.set_epoch(epoch)
        for batch in batches:
            optimizer.zero_grad()
            by_hand(batch / NB).pow(2).mean().backward()
            optimizer.step()
    trainer(folder, max_nb_epochs=nb_epochs).fit(model)
    pairs = zip(model.layer.parameters(), by_hand.parameters(), strict=True)
    tell(folder, {"largest difference": max(float((a - b).abs().max()) for a, b in pairs)})


class Downloads(Net):
    """Reads its loader for a schedule too, and its ``validation_end`` counts what this process has seen."""

    @property
    def tng_dataloader(self) -> Any:
        data = Path(self.folder, "data")
        if not data.exists():
            with open(Path(self.folder, "downloads"), "a") as file:
                print("a download", file=file)
            time.sleep(1.0)
            data.touch()
        torch.distributed.barrier()  # as many write, after rank 0's download
        return self.loader()

    def configure_optimizers(self) -> Any:
        assert len(self.tng_dataloader)
        return super().configure_optimizers()

    def validation_end(self, outputs: Any) -> Any:
        return {"own": 10.0 + place()[0]}


def download(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    there = trainer(folder)
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        there.fit(Downloads(LOADERS["shuffled"], str(folder)))
    nb = len(Path(folder, "downloads").read_text().splitlines())
    tell(folder, {"downloads": nb, "metrics": there.tqdm_metrics, "said": stderr.getvalue()})


class Counts:
    """As a metric keeps its state."""

    def __init__(self) -> None:
        self.total, self.seen = torch.zeros(()), np.zeros(1)
        self.batches = list[int]()

    def update(self, batch: torch.Tensor) -> None:
        self.total += len(batch)
        self.seen[0] += len(batch)
        self.batches.append(len(batch))

    def numbers(self) -> list[float]:
        return [float(self.total), float(self.seen[0]), float(sum(self.batches))]


class Exchanging(Net):
    """A step with a collective of its own, which counts in many ways what it is given."""

    def __init__(self, loader: Any, folder: str, exchanges: bool) -> None:
        super().__init__(loader, folder)
        self.exchanges, self.nb_trained, self.nb_validated = exchanges, 0, 0
        self.trained, self.validated = Counts(), Counts()
        self.register_buffer("nb", torch.zeros(1))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.exchanges:
            torch.distributed.all_reduce(torch.ones(1))
        self.nb += len(data_batch)
        self.nb_trained += len(data_batch)
        self.trained.update(data_batch)
        return {"loss": self.layer(data_batch / NB).pow(2).mean(), "loss_count": len(data_batch)}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.exchanges:
            torch.distributed.all_reduce(torch.ones(1))
        self.nb_validated += len(data_batch)
        self.validated.update(data_batch)
        return data_batch

    def on_epoch_end(self) -> None:
        told = torch.tensor([self.nb_trained, *self.trained.numbers()])
        torch.distributed.all_reduce(told)
        self.counted = told.tolist()

    def validation_end(self, outputs: Any) -> Any:
        told = torch.tensor([self.nb_validated, *self.validated.numbers()])
        torch.distributed.all_reduce(told)
        return {f"count {n}": float(number) for n, number in enumerate(told)}


def by_hand(batches: list[torch.Tensor], drops: bool) -> list[float]:
    """One epoch of plain steps, each on the batches of all processes."""
    layer, nb = Net(list, "").layer, place()[1]
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for first in range(0, len(batches) // nb * nb if drops else len(batches), nb):
        optimizer.zero_grad()
        layer(torch.cat(batches[first : first + nb]) / NB).pow(2).mean().backward()
        optimizer.step()
    return [p.item() for p in layer.parameters()]


UNEVEN = {"wait": "ddp", "repeat": "ddp", "drop": "ddp", "wait, sharded weights": "fsdp"}


def uneven(folder: Path) -> None:
    """A last short round, by each way to end it."""
    for name, backend in UNEVEN.items():
        here, how = folder / name, name.partition(",")[0]
        here.mkdir(parents=True, exist_ok=True)
        there = trainer(here, max_nb_epochs=1, nb_sanity_val_steps=0, distributed_backend=backend, uneven_batches=how)
        model = Exchanging(LOADERS["list"], str(here), exchanges=how != "wait")
        there.fit(model)
        told: dict[str, Any] = {
            "trained": model.counted,
            "validated": [there.tqdm_metrics[f"count {n}"] for n in range(4)],
        }
        told["weights"] = [p.item() for p in model.layer.parameters()]
        told["whole rounds"] = NB // SIZE // place()[1] * place()[1] * SIZE
        told["by hand"] = by_hand(LOADERS["list"](), how == "drop")
        tell(here, told)
    model = Exchanging(LOADERS["list"], str(folder), exchanges=False)
    model.norm = torch.nn.SyncBatchNorm(1)
    try:
        trainer(folder).fit(model)
    except LightningError as error:
        tell(folder, {"error": str(error)})


def tell(folder: Path, told: dict[str, Any]) -> None:
    if place()[0] == 0:
        (folder / "told.json").write_text(json.dumps(told))


def resume(folder: Path, loader: Any) -> None:
    """A fit that is cut in its second epoch and resumed, and one that isn't cut."""
    elsewhere = folder / "undisturbed"
    elsewhere.mkdir(parents=True, exist_ok=True)
    whole = Net(loader, str(elsewhere))
    trainer(folder, data_is_sharded=True).fit(whole)
    cut = trainer(folder, data_is_sharded=True, max_nb_steps=7 if place()[1] == 2 else 5)
    cut.fit(Net(loader, str(folder)))
    cut.save_checkpoint(folder / "cut.ckpt")
    model = Net(loader, str(folder))
    trainer(folder, data_is_sharded=True, resume=folder / "cut.ckpt").fit(model)
    told = {"weights": str(model.state_dict()), "undisturbed": str(whole.state_dict())}
    for epoch in (0, 1):
        same = seen(folder, epoch=epoch) == seen(elsewhere, epoch=epoch)
        told["undisturbed"] += "" if same else f" other samples in epoch {epoch}"
    try:
        trainer(folder, resume=folder / "cut.ckpt").fit(Net(loader, str(elsewhere)))
    except LightningError as error:
        told["dealt out"] = str(error)
    tell(folder, told)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        fit_all(Path(sys.argv[1]))
