"""Early stopping in the style of August 2019: the fit ends by itself, and the checkpoint of the best epoch is there."""
import os

import torch
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

PATIENCE = 2


class Classifier(pl.LightningModule):

    def __init__(self):
        super(Classifier, self).__init__()
        self.l1 = torch.nn.Linear(2, 2)
        self.nb_epochs_begun = 0
        self.val_losses = []

    def forward(self, x):
        return self.l1(x)

    def on_epoch_start(self):
        self.nb_epochs_begun += 1

    def training_step(self, batch, batch_nb):
        x, y = batch
        return {'loss': F.cross_entropy(self.forward(x), y)}

    def validation_step(self, batch, batch_nb):
        x, y = batch
        # the labels of the validation are the other way round: the better the training, the worse this
        return {'val_loss': F.cross_entropy(self.forward(x), 1 - y)}

    def validation_end(self, outputs):
        val_loss = torch.stack([o['val_loss'] for o in outputs]).mean()
        self.val_losses.append(val_loss.item())
        return {'val_loss': val_loss}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=0.02)]

    def data(self, seed):
        x = torch.randn(128, 2, generator=torch.Generator().manual_seed(seed))
        return TensorDataset(x, (x[:, 0] > 0).long())

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(self.data(1), batch_size=16, shuffle=True)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(self.data(2), batch_size=16)


if __name__ == '__main__':
    exp = Experiment(save_dir=os.path.join(os.getcwd(), 'logs'), name='stop')
    exp.save()
    model = Classifier()
    folder = os.path.join(os.getcwd(), 'best')
    trainer = pl.Trainer(
        experiment=exp,
        early_stop_callback=EarlyStopping(monitor='val_loss', patience=PATIENCE, verbose=False, mode='min'),
        checkpoint_callback=ModelCheckpoint(folder, save_best_only=True, monitor='val_loss', mode='min'),
        max_nb_epochs=50, min_nb_epochs=1, nb_sanity_val_steps=0, show_progress_bar=False
    )
    result = trainer.fit(model)
    assert result == 1, 'a fit that early stopping ended is complete'
    # the first validation is the best one; after that, patience counts
    assert min(model.val_losses) == model.val_losses[0], model.val_losses
    assert model.nb_epochs_begun == 1 + PATIENCE, model.nb_epochs_begun
    assert len(model.val_losses) == 1 + PATIENCE
    assert os.listdir(folder) == ['_ckpt_epoch_1.ckpt'], os.listdir(folder)

    # without the callback, or with it switched off, all epochs run
    for options in ({}, {'early_stop_callback': EarlyStopping('val_loss', patience=1), 'enable_early_stop': False}):
        model = Classifier()
        pl.Trainer(max_nb_epochs=4, show_progress_bar=False, **options).fit(model)
        assert model.nb_epochs_begun == 4

    # not before min_nb_epochs
    model = Classifier()
    pl.Trainer(early_stop_callback=EarlyStopping('val_loss', patience=1), max_nb_epochs=20, min_nb_epochs=6,
               show_progress_bar=False).fit(model)
    assert model.nb_epochs_begun == 6, model.nb_epochs_begun
    print('ok')
