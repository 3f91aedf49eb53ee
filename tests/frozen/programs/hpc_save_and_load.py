"""hpc_save and hpc_load by hand, as a cluster's job of 2019 calls them before it is cut and when it is back."""
import os

import torch
from test_tube import Experiment
from torch.utils.data import DataLoader, TensorDataset

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class Model(pl.LightningModule):

    def __init__(self):
        super(Model, self).__init__()
        torch.manual_seed(3)
        self.l1 = torch.nn.Linear(2, 1)
        self.check = None

    def forward(self, x):
        return self.l1(x)

    def on_epoch_start(self):
        if self.check is not None:
            self.check()
            self.check = None

    def training_step(self, batch, batch_nb):
        x, = batch
        return {'loss': (self.forward(x) - x.sum(1, keepdim=True)).pow(2).mean()}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.parameters(), lr=0.05)]

    @pl.data_loader
    def tng_dataloader(self):
        x = torch.randn(64, 2, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x), batch_size=8, shuffle=True)


if __name__ == '__main__':
    save_dir = os.path.join(os.getcwd(), 'save')

    def get_exp():
        exp = Experiment(save_dir=save_dir, name='hpc', version=0)
        exp.save()
        return exp

    exp = get_exp()
    model = Model()
    checkpoint = ModelCheckpoint(save_dir)
    trainer = pl.Trainer(experiment=exp, checkpoint_callback=checkpoint, max_nb_epochs=2, seed=2, show_progress_bar=False)
    assert trainer.fit(model) == 1
    real_global_step = trainer.global_step
    assert real_global_step == 16

    # what the signal of the cluster does
    saved_filepath = trainer.hpc_save(save_dir, exp)
    assert os.path.exists(saved_filepath)
    assert os.path.basename(saved_filepath) == 'hpc_ckpt_1.ckpt'
    assert os.path.basename(trainer.hpc_save(save_dir, exp)) == 'hpc_ckpt_2.ckpt'

    x = model.tng_dataloader.dataset.tensors[0]
    model.eval()
    with torch.no_grad():
        pred_before_saving = model(x)

    # the job is back
    trainer = pl.Trainer(experiment=get_exp(), checkpoint_callback=ModelCheckpoint(save_dir), max_nb_epochs=4, seed=2,
                         show_progress_bar=False)
    model = Model()
    seen = []

    def assert_pred_same():
        seen.append(trainer.global_step)
        assert trainer.global_step == real_global_step and trainer.current_epoch == 2
        with torch.no_grad():
            new_pred = trainer.model(x)
        assert torch.all(torch.eq(pred_before_saving, new_pred)).item() == 1

    model.check = assert_pred_same
    trainer.hpc_load(save_dir, on_gpu=False)
    assert trainer.fit(model) == 1
    assert seen == [16]
    assert trainer.global_step == 32

    # as if nothing had happened
    undisturbed = Model()
    pl.Trainer(False, max_nb_epochs=4, seed=2, show_progress_bar=False).fit(undisturbed)
    assert torch.equal(undisturbed.l1.weight, model.l1.weight)

    # into the model of a trainer that has one already
    model.l1.weight.data.zero_()
    trainer.hpc_load(save_dir, False)
    model.eval()
    assert torch.equal(model(x), pred_before_saving)
    print('ok')
