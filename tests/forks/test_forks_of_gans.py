"""Forks of runs with two optimizers: a turn for each, or steps by hand whose gradients wait from batch to batch."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule
from pytorch_lightning.seeding import order_scope, step_scope
from pytorch_lightning.verify import main as verify
from tests.forks.models import SEEN, Noisy
from tests.forks.test_fork_cases import same
from tests.forks.test_forks import QUIET, forked, save_of, trained

HPARAMS: dict[str, Any] = {"rate": 0.02, "critic_rate": 0.05, "dropout": 0.2}


class Networks(nn.Module):
    """A generator and a critic, with their optimizers and schedules."""

    def __init__(self, hparams: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
        self.critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(hparams.dropout), nn.Linear(4, 1))

    def critic_loss(self, x: Tensor) -> Tensor:
        made = self.generator(torch.randn(len(x), 2)).detach()
        return (self.critic(made) - self.critic(x)).mean() + self.critic(x).pow(2).mean()

    def generator_loss(self, x: Tensor) -> Tensor:
        return -self.critic(self.generator(torch.randn(len(x), 2))).mean()

    def optimizers(self, hparams: Any) -> tuple[list[Any], list[Any]]:
        adam = torch.optim.Adam(self.generator.parameters(), hparams.rate)
        sgd = torch.optim.SGD(self.critic.parameters(), hparams.critic_rate, momentum=0.5)
        return [adam, sgd], [LambdaLR(sgd, lambda n: 0.99**n), StepLR(adam, 1, 0.5)]


class Turns(LightningModule):
    """``training_step`` has a turn for each optimizer."""

    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.nets = Networks(hparams)

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
        if optimizer_i == 0:
            SEEN[self.global_step] = [p.detach().clone() for p in self.nets.parameters()]
        return (self.nets.generator_loss if optimizer_i == 0 else self.nets.critic_loss)(data_batch[0])

    def configure_optimizers(self) -> Any:
        optimizers, (each_step, each_epoch) = self.nets.optimizers(self.hparams)
        return optimizers, [{"scheduler": each_step, "interval": "step"}, each_epoch]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Noisy(24), 3, shuffle=True)


class ByItself(Turns):
    """The critic steps twice in each batch, the generator in every third one: its gradients wait."""

    automatic_optimization = False

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        SEEN[self.global_step] = [p.detach().clone() for p in self.nets.parameters()]
        for _ in range(2):
            self.manual_step(1, loss=self.nets.critic_loss(data_batch[0]))
        self.manual_backward(self.nets.generator_loss(data_batch[0]), inputs=[*self.nets.generator.parameters()])
        if self.global_step % 3 == 2:
            self.manual_step(0)


class Loop:
    """The same in plain torch."""

    def __init__(self, by_itself: bool) -> None:
        hparams = Namespace(**HPARAMS)
        self.nets, self.by_itself, self.clip = Networks(hparams), by_itself, 0.0
        (self.adam, self.sgd), (self.each_step, self.each_epoch) = self.nets.optimizers(hparams)
        self.seen: dict[int, list[Tensor]] = {}

    def train(self, at: int, edit: Callable[["Loop"], object], skip: Sequence[int]) -> "Loop":
        for epoch in range(2):
            with order_scope(QUIET["seed"], epoch):
                batches = list(DataLoader(Noisy(24, notes=False), 3, shuffle=True))
            for step, (x, _) in enumerate(batches, 8 * epoch):
                if step == at:
                    edit(self)
                if step in skip:
                    continue
                self.seen[step] = self.weights()
                with step_scope(QUIET["seed"], step):
                    (self.steps if self.by_itself else self.turns)(x, step)
            self.each_epoch.step()
        return self

    def turns(self, x: Tensor, step: int) -> None:
        for optimizer, loss in ((self.adam, self.nets.generator_loss), (self.sgd, self.nets.critic_loss)):
            self.nets.zero_grad()
            loss(x).backward()
            self.step(optimizer)

    def steps(self, x: Tensor, step: int) -> None:
        for _ in range(2):
            self.nets.critic_loss(x).backward()
            self.step(self.sgd)
        self.nets.generator_loss(x).backward(inputs=[*self.nets.generator.parameters()])
        if step % 3 == 2:
            self.step(self.adam)

    def step(self, optimizer: Any) -> None:
        parameters = optimizer.param_groups[0]["params"]
        if self.clip:
            nn.utils.clip_grad_norm_(parameters, self.clip)
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        if optimizer is self.sgd:
            self.each_step.step()

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.nets.parameters()]

    # ------------------------------------------------------------- edits
    def nothing(self) -> None: ...

    def critic_rate(self) -> None:
        (group,) = self.sgd.param_groups
        group["lr"], group["initial_lr"], self.each_step.base_lrs = group["lr"] * (0.01 / 0.05), 0.01, [0.01]

    def both_rates_clip_and_dropout(self) -> None:
        for optimizer, schedule in ((self.adam, self.each_epoch), (self.sgd, self.each_step)):
            (group,) = optimizer.param_groups
            same_now = group["initial_lr"] == group["lr"]
            group["initial_lr"] = 0.003 if same_now else group["initial_lr"] * (0.003 / group["lr"])
            group["lr"], schedule.base_lrs = 0.003, [group["initial_lr"]]
        self.clip, self.nets.critic[2].p = 0.05, 0.4


CASES: dict[str, tuple[Callable[[Loop], object], list[str]]] = {
    "nothing": (Loop.nothing, []),
    "one rate": (Loop.critic_rate, ["--set", "critic_rate=0.01"]),
    "more": (Loop.both_rates_clip_and_dropout, ["--set", "lr=0.003", "gradient_clip=0.05", "dropout=0.4"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", [Turns, ByItself])
def test_a_fork_with_two_optimizers_is_a_loop_that_is_edited_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: type[Turns], case: str
) -> None:
    edit, words = CASES[case]
    run = trained(tmp_path, kind, HPARAMS)
    child = forked(run, 10, *words, "--skip_batches", "12:14", "--model", kind.__name__, module=__name__)
    hand = Loop(kind is ByItself).train(10, edit, (12, 13))
    assert sorted(SEEN) == [n for n in hand.seen if n >= min(SEEN)]
    for step, weights in SEEN.items():
        assert same(weights, hand.seen[step]), step
    assert same([*save_of(child, 16)["state_dict"].values()], hand.weights())
    said = capsys.readouterr().out
    assert case != "one rate" or "critic_rate -> 0.01: lr 0.05 -> 0.01" in said or "initial_lr 0.05 -> 0.01" in said


@pytest.mark.parametrize("kind", [Turns, ByItself])
def test_a_run_with_two_optimizers_is_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: type[Turns]
) -> None:
    run = trained(tmp_path, kind, HPARAMS, certificate=True)
    assert verify([str(run), "--module", __name__, "--model", kind.__name__, "--all"]) == 0
    assert " 24 tensors\n" in capsys.readouterr().out  # those of both optimizers and schedules too
