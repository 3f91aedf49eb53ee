"""ReduceLROnPlateau, which watches what the validation logs."""
import lightning as L
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader


class Wobbling(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        val_loss = self.layer(batch).pow(2).mean()
        self.log("val_loss", val_loss)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1.05)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": ReduceLROnPlateau(optimizer, factor=0.1, patience=1),
                "monitor": "val_loss",
                "frequency": 1,
                # If "monitor" references validation metrics, then "frequency" should be set to a
                # multiple of "trainer.check_val_every_n_epoch".
            },
        }


torch.manual_seed(8)
data = torch.randn(24, 2)
model = Wobbling()
trainer = L.Trainer(max_epochs=6, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(data, 6), DataLoader(data[:10], 6))
numbers = {"lr": trainer.optimizers[0].param_groups[0]["lr"]}
