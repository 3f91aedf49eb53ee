"""A Wasserstein GAN with gradient penalty: five steps of the critic for each step of the generator.

``python wgan_gp.py`` learns to draw points of a circle, in seconds on a CPU, and prints how far its points are
from them. Source: Gulrajani et al., "Improved Training of Wasserstein GANs" (2017).
"""

import math
import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, add_default_args

GENERATOR, CRITIC = 0, 1
"""The place of each optimizer in the list that ``configure_optimizers`` returns."""


def ring(nb_samples: int) -> Tensor:
    """Points around a circle of radius 2, of shape (nb_samples, 2): the same ones at every call."""
    draw = torch.Generator().manual_seed(0)
    angles = 2 * math.pi * torch.rand(nb_samples, generator=draw)
    return 2 * torch.stack([angles.cos(), angles.sin()], dim=1) + 0.1 * torch.randn(nb_samples, 2, generator=draw)


def network(nb_inputs: int, nb_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(nb_inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, nb_outputs))


class WGAN(LightningModule):
    """The critic learns to tell points from the generator's; the generator follows what it has learned."""

    automatic_optimization = False

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.generator = network(hparams.latent_dim, 2)
        self.critic = network(2, 1)

    def forward(self, noise: Tensor) -> Tensor:
        points: Tensor = self.generator(noise)
        return points

    def fakes_like(self, points: Tensor) -> Tensor:
        fakes: Tensor = self.generator(points.new_empty(len(points), self.hparams.latent_dim).normal_())
        return fakes

    def gradient_penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        """How far the critic's slope is from 1, at points between real ones and fakes."""
        share = real.new_empty(len(real), 1).uniform_()
        between = (share * real + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        penalty: Tensor = (slope.norm(dim=1) - 1).pow(2).mean()
        return penalty

    def training_step(self, data_batch: tuple[Tensor], batch_nb: int) -> dict[str, Any]:
        (real,) = data_batch
        fake = self.fakes_like(real).detach()
        distance = self.critic(real).mean() - self.critic(fake).mean()
        self.manual_step(CRITIC, loss=10 * self.gradient_penalty(real, fake) - distance)

        # decided by a number that a resumed run has too
        if self.global_step % self.hparams.critic_steps == self.hparams.critic_steps - 1:
            self.manual_step(GENERATOR, loss=-self.critic(self.fakes_like(real)).mean())
        return {"prog": {"distance": distance}}

    def validation_step(self, data_batch: tuple[Tensor], batch_nb: int) -> dict[str, Any]:
        (real,) = data_batch
        return {"miss": torch.cdist(self.fakes_like(real), real).min(dim=1).values.mean()}

    def configure_optimizers(self) -> list[optim.Optimizer]:
        lr, betas = self.hparams.learning_rate, (0.0, 0.9)
        return [
            optim.Adam(self.generator.parameters(), lr=lr, betas=betas),
            optim.Adam(self.critic.parameters(), lr=lr, betas=betas),
        ]

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(ring(4096)), batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(ring(1024)), batch_size=1024)


def main(hparams: Namespace) -> None:
    torch.manual_seed(hparams.seed or 0)  # the networks begin the same at each start
    model = WGAN(hparams)
    trainer = Trainer.from_args(hparams)
    trainer.fit(model)
    print(f"steps           {trainer.progress.nb_optimizer_steps}")
    print(f"mean miss       {trainer.metrics['miss']:.3f}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--latent_dim", default=4, type=int, help="numbers that a point is made from")
    parser.add_argument("--critic_steps", default=5, type=int, help="steps of the critic for one of the generator")
    parser.add_argument("--learning_rate", default=0.003, type=float, help="of both optimizers")
    parser.add_argument("--batch_size", default=256, type=int, help="points in a batch")
    parser.set_defaults(max_nb_epochs=40, tt_name="wgan_gp")
    main(parser.parse_args())
