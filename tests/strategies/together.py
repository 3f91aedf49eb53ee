"""Programs that are trained in 2 and 3 processes, and the loop that one would write for each by hand:
``python -m tests.strategies.together FOLDER`` trains all of them. The processes of a group train one after the other.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, multiprocessing, nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.launchers.environment import leave
from pytorch_lightning.strategies import Distributed
from tests.launchers.grouped import enter_group

dist: Any = distributed
mp: Any = multiprocessing
NB, SIZE, EPOCHS = 40, 4, 2
"""Ten batches: three processes have one in the last round, and all of two have one."""
GROUPS = (2, 3)
Batches = list[list[Any]]
"""Rounds of a batch for each process that has one."""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everybodys(own: Tensor) -> Tensor:
    """The rows of all processes, with a gradient for each."""
    if not dist.is_initialized():
        return own
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(own))


def place() -> tuple[int, int]:
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Net(LightningModule):
    """What all have in common. Weights are drawn from a stream of their own."""

    shuffle = False

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.build()

    def build(self) -> None:
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 1)

    def loss(self, batch: Any) -> Tensor:
        return (self.head(self.body(batch[0])) - batch[1]).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.5)

    @staticmethod
    def data() -> TensorDataset:
        return TensorDataset(numbers(NB, 6), numbers(NB, 1, seed=1))

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self.data(), SIZE, shuffle=self.shuffle, drop_last=True)


class SimClr(Net):
    """Two views of each sample; the other samples of all processes are what they are told from."""

    def build(self) -> None:
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))

    @staticmethod
    def data() -> TensorDataset:
        return TensorDataset(numbers(NB, 6), numbers(NB, 6) + 0.3 * numbers(NB, 6, seed=2))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        mine = [F.normalize(self.body(view)) for view in data_batch]
        first, second = map(everybodys, mine)
        start = place()[0] * len(mine[0])
        own = torch.arange(start, start + len(mine[0]))
        return {"loss": contrast(torch.cat(mine), torch.cat([first, second]), own, len(first))}


def contrast(anchors: Tensor, all_: Tensor, own: Tensor, nb: int) -> Tensor:
    """The normalized cross entropy of ``anchors``, which are ``own`` and ``own + nb`` among ``all_``."""
    here, other = torch.cat([own, own + nb]), torch.cat([own + nb, own])
    logits = (anchors @ all_.T / 0.5).scatter(1, here[:, None], -torch.inf)
    return F.cross_entropy(logits, other)


def simclr_by_hand(net: SimClr, batches: Any, nb_counted: int) -> Tensor:
    """The loss of ``batches`` together, of which the first ``nb_counted`` count."""
    views = [torch.cat([F.normalize(net.body(batch[i])) for batch in batches]) for i in (0, 1)]
    nb = len(views[0])
    counted = torch.arange(nb_counted * SIZE)
    return contrast(torch.cat([view[counted] for view in views]), torch.cat(views), counted, nb)


class Clip(Net):
    """Two towers and a scale; the loss is that of all processes' pairs."""

    def build(self) -> None:
        self.image, self.text = nn.Linear(6, 4), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        self.scale = nn.Parameter(torch.tensor(1.0))

    data = staticmethod(SimClr.data)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        image, text = (F.normalize(tower(x)) for tower, x in zip((self.image, self.text), data_batch, strict=True))
        return {"loss": self.pairs(everybodys(image), everybodys(text))}

    def pairs(self, image: Tensor, text: Tensor) -> Tensor:
        logits, truth = self.scale.exp() * image @ text.T, torch.arange(len(image))
        return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def clip_by_hand(net: Clip, batches: Any, nb_counted: int) -> Tensor:
    images, texts = zip(*batches, strict=True)
    return net.pairs(F.normalize(net.image(torch.cat(images))), F.normalize(net.text(torch.cat(texts))))


