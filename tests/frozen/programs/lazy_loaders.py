"""The loaders of August 2019: @ptl.data_loader, several validation sets, and metrics changed in place."""
import torch
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as ptl


class Sets(ptl.LightningModule):

    def __init__(self, hparams):
        super(Sets, self).__init__()
        self.hparams = hparams
        self.layer = torch.nn.Linear(1, 1, bias=False)
        self.made = []
        self.seen = []
        self.rows = 0

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_nb):
        x, y = batch
        return {'loss': (self.forward(x) - y).pow(2).mean()}

    def validation_step(self, batch, batch_nb, dataset_idx):
        x, y = batch
        return {'error': (self.forward(x) - y).abs().mean(), 'set': dataset_idx}

    def validation_end(self, outputs):
        self.seen.append([[o['set'] for o in one] for one in outputs])
        errors = [torch.stack([o['error'] for o in one]).mean() for one in outputs]
        return {'near_error': errors[0], 'far_error': errors[1]}

    def test_step(self, batch, batch_nb):
        x, y = batch
        return {'error': (self.forward(x) - y).abs().max()}

    def test_end(self, outputs):
        return {'test_error': max(o['error'] for o in outputs)}

    def on_tng_metrics(self, metrics):
        self.rows += 1
        metrics['weight'] = self.layer.weight.item()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.4)
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [5], gamma=0.1)]

    def loader(self, name, scale, nb):
        self.made.append(name)
        x = scale * torch.linspace(-1, 1, nb).unsqueeze(1)
        return DataLoader(TensorDataset(x, 2 * x), batch_size=4, shuffle=name == 'tng')

    @ptl.data_loader
    def tng_dataloader(self):
        return self.loader('tng', 1, 40)

    @ptl.data_loader
    def val_dataloader(self):
        return [self.loader('near', 1, 8), self.loader('far', 10, 12)]

    @ptl.data_loader
    def test_dataloader(self):
        return self.loader('test', 1, 8)


model = Sets(None)
trainer = ptl.Trainer(max_nb_epochs=6, row_log_interval=5, check_val_every_n_epoch=2, nb_sanity_val_steps=0)
trainer.fit(model)
numbers = trainer.test(model)
assert sorted(model.made) == ['far', 'near', 'test', 'tng']        # each is made once
assert model.val_dataloader[0] is model.val_dataloader[0]
assert model.seen == 3 * [[[0, 0], [1, 1, 1]]]
assert abs(model.layer.weight.item() - 2) < 1e-2
assert trainer.tqdm_metrics['far_error'] < 0.1
assert numbers['test_error'] < 1e-2
assert model.rows == 12
assert abs(trainer.optimizers[0].param_groups[0]['lr'] - 0.04) < 1e-9
print('ok')
