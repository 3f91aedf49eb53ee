"""Lightning 2 over whole fits, several epochs long."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from benchmarks import pictures
from benchmarks import workloads as w
from benchmarks.contestants.lightning import Batches, Regression, trainer


class Photographer(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = pictures.network()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return pictures.optimizer_of(self)


def REAL(nb: int, nb_workers: int = 0, persistent: bool = False) -> dict[str, float]:
    """Milliseconds a step of the whole fit, workers' starts with it."""
    w.import_optimizers()
    trainer().fit(Regression(), Batches(2))
    start = time.perf_counter()
    trainer(max_epochs=pictures.EPOCHS).fit(Photographer(), pictures.loader(nb, nb_workers, persistent))
    return {"value": (time.perf_counter() - start) * 1000 / nb / pictures.EPOCHS}


def REALworkers(nb: int) -> dict[str, float]:
    return REAL(nb, 2)


def REALpersistent(nb: int) -> dict[str, float]:
    return REAL(nb, 2, persistent=True)


def EPOCHS(nb: int) -> None:
    """``nb`` epochs, each with a checkpoint, which isn't flushed to the disk."""
    loader, validation = w.w1_loader(w.EPOCHS_BATCHES), w.w1_loader(w.EPOCHS_VALIDATION, shuffle=False)
    with tempfile.TemporaryDirectory() as kept:
        callbacks = [ModelCheckpoint(kept, save_top_k=-1), EarlyStopping("val_loss", patience=nb)]
        its = trainer(max_epochs=nb, enable_checkpointing=True, callbacks=callbacks)
        its.fit(Regression(), loader, validation)
