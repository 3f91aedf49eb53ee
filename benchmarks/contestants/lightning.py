"""Lightning 2 with all off that can be off."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
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


ACCELERATOR = {"cuda": "gpu"}.get(w.DEVICE.type, w.DEVICE.type)


def trainer(**options: Any) -> Any:
    everything_off: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": ACCELERATOR,
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**{**everything_off, **options})


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


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = w.w2_network()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


def W2(nb: int) -> None:
    loader, validation = w.w2_loader(max(1, nb // w.W2_EPOCHS)), w.w2_loader(w.W2_VALIDATION, shuffle=False)
    with tempfile.TemporaryDirectory() as kept:
        options = {"enable_checkpointing": True, "callbacks": [ModelCheckpoint(kept)], "num_sanity_val_steps": 0}
        trainer(max_epochs=w.W2_EPOCHS, **options).fit(Classifier(), loader, validation)


class Writer(pl.LightningModule):
    def __init__(self, nb: int, large: bool) -> None:
        super().__init__()
        self.net, self.starts = w.w3_network(large), w.Starts(nb)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return w.w3_loss(self.net(x), y)

    def on_train_start(self) -> None:
        self.starts.mark()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % 2:
            self.starts.mark()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def W3(nb: int, large: bool = False) -> dict[str, float]:
    model = Writer(nb, large)
    trainer(gradient_clip_val=1.0, accumulate_grad_batches=2).fit(model, w.w3_loader(nb))
    return w.steady(model.starts)


def W3large(nb: int) -> dict[str, float]:
    return W3(nb, large=True)
