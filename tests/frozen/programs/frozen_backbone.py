"""Transfer learning of 2019: a pretrained network is loaded by its tags, frozen, and thawed in a later epoch."""
import os
from argparse import Namespace

import torch
import torch.nn as nn
import torch.nn.functional as F
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, data_loader
from pytorch_lightning.callbacks import ModelCheckpoint


def signals(seed):
    x = torch.randn(128, 6, generator=torch.Generator().manual_seed(seed))
    return x


class AutoEncoder(LightningModule):

    def __init__(self, hparams):
        super(AutoEncoder, self).__init__()
        self.hparams = hparams
        self.encoder = nn.Linear(6, hparams.dim)
        self.decoder = nn.Linear(hparams.dim, 6)

    def forward(self, x):
        return self.encoder(x)

    def training_step(self, data_batch, batch_nb):
        x = data_batch
        return F.mse_loss(self.decoder(self.forward(x)), x)

    def get_save_dict(self):
        return {'state_dict': self.state_dict(), 'kind': 'autoencoder'}

    def load_model_specific(self, checkpoint):
        assert checkpoint['kind'] == 'autoencoder'
        self.load_state_dict(checkpoint['state_dict'])

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=self.hparams.lr)]

    @data_loader
    def tng_dataloader(self):
        return DataLoader(signals(1), batch_size=16, shuffle=True)


class Finetuned(LightningModule):

    def __init__(self, backbone, thaw_at):
        super(Finetuned, self).__init__()
        self.backbone = backbone
        self.backbone.freeze()
        self.thaw_at = thaw_at
        self.head = nn.Linear(backbone.hparams.dim, 2)
        self.moved = []

    def forward(self, x):
        return self.head(torch.relu(self.backbone(x)))

    def on_epoch_start(self):
        if self.current_epoch == self.thaw_at:
            self.backbone.unfreeze()
        self.before = self.backbone.encoder.weight.detach().clone()

    def on_epoch_end(self):
        self.moved.append(not torch.equal(self.before, self.backbone.encoder.weight))

    def training_step(self, data_batch, batch_nb):
        x, y = data_batch
        loss = F.cross_entropy(self.forward(x), y)
        return {'loss': loss.unsqueeze(0)}

    def configure_optimizers(self):
        return [torch.optim.Adam([{'params': self.head.parameters()},
                                  {'params': self.backbone.encoder.parameters(), 'lr': 1e-3}], lr=0.05)]

    @data_loader
    def tng_dataloader(self):
        x = signals(2)
        return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16, shuffle=True)


if __name__ == '__main__':
    hparams = Namespace(dim=6, lr=0.02)
    exp = Experiment(save_dir=os.path.join(os.getcwd(), 'pretraining'), name='auto', version=3)
    exp.argparse(hparams)
    exp.save()
    first = AutoEncoder(hparams)
    Trainer(exp, checkpoint_callback=ModelCheckpoint(os.path.join(os.getcwd(), 'weights'), monitor='tng_loss'),
            max_nb_epochs=15, progress_bar=False).fit(first)
    newest = max(os.listdir('weights'), key=lambda name: int(name.split('_')[-1].split('.')[0]))
    assert newest == '_ckpt_epoch_15.ckpt', newest
    loaded = AutoEncoder.load_from_metrics(
        os.path.join('weights', newest), os.path.join('pretraining', 'auto', 'version_3', 'meta_tags.csv'), on_gpu=False)
    assert F.mse_loss(loaded.decoder(loaded(signals(5))), signals(5)) < 0.1

    model = Finetuned(loaded, thaw_at=2)
    table = model.summarize()
    assert table is None or 'head' in str(table)
    trainer = Trainer(max_nb_epochs=5, progress_bar=False)
    trainer.fit(model)
    assert model.moved == [False, False, True, True, True], model.moved
    assert trainer.avg_loss < 0.5
    assert abs(trainer.tqdm_metrics['tng_loss'] - trainer.avg_loss) < 1e-6
    print('ok')
