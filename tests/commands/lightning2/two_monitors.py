"""Two ModelCheckpoints with monitors of their own, and a LearningRateMonitor."""
import os

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset


class LitClassifier(pl.LightningModule):
    def __init__(self, hidden=8, lr=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.model = torch.nn.Sequential(torch.nn.Linear(4, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 3))

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("val/loss", F.cross_entropy(logits, y), prog_bar=True, sync_dist=True)
        self.log("val/acc", (logits.argmax(1) == y).float().mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=1e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}


def main():
    global model, numbers
    pl.seed_everything(42, workers=True)
    x = torch.randn(60, 4)
    data = TensorDataset(x, x[:, :3].argmax(1))
    train, val = torch.utils.data.Subset(data, range(40)), torch.utils.data.Subset(data, range(40, 60))
    by_loss = ModelCheckpoint(monitor="val/loss", mode="min", save_top_k=1, dirpath="ckpt", filename="loss-{epoch:02d}")
    by_acc = ModelCheckpoint(monitor="val/acc", mode="max", save_top_k=2, dirpath="ckpt", filename="acc-{epoch:02d}")
    callbacks = [by_loss, by_acc, LearningRateMonitor(logging_interval="step")]
    trainer = pl.Trainer(max_epochs=4, callbacks=callbacks, accelerator="cpu", devices=1, log_every_n_steps=1)
    model = LitClassifier(hidden=6)
    trainer.fit(model, DataLoader(train, batch_size=10), DataLoader(val, batch_size=10))
    assert os.path.exists(by_loss.best_model_path) and os.path.exists(by_acc.best_model_path)
    numbers = {"loss": by_loss.best_model_score.item(), "acc": by_acc.best_model_score.item()}
    model = LitClassifier.load_from_checkpoint(by_loss.best_model_path)
    numbers["hidden"] = model.hparams.hidden


if __name__ == "__main__":
    main()