class Gan(Net):
    def build(self) -> None:
        self.generator = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
        self.judge = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    data = staticmethod(SimClr.data)

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        noise, real = data_batch
        made = self.generator(noise)
        if optimizer_i == 0:
            return {"loss": F.softplus(-self.judge(made)).mean()}
        return {"loss": (F.softplus(self.judge(made.detach())) + F.softplus(-self.judge(real))).mean()}

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), 0.01, eps=1e-3) for part in (self.generator, self.judge)]


class LayerDrop(Net):
    """Some layers are left out, by the samples and so by process."""

    def build(self) -> None:
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.head = nn.Linear(6, 1)

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        keep = int(x[0, 0].abs() * 1000)
        for i, layer in enumerate(self.layers):
            x = x + layer(x).tanh() if (keep + i) % 3 else x
        return (self.head(x) - y).pow(2).mean()


class Unfreezing(Net):
    """The body is trained from the second epoch on, slower."""

    def build(self) -> None:
        super().build()
        self.body.requires_grad_(False)

    def begin(self, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.body.requires_grad_(True)
            optimizer.add_param_group({"params": list(self.body.parameters()), "lr": 0.02})

    def on_epoch_start(self) -> None:
        self.begin(self.current_epoch, self.trainer.optimizers[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.head.parameters(), lr=0.1, momentum=0.5)


class Share(IterableDataset[Any]):
    """The samples of this process: the first one has more."""

    def __init__(self, rank: int, nb: int) -> None:
        self.rank, self.nb = rank, nb

    def those(self) -> range:
        return range(NB)[self.rank :: self.nb] if self.rank else range(0, NB, self.nb)[: 12 + 4 * (self.nb == 2)]

    def __iter__(self) -> Iterator[Any]:
        data = Net.data()
        return (data[i] for i in self.those())


class Streamed(Net):
    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Share(*place()), SIZE)


class Fold(Net):
    """Trained on all samples but those of one of five folds, and validated on those."""

    def __init__(self, fold: int = 0) -> None:
        super().__init__()
        self.fold = fold

    def split(self) -> tuple[Any, Any]:
        inside = [i for i in range(NB) if i % 5 == self.fold]
        return Subset(self.data(), sorted({*range(NB)} - {*inside})), Subset(self.data(), inside)

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"sum": self.loss(data_batch) * len(data_batch[0]), "nb": len(data_batch[0])}

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": sum(o["sum"] for o in outputs) / sum(o["nb"] for o in outputs)}

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self.split()[0], SIZE)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(self.split()[1], 3)


# ------------------------------------------------------------------------------------------ programs
@dataclass(frozen=True)
class Program:
    """A module, the Trainer's options, and the loss of a round by hand."""

    make: Callable[[], Net]
    options: dict[str, Any] = field(default_factory=dict)
    together: Callable[[Any, Any, int], Tensor] | None = None
    """The loss of a round's batches, the first ones of which count; None: the mean of that of each."""
    finds: bool = False


PROGRAMS: dict[str, Program] = {
    "simclr, repeat": Program(SimClr, {"uneven_batches": "repeat"}, simclr_by_hand),
    "simclr, drop": Program(SimClr, {"uneven_batches": "drop"}, simclr_by_hand),
    "simclr, repeat, accumulated": Program(
        SimClr, {"uneven_batches": "repeat", "accumulate_grad_batches": 2}, simclr_by_hand
    ),
    "clip, repeat": Program(Clip, {"uneven_batches": "repeat"}, clip_by_hand),
    "clip, drop": Program(Clip, {"uneven_batches": "drop"}, clip_by_hand),
    "gan": Program(Gan),
    "gan, accumulated": Program(Gan, {"accumulate_grad_batches": 3}),
    "layerdrop": Program(LayerDrop, finds=True),
    "layerdrop, accumulated": Program(LayerDrop, {"accumulate_grad_batches": 2}, finds=True),
    "unfreezing": Program(Unfreezing),
    "stream of its own share": Program(Streamed, {"data_is_sharded": True}),
    **{f"fold {i}": Program(lambda i=i: Fold(i)) for i in range(5)},  # type: ignore[misc]
}


