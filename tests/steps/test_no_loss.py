"""A ``training_step`` that returns None: the batch keeps its place, and contributes nothing to its window."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from pytorch_lightning import LightningModule
from pytorch_lightning.errors import FitError, MisconfigurationException
from tests.recorder import quiet_trainer

BATCHES = [torch.tensor([[float(n), 1.0]]) for n in (3, -1, 4, 1, -5, 9, 2, 6)]
COUNTS = [2, 1, 4, 3, 1, 1, 8, 2]
NONE = frozenset({1, 4, 5, 6, 7})
"""The batches without a loss: one in a window of four, all of one of two."""


class Net(LightningModule):
    def __init__(self, none: Any = NONE, counted: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([0.5]))
        self.none, self.counted = frozenset(none), counted
        self.nb_schedule_steps = 0

    def loss(self, batch: Any) -> Any:
        return (((batch * self.a).sum() - 3).pow(2) + (self.b * batch.sum() - 1).pow(2).sum()) / 8

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        n = next(i for i, batch in enumerate(BATCHES) if torch.equal(batch, data_batch))
        if n in self.none:
            return None
        loss = self.loss(data_batch)
        return {"loss": loss, "loss_count": COUNTS[n]} if self.counted else loss

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), 0.0625, momentum=0.5)
        return [optimizer], [{"scheduler": StepLR(optimizer, 1, 0.5), "interval": "step"}]

    @property
    def tng_dataloader(self) -> Any:
        return BATCHES


def by_hand(size: int, none: Any, counted: bool, nb_epochs: int = 2) -> tuple[Net, int, float]:
    """The weights, the number of steps, and the rate of a loop of plain torch."""
    model = Net()
    (optimizer,), (schedule,) = model.configure_optimizers()
    nb_steps = 0
    for _ in range(nb_epochs):
        for start in range(0, 8, size):
            chosen = [n for n in range(start, min(start + size, 8)) if n not in none]
            if not chosen:
                continue
            weights = torch.tensor([float(COUNTS[n]) if counted else 1.0 for n in chosen])
            optimizer.zero_grad()
            (torch.stack([model.loss(BATCHES[n]) for n in chosen]) * weights).sum().div(weights.sum()).backward()
            optimizer.step()
            schedule["scheduler"].step()
            nb_steps += 1
    return model, nb_steps, optimizer.param_groups[0]["lr"]


def assert_like(model: Any, expected: Any) -> None:
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("none", [NONE, {0}, {0, 1, 2, 3}, {7}])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (1, {}), (2, {"accumulate_grad_batches": 2}), (4, {"accumulate_grad_batches": 4}),
        (3, {"accumulate_grad_batches": 3}), (2, {"virtual_ranks": 2}),
        (4, {"virtual_ranks": 2, "accumulate_grad_batches": 2}), (3, {"virtual_ranks": 3}),
        (2, {"virtual_ranks": 2, "exact_elastic": True}),
    ],
    ids=str,
)  # fmt: skip
def test_the_mean_is_over_the_batches_that_contribute(
    tmp_path: Path, size: int, options: Any, none: Any, counted: bool
) -> None:
    model = Net(none, counted)
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, **options)
    trainer.fit(model)
    expected, nb_steps, rate = by_hand(size, none, counted)
    assert_like(model, expected)
    assert trainer.progress.nb_optimizer_steps == nb_steps
    assert trainer.global_step == 2 * -(-8 // options.get("virtual_ranks", 1)), "the batches keep their places"
    assert trainer.optimizers[0].param_groups[0]["lr"] == rate


@pytest.mark.slow
@pytest.mark.parametrize("counted", [False, True])
def test_one_process_of_two_has_no_loss(tmp_path: Path, counted: bool) -> None:
    model = Net(NONE, counted)
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, nb_processes=2, process_timeout_minutes=0.5)
    trainer.fit(model)
    expected, nb_steps, _ = by_hand(2, NONE, counted)
    assert_like(model, expected)
    assert trainer.progress.nb_optimizer_steps == nb_steps
    alone = Net(NONE, counted)
    quiet_trainer(tmp_path, max_nb_epochs=2, virtual_ranks=2).fit(alone)
    assert all(map(torch.equal, model.parameters(), alone.parameters()))


def test_an_optimizer_without_a_loss_skips_its_turn(tmp_path: Path) -> None:
    class Turns(Net):
        def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
            return None if optimizer_i == 1 and batch_nb % 3 else self.loss(data_batch)

        def configure_optimizers(self) -> Any:
            return [SGD([self.a], 0.0625), SGD([self.b], 0.0625)]

    for options, size in (({}, 1), ({"virtual_ranks": 2}, 2), ({"accumulate_grad_batches": 4}, 4)):
        model, expected = Turns(), Turns()
        quiet_trainer(tmp_path, **options).fit(model)
        for start in range(0, 8, size):
            for i, optimizer in enumerate(expected.configure_optimizers()):
                batch_nb = [n // size if "virtual_ranks" in options else n for n in range(start, start + size)]
                chosen = [n for n, nb in zip(range(start, start + size), batch_nb, strict=True) if not (i and nb % 3)]
                optimizer.zero_grad()
                if chosen:
                    torch.stack([expected.loss(BATCHES[n]) for n in chosen]).mean().backward()
                    optimizer.step()
        assert_like(model, expected)


@pytest.mark.parametrize("step", [2, 6, 12])
def test_a_resume_in_the_middle_of_such_batches_has_the_same_bits(tmp_path: Path, step: int) -> None:
    options: dict[str, Any] = {"max_nb_epochs": 2, "accumulate_grad_batches": 2}
    whole, cut, resumed, path = Net(), Net(), Net(), tmp_path / "cut.ckpt"
    quiet_trainer(tmp_path, **options).fit(whole)
    trainer = quiet_trainer(tmp_path, **options)
    cut.on_batch_end = lambda: trainer.save_checkpoint(path) if trainer.global_step == step - 1 else None  # type: ignore
    trainer.fit(cut)
    quiet_trainer(tmp_path, resume=path, **options).fit(resumed)
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def test_an_epoch_without_any_loss_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Net(range(8))
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2)
    trainer.fit(model)
    assert trainer.progress.nb_optimizer_steps == 0
    assert_like(model, Net())
    assert capsys.readouterr().err.count("[no-loss]") == 1
    quiet_trainer(tmp_path, silence=("not-shuffled", "no-validation")).fit(Net({0}))
    assert "no-loss" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["falls off", "lambda", "bare"])
def test_a_step_that_can_return_nothing_else_is_a_mistake(tmp_path: Path, kind: str) -> None:
    class Forgot(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            if kind == "bare":
                return
            self.loss(data_batch)

    model: Any = Forgot()
    if kind == "lambda":
        model.training_step = lambda data_batch, batch_nb: None
    with pytest.raises(MisconfigurationException, match=r"Forgot\.training_step returns nothing.*\{'loss': loss\}"):
        quiet_trainer(tmp_path).fit(model)


class Climbing(SGD):
    """Sharpness-aware minimization, as papers' code has it: ``step`` takes a closure."""

    def step(self, closure: Any = None) -> Any:
        moved = []
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                moved.append((p, p.clone()))
                p.add_(p.grad, alpha=0.1)
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for p, before in moved:
                p.copy_(before)
                p.add_(p.grad, alpha=-self.param_groups[0]["lr"])
        return loss


