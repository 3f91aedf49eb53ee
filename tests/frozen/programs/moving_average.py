"""A moving average of the weights (2019): the model copies itself in a hook, and reads the trainer's attributes."""
import copy
import os

import torch
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl


class Averaged(pl.LightningModule):

    def __init__(self):
        super(Averaged, self).__init__()
        self.global_step = 0
        self.current_epoch = 0
        self.on_gpu = False
        self.use_ddp = False
        self.dtype = torch.FloatTensor
        self.l1 = torch.nn.Linear(3, 1)
        self.log_of_mine = []

    def forward(self, x):
        return self.l1(x)

    def training_step(self, batch, batch_nb):
        x, y = batch
        if self.on_gpu:
            x = x.cuda()
        trainer = self.trainer
        self.log_of_mine.append((trainer.current_epoch, self.global_step, batch_nb, trainer.batch_nb))
        assert (trainer.max_nb_epochs, trainer.add_log_row_interval, trainer.nb_tng_batches) == (6, 10, 8)
        return {'loss': (self.forward(x) - y).pow(2).mean()}

    def on_epoch_end(self):
        with torch.no_grad():
            if self.current_epoch == 0:
                self.average = [copy.deepcopy(self)]
            for mine, its in zip(self.l1.parameters(), self.average[0].l1.parameters()):
                its.mul_(0.5).add_(0.5 * mine)
        self.experiment.log({'distance': (self.l1.weight - self.average[0].l1.weight).norm().item()})

    def validation_step(self, batch, batch_nb):
        x, y = batch
        return {'val_loss': (self.forward(x) - y).pow(2).mean()}

    def validation_end(self, outputs):
        return {'val_loss': sum(o['val_loss'] for o in outputs) / len(outputs)}

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

    def loader(self, seed):
        x = torch.randn(64, 3, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x @ torch.tensor([[1.], [2.], [3.]])), batch_size=8, shuffle=seed == 0)

    @pl.data_loader
    def tng_dataloader(self):
        return self.loader(0)

    @pl.data_loader
    def val_dataloader(self):
        return self.loader(1)


if __name__ == '__main__':
    exp = Experiment(save_dir=os.getcwd(), name='ema', create_git_tag=False)
    exp.tag({'kind': 'average'})
    model = Averaged()
    assert model.global_step == 0 and model.dtype is torch.FloatTensor
    trainer = pl.Trainer(exp, None, None, max_nb_epochs=6, show_progress_bar=False)
    trainer.fit(model)
    assert model.log_of_mine == [(e, 8 * e + b, b, b) for e in range(6) for b in range(8)], model.log_of_mine
    assert (model.global_step, trainer.global_step, model.dtype) == (48, 48, torch.FloatTensor)
    assert trainer.tng_tqdm_dic['val_loss'] < 0.01
    average = model.average[0]
    x, y = average.loader(1).dataset.tensors
    assert (average(x) - y).pow(2).mean() < 0.2
    assert not torch.equal(average.l1.weight, model.l1.weight)
    import pandas as pd
    frame = pd.read_csv(os.path.join('ema', 'version_0', 'metrics.csv'))
    distances = frame['distance'].dropna()
    assert len(distances) == 6 and distances.iloc[-1] < 0.5
    print('ok')
