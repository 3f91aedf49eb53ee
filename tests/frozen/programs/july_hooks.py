"""A program of July 2019: tqdm_metrics, on_save_checkpoint, no get_save_dict, a step of the optimizer of its own."""
import glob
import os
from argparse import Namespace

import torch
import torch.nn as nn
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as ptl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.root_module.decorators import data_loader


class Tagger(ptl.LightningModule):

    def __init__(self, hparams):
        super(Tagger, self).__init__()
        self.hparams = hparams
        self.vocabulary = {}
        self.embedding = nn.Embedding(hparams.nb_words, hparams.dim)
        self.out = nn.Linear(hparams.dim, 2)
        self.called = {'backward': 0, 'zero': 0, 'start': 0, 'end': 0}

    def forward(self, words):
        return self.out(self.embedding(words).mean(1))

    def training_step(self, data_batch, batch_i):
        words, y = data_batch
        scores = self.forward(words)
        loss = nn.functional.cross_entropy(scores, y)
        return {'loss': loss, 'tqdm_metrics': {'tng_acc': (scores.argmax(1) == y).float().mean()}}

    def validation_step(self, data_batch, batch_i):
        words, y = data_batch
        return {'val_acc': (self.forward(words).argmax(1) == y).float().mean()}

    def validation_end(self, outputs):
        return {'val_acc': torch.stack([x['val_acc'] for x in outputs]).mean()}

    def on_batch_start(self, data_batch):
        self.called['start'] += 1

    def on_batch_end(self):
        self.called['end'] += 1

    def on_after_backward(self):
        self.called['backward'] += 1

    def on_before_zero_grad(self, optimizer):
        self.called['zero'] += 1

    def optimizer_step(self, epoch_nb, batch_nb, optimizer, optimizer_i):
        # warm up over the first ten batches
        scale = min(1., (self.trainer.global_step + 1) / 10.)
        for group in optimizer.param_groups:
            group['lr'] = scale * self.hparams.lr
        optimizer.step()
        optimizer.zero_grad()

    def on_save_checkpoint(self, checkpoint):
        checkpoint['vocabulary'] = {'the': 0, 'a': 1}

    def on_load_checkpoint(self, checkpoint):
        self.vocabulary = checkpoint['vocabulary']

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=self.hparams.lr)]

    @data_loader
    def tng_dataloader(self):
        generator = torch.Generator().manual_seed(1)
        words = torch.randint(0, self.hparams.nb_words, (320, 5), generator=generator)
        return DataLoader(TensorDataset(words, (words == 0).any(1).long()), batch_size=16, shuffle=True)

    @data_loader
    def val_dataloader(self):
        generator = torch.Generator().manual_seed(2)
        words = torch.randint(0, self.hparams.nb_words, (160, 5), generator=generator)
        return DataLoader(TensorDataset(words, (words == 0).any(1).long()), batch_size=16)


if __name__ == '__main__':
    hparams = Namespace(nb_words=8, dim=8, lr=0.03)
    model = Tagger(hparams)
    exp = Experiment(save_dir=os.path.join(os.getcwd(), 'tt'), name='tagger')
    keep = ModelCheckpoint(os.path.join(os.getcwd(), 'ckpt'), monitor='val_acc', save_best_only=False, period=2)
    trainer = ptl.Trainer(exp, checkpoint_callback=keep, max_nb_epochs=6, nb_sanity_val_steps=2)
    trainer.fit(model)
    exp.close()
    assert trainer.tng_tqdm_dic['val_acc'] > 0.95, trainer.tng_tqdm_dic
    assert 'tng_acc' in trainer.tng_tqdm_dic
    assert model.called == {'backward': 120, 'zero': 120, 'start': 120, 'end': 120}, model.called
    names = sorted(os.path.basename(path) for path in glob.glob('ckpt/*'))
    assert names == ['_ckpt_epoch_2.ckpt', '_ckpt_epoch_4.ckpt', '_ckpt_epoch_6.ckpt'], names

    loaded = Tagger.load_from_metrics('ckpt/_ckpt_epoch_6.ckpt', 'tt/tagger/version_0/meta_tags.csv', on_gpu=False)
    assert loaded.vocabulary == {'the': 0, 'a': 1}
    loaded.eval()
    words, y = loaded.val_dataloader.dataset.tensors
    assert (loaded(words).argmax(1) == y).float().mean() > 0.9
    assert torch.load('ckpt/_ckpt_epoch_6.ckpt')['global_step'] == 120
    print('ok')
