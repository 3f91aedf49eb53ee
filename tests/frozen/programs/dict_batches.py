"""Batches that are dicts, some of them None, and an epoch that a hook ends early (July 2019)."""
import os

import pandas as pd
import torch
import torch.nn as nn
from test_tube import Experiment
from torch.utils.data import DataLoader, Dataset

import pytorch_lightning as pl


class Pairs(Dataset):

    def __len__(self):
        return 60

    def __getitem__(self, i):
        if i in (10, 11, 12, 13, 14):
            return None  # a file that can't be read
        generator = torch.Generator().manual_seed(i)
        left = torch.randn(4, generator=generator)
        same = i % 2
        right = left + 0.1 * torch.randn(4, generator=generator) if same else torch.randn(4, generator=generator)
        return {'left': left, 'right': right, 'same': float(same), 'name': 'pair {}'.format(i)}


def collate(items):
    items = [item for item in items if item is not None]
    if not items:
        return None
    batch = {key: torch.stack([item[key] for item in items]) for key in ('left', 'right')}
    batch['same'] = torch.tensor([item['same'] for item in items])
    batch['name'] = [item['name'] for item in items]
    return batch


class Siamese(pl.LightningModule):

    def __init__(self):
        super(Siamese, self).__init__()
        self.embed = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor([1.0]))
        self.names = []
        self.nb_started = []
        self.nb_ended = 0

    def on_epoch_start(self):
        self.nb_started.append(0)

    def on_batch_start(self, data_batch):
        if self.current_epoch == 1 and self.nb_started[-1] == 4:
            return -1
        self.nb_started[-1] += 1

    def on_batch_end(self):
        self.nb_ended += 1

    def training_step(self, data_batch, batch_nb):
        self.names += data_batch['name']
        distance = (self.embed(data_batch['left']) - self.embed(data_batch['right'])).pow(2).sum(1)
        logit = 2 - self.scale * distance
        return {'loss': nn.functional.binary_cross_entropy_with_logits(logit, data_batch['same'])}

    def validation_step(self, data_batch, batch_nb):
        return len(data_batch['name'])

    def validation_end(self, outputs):
        return {'nb_seen': sum(outputs)}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(Pairs(), batch_size=5, collate_fn=collate)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(Pairs(), batch_size=5, collate_fn=collate)


if __name__ == '__main__':
    exp = Experiment(save_dir=os.getcwd(), name='pairs')
    model = Siamese()
    trainer = pl.Trainer(exp, max_nb_epochs=3, add_log_row_interval=1, show_progress_bar=False)
    assert trainer.fit(model) == 1
    # 12 batches, of which the third is None; the second epoch ends before its fifth
    assert model.nb_started == [11, 4, 11], model.nb_started
    assert model.nb_ended == trainer.global_step == 26, (model.nb_ended, trainer.global_step)
    assert len(model.names) == 55 + 20 + 55 and 'pair 12' not in model.names
    assert trainer.tng_tqdm_dic['nb_seen'] == 55
    frame = pd.read_csv(os.path.join('pairs', 'version_0', 'metrics.csv'))
    assert len(frame['nb_seen'].dropna()) == 3
    assert frame['tng_loss'].dropna().iloc[-1] < frame['tng_loss'].dropna().iloc[0]
    print('ok')