def rounds_of(net: Net, nb: int, options: dict[str, Any]) -> Batches:
    """Each round's batches: those that count, and then those that are repeated."""
    if options.get("data_is_sharded"):
        own = [[*DataLoader(Share(rank, nb), SIZE)] for rank in range(nb)]
        return [[of[i] for of in own if i < len(of)] for i in range(max(map(len, own)))]
    batches = [*net.tng_dataloader]
    rounds: Batches = [batches[i : i + nb] for i in range(0, len(batches), nb)]
    if options.get("uneven_batches") == "drop" and len(rounds[-1]) < nb:
        rounds.pop()
    return rounds


def by_hand(program: Program, nb: int) -> tuple[dict[str, Tensor], float | None]:
    """The weights after plain steps on the batches of all processes, and the loss on the samples that are kept out."""
    net, options = program.make().double(), program.options
    configured = net.configure_optimizers()
    optimizers = configured if isinstance(configured, list) else [configured]
    rounds, accumulate = rounds_of(net, nb, options), options.get("accumulate_grad_batches", 1)
    for epoch in range(EPOCHS):
        if isinstance(net, Unfreezing):
            net.begin(epoch, optimizers[0])
        for first in range(0, len(rounds), accumulate):
            window = range(first, min(first + accumulate, len(rounds)))
            ready = []
            for i, optimizer in enumerate(optimizers):
                net.zero_grad()
                add_gradients(program, net, nb, [*window], rounds, i if len(optimizers) > 1 else None)
                if accumulate == 1:
                    optimizer.step()
                    continue
                ready.append([(p, p.grad) for group in optimizer.param_groups for p in group["params"]])
            for optimizer, gradients in zip(optimizers, ready, strict=False):  # both, once both are there
                for parameter, gradient in gradients:
                    parameter.grad = gradient
                optimizer.step()
    kept_out = next(iter(DataLoader(net.split()[1], NB))) if isinstance(net, Fold) else None
    return net.state_dict(), None if kept_out is None else net.loss(kept_out).item()


def add_gradients(
    program: Program, net: Any, nb: int, window: list[int], rounds: Batches, optimizer_i: int | None
) -> None:
    total = sum(len(rounds[n]) for n in window)
    for n in window:
        nb_counted = len(rounds[n])
        if program.together is not None:
            repeated = rounds[n - 1][nb_counted:] if nb_counted < nb else []
            loss = program.together(net, rounds[n] + repeated, nb_counted) * nb_counted
        elif optimizer_i is not None:
            loss = sum(net.training_step(batch, n, optimizer_i)["loss"] for batch in rounds[n])
        else:
            loss = sum(net.loss(batch) for batch in rounds[n])
        (loss / total).backward()


def train(program: Program) -> Any:
    net = program.make()
    trainer = Trainer(
        experiment=False,
        max_nb_epochs=EPOCHS,
        precision="64",
        distributed_backend=Distributed(find_unused_parameters=True) if program.finds else "ddp",
        progress_bar=False,
        print_weights_summary=False,
        process_timeout_minutes=1,
        crash_bundle=False,
        silence=("not-shuffled", "no-validation", "unused-parameter"),
        **program.options,
    )
    assert trainer.fit(net) == 1
    return {"weights": net.state_dict(), "val_loss": trainer.tqdm_metrics.get("val_loss")}


def run_group(rank: int, nb: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    enter_group(rank, nb, port)
    told = {}
    for name, program in PROGRAMS.items():
        began = time.monotonic()
        if os.environ.get("PROGRAMS", "") not in name:
            continue
        try:
            told[name] = train(program)
        except Exception:
            told[name] = traceback.format_exc()
        if os.environ.get("TIMES") and not rank:
            print(nb, name, f"{time.monotonic() - began:.1f}", flush=True)
    torch.save(told, Path(folder, f"{nb}-{rank}.pt"))
    leave()


def main(folder: str) -> None:
    for nb in GROUPS:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        mp.start_processes(run_group, (nb, folder, store.port), nprocs=nb, start_method="fork")


if __name__ == "__main__":
    main(sys.argv[1])
