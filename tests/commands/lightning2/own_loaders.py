"""The loaders are methods of the module; a test after the fit."""
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning.pytorch import LightningModule, Trainer, seed_everything

seed_everything(7)
X = torch.randn(120, 6)
Y = X.sum(1, keepdim=True)


class Regression(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 1)
        full = TensorDataset(X, Y)
        self.train_set, self.val_set, self.test_set = random_split(
            full, [80, 20, 20], generator=torch.Generator().manual_seed(0)
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.mse_loss(self.layer(x), y)
        self.log("train/loss", loss, on_step=True)
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/loss", F.mse_loss(self.layer(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        y_hat = self.layer(x)
        self.log_dict({"test/mse": F.mse_loss(y_hat, y), "test/mae": F.l1_loss(y_hat, y)})

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_set, batch_size=16)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, batch_size=16)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test_set, batch_size=16)


model = Regression()
trainer = Trainer(max_epochs=4, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(model)
results = trainer.test(model)
numbers = {name: results[0][f"test/{name}"] for name in ("mse", "mae")}
