"""A GAN: two networks, two optimizers, and two numbers that say whether it works."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything

GENERATOR, DISCRIMINATOR = 0, 1  # places in the list that configure_optimizers returns
NB_LATENT = 4


def curve(nb, seed):
    """Points on a wave, of shape (nb, 2)."""
    generator = torch.Generator().manual_seed(seed)
    x = 4 * torch.rand(nb, generator=generator) - 2
    return torch.stack([x, (2 * x).sin()], dim=1) + 0.05 * torch.randn(nb, 2, generator=generator)


def network(nb_inputs, nb_outputs):
    hidden = [nn.Linear(nb_inputs, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2)]
    return nn.Sequential(*hidden, nn.Linear(32, nb_outputs))


def loss_of(logits, real):
    """How far the discriminator is from taking all of them for real, or for fakes."""
    return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


class GAN(LightningModule):
    def __init__(self):
        super().__init__()
        self.generator = network(NB_LATENT, 2)
        self.discriminator = network(2, 1)

    def forward(self, noise):
        return self.generator(noise)

    def fakes_like(self, real):
        return self(torch.randn(len(real), NB_LATENT, device=real.device))

    def training_step(self, data_batch, batch_nb, optimizer_i):  # called for each optimizer in turn
        (real,) = data_batch
        if optimizer_i == GENERATOR:
            loss = loss_of(self.discriminator(self.fakes_like(real)), real=True)
            return {"loss": loss, "prog": {"generator": loss}}
        fake = self.fakes_like(real).detach()
        loss = loss_of(self.discriminator(real), real=True) + loss_of(self.discriminator(fake), real=False)
        return {"loss": loss, "prog": {"discriminator": loss}}

    def validation_step(self, data_batch, batch_nb):
        (real,) = data_batch
        distances = torch.cdist(self.fakes_like(real), real)
        # a fake far from all that is real is a bad one; a real one far from all fakes is never drawn
        return {"miss": distances.min(dim=1).values.mean(), "gap": distances.min(dim=0).values.mean()}

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.generator.parameters(), lr=0.002, betas=(0.5, 0.99)),
            torch.optim.Adam(self.discriminator.parameters(), lr=0.004, betas=(0.5, 0.99)),
        ]

    @property
    def tng_dataloader(self):
        return DataLoader(TensorDataset(curve(3200, seed=0)), batch_size=64, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(TensorDataset(curve(1000, seed=1)), batch_size=1000)


if __name__ == "__main__":
    seed_everything(0)
    model, trainer = GAN(), Trainer(max_nb_epochs=10, print_weights_summary=False, default_save_path="gan")
    before = trainer.validate(model)
    trainer.fit(model)
    for when, found in (("before", before), ("after", trainer.metrics)):
        print(f"{when:7} miss {found['miss']:.2f}  gap {found['gap']:.2f}")
