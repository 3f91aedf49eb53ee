"""Gradient accumulation that changes by epoch (end of August 2019): as a dict, and as the callback of its name."""
import torch
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.utilities.debugging import MisconfigurationException


class Model(pl.LightningModule):

    def __init__(self):
        super(Model, self).__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.steps = {}

    def training_step(self, batch, batch_nb):
        return {'loss': (self.w - batch[0]).pow(2).mean()}

    def optimizer_step(self, epoch_nb, batch_nb, optimizer, optimizer_i):
        self.steps.setdefault(epoch_nb, []).append(batch_nb)
        optimizer.step()
        # clear gradients
        optimizer.zero_grad()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1)]

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(TensorDataset(torch.arange(12.)), batch_size=1)


def by_hand(schedule):
    w = 0.0
    for nb in schedule:
        for start in range(0, 12, nb):
            chunk = range(start, min(start + nb, 12))
            w -= 0.1 * sum(2 * (w - n) for n in chunk) / len(chunk)
    return w


if __name__ == '__main__':
    expected = {0: list(range(12)), 1: [1, 3, 5, 7, 9, 11], 2: [1, 3, 5, 7, 9, 11], 3: [3, 7, 11], 4: [3, 7, 11]}
    for value in ({2: 2, 4: 4}, GradientAccumulationScheduler(scheduling={2: 2, 4: 4})):
        model = Model()
        trainer = pl.Trainer(accumulate_grad_batches=value, max_nb_epochs=5, show_progress_bar=False)
        assert trainer.fit(model) == 1
        assert model.steps == expected, model.steps
        assert abs(model.w.item() - by_hand([1, 2, 2, 4, 4])) < 1e-4

    # a number, which leaves a short window at the end of each epoch
    model = Model()
    trainer = pl.Trainer(accumulate_grad_batches=5, max_nb_epochs=2, show_progress_bar=False)
    trainer.fit(model)
    assert model.steps == {0: [4, 9, 11], 1: [4, 9, 11]}, model.steps
    assert trainer.accumulate_grad_batches == 5

    # set afterwards, as callbacks of one's own did it
    trainer.accumulate_grad_batches = 12
    model = Model()
    trainer.fit(model)
    assert model.steps == {0: [11], 1: [11]}

    for wrong in (0, {0: 2}, {1: 0}, 'a lot', GradientAccumulationScheduler({1: 1.5})):
        try:
            pl.Trainer(accumulate_grad_batches=wrong)
        except MisconfigurationException as error:
            assert 'accumulate_grad_batches' in str(error)
        else:
            raise AssertionError(wrong)
    print('ok')
