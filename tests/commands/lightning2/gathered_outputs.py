"""Outputs are gathered in a list, and on_validation_epoch_end makes one number of them."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class GatherModel(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)
        self.validation_step_outputs = []

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return self(batch).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        loss = self(batch).abs().sum(1)
        self.validation_step_outputs.append(loss)
        return loss

    def on_validation_epoch_end(self):
        # all samples of the epoch
        all_losses = torch.cat(self.validation_step_outputs)
        self.log("val_median", all_losses.median())
        self.log("val_max", all_losses.max(), prog_bar=True)
        self.validation_step_outputs.clear()  # free memory

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


torch.manual_seed(2)
data = torch.randn(48, 8)
model = GatherModel()
trainer = L.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, num_sanity_val_steps=2)
trainer.fit(model, DataLoader(data, batch_size=8), DataLoader(data[:20], batch_size=8))
numbers = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val")}
