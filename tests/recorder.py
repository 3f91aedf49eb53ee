"""A model that notes what is called, for tests of the loop's order and of the options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer


@dataclass
class Notes:
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    seen: list[list[float]] = field(default_factory=list)
    """The first entry of each training batch, a list per epoch."""
    nb_validations: int = 0
    validation_sizes: list[int] = field(default_factory=list)


FIELDS = {"calls", "seen", "nb_validations", "validation_sizes"}
NOTES: WeakKeyDictionary[Any, Notes] = WeakKeyDictionary()
"""What each recorder noted in this start: attributes would be part of its checkpoints."""


class Recorder(LightningModule):
    """One weight, fitted to a constant. ``calls`` holds (hook, epoch, batch_nb) in the order of the calls.

    ``val_values`` are what successive validations return as ``val_loss``; afterwards the last one again.
    """

    def __init__(self, nb_batches: int = 4, val_values: tuple[float, ...] = (1.0,), lr: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.nb_batches, self.val_values, self.lr = nb_batches, val_values, lr
        NOTES[self] = Notes()

    def __getattr__(self, name: str) -> Any:
        return getattr(NOTES[self], name) if name in FIELDS else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FIELDS:
            setattr(NOTES[self], name, value)
        else:
            super().__setattr__(name, value)

    def note(self, *what: Any) -> None:
        self.calls.append(what)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.note("training_step", self.current_epoch, batch_nb)
        (x,) = data_batch
        while len(self.seen) <= self.current_epoch:
            self.seen.append([])
        self.seen[-1].append(float(x[0]))
        loss = (self(torch.ones(2, 1)) - 3.0).pow(2).mean()
        return {"loss": loss, "prog": {"twice": 2 * loss}}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.note("validation_step", batch_nb)
        return {"size": torch.tensor(len(data_batch[0]))}

    def validation_end(self, outputs: Any) -> Any:
        self.note("validation_end", len(outputs))
        self.validation_sizes.append(len(outputs))
        value = self.val_values[min(self.nb_validations, len(self.val_values) - 1)]
        self.nb_validations += 1
        return {"val_loss": value}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), self.lr)]

    def loader(self, nb_batches: int) -> Any:
        data = TensorDataset(torch.arange(2.0 * nb_batches).unsqueeze(1))
        return DataLoader(data, batch_size=2)

    @property
    def tng_dataloader(self) -> Any:
        return self.loader(self.nb_batches)

    @property
    def val_dataloader(self) -> Any:
        return self.loader(3)

    @property
    def test_dataloader(self) -> Any:
        return self.loader(2)

    def names(self) -> list[str]:
        """The hooks in the order of their calls."""
        return [call[0] for call in self.calls]

    def nb(self, name: str) -> int:
        """How often a hook was called."""
        return self.names().count(name)


QUIET: dict[str, Any] = {
    "progress_bar": False,
    "print_weights_summary": False,
    "nb_sanity_val_steps": 0,
    "silence": ("not-shuffled", "no-validation"),
    "seed": 1,
}


def quiet_trainer(tmp_path: Path, **options: Any) -> Trainer:
    """A Trainer that shows nothing and writes under ``tmp_path``."""
    return Trainer(**{**QUIET, "default_save_path": tmp_path / "logs", "max_nb_epochs": 1, **options})


def rows_of(tmp_path: Path, name: str = "Recorder", version: int = 0) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv."""
    import csv

    with open(tmp_path / "logs" / name / f"version_{version}" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))