class Sam(Net):
    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.batch = data_batch
        return self.loss(data_batch)

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = self.loss(self.batch)
            loss.backward()
            return loss

        optimizer.step(closure)

    def configure_optimizers(self) -> Any:
        return Climbing(self.parameters(), 0.01)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_a_closure_may_be_passed_to_the_step(tmp_path: Path, clip: float) -> None:
    model, expected = Sam(), Sam()
    trainer = quiet_trainer(tmp_path, gradient_clip=clip)
    trainer.fit(model)
    optimizer = expected.configure_optimizers()
    for batch in BATCHES:

        def closure(batch: Any = batch) -> Any:
            optimizer.zero_grad()
            loss = expected.loss(batch)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(expected.parameters(), clip)
            return loss

        optimizer.zero_grad()
        expected.loss(batch).backward()
        optimizer.step(closure)
    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    assert trainer.progress.nb_optimizer_steps == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precision": "16"}, "precision='16'"), ({"virtual_ranks": 2}, "several virtual ranks")],
    ids=str,
)
def test_a_closure_is_refused_where_it_cannot_be_right(tmp_path: Path, options: Any, words: str) -> None:
    with pytest.raises(FitError, match=words):
        quiet_trainer(tmp_path, **options).fit(Sam())


def test_an_optimizer_that_takes_no_closure_says_so(tmp_path: Path) -> None:
    class Bare(SGD):
        def step(self) -> None:  # type: ignore[override]
            super().step()

    class Model(Sam):
        def configure_optimizers(self) -> Any:
            return Bare(self.parameters(), 0.01)

    with pytest.raises(FitError, match=r"Bare\.step doesn't take one"):
        quiet_trainer(tmp_path).fit(Model())
