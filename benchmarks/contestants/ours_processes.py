"""This library in processes of its own."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import workloads as w
from benchmarks.contestants.ours import W2, Classifier, fit
from pytorch_lightning import LightningModule


class Timed(LightningModule):
    """Writes down how long a step took, from a tenth of ``nb_steps`` to the end of training."""

    def time_from(self, nb_steps: int, path: str) -> None:
        self.first, self.path, self.start = nb_steps // 10, path, 0.0

    def look(self) -> None:
        """A step begins."""
        if self.global_step == self.first:
            self.start = time.perf_counter()

    def on_fit_end(self) -> None:
        seconds = time.perf_counter() - self.start
        if self.trainer.proc_rank == 0:
            Path(self.path).write_text(str(seconds * 1e6 / (self.global_step - self.first)))


class TimedClassifier(Timed, Classifier):
    """DDP2's."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.look()
        return super().training_step(data_batch, batch_nb)


def DDP2(nb: int) -> dict[str, float]:
    """Microseconds a step, from a tenth of the batches to the end of training."""
    model = TimedClassifier(max(1, nb // w.W2_EPOCHS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "us")
        model.time_from(model.nb * w.W2_EPOCHS, str(path))
        W2(nb, model, nb_processes=2)
        return {"value": float(path.read_text())}


class Small(Timed):
    """DDPS's."""

    def __init__(self, nb: int) -> None:
        super().__init__()
        self.net, self.nb = w.ddps_network(), nb

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.look()
        x, y = data_batch
        return {"loss": nn.functional.cross_entropy(self.net(x), y)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(w.ddps_data(self.nb), batch_size=32, shuffle=True)


def DDPS(nb: int) -> dict[str, float]:
    """Microseconds a step, from a tenth of the batches to the end of training."""
    model = Small(max(1, nb // w.DDPS_EPOCHS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "us")
        model.time_from(model.nb * w.DDPS_EPOCHS, str(path))
        fit(model, max_nb_epochs=w.DDPS_EPOCHS, nb_processes=2)
        return {"value": float(path.read_text())}
