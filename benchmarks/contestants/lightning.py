"""Lightning 2 with all off that can be off."""

from __future__ import annotations

import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from benchmarks import workloads as w

warnings.simplefilter("ignore")


class Regression(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.criterion = w.w1_network(), nn.MSELoss()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.criterion(self.net(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", self.criterion(self.net(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer() -> Any:
    return pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def W1(nb: int) -> None:
    trainer().fit(Regression(), w.w1_loader(nb))


class Batches:
    """A list would be taken for several loaders."""

    def __init__(self, nb: int) -> None:
        self.batches = w.w1_batches(nb)

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def W1list(nb: int) -> None:
    trainer().fit(Regression(), Batches(nb))


def W4(nb: int) -> None:
    trainer().validate(Regression(), w.w1_loader(nb, shuffle=False), verbose=False)
