"""TensorBoard: images, histograms and hyperparameters, in hooks of the module."""
import os

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader


class AutoEncoder(pl.LightningModule):
    def __init__(self, hidden: int = 4):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Linear(16, self.hparams.hidden)
        self.decoder = nn.Linear(hidden, 16)

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x.flatten(1)))).view(-1, 1, 4, 4)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.mse_loss(self(batch), batch)
        self.log("loss/train", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x_hat = self(batch)
        self.log("loss/val", nn.functional.mse_loss(x_hat, batch), on_step=False, on_epoch=True)
        if batch_idx == 0:
            tensorboard = self.logger.experiment
            tensorboard.add_image("reconstruction", x_hat[0].clamp(0, 1), self.current_epoch)
            tensorboard.add_images("input", batch[:4].clamp(0, 1), global_step=self.global_step)

    def on_train_epoch_end(self):
        for name, params in self.named_parameters():
            self.logger.experiment.add_histogram(name, params, self.current_epoch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


pl.seed_everything(46)
images = torch.rand(24, 1, 4, 4)
logger = TensorBoardLogger(save_dir="logs", name="ae", version="first", default_hp_metric=False)
model = AutoEncoder(hidden=3)
logger.log_hyperparams({"hidden": 3, "data": "random"})
trainer = pl.Trainer(max_epochs=2, logger=logger, log_every_n_steps=1)
trainer.fit(model, DataLoader(images, batch_size=8), DataLoader(images[:8], batch_size=4))
numbers = {"has_events": any(name.startswith("events") for _, _, files in os.walk("logs") for name in files),
           "val": float(trainer.callback_metrics["loss/val"])}
