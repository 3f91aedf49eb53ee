"""Small models with everything in them that draws or counts."""

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pytorch_lightning import LightningModule

NB_SAMPLES, BATCH_SIZE, NB_EPOCHS = 52, 8, 3
"""Seven batches an epoch, the last of four samples."""


def points(nb: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(nb, 6, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(dim=1)


class Augmented(Dataset[Any]):
    """Points that are changed at random whenever they are fetched, by every kind of generator."""

    def __init__(self, nb: int = NB_SAMPLES) -> None:
        self.x, self.y = points(nb, seed=1)
        self.own = np.random.default_rng(4)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.x[index] * (0.5 + random.random()) + 0.1 * torch.randn(6)
        return x + float(np.random.normal(scale=0.1)) + 0.1 * float(self.own.random()), self.y[index]


class Network(LightningModule):
    """Batch normalization, dropout, Adam, a schedule of steps and one that watches the validation."""

    def __init__(self, workers: int = 0) -> None:
        super().__init__()
        self.workers = workers
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
            )

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        loss = F.cross_entropy(self.layers(x), y)
        return {"loss": loss, "prog": {"batch": loss}}

    def on_batch_end(self) -> None:
        with torch.no_grad():  # what hooks draw between batches is resumed too
            self.layers[0].bias.add_(torch.randn(16), alpha=0.001)

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return F.cross_entropy(self.layers(x + 0.1 * torch.randn_like(x)), y)

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        one_cycle = OneCycleLR(optimizer, 0.02, total_steps=NB_EPOCHS * 7 + 1)
        return [optimizer], [{"scheduler": one_cycle, "interval": "step"}]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Augmented(), BATCH_SIZE, shuffle=True, num_workers=self.workers)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*points(20, seed=2)), BATCH_SIZE)


class Gan(Network):
    """Two optimizers that take turns, with a step each, and a plateau."""

    def __init__(self, workers: int = 0) -> None:
        super().__init__(workers)
        self.generator = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6))

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        x, y = data_batch
        made = self.layers(self.generator(x))
        loss = F.cross_entropy(made, y) if optimizer_i == 0 else F.cross_entropy(self.layers(x), y) - made.std()
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        optimizers = [
            torch.optim.Adam(self.generator.parameters(), 0.02),
            torch.optim.SGD(self.layers.parameters(), 0.05, momentum=0.9),
        ]
        return optimizers, [ReduceLROnPlateau(optimizers[1], factor=0.5, patience=0, threshold=0.3)]
