"""This library over whole fits, several epochs long."""

import tempfile
import time
from typing import Any

import torch
from torch import nn

from benchmarks import pictures
from benchmarks import workloads as w
from benchmarks.contestants.ours import Evaluated, Regression, fit
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


class Photographer(LightningModule):
    """REAL's network with its data."""

    def __init__(self, nb: int, nb_workers: int, persistent: bool) -> None:
        super().__init__()
        self.net, self.loader = pictures.network(), pictures.loader(nb, nb_workers, persistent)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return pictures.optimizer_of(self)

    @property
    def tng_dataloader(self) -> Any:
        return self.loader


def REAL(nb: int, nb_workers: int = 0, persistent: bool = False) -> dict[str, float]:
    """Milliseconds a step of the whole fit, workers' starts with it."""
    w.import_optimizers()
    fit(Regression(w.w1_batches(2)))  # modules of the library that a fit imports
    start = time.perf_counter()
    fit(Photographer(nb, nb_workers, persistent), max_nb_epochs=pictures.EPOCHS)
    return {"value": (time.perf_counter() - start) * 1000 / nb / pictures.EPOCHS}


def REALworkers(nb: int) -> dict[str, float]:
    return REAL(nb, 2)


def REALpersistent(nb: int) -> dict[str, float]:
    return REAL(nb, 2, persistent=True)


class Reader(LightningModule):
    """W5's network with its data."""

    def __init__(self, data: pictures.Digits) -> None:
        super().__init__()
        self.net, self.loader = pictures.digits_network(), pictures.digits_loader(data)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-3)

    @property
    def tng_dataloader(self) -> Any:
        return self.loader


def W5(nb: int) -> dict[str, float]:
    """Seconds of a whole fit with ``auto_nb_workers=True``: once beside no workers, once beside the best number."""
    w.import_optimizers()
    fit(Regression(w.w1_batches(2)))
    data = pictures.Digits(nb * pictures.DIGITS_BATCH)
    start = time.perf_counter()
    fit(Reader(data), auto_nb_workers=True)
    seconds = time.perf_counter() - start
    return {"value": seconds, "best": seconds}


class Validated(Evaluated):
    """Trains on W1's batches, and is validated on others."""

    @property
    def val_dataloader(self) -> Any:
        return w.w1_loader(w.EPOCHS_VALIDATION, shuffle=False)


def EPOCHS(nb: int) -> None:
    """``nb`` epochs, each with a checkpoint. Early stopping waits for longer than there are epochs."""
    with tempfile.TemporaryDirectory() as kept:
        callbacks = {"checkpoint_callback": ModelCheckpoint(kept), "early_stop_callback": EarlyStopping(patience=nb)}
        fit(Validated(w.w1_loader(w.EPOCHS_BATCHES)), max_nb_epochs=nb, **callbacks)
