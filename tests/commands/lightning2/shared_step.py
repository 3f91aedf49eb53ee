"""One helper for all three stages, which logs by the stage's name."""
import pytorch_lightning as pl
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


class LitModel(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))

    def forward(self, x):
        return F.log_softmax(self.model(x), dim=1)

    def evaluate(self, batch, stage=None):
        x, y = batch
        logits = self(x)
        loss = F.nll_loss(logits, y)
        preds = torch.argmax(logits, dim=1)
        acc = (preds == y).float().mean()

        if stage:
            self.log(f"{stage}_loss", loss, prog_bar=True)
            self.log(f"{stage}_acc", acc, prog_bar=True)
        return loss

    def training_step(self, batch, batch_idx):
        return self.evaluate(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.evaluate(batch, "val")

    def test_step(self, batch, batch_idx):
        self.evaluate(batch, stage="test")

    def configure_optimizers(self):
        return {"optimizer": torch.optim.SGD(self.parameters(), lr=self.lr)}


pl.seed_everything(11)
x = torch.randn(90, 3, 4)
y = x[:, 0].argmax(1)
model = LitModel(0.3)
trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False)
train = DataLoader(TensorDataset(x[:64], y[:64]), batch_size=16)
held_out = DataLoader(TensorDataset(x[64:], y[64:]), batch_size=16)
trainer.fit(model, train_dataloaders=train, val_dataloaders=held_out)
numbers = {"val_loss": trainer.callback_metrics["val_loss"].item()}
numbers["test_acc"] = trainer.test(model, dataloaders=held_out, verbose=False)[0]["test_acc"]
