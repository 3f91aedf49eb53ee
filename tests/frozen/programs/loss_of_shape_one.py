"""Losses of shape (1,): what programs wrote that had to run on several GPUs in July 2019, and never took back."""
import torch
import torch.nn as nn
from test_tube import HyperOptArgumentParser
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping


class Parity(pl.LightningModule):

    def __init__(self, hparams):
        super(Parity, self).__init__()
        self.hparams = hparams
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x):
        return self.net(x)

    def training_step(self, data_batch, batch_i):
        x, y = data_batch
        loss_val = nn.functional.cross_entropy(self.forward(x), y)
        if self.trainer.use_dp or True:
            loss_val = loss_val.unsqueeze(0)
        return {'loss': loss_val, 'prog': {'tng_loss': loss_val}}

    def validation_step(self, data_batch, batch_i):
        x, y = data_batch
        y_hat = self.forward(x)
        acc = (y_hat.argmax(1) == y).float().mean()
        return {'val_loss': nn.functional.cross_entropy(y_hat, y).unsqueeze(0), 'val_acc': acc.unsqueeze(0)}

    def validation_end(self, outputs):
        loss = torch.cat([output['val_loss'] for output in outputs]).mean()
        acc = torch.stack([output['val_acc'] for output in outputs]).mean()
        return {'val_loss': loss.unsqueeze(0), 'val_acc': acc.item()}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=self.hparams.lr)]

    def bits(self):
        x = torch.tensor([[float(n >> i & 1) for i in range(4)] for n in range(16)])
        return TensorDataset(x, x[:, :2].sum(1).long() % 2)

    @pl.data_loader
    def tng_dataloader(self):
        return DataLoader(self.bits(), batch_size=4, shuffle=True)

    @pl.data_loader
    def val_dataloader(self):
        return DataLoader(self.bits(), batch_size=4)

    @pl.data_loader
    def test_dataloader(self):
        return DataLoader(self.bits(), batch_size=4)


if __name__ == '__main__':
    parser = HyperOptArgumentParser(strategy='random_search')
    parser.opt_list('--lr', default=0.03, type=float, options=[0.01, 0.03], tunable=True)
    hparams = parser.parse_args()
    model = Parity(hparams)
    stop = EarlyStopping('val_loss', patience=10)
    trainer = pl.Trainer(None, stop, None, max_nb_epochs=60, accumulate_grad_batches=2)
    trainer.fit(model)
    assert trainer.tqdm_metrics['val_acc'] == 1.0, trainer.tqdm_metrics
    assert isinstance(trainer.tqdm_metrics['val_loss'], float)
    print('ok')
