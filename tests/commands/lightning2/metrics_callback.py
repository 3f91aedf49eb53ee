"""A callback that gathers what was logged."""
import copy

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader


class MetricsCallback(Callback):
    """Keeps the metrics of each validation."""

    def __init__(self):
        super().__init__()
        self.metrics = []
        self.epochs = []

    def on_train_start(self, trainer, pl_module):
        print("Starting to train", type(pl_module).__name__)

    def on_validation_epoch_end(self, trainer, pl_module):
        if trainer.sanity_checking:
            return
        each_me = copy.deepcopy(trainer.callback_metrics)
        self.metrics.append(float(each_me["val_loss"]))

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append((trainer.current_epoch, trainer.global_step))
        if trainer.current_epoch == 2:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        print("Training is ending")


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)


torch.manual_seed(13)
data = torch.randn(18, 2)
metrics = MetricsCallback()
model = Model()
trainer = L.Trainer(max_epochs=10, callbacks=[metrics], logger=False, enable_checkpointing=False)
trainer.fit(model, DataLoader(data, batch_size=6), DataLoader(data, batch_size=6))
numbers = {f"val_{i}": value for i, value in enumerate(metrics.metrics)}
numbers["epochs"] = len(metrics.epochs)
