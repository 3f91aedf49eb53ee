"""A model that predicts the last number of a row from the others."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split

from pytorch_lightning import LightningModule


def table_of(path: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """The columns of a CSV file with a header and the target last, or, without one, made ones: always the same."""
    if path is None:
        numbers = torch.Generator().manual_seed(0)
        x = torch.randn(3000, 6, generator=numbers)
        noise = 0.1 * torch.randn(3000, generator=numbers)
        return x, 10 + 3 * x[:, 0] - 2 * x[:, 1] * x[:, 2] + (2 * x[:, 3]).sin() + noise
    table = np.genfromtxt(path, delimiter=",", skip_header=1, dtype=np.float32, ndmin=2)
    if table.shape[1] < 2:
        raise SystemExit(f"{path}: it needs a header, and below it rows of two numbers or more with commas between.")
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0] + 1
        raise SystemExit(f"{path}: row {row} below the header has no number in column {column}. Write one there.")
    return torch.from_numpy(table[:, :-1].copy()), torch.from_numpy(table[:, -1].copy())


class Regressor(LightningModule):
    """Rows of shape (batch, columns) to one number each."""

    x_mean: Tensor  # for editors, which can't see what register_buffer makes
    x_std: Tensor
    y_mean: Tensor
    y_std: Tensor

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        x, y = table_of(hparams.csv)
        if len(y) < 7:
            raise SystemExit(f"{hparams.csv}: it has {len(y)} rows, too few to share out. It needs 7, or better 100.")
        # the same rows at each start: seven tenths to learn from, and the others to choose and to test by
        shares, generator = [0.7, 0.15, 0.15], torch.Generator().manual_seed(0)
        self.rows = random_split(TensorDataset(x, y), shares, generator=generator)
        learned = self.rows[0].indices
        # buffers are saved with the weights: each column is brought to mean 0 and deviation 1
        self.register_buffer("x_mean", x[learned].mean(dim=0))
        self.register_buffer("x_std", x[learned].std(dim=0).clamp(min=1e-6))
        self.register_buffer("y_mean", y[learned].mean())
        self.register_buffer("y_std", y[learned].std().clamp(min=1e-6))
        self.network = nn.Sequential(
            nn.Linear(x.shape[1], hparams.hidden_dim),
            nn.ReLU(),
            nn.Linear(hparams.hidden_dim, hparams.hidden_dim),
            nn.ReLU(),
            nn.Linear(hparams.hidden_dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network((x - self.x_mean) / self.x_std)
        return outputs.squeeze(1) * self.y_std + self.y_mean

    def training_step(self, data_batch: list[Tensor], batch_nb: int) -> dict[str, Tensor]:
        x, y = data_batch
        return {"loss": F.mse_loss(self(x), y) / self.y_std**2}

    def validation_step(self, data_batch: list[Tensor], batch_nb: int) -> dict[str, Tensor]:
        x, y = data_batch
        off = self(x) - y
        return {"square": off.pow(2).sum(), "size": off.abs().sum(), "nb": torch.tensor(len(y))}

    def validation_end(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        square, size, nb = (torch.stack([output[key] for output in outputs]).sum() for key in ("square", "size", "nb"))
        return {"val_loss": square / nb / self.y_std**2, "val_error": size / nb}

    def test_end(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        # a test runs validation_step; its numbers get names of their own
        metrics = self.validation_end(outputs)
        return {"test_loss": metrics["val_loss"], "test_error": metrics["val_error"]}

    def configure_optimizers(self) -> list[optim.Optimizer]:
        return [optim.Adam(self.parameters(), lr=self.hparams.learning_rate)]

    @property
    def tng_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.rows[0], batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.rows[1], batch_size=self.hparams.batch_size)

    @property
    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.rows[2], batch_size=self.hparams.batch_size)
