"""validation_step without validation_end (August 2019: both are optional), and no validation at all."""
import os

import torch
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl


class NoValidation(pl.LightningModule):

    def __init__(self):
        super(NoValidation, self).__init__()
        self.l1 = torch.nn.Linear(5, 2)

    def training_step(self, batch, batch_nb):
        x, y = batch
        loss = F.cross_entropy(self.l1(x), y)
        return {'loss': loss, 'prog': {'batch_nb': batch_nb}}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=0.05)]

    def samples(self):
        x = torch.randn(160, 5, generator=torch.Generator().manual_seed(5))
        return TensorDataset(x, (x[:, 2] > 0).long())

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(self.samples(), batch_size=16, shuffle=True)


class NoValidationEnd(NoValidation):

    def __init__(self):
        super(NoValidationEnd, self).__init__()
        self.nb_validated = 0

    def validation_step(self, batch, batch_nb):
        self.nb_validated += 1
        x, y = batch
        logits = self.l1(x)
        return {'val_loss': F.cross_entropy(logits, y), 'val_acc': (logits.argmax(1) == y).float().mean()}

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(self.samples(), batch_size=40)


class Silent(NoValidationEnd):

    def validation_step(self, batch, batch_nb):
        self.nb_validated += 1


if __name__ == '__main__':
    def fit(model):
        exp = Experiment(save_dir=os.getcwd(), name=type(model).__name__)
        trainer = pl.Trainer(experiment=exp, max_nb_epochs=5, val_percent_check=1.0, show_progress_bar=False)
        assert trainer.fit(model) == 1
        assert trainer.global_step == 50
        return trainer

    trainer = fit(NoValidation())
    assert trainer.avg_loss < 0.6
    assert not [name for name in trainer.tng_tqdm_dic if name.startswith('val')]

    model = NoValidationEnd()
    trainer = fit(model)
    assert model.nb_validated == 4 + 5 * 4, model.nb_validated
    assert trainer.tng_tqdm_dic['val_acc'] > 0.85, trainer.tng_tqdm_dic
    x, y = model.samples().tensors
    # batches of one size: the mean of their means is the mean over all
    assert abs(trainer.tng_tqdm_dic['val_loss'] - F.cross_entropy(model.l1(x), y).item()) < 1e-5

    model = Silent()
    trainer = fit(model)
    assert model.nb_validated == 24
    assert 'val_loss' not in trainer.tng_tqdm_dic
    print('ok')
