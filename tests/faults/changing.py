"""Programs that change things while they are trained, made by lot: what tells two of them apart is in a draw."""

import collections
import dataclasses
import json
import os
import random
import signal
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Sampler, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback, ModelCheckpoint

NB, SIZE, NB_EPOCHS = 22, 4, 4
"""Samples, by process. One process has six batches an epoch; the last one holds two samples."""

CHANGES = (
    "freeze", "unfreeze", "add_group", "bn_eval", "rate", "stage", "stage_in_epoch", "counter", "outputs", "deque",
    "array", "tensor", "set", "weights", "callback", "buffer", "replace_data", "reconfigure", "append_optimizer",
    "dropout_p", "momentum", "clear_state", "late", "kinds", "aliases", "layer_option",
)  # fmt: skip
OF_DATA = ("stage", "stage_in_epoch", "replace_data", "late")
SAMPLERS = ("in order", "shuffle", "counts first", "counts last", "grows", "batches", "weighted", "stream", "list")
DRAWING = ("shuffle", "weighted")
SCHEDULES = ("none", "step", "epoch", "plateau", "cosine", "lambda")
EXITS = ("kill", "term", "raise")


def draw(seed: int) -> dict[str, Any]:
    """All that a program is made of, as plain data."""
    lot = random.Random(seed)
    by_hand = seed % 2 == 0
    """Nothing is drawn at random, so that a loop by hand can do the same."""
    optimizers = lot.choice((1, 1, 2))
    changes = lot.sample(CHANGES, lot.randint(2, 6))
    if optimizers == 2 or "reconfigure" in changes:
        changes = [c for c in changes if c not in ("append_optimizer",)]
    if "append_optimizer" in changes:
        changes = [c for c in changes if c not in ("add_group",)]
    sampler = lot.choice([s for s in SAMPLERS if not by_hand or s not in DRAWING])
    if sampler in ("list", "stream"):
        changes = [c for c in changes if c not in OF_DATA]
    workers = 0 if sampler == "list" or by_hand else lot.choice((0, 0, 2))
    made = {
        "seed": seed,
        "optimizers": optimizers,
        "changes": changes,
        "at": {change: lot.randrange(1, 6 * NB_EPOCHS - 2) for change in changes},
        "sampler": sampler,
        "workers": workers,
        "persistent": workers > 0 and lot.random() < 0.3,
        "schedule": lot.choice([s for s in SCHEDULES if not by_hand or s != "plateau"]),
        "norm": lot.random() < 0.5,
        "dropout": lot.random() < 0.5 and not by_hand,
        "augments": lot.random() < 0.4 and sampler != "list" and not by_hand,
        "validates": lot.random() < 0.5,
        "accumulate": lot.choice((1, 1, 2)),
        "save_every": lot.choice((1, 2, 3, 5)),
        "cuts": [(lot.choice(EXITS), lot.randrange(1, 6 * NB_EPOCHS - 1)) for _ in range(lot.choice((1, 1, 2)))],
    }
    if "add_group" in changes and made["schedule"] in ("lambda", "cosine"):
        made["schedule"] = "step"  # torch's have a number for each of the groups that were there first
    if optimizers == 2 and {"freeze", "unfreeze"} & {*changes}:
        made["norm"] = True  # or an optimizer would have frozen parameters alone
    return made


def draws_nothing(made: dict[str, Any]) -> bool:
    """Whether a loop by hand, which draws at other moments, ends with the same weights."""
    draws = made["dropout"] or made["augments"] or made["sampler"] in DRAWING
    # with workers data that change are those of the epoch's start; inside a window the next batch is fetched before the
    # one before it is finished; a plateau watches the Trainer's numbers
    late = made["accumulate"] > 1 and {"stage_in_epoch", "replace_data", "late"} & {*made["changes"]}
    return not (draws or made["workers"] or late or made["schedule"] == "plateau")


