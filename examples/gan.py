"""A GAN that learns to draw digits: two optimizers and a ``training_step`` with a third argument.

``python gan.py`` trains for about a minute on a CPU and writes ``epoch_1.png``, ``epoch_2.png``, ... into the folder
of the run. Source: Goodfellow et al., "Generative adversarial nets" (2014).
"""

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from test_tube import Experiment
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.utils import save_image

from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.data.digits import mnist

GENERATOR, DISCRIMINATOR = 0, 1
"""The place of each optimizer in the list that ``configure_optimizers`` returns."""


class Generator(nn.Sequential):
    """Noise of shape (batch, latent_dim) to images of shape (batch, 1, 28, 28) with values from -1 to 1."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(
            nn.Linear(latent_dim, 32 * 7 * 7),
            nn.Unflatten(1, (32, 7, 7)),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, kernel_size=4, stride=2, padding=1),
            nn.Tanh(),
        )


class Discriminator(nn.Sequential):
    """Images to one logit each: above 0 where it takes them for real digits."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32 * 7 * 7, 1),
        )


class GAN(LightningModule):
    """A generator that learns to fool a discriminator that learns to tell its images from real ones."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__(hparams)
        self.generator = Generator(hparams.latent_dim)
        self.discriminator = Discriminator()

    def forward(self, noise: Tensor) -> Tensor:
        images: Tensor = self.generator(noise)
        return images

    def training_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int, optimizer_i: int) -> dict[str, Any]:
        # called once for each optimizer; the other's parameters need no gradient meanwhile
        images, _ = data_batch
        noise = torch.randn(len(images), self.hparams.latent_dim, device=images.device, dtype=images.dtype)

        if optimizer_i == GENERATOR:
            loss = loss_of(self.discriminator(self.generator(noise)), real=True)
            return {"loss": loss, "prog": {"generator_loss": loss}}

        of_real = loss_of(self.discriminator(images), real=True)
        of_fake = loss_of(self.discriminator(self.generator(noise).detach()), real=False)
        loss = (of_real + of_fake) / 2
        return {"loss": loss, "prog": {"discriminator_loss": loss}}

    def configure_optimizers(self) -> list[optim.Optimizer]:
        lr, betas = self.hparams.learning_rate, (0.5, 0.999)
        return [
            optim.Adam(self.generator.parameters(), lr=lr, betas=betas),
            optim.Adam(self.discriminator.parameters(), lr=lr, betas=betas),
        ]

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        if self._tng_dataloader is None:
            to_generator_range = transforms.Normalize((0.5,), (0.5,))
            transform = transforms.Compose([transforms.ToTensor(), to_generator_range])
            digits = mnist(root=self.hparams.data_root, train=True, transform=transform)
            self._tng_dataloader = DataLoader(digits, batch_size=self.hparams.batch_size, shuffle=True, drop_last=True)
        return self._tng_dataloader


def loss_of(logits: Tensor, real: bool) -> Tensor:
    """How far the discriminator is from taking all images for real, or for fakes."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


class DrawDigits(Callback):
    """Writes what the generator makes of the same noise after each epoch."""

    def __init__(self, folder: Path, noise: Tensor) -> None:
        self.folder, self.noise = folder, noise

    def on_epoch_end(self, run: Any) -> None:
        gan = run.module
        gan.eval()
        with torch.no_grad():
            images = gan(self.noise.to(next(gan.parameters())))
        gan.train()

        folder = run.scratch or self.folder  # the scratch folder is that of a fast_dev_run
        save_image(images.float(), folder / f"epoch_{run.progress.epoch + 1}.png", normalize=True, value_range=(-1, 1))


def main(hparams: Namespace) -> None:
    if hparams.seed is not None:
        seed_everything(hparams.seed)
    model = GAN(hparams)

    experiment = Experiment(name=hparams.tt_name, save_dir=hparams.tt_save_path)
    experiment.argparse(hparams)
    folder = Path(hparams.tt_save_path, hparams.tt_name, f"version_{experiment.version}")

    trainer = Trainer.from_args(
        hparams,
        experiment=experiment,
        callbacks=[DrawDigits(folder, noise=torch.randn(64, hparams.latent_dim))],
        silence=["no-validation"],  # there is no number that says how good an image is
    )
    trainer.fit(model)
    if hparams.fast_dev_run:  # keeps nothing
        return
    trainer.save_checkpoint(folder / "gan.ckpt")

    print(f"images          {folder / 'epoch_*.png'}")
    print(f"metrics         {folder / 'metrics.csv'}")
    print(f"checkpoint      {folder / 'gan.ckpt'}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--latent_dim", default=64, type=int, help="numbers that an image is made from")
    parser.add_argument("--learning_rate", default=0.001, type=float, help="of both optimizers")
    parser.add_argument("--batch_size", default=64, type=int, help="digits in a batch")
    parser.add_argument("--data_root", default=os.path.join(root_dir, "mnist"), type=str, help="folder of the digits")
    parser.set_defaults(max_nb_epochs=15, tt_name="gan")
    main(parser.parse_args())
