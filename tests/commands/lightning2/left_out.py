"""Callbacks and options that there is no need for here."""
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    TQDMProgressBar,
)
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).abs().mean()
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


pl.seed_everything(22)
lr_monitor = LearningRateMonitor(logging_interval="step")
model = Model()
trainer = pl.Trainer(
    max_epochs=2,
    inference_mode=True,
    use_distributed_sampler=False,
    barebones=False,
    detect_anomaly=False,
    benchmark=False,
    profiler="simple",
    sync_batchnorm=False,
    reload_dataloaders_every_n_epochs=0,
    plugins=None,
    callbacks=[
        lr_monitor,
        TQDMProgressBar(refresh_rate=10),
        ModelSummary(max_depth=-1),
        DeviceStatsMonitor(),
        ModelCheckpoint(dirpath="ck", every_n_epochs=1, save_top_k=-1),
    ],
)
trainer.fit(model, DataLoader(torch.randn(15, 3), batch_size=5))