class Points(Dataset[Any]):
    """The samples, or ``those`` of them."""

    def __init__(self, augments: bool, those: range = range(NB)) -> None:
        self.x = torch.randn(max(NB, those.stop), 6, generator=torch.Generator().manual_seed(1))
        self.y = self.x[:, :3].argmax(dim=1)
        self.augments, self.stage, self.rows = augments, 0, list(those)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x = self.x[self.rows[i]] * (1.0 + 0.1 * self.stage) + getattr(self, "late", 0.0)
        return (x + 0.1 * torch.randn(6) if self.augments else x), self.y[self.rows[i]]


@dataclasses.dataclass
class Level:
    """Plain data of a class of one's own."""

    height: float = 0.0


class Stream(IterableDataset[Any]):
    def __init__(self, data: Points) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return (self.data[i] for i in range(first, len(self.data), step))


class CountsFirst(Sampler[int]):
    """Counts its epochs when one begins."""

    def __init__(self, nb: int) -> None:
        self.nb, self.epoch = nb, 0

    def __len__(self) -> int:
        return self.nb

    def order(self) -> list[int]:
        return torch.randperm(self.nb, generator=torch.Generator().manual_seed(100 + self.epoch)).tolist()

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(self.order())


class CountsLast(CountsFirst):
    """Counts them when one is at its end."""

    def __iter__(self) -> Iterator[int]:
        yield from self.order()
        self.epoch += 1


