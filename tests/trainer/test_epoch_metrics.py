"""Metrics of an epoch, beside sums that are made by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import FitError
from tests.recorder import quiet_trainer, rows_of

SIZES = (4, 4, 4, 1)
NB_EPOCHS = 3


class Largest:
    """The largest value so far: a metric by its interface alone."""

    def __init__(self) -> None:
        self.value = -math.inf

    def update(self, values: Any) -> None:
        self.value = max(self.value, float(values.max()))

    def compute(self) -> Any:
        return torch.tensor(self.value)

    def reset(self) -> None:
        self.value = -math.inf


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.constant_(self.layer.weight, 0.5)
        nn.init.constant_(self.layer.bias, 0.0)
        self.largest = Largest()
        self.counted = True

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        (x,) = data_batch
        loss = self.layer(x).pow(2).mean()
        self.largest.update(x + self.current_epoch)
        given = {"mean_x": x.mean(), "ones": 1, "largest": self.largest}
        return {"loss": loss, "prog_epoch": given, **({"loss_count": len(x)} if self.counted else {})}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)

    @property
    def tng_dataloader(self) -> Any:
        x = torch.linspace(0.1, 1.7, sum(SIZES)).unsqueeze(1)
        return DataLoader(TensorDataset(x), batch_size=4)


def by_hand(counted: bool = True) -> tuple[list[float], float]:
    """The mean loss of each epoch, and the mean of x."""
    model, means = Net(), list[float]()
    optimizer = model.configure_optimizers()
    for _ in range(NB_EPOCHS):
        total = weight = of_x = 0.0
        for batch in model.tng_dataloader:
            loss = model.layer(batch[0]).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            nb = float(len(batch[0])) if counted else 1.0
            total, weight = total + loss.item() * nb, weight + nb
            of_x += batch[0].mean().item() * nb
        means.append(total / weight)
    return means, of_x / weight


@pytest.mark.parametrize("counted", [True, False])
def test_one_row_at_the_end_of_each_epoch(tmp_path: Path, counted: bool) -> None:
    means, of_x = by_hand(counted)
    model = Net()
    model.counted = counted
    trainer = quiet_trainer(tmp_path, max_nb_epochs=NB_EPOCHS)
    trainer.fit(model)
    rows = [row for row in rows_of(tmp_path, "Net") if row["tng_loss_epoch"]]
    assert [float(row["tng_loss_epoch"]) for row in rows] == means
    assert [float(row["mean_x"]) for row in rows] == [of_x] * NB_EPOCHS
    assert [float(row["ones"]) for row in rows] == [1.0] * NB_EPOCHS
    assert [float(row["largest"]) for row in rows] == pytest.approx([1.7, 2.7, 3.7])
    assert [(row["epoch"], row["batch_nb"]) for row in rows] == [("0", "3"), ("1", "3"), ("2", "3")]
    assert all(not row["mean_x"] for row in rows_of(tmp_path, "Net") if row["tng_loss"])
    metrics = trainer.metrics
    assert (metrics["tng_loss_epoch"], metrics["mean_x"]) == (means[-1], of_x)
    assert trainer.best_metric("tng_loss_epoch") == min(means)
    assert trainer.tqdm_metrics["mean_x"] == of_x
    assert model.largest.value == -math.inf


def test_without_it_there_is_no_row(tmp_path: Path) -> None:
    class Plain(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            given = super().training_step(data_batch, batch_nb)
            return {"loss": given["loss"], "loss_count": given["loss_count"]}

    trainer = quiet_trainer(tmp_path, max_nb_epochs=NB_EPOCHS)
    trainer.fit(Plain())
    assert len(rows_of(tmp_path, "Plain")) == NB_EPOCHS
    assert trainer.metrics["tng_loss_epoch"] == by_hand()[0][-1]


@pytest.mark.parametrize("monitor", ["tng_loss_epoch", "mean_x"])
@pytest.mark.parametrize("validates", [False, True])
def test_it_can_be_monitored(tmp_path: Path, monitor: str, validates: bool) -> None:
    class Watched(Net):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.01)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.5, patience=0)
            return [optimizer], [{"scheduler": plateau, "monitor": monitor}]

        if validates:
            val_dataloader = Net.tng_dataloader

            def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
                return {"val_loss": self.layer(data_batch[0]).mean()}

    keep = ModelCheckpoint(tmp_path / "best", monitor=monitor, mode="min", save_top_k=1)
    stop = EarlyStopping(monitor, mode="max", patience=2)
    options = {"checkpoint_callback": keep, "early_stop_callback": stop, "nb_sanity_val_steps": 1}
    trainer = quiet_trainer(tmp_path, max_nb_epochs=9, **options)
    trainer.fit(Watched())
    falls = monitor == "tng_loss_epoch"
    values = [float(row[monitor]) for row in rows_of(tmp_path, "Watched") if row[monitor]]
    assert len(values) == 3
    assert keep.best == (values[-1] if falls else by_hand()[1])
    assert keep.best_path is not None
    assert keep.best_path.endswith("epoch_3.ckpt" if falls else "epoch_1.ckpt")
    assert trainer.current_epoch == 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.01 * 0.5**2


@pytest.mark.parametrize("at", [1, 3, 4, 6, 9])
def test_a_cut_changes_nothing(tmp_path: Path, at: int) -> None:
    class Cut(Net):
        at: int | None = None

        def on_batch_end(self) -> None:
            if self.global_step == self.at:
                raise KeyboardInterrupt

    def run(folder: Path, cut: int | None) -> Any:
        model = Cut()
        model.at = cut
        trainer = quiet_trainer(folder, max_nb_epochs=NB_EPOCHS, save_every_nb_batches=1, resume="auto")
        trainer.fit(model)
        rows = [{k: v for k, v in row.items() if k != "created_at"} for row in rows_of(folder, "Cut")]
        return rows, trainer.metrics

    whole = run(tmp_path / "whole", None)
    run(tmp_path / "cut", at)
    assert run(tmp_path / "cut", None) == whole


def test_each_virtual_rank_has_its_own_sum(tmp_path: Path) -> None:
    """Added in order, so that it doesn't depend on who runs them."""
    trainer = quiet_trainer(tmp_path, max_nb_epochs=1, virtual_ranks=2)
    trainer.fit(Net())
    sums = [[0.0, 0.0], [0.0, 0.0]]
    for batch_nb, (x,) in enumerate(Net().tng_dataloader):
        sums[batch_nb % 2][0] += x.mean().item() * len(x)
        sums[batch_nb % 2][1] += len(x)
    assert trainer.metrics["mean_x"] == (sums[0][0] + sums[1][0]) / (sums[0][1] + sums[1][1])


