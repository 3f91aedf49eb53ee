"""A client's base class over LightningModule, with methods of its own names; a GAN that keeps a graph between turns."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as ptl


class BaseModule(ptl.LightningModule):

    def training_step(self, *args):
        return self.tng_step(*args)

    def validation_step(self, *args):
        return self.val_step(*args)

    def validation_end(self, outputs):
        return self.val_end(outputs)

    @ptl.data_loader
    def tng_dataloader(self):
        return self.tng_data_loader()

    @ptl.data_loader
    def val_dataloader(self):
        return self.val_data_loader()


class SRGAN(BaseModule):

    def __init__(self):
        super(SRGAN, self).__init__()
        self.net_G = nn.Linear(2, 4)
        self.net_D = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        self.turns = []

    def tng_step(self, batch, batch_nb, optimizer_idx):
        img_lr, img_hr = batch
        self.turns.append(optimizer_idx)
        if optimizer_idx == 0:  # train discriminator
            self.img_sr = self.net_G(img_lr)
            for_real = self.net_D(img_hr)
            for_fake = self.net_D(self.img_sr.detach())
            loss = F.softplus(-for_real).mean() + F.softplus(for_fake).mean()
            return {'loss': loss, 'prog': {'tng/d_loss': loss}}
        elif optimizer_idx == 1:  # train generator with what was made for the discriminator
            content_loss = F.mse_loss(self.img_sr, img_hr)
            loss = content_loss + 1e-3 * F.softplus(-self.net_D(self.img_sr)).mean()
            return {'loss': loss, 'prog': {'tng/content': content_loss}}

    def val_step(self, batch, batch_nb):
        return {'val_mse': F.mse_loss(self.net_G(batch[0]), batch[1])}

    def val_end(self, outputs):
        return {'val_mse': torch.stack([o['val_mse'] for o in outputs]).mean()}

    def configure_optimizers(self):
        optimizer_G = torch.optim.Adam(self.net_G.parameters(), lr=0.05)
        optimizer_D = torch.optim.Adam(self.net_D.parameters(), lr=0.01)
        return [optimizer_D, optimizer_G], [torch.optim.lr_scheduler.StepLR(o, 10) for o in (optimizer_D, optimizer_G)]

    def pairs(self, seed):
        img_hr = torch.randn(160, 2, generator=torch.Generator().manual_seed(seed)).repeat_interleave(2, dim=1)
        return TensorDataset(img_hr[:, ::2].clone(), img_hr)

    def tng_data_loader(self):
        return DataLoader(self.pairs(1), batch_size=16, shuffle=True)

    def val_data_loader(self):
        return DataLoader(self.pairs(2), batch_size=16)


if __name__ == '__main__':
    model = SRGAN()
    judge = model.net_D[0].weight.clone()
    trainer = ptl.Trainer(max_nb_epochs=15, track_grad_norm=1, show_progress_bar=False)
    trainer.fit(model)
    assert model.turns == [0, 1] * 150
    assert not torch.equal(judge, model.net_D[0].weight)
    assert trainer.tng_tqdm_dic['val_mse'] < 0.01, trainer.tng_tqdm_dic
    assert {'tng/d_loss', 'tng/content'} & set(trainer.tng_tqdm_dic)
    print('ok')
