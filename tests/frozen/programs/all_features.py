"""Everything that a CPU has, at once: accumulation, clipping, norms, parts of the data, schedules, both callbacks."""
import math
import os
from collections import OrderedDict

import pandas as pd
import torch
import torch.nn as nn
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, data_loader
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


class Net(LightningModule):

    def __init__(self, hparams):
        super(Net, self).__init__()
        self.hparams = hparams
        self.seen = {'train': 0, 'val': 0, 'steps': 0}
        self.example_input_array = torch.rand(5, 4)
        self.c_d1 = nn.Linear(4, hparams['hidden'])
        self.c_d1_bn = nn.BatchNorm1d(hparams['hidden'])
        self.c_d2 = nn.Linear(hparams['hidden'], 3)

    def forward(self, x):
        return F.log_softmax(self.c_d2(torch.tanh(self.c_d1_bn(self.c_d1(x)))), dim=1)

    def loss(self, labels, logits):
        return F.nll_loss(logits, labels)

    def training_step(self, data_batch, batch_i):
        self.seen['train'] += 1
        x, y = data_batch
        loss_val = self.loss(y, self.forward(x.view(x.size(0), -1)))
        # as for several gpus
        if self.trainer.use_dp:
            loss_val = loss_val.unsqueeze(0)
        return OrderedDict({'loss': loss_val, 'prog': {'some_val': loss_val * loss_val}})

    def validation_step(self, data_batch, batch_i):
        self.seen['val'] += 1
        x, y = data_batch
        y_hat = self.forward(x)
        val_acc = torch.tensor(torch.sum(y == torch.argmax(y_hat, dim=1)).item() / (len(y) * 1.0))
        if self.on_gpu:
            val_acc = val_acc.cuda(0)
        return OrderedDict({'val_loss': self.loss(y, y_hat), 'val_acc': val_acc})

    def validation_end(self, outputs):
        tqdm_dic = {}
        for key in ('val_loss', 'val_acc'):
            tqdm_dic[key] = (sum(output[key] for output in outputs) / len(outputs)).item()
        return tqdm_dic

    def on_before_zero_grad(self, optimizer):
        self.seen['steps'] += 1

    def on_tng_metrics(self, logs):
        logs['some_tensor_to_test'] = torch.rand(1)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams['lr'])
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)]

    def _dataloader(self, train):
        x = torch.randn(400, 4, generator=torch.Generator().manual_seed(3 - train))
        sampler = None
        if self.use_ddp:
            raise AssertionError('this is one process')
        return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=20, shuffle=sampler is None, sampler=sampler)

    @data_loader
    def tng_dataloader(self):
        return self._dataloader(train=True)

    @data_loader
    def val_dataloader(self):
        return self._dataloader(train=False)

    @data_loader
    def test_dataloader(self):
        return self._dataloader(train=False)


if __name__ == '__main__':
    save_dir = os.path.join(os.getcwd(), 'save')
    exp = Experiment(save_dir=save_dir, name='all', debug=False, autosave=False, description='everything')
    exp.save()
    model = Net({'hidden': 8, 'lr': 0.05})
    trainer = Trainer(
        experiment=exp,
        early_stop_callback=EarlyStopping(monitor='val_acc', patience=100, mode='max'),
        checkpoint_callback=ModelCheckpoint(os.path.join(save_dir, 'ckpt'), monitor='val_acc', mode='max',
                                            save_best_only=True),
        gradient_clip=1.0,
        overfit_pct=0,
        track_grad_norm=2,
        print_nan_grads=True,
        check_val_every_n_epoch=2,
        accumulate_grad_batches=2,
        max_nb_epochs=8,
        min_nb_epochs=1,
        train_percent_check=0.5,
        val_percent_check=0.25,
        val_check_interval=0.5,
        nb_sanity_val_steps=3,
        log_save_interval=5,
        add_log_row_interval=2,
        process_position=0,
        show_progress_bar=True,
        distributed_backend=None,
        gpus=None,
        use_amp=False
    )
    assert trainer.fit(model) == 1

    # 20 batches an epoch, of which half: 10, and a step for each 2
    assert model.seen['train'] == 8 * 10 == trainer.global_step, model.seen
    assert model.seen['steps'] == 8 * 5, model.seen
    # every second epoch, twice each, 5 of 20 batches; and 3 before training
    assert model.seen['val'] == 3 + 4 * 2 * 5, model.seen
    assert trainer.tng_tqdm_dic['val_acc'] > 0.6, trainer.tng_tqdm_dic
    # a cosine over 10 epochs, of which 8 are over
    rate = 0.05 * (1 + math.cos(0.8 * math.pi)) / 2
    assert abs(trainer.optimizers[0].param_groups[0]['lr'] - rate) < 1e-6

    assert len(os.listdir(os.path.join(save_dir, 'ckpt'))) == 1
    frame = pd.read_csv(os.path.join(save_dir, 'all', 'version_0', 'metrics.csv'))
    assert {'tng_loss', 'val_loss', 'val_acc', 'some_val', 'some_tensor_to_test', 'grad_2_norm_total'} <= set(frame.columns)
    assert frame['tng_loss'].dropna().iloc[-1] < frame['tng_loss'].dropna().iloc[0]
    assert 'val_loss' in trainer.test()
    print('ok')
