"""Loaders that aren't DataLoaders: a list of batches, a class with __iter__ alone, and batches that are dicts."""
import numpy as np
import torch
import torch.nn as nn

from pytorch_lightning import LightningModule, Trainer


class Flow(object):
    """Yields an epoch of batches that it makes as it goes; nobody knows how many."""

    def __init__(self, nb_batches, seed):
        self.nb_batches = nb_batches
        self.seed = seed

    def __iter__(self):
        rng = np.random.RandomState(self.seed)
        for _ in range(self.nb_batches):
            x = rng.randn(16, 3).astype('float32')
            yield {'x': torch.from_numpy(x), 'y': torch.from_numpy(x.dot([[1.], [-2.], [3.]]).astype('float32')),
                   'name': 'batch'}


class Regression(LightningModule):

    def __init__(self):
        super(Regression, self).__init__()
        self.layer = nn.Linear(3, 1, bias=False)
        self.flow = Flow(25, 1)
        self.fixed = list(Flow(4, 2))
        self.sizes = []

    def forward(self, x):
        return self.layer(x)

    def training_step(self, data_batch, batch_nb):
        assert data_batch['name'] == 'batch'
        return {'loss': (self.forward(data_batch['x']) - data_batch['y']).pow(2).mean()}

    def validation_step(self, data_batch, batch_nb):
        return (self.forward(data_batch['x']) - data_batch['y']).abs()

    def validation_end(self, outputs):
        self.sizes.append(len(outputs))
        return {'val_error': torch.cat(outputs).mean()}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=0.05)]

    @property
    def tng_dataloader(self):
        return self.flow

    @property
    def val_dataloader(self):
        return self.fixed

    @property
    def test_dataloader(self):
        return self.fixed


model = Regression()
trainer = Trainer(max_nb_epochs=20, nb_sanity_val_steps=3, show_progress_bar=False)
trainer.fit(model)
assert trainer.tqdm_metrics['val_error'] < 0.01, trainer.tqdm_metrics
assert model.sizes == [3] + 20 * [4]
assert trainer.global_step == 20 * 25
assert trainer.nb_tng_batches is None and trainer.nb_val_batches == 4
print('ok')
