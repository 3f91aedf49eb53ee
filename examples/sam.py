"""Sharpness-aware minimization: each step follows the gradient at a point uphill, so flat minima are preferred.

``python sam.py`` trains a small network on two half circles, in seconds on a CPU, and prints its accuracy. Source:
Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization" (2021).
"""

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, add_default_args

Batch = tuple[Tensor, Tensor]


def moons(nb_samples: int, seed: int) -> TensorDataset:
    """Points of shape (nb_samples, 2) on two half circles, and which one each is on (0 or 1)."""
    draw = torch.Generator().manual_seed(seed)
    angle, kind = torch.pi * torch.rand(nb_samples, generator=draw), torch.randint(2, (nb_samples,), generator=draw)
    side = 1 - 2.0 * kind
    points = torch.stack([side * angle.cos() + kind, side * angle.sin() + 0.5 * kind], dim=1)
    return TensorDataset(points + 0.1 * torch.randn(nb_samples, 2, generator=draw), kind)


class SAM(LightningModule):
    """Two backward passes a batch: one says where uphill is, the other one gives the gradients of the step."""

    automatic_optimization = False

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))

    def forward(self, points: Tensor) -> Tensor:
        logits: Tensor = self.net(points)
        return logits

    def training_step(self, data_batch: Batch, batch_nb: int) -> dict[str, Any]:
        points, kind = data_batch
        loss = F.cross_entropy(self(points), kind)
        self.manual_backward(loss)
        weights = self.climb()
        self.manual_backward(F.cross_entropy(self(points), kind))
        self.put_back(weights)
        self.manual_step()
        return {"loss": loss}

    @torch.no_grad()
    def climb(self) -> list[Tensor]:
        """Move the weights by ``rho`` along their gradients, which are cleared; returns the weights from before."""
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        weights = [p.clone() for p in self.net.parameters()]
        for p, gradient in zip(self.net.parameters(), gradients, strict=True):
            p.add_(gradient / (norm + 1e-12), alpha=self.hparams.rho)
            p.grad = None
        return weights

    @torch.no_grad()
    def put_back(self, weights: list[Tensor]) -> None:
        for p, value in zip(self.net.parameters(), weights, strict=True):
            p.copy_(value)

    def validation_step(self, data_batch: Batch, batch_nb: int) -> dict[str, Any]:
        points, kind = data_batch
        logits = self(points)
        return {"val_loss": F.cross_entropy(logits, kind), "val_acc": (logits.argmax(1) == kind).float().mean()}

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.SGD(self.parameters(), lr=self.hparams.learning_rate, momentum=0.9)

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        return DataLoader(moons(1024, seed=0), batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(moons(512, seed=1), batch_size=512)


def main(hparams: Namespace) -> None:
    torch.manual_seed(hparams.seed or 0)  # the network begins the same at each start
    model = SAM(hparams)
    trainer = Trainer.from_args(hparams)
    trainer.fit(model)
    print(f"steps           {trainer.progress.nb_optimizer_steps}")
    print(f"accuracy        {trainer.metrics['val_acc']:.3f}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--rho", default=0.05, type=float, help="how far uphill")
    parser.add_argument("--learning_rate", default=0.1, type=float, help="of the optimizer")
    parser.add_argument("--batch_size", default=32, type=int, help="points in a batch")
    parser.set_defaults(max_nb_epochs=10, tt_name="sam")
    main(parser.parse_args())
