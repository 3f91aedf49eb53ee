"""A validation that counts in numpy, watched by both callbacks in the order of August 2019."""
import os

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


class Ranking(pl.LightningModule):

    def __init__(self):
        super(Ranking, self).__init__()
        self.layer = torch.nn.Linear(8, 1)
        self.history = []

    def forward(self, x):
        return self.layer(x).squeeze(1)

    def training_step(self, batch, batch_nb):
        x, y = batch
        loss = torch.nn.functional.binary_cross_entropy_with_logits(self(x), y)
        return {'loss': loss, 'prog': {'np_loss': loss.item(), 'kind': 'bce'}}

    def validation_step(self, batch, batch_nb):
        x, y = batch
        return {'score': self(x).cpu().numpy(), 'label': y.cpu().numpy()}

    def validation_end(self, outputs):
        score = np.concatenate([o['score'] for o in outputs])
        label = np.concatenate([o['label'] for o in outputs])
        above = score[label == 1][:, None] > score[label == 0][None, :]
        auc = np.mean(above)                        # a numpy scalar
        self.history.append(float(auc))
        return {'val_auc': auc, 'positive': np.array([label.mean()], dtype='float32'), 'number': np.int64(len(label))}

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.01)]

    def data(self, seed):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(256, 8, generator=generator)
        return TensorDataset(x, (x[:, 0] - x[:, 1] > 0).float())

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(self.data(1), batch_size=32, shuffle=True)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(self.data(2), batch_size=64)

    @pl.data_loader
    def test_dataloader(self):
        return DataLoader(self.data(3), batch_size=64)


stop = EarlyStopping(monitor='val_auc', min_delta=0.001, patience=3, mode='max', verbose=False)
keep = ModelCheckpoint('weights', monitor='val_auc', save_best_only=True, mode='max', prefix='auc')
model = Ranking()
trainer = pl.Trainer(None, stop, keep, max_nb_epochs=100, min_nb_epochs=2)
trainer.fit(model)
best = max(model.history[1:])       # the first one is the sanity check
assert best > 0.95, model.history
assert abs(keep.best - best) < 1e-9
epoch = model.history[1:].index(best) + 1
assert os.listdir('weights') == ['auc_ckpt_epoch_{}.ckpt'.format(epoch)]
assert trainer.current_epoch < 100      # it stopped by itself
checkpoint = torch.load('weights/auc_ckpt_epoch_{}.ckpt'.format(epoch))
assert set(checkpoint['state_dict']) == {'layer.weight', 'layer.bias'}
assert trainer.tqdm_metrics['number'] == 256
print('ok')
