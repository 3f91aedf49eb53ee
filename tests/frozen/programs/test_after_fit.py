"""A test after a fit, with the same trainer, and one from a checkpoint with a trainer of its own (September 2019)."""
import glob
import os
from argparse import Namespace

import torch
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class Regression(pl.LightningModule):

    def __init__(self, hparams):
        super(Regression, self).__init__()
        self.hparams = hparams
        self.l1 = torch.nn.Linear(3, 1)
        self.nb_test_batches = 0

    def forward(self, x):
        return self.l1(x)

    def step(self, batch):
        x, y = batch
        return F.mse_loss(self.forward(x), y)

    def training_step(self, batch, batch_nb):
        return {'loss': self.step(batch)}

    def validation_step(self, batch, batch_nb):
        return {'val_loss': self.step(batch)}

    def validation_end(self, outputs):
        return {'val_loss': torch.stack([o['val_loss'] for o in outputs]).mean()}

    def test_step(self, batch, batch_nb):
        assert not self.training and not torch.is_grad_enabled()
        self.nb_test_batches += 1
        return {'test_loss': self.step(batch)}

    def test_end(self, outputs):
        avg = torch.stack([o['test_loss'] for o in outputs]).mean()
        return {'test_loss': avg.item(), 'test_rmse': avg.sqrt()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

    def loader(self, seed, nb):
        x = torch.randn(nb, 3, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=10, shuffle=seed == 0)

    @pl.data_loader
    def tng_dataloader(self):
        return self.loader(0, 200)

    @pl.data_loader
    def val_dataloader(self):
        return self.loader(1, 50)

    @pl.data_loader
    def test_dataloader(self):
        return self.loader(2, 70)


if __name__ == '__main__':
    hparams = Namespace(lr=0.1)
    exp = Experiment(save_dir=os.path.join(os.getcwd(), 'runs'), name='tested')
    exp.argparse(hparams)
    exp.save()
    model = Regression(hparams)
    checkpoint = ModelCheckpoint(os.path.join(os.getcwd(), 'weights'))
    trainer = pl.Trainer(exp, checkpoint_callback=checkpoint, max_nb_epochs=2, progress_bar=False)
    trainer.fit(model)
    assert model.nb_test_batches == 0
    assert 'test_loss' not in trainer.tng_tqdm_dic

    trainer.test()
    assert model.nb_test_batches == 7
    x, y = model.test_dataloader.dataset.tensors
    with torch.no_grad():
        expected = (model(x) - y).pow(2).mean().item()
    assert abs(trainer.tng_tqdm_dic['test_loss'] - expected) < 1e-6, (trainer.tng_tqdm_dic, expected)
    assert abs(trainer.tng_tqdm_dic['test_rmse'] - expected ** 0.5) < 1e-6
    assert trainer.tng_tqdm_dic['val_loss'] < 0.01
    assert model.training

    # the pretrained model, in a trainer that never trained
    path = sorted(glob.glob('weights/*.ckpt'))[-1]
    tags = os.path.join(exp.get_data_path(exp.name, exp.version), 'meta_tags.csv')
    pretrained = Regression.load_from_metrics(weights_path=path, tags_csv=tags, on_gpu=False)
    new_trainer = pl.Trainer(experiment=Experiment(save_dir=os.path.join(os.getcwd(), 'runs'), name='tested'),
                             test_percent_check=0.5, progress_bar=False)
    new_trainer.test(pretrained)
    assert pretrained.nb_test_batches == 3
    with torch.no_grad():
        expected = (pretrained(x[:30]) - y[:30]).pow(2).mean().item()
    assert abs(new_trainer.tng_tqdm_dic['test_loss'] - expected) < 1e-6
    # its training goes on as if nothing had been tested
    new_trainer.max_nb_epochs = 1
    assert new_trainer.fit(pretrained) == 1
    print('ok')
