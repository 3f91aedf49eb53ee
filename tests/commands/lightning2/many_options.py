"""Many options of the Trainer at once."""
from datetime import timedelta

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


L.seed_everything(31, workers=True)
data = torch.randn(48, 3)
model = Model()
trainer = L.Trainer(
    accelerator="auto",
    devices="auto",
    strategy="auto",
    precision=32,
    logger=True,
    callbacks=[EarlyStopping("val_loss")],
    fast_dev_run=False,
    max_epochs=4,
    min_epochs=2,
    max_time=timedelta(minutes=10),
    limit_train_batches=0.5,
    limit_val_batches=1.0,
    overfit_batches=0.0,
    val_check_interval=0.5,
    check_val_every_n_epoch=2,
    num_sanity_val_steps=0,
    log_every_n_steps=5,
    enable_progress_bar=False,
    enable_model_summary=False,
    deterministic=True,
    benchmark=False,
)
trainer.fit(model, DataLoader(data, batch_size=4), DataLoader(data, batch_size=8))
numbers = {"val_loss": trainer.callback_metrics["val_loss"].item(), "steps": trainer.global_step}
