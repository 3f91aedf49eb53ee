"""Two validation loaders."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        loss = self.layer(batch).pow(2).mean()
        self.log("val_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.02)

    def train_dataloader(self):
        return DataLoader(data, batch_size=8)

    def val_dataloader(self):
        loader_1 = DataLoader(data[:12], batch_size=8)
        loader_2 = DataLoader(2 * data, batch_size=8)
        return [loader_1, loader_2]


torch.manual_seed(17)
data = torch.randn(32, 3)
model = Model()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False)
trainer.fit(model)
numbers = {f"{i}": float(trainer.callback_metrics[f"val_loss/dataloader_idx_{i}"]) for i in range(2)}
