"""A script of September 2019: one parser for everything, a trial without a log, then a run of two fits and a test."""
import argparse
import os

import torch
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.trainer.trainer import Trainer
from pytorch_lightning.utilities.debugging import MisconfigurationException


class Digits(pl.LightningModule):

    def __init__(self, hparams):
        super(Digits, self).__init__()
        self.hparams = hparams
        self.l1 = torch.nn.Linear(8, hparams.nb_classes)
        self.nb_batches_seen = 0

    def forward(self, x):
        return self.l1(x.view(x.size(0), -1))

    def training_step(self, batch, batch_nb):
        x, y = batch
        self.nb_batches_seen += 1
        return F.cross_entropy(self.forward(x), y)

    def validation_step(self, batch, batch_nb):
        x, y = batch
        return {'val_loss': F.cross_entropy(self.forward(x), y)}

    def validation_end(self, outputs):
        return {'val_loss': torch.stack([x['val_loss'] for x in outputs]).mean()}

    def configure_optimizers(self):
        return [getattr(torch.optim, self.hparams.optimizer)(self.parameters(), lr=self.hparams.lr)]

    def _loader(self, seed):
        x = torch.randn(120, 2, 4, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x.view(120, 8)[:, :self.hparams.nb_classes].argmax(1)), batch_size=12,
                          shuffle=seed == 0, num_workers=0)

    @pl.data_loader
    def tng_dataloader(self):
        return self._loader(0)

    @pl.data_loader
    def val_dataloader(self):
        return self._loader(1)

    @pl.data_loader
    def test_dataloader(self):
        return self._loader(2)

    @staticmethod
    def add_model_specific_args(parent_parser):
        parser = argparse.ArgumentParser(parents=[parent_parser])
        parser.add_argument('--nb_classes', type=int, default=3)
        parser.add_argument('--lr', type=float, default=0.05)
        parser.add_argument('--optimizer', default='Adam')
        return parser


if __name__ == '__main__':
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--epochs', default=4, type=int)
    parser.add_argument('--save_dir', default=os.path.join(os.getcwd(), 'runs'))
    parser = Digits.add_model_specific_args(parser)
    hparams = parser.parse_args(['--lr', '0.1'])

    # first a trial: one batch of each, nothing is logged
    model = Digits(hparams)
    debug = Experiment(save_dir=hparams.save_dir, name='digits', debug=True)
    trainer = Trainer(experiment=debug, fast_dev_run=True, show_progress_bar=False)
    trainer.fit(model)
    assert model.nb_batches_seen == 1
    assert not os.path.exists(os.path.join(hparams.save_dir, 'digits'))

    # then the run, taken up once more with another number of epochs
    exp = Experiment(save_dir=hparams.save_dir, name='digits', version=7)
    exp.argparse(hparams)
    trainer = Trainer(experiment=exp, max_nb_epochs=hparams.epochs, train_percent_check=0.5, show_progress_bar=False)
    trainer.fit(model)
    first = trainer.tng_tqdm_dic['val_loss']
    assert trainer.global_step == 20 and trainer.experiment is exp and model.experiment is exp
    trainer.max_nb_epochs = 6
    trainer.train_percent_check = 1.0
    trainer.fit(model)
    assert trainer.global_step == 60
    assert trainer.tng_tqdm_dic['val_loss'] < first
    trainer.test()
    assert os.path.exists(os.path.join(hparams.save_dir, 'digits', 'version_7', 'metrics.csv'))

    for wrong in ({'max_nb_epochs': -1}, {'val_check_interval': 0}, {'gpus': 'all of them'}, {'no_such_option': 1}):
        try:
            Trainer(**wrong).fit(Digits(hparams))
        except MisconfigurationException as error:
            assert str(error)
        else:
            raise AssertionError(wrong)
    print('ok')
