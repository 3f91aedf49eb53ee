"""A Kaggle notebook of September 2019: three batches of data, a loss as a submodule, predictions by hand."""
from argparse import Namespace

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl


def passengers(seed, nb=96):
    x = torch.rand(nb, 3, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] + x[:, 1] > 1).float()


class Titanic(pl.LightningModule):

    def __init__(self, hparams):
        super(Titanic, self).__init__()
        self.hparams = hparams
        self.device = torch.device('cpu')
        self.batch_size = hparams.batch_size
        self.net = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 1))
        self.loss = nn.BCEWithLogitsLoss()
        self.global_step_of_mine = 0

    def forward(self, x):
        return self.net(x.to(self.device)).squeeze(1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.global_step_of_mine += 1
        return {'loss': self.loss(self.forward(x), y)}

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.forward(x)
        return {'val_loss': self.loss(logits, y), 'val_acc': ((logits > 0).float() == y).float().mean()}

    def validation_end(self, outputs):
        return {k: torch.stack([o[k] for o in outputs]).mean() for k in ('val_loss', 'val_acc')}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=self.hparams.lr)]

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(TensorDataset(*passengers(0)), batch_size=self.batch_size, shuffle=True)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(TensorDataset(*passengers(1)), batch_size=self.batch_size)

    @pl.data_loader
    def test_dataloader(self):
        return DataLoader(TensorDataset(passengers(2)[0]), batch_size=self.batch_size)


if __name__ == '__main__':
    hparams = Namespace(lr=0.02, batch_size=32)
    # a tenth of three batches is one
    model = Titanic(hparams)
    pl.Trainer(max_nb_epochs=2, train_percent_check=0.1, val_percent_check=0.1, show_progress_bar=False).fit(model)
    assert model.global_step_of_mine == 2

    # more than all is all; no gpu is there
    model = Titanic(hparams)
    trainer = pl.Trainer(max_nb_epochs=40, train_percent_check=100, val_percent_check=1, gpus=None, nb_sanity_val_steps=0,
                         lr_scheduler_milestones='30,35', check_val_every_n_epoch=5, show_progress_bar=False)
    trainer.fit(model)
    assert model.global_step_of_mine == 120
    assert trainer.tng_tqdm_dic['val_acc'] > 0.9, trainer.tng_tqdm_dic
    assert abs(trainer.optimizers[0].param_groups[0]['lr'] - 0.0002) < 1e-9
    assert trainer.data_parallel_device_ids is None and not trainer.on_gpu and trainer.proc_rank == 0

    model.freeze()
    model.eval()
    survived = []
    for batch in model.test_dataloader:
        survived += (torch.sigmoid(model(batch[0])) > 0.5).long().tolist()
    right = sum(int(a == b) for a, b in zip(survived, passengers(2)[1].long().tolist()))
    assert len(survived) == 96 and right > 85, right
    assert not any(p.requires_grad for p in model.parameters())
    print('ok')
