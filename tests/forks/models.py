"""A model whose hparams say all of it, and the loop that one would write by hand for it, with edits at a batch."""

import math
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, SequentialLR, StepLR
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from pytorch_lightning import LightningModule
from pytorch_lightning.seeding import order_scope, step_scope

SEEN: dict[int, list[Tensor]] = {}
"""The weights that each training batch found, by its global_step."""
ASKED: list[int] = []
"""The samples that the training dataset was asked for."""


class Noisy(Dataset[Any]):
    """A sample is its index and numbers that are drawn anew."""

    def __init__(self, nb: int, notes: bool = True, wrong: int = -1) -> None:
        self.nb, self.notes, self.wrong = nb, notes, wrong

    def __len__(self) -> int:
        return self.nb

    def __getitem__(self, index: int) -> Any:
        if self.notes:
            ASKED.append(index)
        x = torch.tensor([math.sin(index), math.cos(3 * index), index / self.nb])
        return x, x.sum()[None] + 100.0 * (index == self.wrong)


def network(hparams: Any) -> nn.Sequential:
    torch.manual_seed(hparams.init)
    norm: list[nn.Module] = [nn.BatchNorm1d(5)] if hparams.norm else []
    return nn.Sequential(nn.Linear(3, 5), *norm, nn.Tanh(), nn.Dropout(hparams.dropout), nn.Linear(5, 1))


def optimizer_of(net: nn.Module, hparams: Any) -> Any:
    lr, decay, first = hparams.learning_rate, hparams.decay, [*net.parameters()]
    groups: Any = first
    if hparams.groups == 2:
        groups = [{"params": first[:1], "weight_decay": 0.0}, {"params": first[1:], "lr": lr / 2}]
    kinds: dict[str, Any] = {
        "sgd": lambda: torch.optim.SGD(groups, lr, momentum=0.8, weight_decay=decay),
        "adam": lambda: torch.optim.Adam(groups, lr / 10, weight_decay=decay),
        "adamw": lambda: torch.optim.AdamW(groups, lr / 10, weight_decay=decay),
        "rmsprop": lambda: torch.optim.RMSprop(groups, lr / 20, weight_decay=decay),
    }
    return kinds[hparams.optimizer]()


def schedule_of(optimizer: Any, hparams: Any) -> Any:
    """A schedule and its interval, or None."""
    lrs = [3 * group["lr"] for group in optimizer.param_groups]
    kinds: dict[str, Any] = {
        "none": lambda: None,
        "step": lambda: (StepLR(optimizer, 2, 0.5), "epoch"),
        "lambda": lambda: (LambdaLR(optimizer, lambda n: min(1.0, (n + 1) / 4) * 0.97**n), "step"),
        "cosine": lambda: (CosineAnnealingLR(optimizer, 40), "step"),
        "cycle": lambda: (OneCycleLR(optimizer, lrs, total_steps=400), "step"),
        "sequence": lambda: (
            SequentialLR(
                optimizer, [LambdaLR(optimizer, lambda n: 0.5 + n / 10), CosineAnnealingLR(optimizer, 40)], [5]
            ),
            "step",
        ),
    }
    return kinds[hparams.schedule]()


