"""A second Trainer inside validation_end: features that are learned without labels are tested by a small classifier."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl


def digits(nb, seed):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 3, (nb,), generator=generator)
    return torch.eye(3)[label].repeat(1, 4) + 0.2 * torch.randn(nb, 12, generator=generator), label


class Probe(pl.LightningModule):

    def __init__(self, features, labels):
        super(Probe, self).__init__()
        self.data = TensorDataset(features, labels)
        self.layer = nn.Linear(features.size(1), 3)

    def training_step(self, batch, batch_nb):
        x, y = batch
        return F.cross_entropy(self.layer(x), y)

    def validation_step(self, batch, batch_nb):
        x, y = batch
        return {'acc': (self.layer(x).argmax(1) == y).float().mean()}

    def validation_end(self, outputs):
        return {'acc': torch.stack([o['acc'] for o in outputs]).mean()}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=0.05)]

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(self.data, batch_size=32, shuffle=True)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(self.data, batch_size=32)


class AutoEncoder(pl.LightningModule):

    def __init__(self):
        super(AutoEncoder, self).__init__()
        self.encoder = nn.Linear(12, 3)
        self.decoder = nn.Linear(3, 12)
        self.accuracies = []

    def training_step(self, batch, batch_nb):
        x, _ = batch
        assert torch.is_grad_enabled() and self.training
        return {'loss': F.mse_loss(self.decoder(self.encoder(x)), x)}

    def validation_step(self, batch, batch_nb):
        x, y = batch
        return {'feature': self.encoder(x), 'label': y}

    def validation_end(self, outputs):
        probe = Probe(torch.cat([o['feature'] for o in outputs]), torch.cat([o['label'] for o in outputs]))
        exp = Experiment(save_dir='inner', name='probe')
        trainer = pl.Trainer(exp, max_nb_epochs=15, show_progress_bar=False)
        trainer.fit(probe)
        exp.close()
        self.accuracies.append(trainer.tqdm_metrics['acc'])
        self.experiment.log({'probe_acc': self.accuracies[-1]})
        self.experiment.save()
        assert not torch.is_grad_enabled() and not self.training
        return {'val_acc': self.accuracies[-1]}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=0.01)]

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(TensorDataset(*digits(256, 1)), batch_size=32, shuffle=True)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(TensorDataset(*digits(64, 2)), batch_size=32)


if __name__ == '__main__':
    torch.manual_seed(1)
    model = AutoEncoder()
    exp = Experiment(save_dir='outer', name='features')
    trainer = pl.Trainer(exp, max_nb_epochs=3, nb_sanity_val_steps=0, show_progress_bar=False)
    trainer.fit(model)
    exp.close()
    assert len(model.accuracies) == 3
    assert model.accuracies[-1] > 0.9, model.accuracies
    assert trainer.global_step == 24 and model.trainer is trainer
    import pandas as pd
    assert pd.read_csv('outer/features/version_0/metrics.csv')['probe_acc'].dropna().tolist() == model.accuracies
    assert len(pd.read_csv('inner/probe/version_2/metrics.csv')) > 0
    print('ok')
