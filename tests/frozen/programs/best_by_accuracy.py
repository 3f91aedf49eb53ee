"""Checkpoints by accuracy (August 2019): mode 'auto', a prefix, the best one only, and outputs of many kinds."""
import glob
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint


class Rare(pl.LightningModule):

    def __init__(self):
        super(Rare, self).__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        self.accs = []
        self.sanity = 0

    def on_sanity_check_start(self):
        self.sanity += 1

    def on_pre_performance_check(self):
        assert self.training

    def on_post_performance_check(self):
        assert self.training and torch.is_grad_enabled()

    def training_step(self, batch, batch_nb):
        x, y = batch
        return {'loss': F.cross_entropy(self.net(x), y)}

    def validation_step(self, batch, batch_nb):
        x, y = batch
        assert not self.training
        if batch_nb == 1:
            return None
        predicted = self.net(x).argmax(1)
        return predicted.numpy(), y.numpy(), ['anything']

    def validation_end(self, outputs):
        outputs = [o for o in outputs if o is not None]
        predicted = np.concatenate([o[0] for o in outputs])
        truth = np.concatenate([o[1] for o in outputs])
        acc = np.mean(predicted == truth)
        if not self.sanity or len(outputs) > 1:
            self.accs.append(float(acc))
        return {'val_acc': acc, 'val_nb': len(truth), 'note': 'x'}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=0.02)]

    def data(self, seed):
        x = torch.randn(200, 2, generator=torch.Generator().manual_seed(seed))
        return TensorDataset(x, (x[:, 0] * x[:, 1] > 0.8).long())

    @pl.data_loader
    def tng_dataloader(self):
        data = self.data(0)
        labels = data.tensors[1]
        weights = torch.where(labels == 1, 1.0 / labels.sum(), 1.0 / (1 - labels).sum())
        return DataLoader(data, batch_size=20, sampler=WeightedRandomSampler(weights, 200))

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(self.data(1), batch_size=50, drop_last=True)


if __name__ == '__main__':
    model = Rare()
    folder = os.path.join(os.getcwd(), 'deep', 'er')
    keep = ModelCheckpoint(filepath=folder, monitor='val_acc', mode='auto', save_best_only=True, prefix='rare', verbose=0)
    stop = EarlyStopping(monitor='val_acc', min_delta=0.001, patience=8, verbose=0, mode='auto')
    trainer = pl.Trainer(early_stop_callback=stop, checkpoint_callback=keep, max_nb_epochs=40, min_nb_epochs=3,
                         nb_sanity_val_steps=2, show_progress_bar=False)
    trainer.fit(model)
    assert model.sanity == 1
    assert trainer.tng_tqdm_dic['val_nb'] == 150
    best = max(model.accs)
    assert best > 0.85, model.accs
    epoch = model.accs.index(best) + 1
    names = [os.path.basename(path) for path in glob.glob(os.path.join(folder, '*'))]
    assert names == ['rare_ckpt_epoch_{}.ckpt'.format(epoch)], (names, model.accs)
    assert abs(keep.best - best) < 1e-9
    checkpoint = torch.load(os.path.join(folder, names[0]))
    assert checkpoint['global_step'] == 10 * epoch
    print('ok')
