"""A model that reads handwritten digits."""

from argparse import Namespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split

from pytorch_lightning import LightningModule
from pytorch_lightning.data.digits import SHIPPED, Digits


class DigitReader(LightningModule):
    """Images of shape (batch, 1, 28, 28), from 0 to 1, to one logit for each digit."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.network = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Linear(8 * 7 * 7, hparams.hidden_dim),
            nn.ReLU(),
            nn.Dropout(hparams.drop_prob),
            nn.Linear(hparams.hidden_dim, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, data_batch: list[Tensor], batch_nb: int) -> dict[str, Tensor]:
        images, labels = data_batch
        return {"loss": F.cross_entropy(self(images), labels)}

    def validation_step(self, data_batch: list[Tensor], batch_nb: int) -> dict[str, Tensor]:
        images, labels = data_batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return {"loss": loss, "right": (logits.argmax(dim=1) == labels).sum(), "nb": torch.tensor(len(labels))}

    def validation_end(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        loss, right, nb = (torch.stack([output[key] for output in outputs]).sum() for key in ("loss", "right", "nb"))
        return {"val_loss": loss / nb, "val_acc": right / nb}

    def test_end(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        # a test runs validation_step; its numbers get names of their own
        metrics = self.validation_end(outputs)
        return {"test_loss": metrics["val_loss"], "test_acc": metrics["val_acc"]}

    def configure_optimizers(self) -> list[optim.Optimizer]:
        return [optim.Adam(self.parameters(), lr=self.hparams.learning_rate)]

    def digits(self, train: bool) -> TensorDataset:
        digits = Digits(self.hparams.data_root or SHIPPED, train=train)
        return TensorDataset(digits.data.unsqueeze(1) / 255, digits.targets)

    def split(self) -> list[Subset[tuple[Tensor, ...]]]:
        # the same tenth is kept for validation at each start
        return random_split(self.digits(train=True), [0.9, 0.1], generator=torch.Generator().manual_seed(0))

    @property
    def tng_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.split()[0], batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.split()[1], batch_size=self.hparams.batch_size)

    @property
    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.digits(train=False), batch_size=self.hparams.batch_size)