class Grows(CountsFirst):
    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return min(self.nb, (10 + 4 * self.epoch) * max(1, self.nb // NB))

    def __iter__(self) -> Iterator[int]:
        return iter(self.order()[: len(self)])


class Batches(CountsFirst):
    """Makes its own batches, as many as ever, of sizes that it counts."""

    def __len__(self) -> int:
        return -(-self.nb // SIZE)

    def __iter__(self) -> Iterator[Any]:
        self.epoch += 1
        return iter([part.tolist() for part in np.array_split(self.order(), len(self))])


def loader_of(made: dict[str, Any], data: Points) -> Any:
    kind = made["sampler"]
    options: dict[str, Any] = {"num_workers": made["workers"], "persistent_workers": made["persistent"]}
    if kind == "list":
        return list(DataLoader(TensorDataset(data.x[data.rows], data.y[data.rows]), SIZE))
    if kind == "stream":
        return DataLoader(Stream(data), SIZE, **options)
    if kind == "batches":
        return DataLoader(data, batch_sampler=Batches(len(data)), **options)
    if kind == "weighted":
        weights = torch.arange(1.0, len(data) + 1)
        return DataLoader(data, SIZE, sampler=torch.utils.data.WeightedRandomSampler(weights, len(data)), **options)
    if kind.startswith("of torch"):
        place = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        sampler: Any = DistributedSampler(data, *place, shuffle="shuffled" in kind)
        return DataLoader(data, SIZE, sampler=sampler, **options)
    samplers: dict[str, Any] = {"counts first": CountsFirst, "counts last": CountsLast, "grows": Grows}
    if kind in samplers:
        return DataLoader(data, SIZE, sampler=samplers[kind](len(data)), **options)
    return DataLoader(data, SIZE, shuffle=kind == "shuffle", **options)


class Changing(LightningModule):
    """Changes what its draw says, when its draw says."""

    def __init__(self, made: dict[str, Any], those: range = range(NB)) -> None:
        super().__init__()
        self.made = made
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Linear(6, 8)
            self.norm = nn.BatchNorm1d(8) if made["norm"] else nn.Identity()
            self.drop = nn.Dropout(0.3 if made["dropout"] else 0.0)
            self.head = nn.Linear(8, 3)
            self.extra = nn.Linear(8, 3)
        if "unfreeze" in made["changes"] or "add_group" in made["changes"]:
            self.body.requires_grad_(False)
        self.extra.requires_grad_("append_optimizer" in made["changes"])
        self.data = Points(made["augments"], those)
        self.counter, self.scale, self.phase = 0, 1.0, 0
        self.outputs: list[Tensor] = []
        self.recent: deque[float] = deque(maxlen=5)
        self.table, self.kept = np.zeros(3), torch.zeros(3)
        self.met: set[int] = set()
        self.tally: Any = collections.Counter()
        self.by_name: Any = collections.OrderedDict()
        self.lists: Any = collections.defaultdict(list)
        self.level, self.seen = Level(), frozenset[int]()
        self.same = self.lists["same"]
        self.register_buffer("shift", torch.zeros(3), persistent=False)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        hidden = self.drop(self.norm(torch.tanh(self.body(x))))
        made = self.head(hidden) + self.extra(hidden) + self.shift + self.kept
        loss = F.cross_entropy(made, y) * self.scale
        changes = self.made["changes"]
        if "outputs" in changes:
            loss = loss * (1.0 + 0.01 * len(self.outputs))
            self.outputs.append(loss.detach())
        if "deque" in changes:
            loss = loss + 0.01 * sum(self.recent) * self.head.bias.pow(2).sum()
            self.recent.append(float(loss.detach()))
        return {"loss": loss, "prog": {"shown": self.counter}}

    # ------------------------------------------------------------------------------------------ changes
    def on_epoch_start(self) -> None:
        if "stage" in self.made["changes"]:
            self.data.stage = self.current_epoch

    def on_batch_end(self) -> None:
        for change in self.made["changes"]:
            step = self.global_step
            if step == self.made["at"][change]:
                getattr(self, f"do_{change}", lambda: None)()
            if step >= self.made["at"][change]:
                getattr(self, f"keep_{change}", lambda: None)()

    def on_epoch_end(self) -> None:
        if "outputs" in self.made["changes"] and self.outputs:
            self.scale = 1.0 + 0.1 * float(torch.stack(self.outputs).mean())
            self.outputs.clear()

    def do_freeze(self) -> None:
        self.body.requires_grad_(False)

    def do_unfreeze(self) -> None:
        self.body.requires_grad_(True)

    def do_add_group(self) -> None:
        self.body.requires_grad_(True)
        if not any(p is self.body.weight for g in self.optimizer(0).param_groups for p in g["params"]):
            self.optimizer(0).add_param_group({"params": list(self.body.parameters()), "lr": 0.02})

    def do_bn_eval(self) -> None:
        self.norm.eval()

    def do_rate(self) -> None:
        for group in self.optimizer(0).param_groups:
            group["lr"] *= 0.5

    def do_stage_in_epoch(self) -> None:
        self.data.stage += 3

    def keep_counter(self) -> None:
        self.counter += 1
        self.scale = 1.0 + 0.02 * self.counter

    def keep_array(self) -> None:
        self.table[self.global_step % 3] += 0.01
        self.scale = 1.0 + float(self.table.sum())

    def keep_tensor(self) -> None:
        self.kept.add_(0.01)

    def keep_set(self) -> None:
        self.met.add(self.global_step % 7)
        self.scale = 1.0 + 0.05 * len(self.met)

    def do_weights(self) -> None:
        with torch.no_grad():
            self.head.weight.mul_(0.5)

    def keep_buffer(self) -> None:
        self.shift = self.shift + 0.01

    def do_replace_data(self) -> None:
        self.data.rows.reverse()

    def do_dropout_p(self) -> None:
        self.drop.p = 0.5 if self.made["dropout"] else 0.0

    def do_momentum(self) -> None:
        for group in self.optimizer(0).param_groups:
            group.update({"momentum": 0.3} if "momentum" in group else {"betas": (0.7, 0.9)})

    def do_clear_state(self) -> None:
        self.optimizer(0).state.clear()

    def do_late(self) -> None:
        self.data.late = 0.2  # type: ignore[attr-defined]

    def keep_kinds(self) -> None:
        step = self.global_step
        self.tally[step % 3] += 1
        self.by_name[f"{step % 5}"] = step
        self.by_name.move_to_end(next(iter(self.by_name)))
        self.level.height += 0.01
        self.seen = self.seen | {step % 4}
        self.scale = (
            1.0 + self.level.height + 0.01 * (len(self.seen) + self.tally[1] + next(iter(self.by_name.values())))
        )

    def keep_aliases(self) -> None:
        self.same.append(1.0)
        self.scale = 1.0 + 0.01 * len(self.lists["same"])

    def do_layer_option(self) -> None:
        if isinstance(self.norm, nn.BatchNorm1d):
            self.norm.momentum, self.norm.eps = 0.4, 0.1

    def do_reconfigure(self) -> None:
        self.phase = 1
        self.trainer.reconfigure_optimizers()

    def do_append_optimizer(self) -> None:
        self.phase = 2
        self.trainer.reconfigure_optimizers()

    def optimizer(self, i: int) -> Any:
        return self.trainer.optimizers[i]

    # ------------------------------------------------------------------------------------------ the rest
    def configure_optimizers(self) -> Any:
        rest = [*self.head.parameters(), *([] if isinstance(self.norm, nn.Identity) else self.norm.parameters())]
        if "add_group" not in self.made["changes"]:
            rest = [*self.body.parameters(), *rest]
        kind: Any = torch.optim.SGD if self.phase == 1 else torch.optim.Adam
        options = {"momentum": 0.9} if self.phase == 1 else {}
        if self.made["optimizers"] == 2:
            half = len(rest) // 2
            optimizers = [kind(rest[half:], 0.02, **options), torch.optim.SGD(rest[:half], 0.05, momentum=0.5)]
        else:
            optimizers = [kind(rest, 0.02, **options)]
        if self.phase == 2:
            optimizers.append(torch.optim.SGD(self.extra.parameters(), 0.05))
        return optimizers, self.schedules(optimizers[0])

    def schedules(self, optimizer: Any) -> list[Any]:
        of = torch.optim.lr_scheduler
        kind = self.made["schedule"]
        if kind == "step":
            return [{"scheduler": of.StepLR(optimizer, 5, 0.7), "interval": "step"}]
        if kind == "epoch":
            return [of.StepLR(optimizer, 1, 0.7)]
        if kind == "plateau":
            watched = "val_loss" if self.made["validates"] else "tng_loss"
            plateau = of.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.2)
            return [{"scheduler": plateau, "monitor": watched}]
        if kind == "cosine":
            return [{"scheduler": of.CosineAnnealingLR(optimizer, 20), "interval": "step"}]
        if kind == "lambda":
            return [of.MultiplicativeLR(optimizer, lambda epoch: 0.8)]
        return []

    @property
    def tng_dataloader(self) -> Any:
        return loader_of(self.made, self.data)


class Validated(Changing):
    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return F.cross_entropy(self.head(torch.tanh(self.body(x))), y)

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    @property
    def val_dataloader(self) -> Any:
        other = Points(False)
        return DataLoader(TensorDataset(other.x, other.y), 8)


class Counting(Callback):
    """Without a ``state_dict``: what it counts is an attribute."""

    def __init__(self) -> None:
        self.seen = 0

    def on_batch_end(self, run: Any) -> None:
        made = run.module.made
        if "callback" in made["changes"]:
            self.seen += 1
            if self.seen % 4 == 0:
                run.module.scale = 1.0 + 0.01 * self.seen


class Cutting(Callback):
    """Ends the process, or the fit, at a batch: each process, or that of ``rank``."""

    def __init__(self, how: str, at: int, rank: int | None = None) -> None:
        self.how, self.at = how, at
        self.is_here = rank is None or rank == int(os.environ["RANK"])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step == self.at and self.is_here:
            if self.how == "raise":
                raise KeyError("cut")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[self.how])


def model_of(made: dict[str, Any], those: range = range(NB)) -> Changing:
    return (Validated if made["validates"] else Changing)(made, those)


def train(
    folder: str,
    made: dict[str, Any],
    cut: tuple[str, int] | None = None,
    those: range = range(NB),
    rank: int = 0,
    **options: Any,
) -> None:
    """The program: it resumes where it was. Writes what process ``rank`` ends with; ``options`` are the Trainer's."""
    from pytorch_lightning import Trainer
    from pytorch_lightning.nested import map_tensors
    from pytorch_lightning.processes import own_piece
    from tests.faults.killing import digest

    torch.manual_seed(3)
    model = model_of(made, those)
    keeper = ModelCheckpoint(f"{folder}/best", save_top_k=2) if made["validates"] else None
    trainer = Trainer(
        seed=5,
        checkpoint_callback=keeper,
        callbacks=[Counting(), *([] if cut is None else [Cutting(*cut)])],
        max_nb_epochs=NB_EPOCHS,
        accumulate_grad_batches=made["accumulate"],
        default_save_path=folder,
        nb_sanity_val_steps=0,
        add_log_row_interval=2,
        save_every_nb_batches=made["save_every"],
        progress_bar=False,
        print_weights_summary=False,
        crash_bundle=False,
        resume="auto",
        **options,
    )
    assert trainer.fit(model) == 1
    states: Any = [model.state_dict(), *(o.state_dict() for o in [*trainer.optimizers, *trainer.lr_schedulers])]
    own = [model.counter, model.scale, model.phase, list(model.recent), model.table.tolist(), model.kept, model.shift]
    own += [sorted(model.met), model.data.stage, model.data.rows, trainer.config.callbacks[0].seen, model.outputs]
    own += [[*model.tally.items()], [*model.by_name.items()], vars(model.level), sorted(model.seen), [*model.same]]
    own += [model.lists["same"] is model.same, sorted(vars(model.data))]
    modes = [[p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]]
    progress = trainer.progress
    position = [progress.epoch, progress.global_step, progress.nb_optimizer_steps, progress.nb_validations]
    best = [(p.name, digest(torch.load(p)["state_dict"])) for p in sorted(Path(folder).glob("best/*"))]
    of_rank = f"-{rank}" if rank else ""
    torch.save(model.state_dict(), f"{folder}/weights{of_rank}.pt")
    end = {
        "state": digest([map_tensors(states, own_piece), own, modes]),
        "position": [*position, progress.stop_reason, best, modes],
    }
    Path(folder, f"end{of_rank}.json").write_text(json.dumps(end))


class ByHand:
    """What a loop by hand has for ``self.trainer``."""

    def __init__(self, model: Changing) -> None:
        self.model, self.optimizers = model, []
        self.current_epoch = self.global_step = 0
        self.config, self.gradient_clip = None, 0

    def reconfigure_optimizers(self) -> None:
        self.optimizers, self.schedulers = self.model.configure_optimizers()


def by_hand(made: dict[str, Any]) -> dict[str, Tensor]:
    """The weights after the shortest loop that does the same. Schedules and validations are left to the Trainer."""
    torch.manual_seed(3)
    model = model_of(made)
    trainer: Any = ByHand(model)
    model.trainer = trainer
    model.train()
    counting = Counting()

    class Run:
        module = model

    trainer.optimizers, schedulers = model.configure_optimizers()
    stepping = trainer.optimizers
    loader = model.tng_dataloader
    for epoch in range(NB_EPOCHS):
        trainer.current_epoch = epoch
        if hasattr(getattr(loader, "sampler", None), "set_epoch"):
            loader.sampler.set_epoch(epoch)
        model.on_epoch_start()
        nb = len(loader) if made["sampler"] != "stream" else 6
        have_stepped = False
        for batch_nb, batch in enumerate(loader):
            first = batch_nb // made["accumulate"] * made["accumulate"]
            size = min(made["accumulate"], nb - first)
            loss = model.training_step(batch, batch_nb)["loss"]
            (loss / size).backward()
            is_last = batch_nb + 1 == first + size
            if is_last:
                have_stepped = True
                for optimizer in stepping:
                    optimizer.step()
                for parameter in model.parameters():
                    parameter.grad = None
            model.on_batch_end()
            counting.on_batch_end(Run)
            if is_last and made["schedule"] in ("step", "cosine"):
                schedulers[0]["scheduler"].step()
            trainer.global_step += 1
            if is_last and stepping is not trainer.optimizers:
                stepping, schedulers, have_stepped = trainer.optimizers, trainer.schedulers, False
        if made["schedule"] in ("epoch", "lambda") and have_stepped:
            schedulers[0].step()
        model.on_epoch_end()
    return model.state_dict()
