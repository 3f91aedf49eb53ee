"""When schedules step, and what configure_optimizers knows of how long a fit will be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR
from torch.utils.data import DataLoader, IterableDataset

from pytorch_lightning.errors import MisconfigurationException
from tests.recorder import Recorder, quiet_trainer

NB = 5


class Scheduled(Recorder):
    """Keeps the rate of each step."""

    def __init__(self, make: Callable[[Any, Any], Any], **arguments: Any) -> None:
        super().__init__(nb_batches=NB, **arguments)
        self.make = make
        self.rates: list[float] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 1.0)
        return [optimizer], [self.make(self.trainer, optimizer)]

    def on_batch_start(self, data_batch: Any) -> None:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])


def by_hand(nb_epochs: int, interval: str, frequency: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule, rates, nb_steps = ExponentialLR(optimizer, 0.5), [], 0
    for epoch in range(nb_epochs):
        for _ in range(NB):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            nb_steps += 1
            if interval == "step" and nb_steps % frequency == 0:
                schedule.step()
        if interval == "epoch" and (epoch + 1) % frequency == 0:
            schedule.step()
    return rates


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("frequency", [1, 2, 3])
@pytest.mark.parametrize("cut", [None, 4, 7, 10])
def test_a_schedule_steps_at_every_nth_time(tmp_path: Path, interval: str, frequency: int, cut: int | None) -> None:
    """Also in a fit that was cut. The oracle is a loop by hand."""

    def make(trainer: Any, optimizer: Any) -> Any:
        return {"scheduler": ExponentialLR(optimizer, 0.5), "interval": interval, "frequency": frequency}

    options: Any = {"max_nb_epochs": 5}
    rates: list[float] = []
    if cut is not None:
        first, model = quiet_trainer(tmp_path, **options, max_nb_steps=cut), Scheduled(make)
        first.fit(model)
        first.save_checkpoint(tmp_path / "x.ckpt")
        options |= {"resume": tmp_path / "x.ckpt", "silence": ("not-shuffled", "first-save")}
        rates += model.rates
    model = Scheduled(make)
    quiet_trainer(tmp_path, **options).fit(model)
    assert model.rates == by_hand(5, interval, frequency)
    assert rates == model.rates[: len(rates)]


@pytest.mark.parametrize("frequency", [0, -1, 1.5, True, "2"])
def test_a_frequency_that_cannot_be(tmp_path: Path, frequency: Any) -> None:
    def make(trainer: Any, optimizer: Any) -> Any:
        return {"scheduler": ExponentialLR(optimizer, 0.5), "frequency": frequency}

    with pytest.raises(MisconfigurationException, match="'frequency': n"):
        quiet_trainer(tmp_path).fit(Scheduled(make))


OPTIONS: list[Any] = [
    {},
    {"max_nb_epochs": 3, "accumulate_grad_batches": 2},
    {"max_nb_epochs": 4, "accumulate_grad_batches": {1: 1, 3: 4}},
    {"max_nb_epochs": 4, "max_nb_steps": 7},
    {"max_nb_epochs": 2, "train_percent_check": 0.6, "val_percent_check": 0.7},
    {"max_nb_epochs": 2, "virtual_ranks": 2},
    {"max_nb_epochs": 2, "virtual_ranks": 2, "accumulate_grad_batches": 2, "uneven_batches": "drop"},
    {"fast_dev_run": True},
    {"max_nb_epochs": 2, "overfit_pct": 0.4},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_configure_optimizers_knows_how_long_the_fit_will_be(tmp_path: Path, options: Any) -> None:
    """The oracle is what was counted when the fit was over: calls of hooks and of the optimizer."""
    asked: list[Any] = []

    class Asking(Scheduled):
        nb_read = 0

        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            counted["validations"] += 1
            return super().validation_step(data_batch, batch_nb)

        @property
        def tng_dataloader(self) -> Any:
            Asking.nb_read += 1
            return self.loader(self.nb_batches)

    counted = {"validations": 0, "steps": 0}

    def make(trainer: Any, optimizer: Any) -> Any:
        asked.extend([trainer.nb_tng_batches, trainer.nb_val_batches, trainer.nb_total_steps])
        optimizer.register_step_post_hook(lambda *a: counted.update(steps=counted["steps"] + 1))
        return OneCycleLR(optimizer, 1.0, total_steps=1 + trainer.nb_total_steps)

    trainer = quiet_trainer(tmp_path, **options)
    trainer.fit(Asking(make))
    assert asked[2] == counted["steps"] == trainer.nb_total_steps
    epochs = trainer.current_epoch if "max_nb_steps" not in options else 1
    assert asked[1] * epochs == counted["validations"]
    assert asked[0] == trainer.nb_tng_batches
    assert Asking.nb_read == 1, "the loader that was asked for is the one that is used"


def test_what_has_no_length_has_no_number_of_steps_unless_they_are_limited(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([(torch.zeros(1),)] * 6)

    class Streaming(Scheduled):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(Stream(), batch_size=2)

    def make(trainer: Any, optimizer: Any) -> Any:
        asked.append((trainer.nb_tng_batches, trainer.nb_total_steps))
        return ExponentialLR(optimizer, 0.5)

    asked: list[Any] = []
    for options in ({}, {"max_nb_steps": 2}):
        trainer = quiet_trainer(tmp_path, max_nb_epochs=2, **options)
        assert trainer.nb_total_steps is None
        trainer.fit(Streaming(make))
    assert asked == [(None, None), (None, 2)]


def test_a_loader_that_is_not_asked_for_is_read_when_it_was(tmp_path: Path) -> None:
    """After configure_optimizers, as in programs of 2019."""
    order: list[str] = []

    class Old(Recorder):
        def configure_optimizers(self) -> Any:
            order.append("optimizers")
            return super().configure_optimizers()

        @property
        def tng_dataloader(self) -> Any:
            order.append("tng")
            return self.loader(2)

        @property
        def val_dataloader(self) -> Any:
            order.append("val")
            return self.loader(2)

    quiet_trainer(tmp_path).fit(Old())
    assert order == ["optimizers", "tng", "val"]


def test_a_loader_that_fails_is_named_where_its_length_was_asked_for(tmp_path: Path) -> None:
    class Failing(Scheduled):
        @property
        def tng_dataloader(self) -> Any:
            return self.nothing_there  # type: ignore[attr-defined]

    def make(trainer: Any, optimizer: Any) -> Any:
        return OneCycleLR(optimizer, 1.0, total_steps=trainer.nb_total_steps)

    with pytest.raises(Exception, match="nothing_there"):
        quiet_trainer(tmp_path).fit(Failing(make))
