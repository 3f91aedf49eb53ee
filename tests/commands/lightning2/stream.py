"""An IterableDataset without a length: steps as the limit, validation every so many batches, a save every few steps."""
import os

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):
    def __init__(self, seed, nb=1000):
        self.seed, self.nb = seed, nb

    def __iter__(self):
        g = torch.Generator().manual_seed(self.seed)
        for _ in range(self.nb):
            x = torch.randn(3, generator=g)
            yield x, x.sum()


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.nb_validations = 0

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(x).flatten(), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", torch.nn.functional.mse_loss(self.layer(x).flatten(), y))

    def on_validation_end(self):
        self.nb_validations += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


torch.manual_seed(55)
model = Model()
save = ModelCheckpoint(dirpath="steps", every_n_train_steps=5, save_top_k=-1, filename="{step}")
trainer = L.Trainer(max_steps=20, val_check_interval=5, limit_val_batches=2, num_sanity_val_steps=0, logger=False,
                    callbacks=[save], enable_progress_bar=False)
trainer.fit(model, DataLoader(Stream(1), batch_size=4), DataLoader(Stream(2), batch_size=4))
numbers = {"validations": model.nb_validations, "val_loss": float(trainer.callback_metrics["val_loss"])}
