"""A list of optimizers with the step of two arguments, as the interface of June 2019 shows it: each steps once a batch."""
import torch
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning.models.trainer import Trainer
from pytorch_lightning.root_module.root_module import LightningModule


class Counted(torch.optim.SGD):
    nb_steps = 0

    def step(self, closure=None):
        self.nb_steps += 1
        return super(Counted, self).step(closure)


class TwoTowers(LightningModule):

    def __init__(self, hparams=None):
        super(TwoTowers, self).__init__(hparams)
        self.users = torch.nn.Linear(3, 1, bias=False)
        self.items = torch.nn.Linear(3, 1, bias=False)
        for tower in (self.users, self.items):
            torch.nn.init.zeros_(tower.weight)
        self.nb_calls = 0

    def loss_of(self, u, v, y):
        return (self.users(u) + self.items(v) - y).pow(2).mean()

    def training_step(self, data_batch, batch_nb):
        self.nb_calls += 1
        u, v, y = data_batch
        return {'loss': self.loss_of(u, v, y), 'prog': {'batch_nb': batch_nb}}

    def validation_step(self, data_batch, batch_nb):
        return {'val_loss': self.loss_of(*data_batch)}

    def validation_end(self, outputs):
        return {'val_loss': torch.stack([o['val_loss'] for o in outputs]).mean().item()}

    def get_save_dict(self):
        return {'state_dict': self.state_dict()}

    def load_model_specific(self, checkpoint):
        self.load_state_dict(checkpoint['state_dict'])

    def configure_optimizers(self):
        self.made = [Counted(self.users.parameters(), lr=0.1), Counted(self.items.parameters(), lr=0.02)]
        return self.made

    @property
    def tng_dataloader(self):
        if self._tng_dataloader is None:
            generator = torch.Generator().manual_seed(4)
            u, v = torch.randn(2, 60, 3, generator=generator)
            y = u.sum(1, keepdim=True) - v[:, :1]
            self._tng_dataloader = DataLoader(TensorDataset(u, v, y), batch_size=10)
        return self._tng_dataloader

    @property
    def val_dataloader(self):
        return self.tng_dataloader

    @property
    def test_dataloader(self):
        return self.tng_dataloader


if __name__ == '__main__':
    model = TwoTowers()
    trainer = Trainer(experiment=False, max_nb_epochs=4, min_nb_epochs=1, progress_bar=False)
    trainer.fit(model)
    assert model.nb_calls == 24
    assert [o.nb_steps for o in model.made] == [24, 24]

    # the same by hand: both gradients come from one loss, and each is counted once
    hand = TwoTowers()
    users, items = hand.configure_optimizers()
    for _ in range(4):
        for u, v, y in hand.tng_dataloader:
            users.zero_grad()
            items.zero_grad()
            hand.loss_of(u, v, y).backward()
            users.step()
            items.step()
    assert torch.allclose(hand.users.weight, model.users.weight, atol=1e-6)
    assert torch.allclose(hand.items.weight, model.items.weight, atol=1e-6)
    assert trainer.tng_tqdm_dic['val_loss'] < 1.0
    print('ok')
