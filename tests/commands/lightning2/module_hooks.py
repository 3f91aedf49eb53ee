"""Hooks of the module, some of which use the number of the batch."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class Hooked(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.calls = []

    def on_train_start(self):
        self.calls.append(("start", self.trainer.num_training_batches, self.trainer.max_epochs))

    def on_train_epoch_start(self):
        self.calls.append(("epoch", self.current_epoch))

    def on_train_batch_start(self, batch, batch_idx):
        if batch_idx == 3 and self.current_epoch == 1:
            return -1  # end of this epoch

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.calls.append(("batch", batch_idx))
        if self.trainer.is_last_batch:
            self.calls.append(("last", batch_idx))

    def on_train_epoch_end(self) -> None:
        self.print("epoch", self.current_epoch, "rank zero:", self.trainer.is_global_zero)

    def on_validation_epoch_start(self):
        self.val_batches = 0

    def on_validation_batch_start(self, batch, batch_idx, dataloader_idx=0):
        self.val_batches += 1

    def validation_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def on_train_end(self):
        self.calls.append(("end",))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


torch.manual_seed(29)
data = torch.randn(20, 2)
model = Hooked()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(data, batch_size=4), DataLoader(data, batch_size=10))
numbers = {"calls": len(model.calls), "last": sum(call[0] == "last" for call in model.calls), "val": model.val_batches}
