"""Several validation and several test loaders (August 2019): the step gets the loader's index, the end a list of lists."""
import torch
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl

SIZES = [(20, 4), (12, 6)]


class Model(pl.LightningModule):

    def __init__(self):
        super(Model, self).__init__()
        self.l1 = torch.nn.Linear(1, 1, bias=False)
        self.calls = []

    def training_step(self, batch, batch_nb):
        x, = batch
        return {'loss': (self.l1(x) - 2 * x).pow(2).mean()}

    def validation_step(self, batch, batch_nb, dataset_nb):
        x, = batch
        self.calls.append(('val', batch_nb, dataset_nb, len(x)))
        if dataset_nb == 0:
            return {'val_loss': (self.l1(x) - 2 * x).pow(2).mean()}
        return {'val_loss_{}'.format(dataset_nb): (self.l1(x) - 3 * x).pow(2).mean()}

    def validation_end(self, outputs):
        assert len(outputs) == 2 and all(isinstance(each, list) for each in outputs)
        first = torch.stack([o['val_loss'] for o in outputs[0]]).mean()
        second = torch.stack([o['val_loss_1'] for o in outputs[1]]).mean()
        return {'val_loss': first, 'val_loss_1': second}

    def test_step(self, batch, batch_nb, dataset_nb):
        self.calls.append(('test', batch_nb, dataset_nb, len(batch[0])))
        return {'nb': torch.tensor(len(batch[0]))}

    def test_end(self, outputs):
        return {'nb_{}'.format(i): sum(o['nb'] for o in each).item() for i, each in enumerate(outputs)}

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1)]

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(32, 1)), batch_size=4, shuffle=True)

    @pl.data_loader
    def val_dataloader(self):
        return [DataLoader(TensorDataset(torch.ones(nb, 1)), batch_size=size) for nb, size in SIZES]

    @pl.data_loader
    def test_dataloader(self):
        return [DataLoader(TensorDataset(torch.ones(nb + 1, 1)), batch_size=size) for nb, size in SIZES]


if __name__ == '__main__':
    model = Model()
    trainer = pl.Trainer(max_nb_epochs=6, val_percent_check=1.0, nb_sanity_val_steps=2, show_progress_bar=False)
    assert trainer.fit(model) == 1
    whole = [('val', n, i, size) for i, (nb, size) in enumerate(SIZES) for n in range(nb // size)]
    few = [call for call in whole if call[1] < 2]
    assert model.calls == few + 6 * whole, model.calls
    assert trainer.tng_tqdm_dic['val_loss'] < 1e-3
    assert abs(trainer.tng_tqdm_dic['val_loss_1'] - 1.0) < 0.05
    assert trainer.nb_val_batches == 7
    assert len(trainer.val_dataloader) == 2

    model.calls = []
    trainer.test()
    assert trainer.tng_tqdm_dic['nb_0'] == 21 and trainer.tng_tqdm_dic['nb_1'] == 13
    assert [call[2] for call in model.calls] == [0] * 6 + [1] * 3
    print('ok')
