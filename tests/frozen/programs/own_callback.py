"""A checkpoint callback of the user's own, made from the base class of 2019, which stops training too."""
import os

import torch
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.callbacks.pt_callbacks import Callback


class KeepTheLast(Callback):

    def __init__(self, folder, enough):
        super(KeepTheLast, self).__init__()
        self.folder = folder
        self.enough = enough
        self.losses = []
        self.save_function = None

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        self.losses.append(logs.get('tng_loss'))
        self.save_function(os.path.join(self.folder, 'last.ckpt'))
        return logs.get('val_loss') < self.enough


class Model(pl.LightningModule):

    def __init__(self):
        super(Model, self).__init__()
        self.layer = torch.nn.Linear(4, 4)

    def training_step(self, batch, batch_nb):
        return {'loss': (self.layer(batch[0]) - batch[0]).pow(2).mean()}

    def validation_step(self, batch, batch_nb):
        return {'val_loss': (self.layer(batch[0]) - batch[0]).pow(2).mean()}

    def validation_end(self, outputs):
        return {'val_loss': torch.stack([o['val_loss'] for o in outputs]).mean()}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=0.05)]

    @pl.data_loader
    def tng_dataloader(self):
        torch.manual_seed(0)
        return DataLoader(TensorDataset(torch.randn(128, 4)), batch_size=16, shuffle=True)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(self.tng_dataloader.dataset, batch_size=16)


keep = KeepTheLast('out', enough=0.01)
model = Model()
trainer = pl.Trainer(None, None, keep, max_nb_epochs=200, show_progress_bar=False)
trainer.fit(model)
assert trainer.checkpoint_callback is keep
assert 1 < len(keep.losses) == trainer.current_epoch < 200
assert keep.losses[-1] < keep.losses[0]
assert trainer.tqdm_metrics['val_loss'] < 0.01
state = torch.load('out/last.ckpt')['state_dict']
assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
print('ok')
