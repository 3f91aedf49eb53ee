"""A Wasserstein GAN of September 2019: the generator steps once for five turns of the critic, weights are clamped."""
from argparse import Namespace

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl


class WGAN(pl.LightningModule):

    def __init__(self, hparams):
        super(WGAN, self).__init__()
        self.hparams = hparams
        self.generator = nn.Linear(hparams.latent_dim, 1)
        self.critic = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        self.last_imgs = None
        self.nb = [0, 0]

    def forward(self, z):
        return self.generator(z)

    def training_step(self, batch, batch_nb, optimizer_i):
        real, = batch
        self.last_imgs = real
        fake = self.forward(torch.randn(real.shape[0], self.hparams.latent_dim))
        if optimizer_i == 0:
            return {'loss': -torch.mean(self.critic(fake))}
        d_loss = torch.mean(self.critic(fake)) - torch.mean(self.critic(real))
        return {'loss': d_loss, 'prog': {'d_loss': d_loss.detach()}}

    def optimizer_step(self, current_epoch, batch_nb, optimizer, optimizer_i):
        # update the generator every 5 steps
        if optimizer_i == 0:
            if batch_nb % 5 == 4:
                optimizer.step()
                optimizer.zero_grad()
                self.nb[0] += 1
        # update the critic every step
        if optimizer_i == 1:
            optimizer.step()
            optimizer.zero_grad()
            self.nb[1] += 1
            for p in self.critic.parameters():
                p.data.clamp_(-0.3, 0.3)

    def configure_optimizers(self):
        return [torch.optim.RMSprop(self.generator.parameters(), lr=self.hparams.lr),
                torch.optim.RMSprop(self.critic.parameters(), lr=self.hparams.lr)], []

    @pl.data_loader
    def tng_dataloader(self):
        real = 2 + 0.5 * torch.randn(600, 1, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(real), batch_size=20, shuffle=True)


if __name__ == '__main__':
    model = WGAN(Namespace(latent_dim=3, lr=0.02))
    start = model(torch.randn(1000, 3)).mean().item()
    pl.Trainer(max_nb_epochs=12, gradient_clip=5., show_progress_bar=False).fit(model)
    assert model.nb == [12 * 6, 12 * 30], model.nb
    assert all(p.abs().max() <= 0.3 for p in model.critic.parameters())
    end = model(torch.randn(1000, 3)).mean().item()
    assert abs(end - 2) < 1 < abs(start - 2), (start, end)
    print('ok')
