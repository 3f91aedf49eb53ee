"""A callback that watches the metrics and stops, an exception's hook, and progress that is printed on one process."""
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch.utils.data import DataLoader


class StopAtTarget(Callback):
    def __init__(self, monitor: str, target: float):
        super().__init__()
        self.monitor, self.target = monitor, target
        self.stopped_epoch = None

    def on_validation_end(self, trainer: "L.Trainer", pl_module: "L.LightningModule") -> None:
        if trainer.sanity_checking:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None and value < self.target:
            self.stopped_epoch = trainer.current_epoch
            trainer.should_stop = True
            rank_zero_info(f"{self.monitor} is {value:.3f}")


class PrintTable(Callback):
    @rank_zero_only
    def on_train_epoch_end(self, trainer, pl_module):
        metrics = trainer.callback_metrics
        print(f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {metrics['val_loss'].item():.4f}")


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        val_loss = self.layer(batch).pow(2).mean()
        self.log("val_loss", val_loss)
        return {"val_loss": val_loss}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


L.seed_everything(52)
data = torch.randn(40, 4)
stop = StopAtTarget("val_loss", 0.1)
model = Model()
trainer = L.Trainer(max_epochs=50, callbacks=[stop, PrintTable()], logger=False, enable_checkpointing=False)
trainer.fit(model, DataLoader(data, batch_size=8), DataLoader(data[:16], batch_size=8))
numbers = {"stopped": stop.stopped_epoch, "epochs": trainer.current_epoch}