def loader_of(hparams: Any) -> Any:
    dataset, size = Noisy(hparams.nb, wrong=getattr(hparams, "wrong", -1)), hparams.batch_size
    if hparams.order == "weighted":
        sampler = WeightedRandomSampler([1.0, 2.0, 3.0] * (hparams.nb // 3 + 1), hparams.nb)
        return DataLoader(dataset, size, sampler=sampler, drop_last=hparams.drop_last)
    return DataLoader(dataset, size, shuffle=hparams.order == "shuffled", drop_last=hparams.drop_last)


class Model(LightningModule):
    dies_at = -1

    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.net, self.alpha = network(hparams), hparams.alpha

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        SEEN[self.global_step] = [p.detach().clone() for p in self.net.parameters()]
        if self.global_step == type(self).dies_at:
            die()
        x, y = data_batch
        return {"loss": self.alpha * (self.net(x) - y).pow(2).mean()}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return (self.net(x) - y).pow(2).mean()

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self) -> Any:
        optimizer = optimizer_of(self.net, self.hparams)
        schedule = schedule_of(optimizer, self.hparams)
        return optimizer if schedule is None else ([optimizer], [{"scheduler": schedule[0], "interval": schedule[1]}])

    @property
    def tng_dataloader(self) -> Any:
        return loader_of(self.hparams)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(Noisy(7, notes=False), 4)


def die() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


class ByHand:
    """The same in plain torch, for ``nb_epochs``: at batch ``at`` the function ``edit`` changes it, and the batches in
    ``skip`` are left out. ``seen`` has the weights that each batch found, and ``end`` those at the end."""

    def __init__(self, hparams: Namespace, seed: int, nb_epochs: int, accumulate: int = 1, clip: float = 0.0) -> None:
        self.net, self.seed, self.nb_epochs, self.alpha = network(hparams), seed, nb_epochs, hparams.alpha
        self.optimizer = optimizer_of(self.net, hparams)
        self.schedule = schedule_of(self.optimizer, hparams)
        self.loader, self.accumulate, self.clip = loader_of(hparams), accumulate, clip
        self.seen: dict[int, list[Tensor]] = {}
        self.order: dict[int, list[int]] = {}
        """The samples of each batch, of the first epoch on."""

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.net.parameters()]

    def train(self, at: int = -1, edit: Any = None, skip: Sequence[int] = ()) -> "ByHand":
        step = 0
        for epoch in range(10**6):
            if epoch >= self.nb_epochs:
                break
            ASKED.clear()
            with order_scope(self.seed, epoch):
                batches = list(self.loader)
            for n, batch in enumerate(batches):
                self.order[step + n], ASKED[: len(batch[0])] = ASKED[: len(batch[0])], []
            place = 0
            while place < len(batches):
                if step == at and edit is not None:
                    edit(self)
                    edit = None
                if step in skip:
                    step, place = step + 1, place + 1
                    continue
                stops = [n for n in range(1, len(batches) - place) if step + n in skip or step + n == at]
                # windows are counted from the epoch's start, or from the edit
                size = min([self.accumulate, len(batches) - place, *stops])
                self.window(batches[place : place + size], step)
                step, place = step + size, place + size
            if self.schedule is not None and self.schedule[1] == "epoch":
                self.schedule[0].step()
        self.end = self.weights()
        return self

    def window(self, batches: Any, step: int) -> None:
        self.optimizer.zero_grad()
        for n, (x, y) in enumerate(batches):
            self.seen[step + n] = self.weights()
            with step_scope(self.seed, step + n):
                loss = self.alpha * (self.net(x) - y).pow(2).mean()
            (loss / len(batches) if len(batches) > 1 else loss).backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.optimizer.step()
        if self.schedule is not None and self.schedule[1] == "step":
            self.schedule[0].step()

    # ------------------------------------------------------------- edits, as a user would make them in a loop
    def set_rate(self, rate: float) -> None:
        """The rate is this one now, and the schedule goes on from there."""
        for group in self.optimizer.param_groups:
            was, group["lr"] = group["lr"], rate
            for name in ("initial_lr", "max_lr", "min_lr"):
                if name in group:
                    group[name] = rate if group[name] == was else group[name] * (rate / was)
        self.tell_schedules()

    def configure_again(self, hparams: Namespace) -> None:
        """What the optimizer would be with other hparams, in proportion."""
        fresh, old = (optimizer_of(self.net, h) for h in (hparams, self.hparams_before))
        for schedule_hparams, optimizer in ((hparams, fresh), (self.hparams_before, old)):
            schedule_of(optimizer, schedule_hparams)
        for group, was, now in zip(self.optimizer.param_groups, old.param_groups, fresh.param_groups, strict=True):
            name = "initial_lr" if "initial_lr" in was else "lr"
            ratio, same = now[name] / was[name], group["lr"] == was[name]
            group["lr"] = now[name] if same else group["lr"] * ratio
            for other in ("initial_lr", "max_lr", "min_lr", "weight_decay"):
                if other in now and now[other] != was[other]:
                    group[other] = now[other]
        self.tell_schedules()

    def tell_schedules(self) -> None:
        scheduler = None if self.schedule is None else self.schedule[0]
        for one in () if scheduler is None else (scheduler, *getattr(scheduler, "_schedulers", ())):
            if hasattr(one, "base_lrs"):
                one.base_lrs = [group["initial_lr"] for group in self.optimizer.param_groups]

    hparams_before: Namespace
