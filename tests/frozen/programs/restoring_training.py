"""A fit that was over is taken up again: from the file of a checkpoint callback, and from the newest of a name."""
import os

import torch
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


BEGUN = []


class Model(pl.LightningModule):

    def __init__(self):
        super(Model, self).__init__()
        torch.manual_seed(7)
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))

    def on_epoch_start(self):
        BEGUN.append((self.current_epoch, self.global_step, self.trainer.optimizers[0].param_groups[0]['lr']))

    def training_step(self, batch, batch_nb):
        return {'loss': F.cross_entropy(self.layers(batch[0]), batch[1])}

    def validation_step(self, batch, batch_nb):
        return {'val_loss': F.cross_entropy(self.layers(batch[0]), batch[1])}

    def validation_end(self, outputs):
        return {'val_loss': torch.stack([o['val_loss'] for o in outputs]).mean()}

    def get_save_dict(self):
        return {'state_dict': self.state_dict()}

    def load_model_specific(self, checkpoint):
        self.load_state_dict(checkpoint['state_dict'])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)]

    @property
    def tng_dataloader(self):
        if self._tng_dataloader is None:
            x = torch.randn(96, 4, generator=torch.Generator().manual_seed(1))
            self._tng_dataloader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16, shuffle=True)
        return self._tng_dataloader

    @property
    def val_dataloader(self):
        return self.tng_dataloader


def train(nb_epochs, **options):
    model = Model()
    options.setdefault('experiment', False)
    trainer = pl.Trainer(max_nb_epochs=nb_epochs, show_progress_bar=False, seed=1, **options)
    del BEGUN[:]
    assert trainer.fit(model) == 1
    return model, list(BEGUN)


if __name__ == '__main__':
    whole, begun = train(4)
    assert [n for n, _, _ in begun] == [0, 1, 2, 3]

    # from the file of an epoch
    folder = os.path.join(os.getcwd(), 'ckpt')
    train(2, checkpoint_callback=ModelCheckpoint(folder))
    again, taken_up = train(4, resume=os.path.join(folder, '_ckpt_epoch_2.ckpt'))
    assert taken_up == begun[2:], taken_up
    for mine, theirs in zip(again.parameters(), whole.parameters()):
        assert torch.equal(mine, theirs)

    # the newest run of an experiment's name
    for nb_epochs, epochs in ((1, [0]), (3, [1, 2]), (4, [3])):
        exp = Experiment(save_dir=os.path.join(os.getcwd(), 'runs'), name='restored')
        model, taken_up = train(nb_epochs, experiment=exp, resume='auto')
        assert taken_up == [begun[n] for n in epochs], taken_up
    for mine, theirs in zip(model.parameters(), whole.parameters()):
        assert torch.equal(mine, theirs)
    print('ok')