def test_windows_batches_that_count_nothing_and_several_optimizers(tmp_path: Path) -> None:
    class Turns(Net):
        def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
            (x,) = data_batch
            loss = self.layer(x).pow(2).mean()
            if batch_nb == 3:
                return {"loss": loss, "loss_count": 0, "prog_epoch": {f"x_{optimizer_i}": 1000}}
            return {"loss": loss, "loss_count": 1, "prog_epoch": {f"x_{optimizer_i}": batch_nb}}

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([p], 0.01) for p in self.parameters()]

    for accumulate in (1, 3):
        trainer = quiet_trainer(tmp_path, max_nb_epochs=1, accumulate_grad_batches=accumulate)
        trainer.fit(Turns())
        assert (trainer.metrics["x_0"], trainer.metrics["x_1"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("given", "text"), [(3, "expected a dict"), ({"a": "text"}, "under 'a'"), ({"a": torch.ones(2)}, "under 'a'")]
)
def test_mistakes_are_named(tmp_path: Path, given: Any, text: str) -> None:
    class Wrong(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return {**super().training_step(data_batch, batch_nb), "prog_epoch": given}

    with pytest.raises(FitError, match=text):
        quiet_trainer(tmp_path).fit(Wrong())


def test_a_name_that_nobody_gives_is_an_error(tmp_path: Path) -> None:
    stop = EarlyStopping("mean_y")
    with pytest.raises(FitError, match=r"mean_x.*tng_loss_epoch"):
        quiet_trainer(tmp_path, early_stop_callback=stop).fit(Net())
