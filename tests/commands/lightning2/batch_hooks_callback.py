"""A callback with hooks of batches, and one that checks the gradients."""
import time

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader


class Timing(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        self.start = time.monotonic()
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        assert batch.shape[1] == 3

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx % 2 == 0:
            self.seen.append(batch_idx)

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("epoch_seconds", time.monotonic() - self.start)
        pl_module.nb_seen += len(self.seen)


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.nb_seen = 0

    def training_step(self, batch, batch_idx):
        return self.layer(batch).exp().mean()

    def on_before_optimizer_step(self, optimizer):
        # example to inspect gradient information
        if self.trainer.global_step % 2 == 0:
            for name, value in self.named_parameters():
                assert value.grad is not None, name

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


torch.manual_seed(14)
model = Model()
trainer = pl.Trainer(max_epochs=2, callbacks=Timing(), enable_progress_bar=False, enable_checkpointing=False)
trainer.fit(model, DataLoader(torch.randn(20, 3), batch_size=4))
numbers = {"nb_seen": model.nb_seen}
