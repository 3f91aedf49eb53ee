"""A Trainer gives the weights of the loop that one would write by hand, bit for bit: learning rates that change."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import LBFGS, SGD
from torch.optim.lr_scheduler import ExponentialLR, MultiStepLR, OneCycleLR, ReduceLROnPlateau, StepLR

from pytorch_lightning.callbacks import Callback
from tests.equality.models import Classifier, Validated, assert_same, fit, windows


def momentum(parameters: Any) -> SGD:
    return SGD(parameters, 0.1, momentum=0.9)


def with_schedule(schedule: Any) -> Any:
    """A ``configure_optimizers`` that returns an optimizer and ``schedule(optimizer)``."""

    def optimize(parameters: Any) -> Any:
        optimizer = momentum(parameters)
        return [optimizer], [schedule(optimizer)]

    return optimize


def train(model: Any, optimizer: Any, size: int = 1, after_step: Any = None) -> None:
    """One epoch by hand."""
    for window in windows(model.tng_dataloader, size):
        for batch in window:
            (model.loss(batch) / len(window)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if after_step is not None:
            after_step()


def test_a_schedule_of_epochs(tmp_path: Path) -> None:
    by_hand = Classifier()
    optimizer = momentum(by_hand.parameters())
    scheduler = StepLR(optimizer, 2, gamma=0.3)
    for _ in range(5):
        train(by_hand, optimizer)
        scheduler.step()

    trained = fit(tmp_path, Classifier(with_schedule(lambda o: StepLR(o, 2, gamma=0.3))), nb_epochs=5)
    assert_same(by_hand, trained)


@pytest.mark.parametrize("size", [1, 2])
def test_a_schedule_of_optimizer_steps(tmp_path: Path, size: int) -> None:
    nb_steps = 3 * -(-5 // size)
    by_hand = Classifier()
    optimizer = momentum(by_hand.parameters())
    scheduler = OneCycleLR(optimizer, 0.2, total_steps=nb_steps)
    for _ in range(3):
        train(by_hand, optimizer, size, after_step=scheduler.step)

    def schedule(optimizer: Any) -> Any:
        return {"scheduler": OneCycleLR(optimizer, 0.2, total_steps=nb_steps), "interval": "step"}

    assert_same(by_hand, fit(tmp_path, Classifier(with_schedule(schedule)), accumulate_grad_batches=size))


def validation_loss(model: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        loss = torch.stack([model.loss(batch) for batch in model.val_dataloader]).mean()
    model.train()
    return loss


@pytest.mark.parametrize("every", [1, 2])
def test_a_plateau_of_the_validation_loss(tmp_path: Path, every: int) -> None:
    options: Any = {"factor": 0.5, "patience": 0, "threshold": 0.05}
    by_hand = Validated(norm=True)
    optimizer = momentum(by_hand.parameters())
    scheduler = ReduceLROnPlateau(optimizer, **options)
    for epoch in range(1, 9):
        train(by_hand, optimizer)
        if epoch % every == 0:  # where nothing was measured there is nothing to compare
            scheduler.step(validation_loss(by_hand).item())
    assert optimizer.param_groups[0]["lr"] < 0.1, "there was no plateau"

    model = Validated(with_schedule(lambda o: ReduceLROnPlateau(o, **options)), norm=True)
    assert_same(by_hand, fit(tmp_path, model, nb_epochs=8, check_val_every_n_epoch=every))


def test_a_plateau_of_the_training_loss(tmp_path: Path) -> None:
    options: Any = {"factor": 0.5, "patience": 0, "threshold": 0.15}
    by_hand = Classifier()
    optimizer = momentum(by_hand.parameters())
    scheduler = ReduceLROnPlateau(optimizer, **options)
    losses: list[float] = []
    for _ in range(8):
        for batch in by_hand.tng_dataloader:
            loss = by_hand.loss(batch)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step(sum(losses) / len(losses))
    assert optimizer.param_groups[0]["lr"] < 0.1, "there was no plateau"

    def schedule(optimizer: Any) -> Any:
        return {"scheduler": ReduceLROnPlateau(optimizer, **options), "monitor": "tng_loss"}

    assert_same(by_hand, fit(tmp_path, Classifier(with_schedule(schedule)), nb_epochs=8))


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_a_schedule_that_takes_no_value_is_given_none(tmp_path: Path, interval: str) -> None:
    def schedule(optimizer: Any) -> Any:
        return {"scheduler": ExponentialLR(optimizer, 0.9), "interval": interval}

    plain = fit(tmp_path, Validated(with_schedule(schedule)))
    monitored = Validated(with_schedule(lambda o: {**schedule(o), "monitor": "val_loss"}))
    assert_same(plain, fit(tmp_path, monitored))


def test_a_schedule_of_ones_own_is_given_the_value(tmp_path: Path) -> None:
    class Own:
        def __init__(self, optimizer: Any) -> None:
            self.optimizer = optimizer

        def step(self, metrics: float) -> None:
            self.optimizer.param_groups[0]["lr"] = 0.1 * metrics

        def state_dict(self) -> Any:
            return {}

        def load_state_dict(self, state: Any) -> None:
            pass

    by_hand = Validated()
    optimizer = momentum(by_hand.parameters())
    for _ in range(3):
        train(by_hand, optimizer)
        optimizer.param_groups[0]["lr"] = 0.1 * validation_loss(by_hand).item()

    model = Validated(with_schedule(lambda o: {"scheduler": Own(o), "monitor": "val_loss"}))
    assert_same(by_hand, fit(tmp_path, model))


@pytest.mark.parametrize("size", [1, 2])
def test_a_plateau_that_is_looked_at_after_each_step(tmp_path: Path, size: int) -> None:
    options: Any = {"factor": 0.5, "patience": 1, "threshold": 0.2}
    by_hand = Classifier()
    optimizer = momentum(by_hand.parameters())
    scheduler = ReduceLROnPlateau(optimizer, **options)
    losses: list[float] = []
    for _ in range(3):
        for window in windows(by_hand.tng_dataloader, size):
            for batch in window:
                loss = by_hand.loss(batch)
                losses.append(loss.item())
                (loss / len(window)).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step(sum(losses) / len(losses))
    assert optimizer.param_groups[0]["lr"] < 0.1, "there was no plateau"

    def schedule(optimizer: Any) -> Any:
        plateau = ReduceLROnPlateau(optimizer, **options)
        return {"scheduler": plateau, "interval": "step", "monitor": "tng_loss"}

    assert_same(by_hand, fit(tmp_path, Classifier(with_schedule(schedule)), accumulate_grad_batches=size))


@pytest.mark.parametrize("milestones", [[1, 3], "1,3"])
def test_lr_scheduler_milestones_divide_the_rate_by_ten(tmp_path: Path, milestones: Any) -> None:
    by_hand = Classifier()
    optimizer = momentum(by_hand.parameters())
    scheduler = MultiStepLR(optimizer, [1, 3], gamma=0.1)
    for _ in range(5):
        train(by_hand, optimizer)
        scheduler.step()

    assert_same(by_hand, fit(tmp_path, Classifier(momentum), nb_epochs=5, lr_scheduler_milestones=milestones))


def test_two_schedules_of_two_optimizers(tmp_path: Path) -> None:
    def configure(model: Any) -> Any:
        first, second = SGD(model.layers[0].parameters(), 0.1), SGD(model.layers[4].parameters(), 0.2)
        by_step = {"scheduler": ExponentialLR(second, 0.95), "interval": "step"}
        return [first, second], [by_step, ExponentialLR(first, 0.5)]

    by_hand = Classifier()
    (first, second), (by_step, by_epoch) = configure(by_hand)
    for _ in range(3):
        for batch in by_hand.tng_dataloader:
            by_hand.loss(batch).backward()
            for optimizer in (first, second):
                optimizer.step()
                optimizer.zero_grad()
            by_step["scheduler"].step()
        by_epoch.step()

    class Two(Classifier):
        def configure_optimizers(self) -> Any:
            return configure(self)

    assert_same(by_hand, fit(tmp_path, Two()))


def test_lbfgs_with_a_schedule_of_steps(tmp_path: Path) -> None:
    def optimize(parameters: Any) -> Any:
        optimizer = LBFGS(parameters, 0.3, max_iter=2)
        return [optimizer], [{"scheduler": ExponentialLR(optimizer, 0.8), "interval": "step"}]

    by_hand = Classifier()
    (optimizer,), (schedule,) = optimize(by_hand.parameters())
    for _ in range(2):
        for batch in by_hand.tng_dataloader:

            def evaluate(batch: Any = batch) -> torch.Tensor:
                optimizer.zero_grad()
                loss = by_hand.loss(batch)
                loss.backward()
                return loss

            optimizer.step(evaluate)
            schedule["scheduler"].step()

    assert_same(by_hand, fit(tmp_path, Classifier(optimize), nb_epochs=2))


def test_the_last_rates_are_there_after_a_resume(tmp_path: Path) -> None:
    """What ``get_last_lr`` gives until the schedule steps again."""

    class Reads(Classifier):
        found: list[tuple[int, float]] = []

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.found.append((self.global_step, self.trainer.lr_schedulers[0].get_last_lr()[0]))
            return super().training_step(data_batch, batch_nb)

    def schedule(optimizer: Any) -> Any:
        return StepLR(optimizer, 1, gamma=0.5)

    class Save(Callback):
        def on_batch_end(self, run: Any) -> None:
            if run.progress.global_step == 7:
                run.save(tmp_path / "cut.ckpt")

    fit(tmp_path, Reads(with_schedule(schedule)), nb_epochs=3, callbacks=[Save()])
    whole = Reads.found
    assert [rate for _, rate in whole] == [0.1] * 5 + [0.05] * 5 + [0.025] * 5
    Reads.found = []
    fit(tmp_path, Reads(with_schedule(schedule)), nb_epochs=3, resume=tmp_path / "cut.ckpt")
    assert Reads.found == whole[8:]
