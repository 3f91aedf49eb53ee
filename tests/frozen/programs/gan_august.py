"""A GAN of August 2019: a step with three arguments, schedulers, an experiment, no validation at all."""
import os
from collections import OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl


class Generator(nn.Module):
    def __init__(self, latent_dim):
        super(Generator, self).__init__()
        self.model = nn.Sequential(nn.Linear(latent_dim, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

    def forward(self, z):
        return self.model(z)


class Discriminator(nn.Module):
    def __init__(self):
        super(Discriminator, self).__init__()
        self.model = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1), nn.Sigmoid())

    def forward(self, x):
        return self.model(x)


class GAN(pl.LightningModule):

    def __init__(self, hparams):
        super(GAN, self).__init__()
        self.hparams = hparams
        self.generator = Generator(hparams['latent_dim'])
        self.discriminator = Discriminator()
        self.generated = None

    def forward(self, z):
        return self.generator(z)

    def adversarial_loss(self, y_hat, y):
        return F.binary_cross_entropy(y_hat, y)

    def training_step(self, batch, batch_nb, optimizer_i):
        real, = batch
        z = torch.randn(real.shape[0], self.hparams['latent_dim'])

        # train generator
        if optimizer_i == 0:
            self.generated = self.forward(z)
            g_loss = self.adversarial_loss(self.discriminator(self.generated), torch.ones(real.size(0), 1))
            return OrderedDict({'loss': g_loss, 'prog': {'g_loss': g_loss}})

        # train discriminator
        if optimizer_i == 1:
            real_loss = self.adversarial_loss(self.discriminator(real), torch.ones(real.size(0), 1))
            fake_loss = self.adversarial_loss(self.discriminator(self.generated.detach()), torch.zeros(real.size(0), 1))
            d_loss = (real_loss + fake_loss) / 2
            return OrderedDict({'loss': d_loss, 'prog': {'d_loss': d_loss}})

    def configure_optimizers(self):
        lr, b1, b2 = self.hparams['lr'], 0.5, 0.999
        opt_g = torch.optim.Adam(self.generator.parameters(), lr=lr, betas=(b1, b2))
        opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=lr, betas=(b1, b2))
        return [opt_g, opt_d], [torch.optim.lr_scheduler.StepLR(opt_d, step_size=4, gamma=0.5)]

    def on_epoch_end(self):
        sample = self.forward(torch.randn(16, self.hparams['latent_dim'])).detach().view(1, 4, 4)
        self.trainer.experiment.add_image('generated', sample.clamp(0, 1), self.current_epoch)

    @pl.data_loader
    def tng_dataloader(self):
        torch.manual_seed(3)
        return DataLoader(TensorDataset(4 + 0.5 * torch.randn(640, 1)), batch_size=32, shuffle=True)


if __name__ == '__main__':
    model = GAN({'latent_dim': 4, 'lr': 0.01})
    start = model(torch.randn(500, 4)).mean().item()
    exp = Experiment(save_dir=os.getcwd(), name='gan')
    trainer = pl.Trainer(experiment=exp, max_nb_epochs=8, show_progress_bar=False)
    assert trainer.fit(model) == 1
    exp.close()

    mean = model(torch.randn(500, 4)).mean().item()
    assert abs(mean - 4) < 1.5 < abs(start - 4), (start, mean)
    assert {'g_loss', 'd_loss'} <= set(trainer.tng_tqdm_dic)
    rates = [group['lr'] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    assert rates == [0.01, 0.0025], rates
    assert len(trainer.lr_schedulers) == 1
    assert not os.path.exists('lightning_logs')
    print('ok')
