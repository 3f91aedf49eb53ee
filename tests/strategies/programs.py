"""What ``test_replicas`` runs in several processes: ``python -m tests.strategies.programs FOLDER`` runs all of it.

One program, so that torch is imported once; each group of processes is made of its forks, and may end as it likes.
"""

import contextlib
import io
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing, nn

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.launchers.environment import leave
from pytorch_lightning.strategies import Distributed, FullySharded
from tests.launchers.grouped import enter_group

dist: Any = distributed
mp: Any = multiprocessing
NB_BATCHES = 11
EPOCHS = 3


class Net(LightningModule):
    """A batch's first column is its number, by which layers are used or not; the place in training is the same by
    hand. ``change(net, step)`` is called before each round, as ``on_batch_start``."""

    def __init__(self, use: str = "all", change: str = "", frozen: tuple[int, ...] = ()) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)])
            self.last = nn.Linear(4, 1)
        self.use, self.change, self.rank = use, change, 0
        for i in frozen:
            self.layers[i].requires_grad_(False)

    def uses(self, layer: int, batch_nb: int) -> bool:
        if self.use == "some":  # LayerDrop, by batch and so by rank
            return (batch_nb * 7 + layer * 3) % 5 > 1
        if self.use == "not the second":
            return layer != 1
        if self.use.startswith("not in batch "):
            return layer != 1 or batch_nb not in map(int, self.use.split()[3:])
        return True

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x = data_batch[:, 1:]
        if self.change == "inside" and self.global_step == 2:
            self.layers[0].requires_grad_(True)
        for i, layer in enumerate(self.layers):
            if self.uses(i, int(data_batch[0, 0])):
                x = layer(x).tanh()
        x = self.more(x) if hasattr(self, "more") else x
        return (self.last(x) - 1.0).pow(2).mean()

    def at_step(self, step: int) -> None:
        """What changes before a round."""
        if self.change == "layers":
            for when, layer, on in ((2, 0, True), (4, 1, False), (6, 2, True), (8, 1, True)):
                if step == when:
                    self.layers[layer].requires_grad_(on)
        if self.change == "one rank" and step == 3 and self.rank == 1:
            self.layers[0].requires_grad_(True)

    def at_epoch(self, epoch: int, optimizer: Any) -> None:
        """What changes at an epoch's start."""
        if self.change == "epochs" and epoch:
            self.layers[epoch - 1].requires_grad_(True)
        if self.change == "group" and epoch == 1:
            with torch.random.fork_rng():
                torch.manual_seed(5 + self.rank)  # as a program that doesn't seed: that of rank 0 is everybody's
                self.more = nn.Linear(4, 4)
            optimizer.add_param_group({"params": list(self.more.parameters())})
        if self.change == "alone" and epoch == 1:
            self.loose = [nn.Parameter(torch.ones(1))]
            optimizer.add_param_group({"params": self.loose})

    def on_batch_start(self, batch: Any) -> Any:
        self.at_step(self.global_step)

    def on_epoch_start(self) -> None:
        self.at_epoch(self.current_epoch, self.trainer.optimizers[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)

    @property
    def tng_dataloader(self) -> Any:
        return batches()


class Gan(Net):
    """Freezes the other part in each optimizer's turn, as many programs do."""

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        for i in (0, 1):
            self.part(i).requires_grad_(i == optimizer_i)
        loss = super().training_step(data_batch, batch_nb)
        return loss if optimizer_i else -0.5 * loss + 1.0

    def part(self, i: int) -> nn.Module:
        return nn.ModuleList([self.layers[2], self.last]) if i else self.layers[:2]

    def configure_optimizers(self) -> Any:
        return [torch.optim.AdamW(self.part(i).parameters(), lr=0.01) for i in (0, 1)]


class Attends(Net):
    """Torch's attention takes the weights of one of its layers without calling it; so does ``borrows`` with another."""

    def __init__(self, borrows: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.more = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0)
        self.borrows = borrows

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.borrows:
            for i, layer in enumerate(self.layers):
                if i != 3:
                    layer(data_batch[:, 1:])
            return nn.functional.linear(data_batch[:, 1:], self.layers[3].weight).pow(2).mean()
        return super().training_step(data_batch, batch_nb)

    def configure_optimizers(self) -> Any:  # the gradient of the keys' bias is rounding, which Adam would enlarge
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Alternates(Net):
    """Each process uses another one of two layers of the same size."""

    def uses(self, layer: int, batch_nb: int) -> bool:
        return layer > 1 or layer == self.rank


class Touches(Callback):
    """Changes a weight in one process."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, run: Any) -> None:
        if run.module.rank == 1 and run.progress.global_step == self.step:
            with torch.no_grad():
                run.module.layers[2].bias[0].add_(1e-6)


class Wide(Net):
    """Enough numbers for the order of a sum to matter. Ends itself at a step."""

    def __init__(self, cut: int = -1, **options: Any) -> None:
        super().__init__(**options)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.last = nn.Sequential(nn.Linear(4, 96), nn.Tanh(), nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, 1))
        self.cut = cut

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step == self.cut:
            os._exit(9)
        return super().training_step(data_batch, batch_nb)


def batches() -> list[Any]:
    made = torch.Generator().manual_seed(3)
    return [torch.cat([torch.full((4, 1), float(i)), torch.randn(4, 4, generator=made)], 1) for i in range(NB_BATCHES)]


def fit(folder: Path, rank: int, make: Callable[[], Net], backend: Any = "ddp", **options: Any) -> Any:
    model = make()
    model.rank = rank
    fixed = {"progress_bar": False, "print_weights_summary": False, "seed": 1, "process_timeout_minutes": 1}
    silence = ("no-validation", "unused-parameter", "not-shuffled", "other-attributes", "first-save")
    options = {"experiment": False, "max_nb_epochs": EPOCHS, "silence": silence, "crash_bundle": False, **options}
    Trainer(distributed_backend=backend, default_save_path=folder, **fixed, **options).fit(model)
    return {name: value.clone() for name, value in model.state_dict().items()}


def program(
    make: Callable[[], Net],
    find: bool = False,
    static: bool = False,
    shards: bool = False,
    backend: Any = "ddp",
    **options: Any,
) -> Any:
    def run(folder: Path, rank: int) -> Any:
        nonlocal backend
        if find or static:
            backend = Distributed(find_unused_parameters=find, static_graph=static)
        if shards:
            backend = FullySharded(min_parameters=16)
        return fit(folder, rank, make, backend, **options)

    return run


def cut(name: str, make: Callable[..., Net], at: int = -1, **options: Any) -> Any:
    def run(folder: Path, rank: int) -> Any:
        place = folder / name
        return fit(place, rank, partial(make, at), resume="auto", save_every_nb_batches=1, **options)

    return run


SOME = partial(Net, "some")
CHANGES = {
    "layers": partial(Net, change="layers", frozen=(0, 2)),
    "epochs": partial(Net, change="epochs", frozen=(0, 1)),
    "group": partial(Net, change="group"),
}

VIEWS = partial(Distributed, gradient_as_bucket_view=True)

Programs = dict[tuple[str, int], Callable[[Path, int], Any]]


def trained() -> Programs:
    """Those that end with weights."""
    return {
        ("some", 2): program(SOME, find=True),
        ("some, accumulated", 3): program(SOME, find=True, accumulate_grad_batches=3),
        ("gan", 2): program(Gan),
        ("layers", 2): program(CHANGES["layers"]),
        ("layers", 3): program(CHANGES["layers"]),
        ("layers, found", 2): program(CHANGES["layers"], find=True),
        ("epochs, accumulated", 2): program(CHANGES["epochs"], accumulate_grad_batches=3),
        ("epochs, exact", 2): program(CHANGES["epochs"], exact_elastic=True),
        ("group", 2): program(CHANGES["group"]),
        ("layers, sharded", 2): program(CHANGES["layers"], shards=True),
        ("attends, sharded", 2): program(Attends, shards=True),
        ("static", 2): program(partial(Net, "not the second"), static=True, train_percent_check=0.91),
        ("layers, views", 3): program(CHANGES["layers"], backend=VIEWS()),
        ("epochs, accumulated, views", 2): program(CHANGES["epochs"], backend=VIEWS(), accumulate_grad_batches=3),
    }


def refused() -> Programs:
    """Those that end with an error, at the latest before a step that would be wrong."""
    once: dict[str, Any] = {"max_nb_epochs": 1}
    later = partial(Net, "not in batch 2 3")  # used in the window's first round, and not in the one that exchanges
    saved: dict[str, Any] = {"save_every_nb_batches": 2, "experiment": None}
    return {
        ("unused last", 2): program(partial(Net, "not in batch 10"), **once),
        ("unused by one of three", 3): program(partial(Net, "not in batch 4"), **once),
        ("unused later", 2): program(later, **once, accumulate_grad_batches=2),
        ("static, accumulated", 2): program(Net, static=True, accumulate_grad_batches=2),
        ("static, short round", 2): program(Net, static=True),
        ("inside", 2): program(partial(Net, change="inside", frozen=(0,))),
        ("one rank", 2): program(partial(Net, change="one rank", frozen=(0,))),
        ("alone", 2): program(partial(Net, change="alone")),
        ("group, sharded", 2): program(CHANGES["group"], shards=True),
        ("some, sharded layers", 2): program(Alternates, shards=True),
        ("some, sharded", 2): program(Alternates, backend="fsdp"),
        ("borrows, sharded", 2): program(partial(Attends, borrows=True), shards=True),
        ("touched, epoch's end", 2): program(Net, callbacks=[Touches(1)], **once),
        ("touched, saved", 3): program(Net, callbacks=[Touches(0)], **saved),
    }


def said() -> Programs:
    """Those that end with what they said."""

    def run(folder: Path, rank: int) -> Any:
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            fit(folder, rank, Net, Distributed(static_graph=True), train_percent_check=0.82, max_nb_epochs=1)
        return stderr.getvalue()

    return {("static, said", 3): run}


def killed() -> Programs:
    """Those that are killed at a step and go on, beside the same ones undisturbed."""
    found: Programs = {}
    for nb, make in ((3, partial(Wide, change="layers", frozen=(0, 2))), (4, Wide)):
        found["undisturbed", nb] = cut(f"whole-{nb}", make)
        found["killed", nb] = cut(f"cut-{nb}", make, 5)
        found["resumed", nb] = cut(f"cut-{nb}", make)
    return found


def programs() -> Programs:
    return {**trained(), **refused(), **said(), **killed()}


def run_process(rank: int, nb: int, folder: str, port: int, name: str) -> None:
    torch.set_num_threads(1)
    enter_group(rank, nb, port)
    place = os.path.join(folder, f"{name}-{nb}-{rank}.pt")
    try:
        torch.save(programs()[name, nb](Path(folder), rank), place)
    except Exception:
        torch.save(traceback.format_exc(), place)
        os._exit(1)
    leave()


def main(folder: str) -> None:
    only = os.environ.get("PROGRAMS", "")
    torch.set_num_threads(1)
    for options in ({"virtual_ranks": 2}, {}):  # what is imported late is imported once
        Trainer(False, max_nb_epochs=1, progress_bar=False, print_weights_summary=False, **options).fit(Net())
    for name, nb in programs():
        if only and only not in name:
            continue
        began = time.monotonic()
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        context = mp.get_context("fork")
        group = [context.Process(target=run_process, args=(r, nb, folder, store.port, name)) for r in range(nb)]
        for process in group:
            process.start()
        for process in group:
            process.join()
        if os.environ.get("TIMES"):
            print(name, nb, f"{time.monotonic() - began:.1f}", [p.exitcode for p in group], flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
