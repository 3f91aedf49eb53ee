"""An experiment whose name has a slash, rows of the user's own between the trainer's, and a second run of the name."""
import os
from argparse import Namespace

import pandas as pd
import torch
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer


class Model(LightningModule):

    def __init__(self, hparams):
        super(Model, self).__init__(hparams)
        self.layer = torch.nn.Linear(2, hparams.width)

    def training_step(self, data_batch, batch_nb):
        loss = self.layer(data_batch[0]).pow(2).mean()
        if batch_nb % 4 == 0:
            self.experiment.log({'own': loss.detach(), 'step': self.global_step})
            self.experiment.add_scalars('pair', {'loss': loss.item(), 'twice': 2 * loss.item()}, self.global_step)
            self.experiment.add_histogram('weight', self.layer.weight, self.global_step)
        return {'loss': loss, 'prog': {'loss_now': loss}}

    def on_epoch_end(self):
        self.experiment.tag({'last_epoch': self.current_epoch})
        self.experiment.save()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=self.hparams.lr)]

    @property
    def tng_dataloader(self):
        if self._tng_dataloader is None:
            self._tng_dataloader = DataLoader(TensorDataset(torch.ones(24, 2)), batch_size=2, shuffle=True)
        return self._tng_dataloader


for version in (0, 1):
    hparams = Namespace(width=3 + version, lr=0.05, layers=[1, 2])
    exp = Experiment(save_dir='logs', name='toy/slash/run', description='has slashes')
    exp.argparse(hparams)
    trainer = Trainer(experiment=exp, max_nb_epochs=2, add_log_row_interval=3)
    trainer.fit(Model(hparams))
    exp.close()
    folder = os.path.join('logs', 'toy', 'slash', 'run', 'version_{}'.format(version))
    rows = pd.read_csv(os.path.join(folder, 'metrics.csv'))
    assert rows['own'].notna().sum() == 6           # batches 0, 4 and 8 of two epochs
    assert rows['loss_now'].notna().sum() == 8      # batches 0, 3, 6 and 9 of two epochs
    assert len(rows) == 14
    tags = pd.read_csv(os.path.join(folder, 'meta_tags.csv')).set_index('key')['value']
    assert (tags['width'], tags['last_epoch']) == (str(3 + version), '1')
    assert os.path.isdir(os.path.join(folder, 'tf'))
assert sorted(os.listdir(os.path.join('logs', 'toy', 'slash', 'run'))) == ['version_0', 'version_1']
print('ok')
