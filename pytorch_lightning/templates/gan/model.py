"""A generator that learns to draw digits, and a discriminator that learns to tell them from real ones."""

from argparse import Namespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.data.digits import SHIPPED, Digits


class GAN(LightningModule):
    """Noise of shape (batch, latent_dim) to images of shape (batch, 1, 28, 28), from -1 to 1."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.generator = nn.Sequential(
            nn.Linear(hparams.latent_dim, 32 * 7 * 7),
            nn.Unflatten(1, (32, 7, 7)),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, kernel_size=4, stride=2, padding=1),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32 * 7 * 7, 1),
        )

    def forward(self, noise: Tensor) -> Tensor:
        images: Tensor = self.generator(noise)
        return images

    def training_step(self, data_batch: list[Tensor], batch_nb: int, optimizer_i: int) -> dict[str, Any]:
        # called once for each optimizer, in the order of configure_optimizers
        (images,) = data_batch
        fakes = self(torch.randn(len(images), self.hparams.latent_dim, device=images.device, dtype=images.dtype))
        if optimizer_i == 0:
            loss = loss_of(self.discriminator(fakes), real=True)
            return {"loss": loss, "prog": {"generator_loss": loss}}
        of_real = loss_of(self.discriminator(images), real=True)
        of_fakes = loss_of(self.discriminator(fakes.detach()), real=False)
        loss = (of_real + of_fakes) / 2
        return {"loss": loss, "prog": {"discriminator_loss": loss}}

    def configure_optimizers(self) -> list[optim.Optimizer]:
        networks = (self.generator, self.discriminator)
        return [optim.Adam(n.parameters(), lr=self.hparams.learning_rate, betas=(0.5, 0.999)) for n in networks]

    @property
    def tng_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        images = Digits(self.hparams.data_root or SHIPPED, train=True).data.unsqueeze(1) / 127.5 - 1
        return DataLoader(TensorDataset(images), batch_size=self.hparams.batch_size, shuffle=True, drop_last=True)


def loss_of(logits: Tensor, real: bool) -> Tensor:
    """How far the discriminator is from taking all images for real, or for fakes."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
