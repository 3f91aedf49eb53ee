"""A tiny model for runs of several processes, and what may go wrong in one of them."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import FitError


class Net(LightningModule):
    """Fits a line to 20 samples in batches of 4: five batches, so that two processes share them unevenly."""

    def __init__(self, mishap: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)
        self.mishap = mishap

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.mishap and self.trainer.proc_rank == 1 and self.global_step in (1, 2):
            getattr(self, self.mishap)()
        x, y = data_batch
        loss = (self(x) - y).pow(2).mean()
        return {"loss": loss, "prog": {"own": 2 * loss}}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return {"val_loss": (self(x) - y).pow(2).mean()}

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": sum(o["val_loss"] for o in outputs) / len(outputs), "nb": len(outputs)}

    def on_epoch_end(self) -> None:
        self.experiment.log({"by_hand": 1.0})
        self.experiment.add_text("note", "a word")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def loader(self) -> Any:
        x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)

    def in_order(self) -> Any:
        return DataLoader(self.loader().dataset, batch_size=4)

    tng_dataloader = property(loader)
    val_dataloader = test_dataloader = property(in_order)

    # ------------------------------------------------------------------ mishaps
    def raise_own(self) -> None:
        raise ZeroDivisionError("something of the user's own")

    def raise_ours(self) -> None:
        raise FitError("one of ours. (epoch 0, batch_nb 2)")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self) -> None:
        os._exit(7)

    def leave_well(self) -> None:
        os._exit(0)

    def hang(self) -> None:
        threading.Event().wait()


def trainer(folder: str | Path, **options: Any) -> Trainer:
    """A quiet Trainer for two epochs that writes to ``folder``."""
    fixed: dict[str, Any] = {
        "progress_bar": False,
        "print_weights_summary": False,
        "nb_sanity_val_steps": 0,
        "seed": 1,
        "max_nb_epochs": 2,
        "add_log_row_interval": 1,
        "default_save_path": str(folder),
    }
    return Trainer(**{**fixed, **options})


class NotingTrainer(Trainer):
    """A subclass with arguments of its own, and a method of the Trainer's that does more."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        super().__init__(**options)
        self.words = ["kept"]

    def fit(self, model: LightningModule) -> int:
        (self.folder / f"{os.environ.get('RANK', 'parent')} {' '.join(self.words)}").touch()
        return super().fit(model)
