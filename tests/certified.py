"""A program whose runs are verified: what it trains follows from a description, which is drawn by lot."""

import json
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

NB_ROWS, NB_EPOCHS = 36, 2


def drawn(seed: int) -> dict[str, Any]:
    """The description of run number ``seed``."""
    draw = random.Random(seed)
    return {
        "seed": seed,
        "workers": 2 if seed % 4 == 1 else 0,
        "optimizer": draw.choice(["Adam", "SGD"]),
        "schedule": draw.choice(["none", "epoch", "step", "plateau"]),
        "noise": draw.random() < 0.5,
        "options": {
            "accumulate_grad_batches": draw.choice([1, 1, 2, 3]),
            "gradient_clip": draw.choice([0, 0.5]),
            "virtual_ranks": draw.choice([None, None, 2]),
            "precision": draw.choice(["32", "32", "bf16", "64"]),
            "val_check_interval": draw.choice([1.0, 0.5]),
            "save_every_nb_batches": draw.choice([6, 7]),
        },
    }


def write_rows(folder: Path, seed: int) -> None:
    torch.save(torch.randn(NB_ROWS, 6, generator=torch.Generator().manual_seed(seed)), folder / "rows.pt")


class Rows(Dataset[Any]):
    """Rows of a file, with noise that is drawn when they are fetched."""

    def __init__(self, path: Path, noise: bool) -> None:
        self.rows, self.noise = torch.load(path), noise

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index] + (0.1 * torch.randn(6) if self.noise else 0), int(self.rows[index][:3].argmax())


class Model(LightningModule):
    def __init__(self, folder: str, described: str) -> None:
        super().__init__()
        self.folder, self.described = Path(folder), json.loads(described)
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return F.cross_entropy(self.layers(x), y)

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return F.cross_entropy(self.layers(data_batch[0]), data_batch[1])

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self) -> Any:
        if self.described["optimizer"] == "Adam":
            optimizer: Any = torch.optim.Adam(self.parameters(), 0.01)
        else:
            optimizer = torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)
        schedules: dict[str, Any] = {
            "none": list,
            "epoch": lambda: [ExponentialLR(optimizer, 0.5)],
            "step": lambda: [{"scheduler": OneCycleLR(optimizer, 0.02, total_steps=99), "interval": "step"}],
            "plateau": lambda: [ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.3)],
        }
        return [optimizer], schedules[self.described["schedule"]]()

    @property
    def tng_dataloader(self) -> Any:
        data = Rows(self.folder / "rows.pt", self.described["noise"])
        return DataLoader(data, 4, shuffle=True, num_workers=self.described["workers"])

    @property
    def val_dataloader(self) -> Any:
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
        return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 4)


class Halving(Callback):
    """Changes the rates, and has no state."""

    def on_epoch_end(self, run: Any) -> None:
        for group in run.module.trainer.optimizers[0].param_groups:
            group["lr"] /= 2


CALLBACKS = [Halving()]


def train(folder: Path, described: dict[str, Any], **others: Any) -> Path:
    """Train, or resume; returns the folder of the run."""
    from tests.faults.killing import every_save_written

    torch.manual_seed(described["seed"])
    options = {
        "default_save_path": str(folder), "max_nb_epochs": NB_EPOCHS, "nb_sanity_val_steps": 1, "resume": "auto",
        "progress_bar": False, "print_weights_summary": False, "silence": ("first-save", "fewer-samples"),
        "certificate": True, "keep_saves": "spaced", "seed": described["seed"],
        **described["options"], **others,
    }  # fmt: skip
    with every_save_written():
        Trainer(**options).fit(Model(str(folder), json.dumps(described)))
    # one that was killed before its first save is another run
    return max(folder.glob("Model/version_*"), key=lambda path: int(path.name[8:]))
