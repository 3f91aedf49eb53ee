"""Folds: a Trainer, a DataModule and a model for each, whose results are averaged."""
import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, Subset, TensorDataset


class FoldData(L.LightningDataModule):
    def __init__(self, dataset, fold: int, folds: int = 3, batch_size: int = 8):
        super().__init__()
        self.dataset = dataset
        self.save_hyperparameters(ignore=["dataset"])

    def setup(self, stage=None):
        indices = list(range(len(self.dataset)))
        self.val_ids = indices[self.hparams.fold :: self.hparams.folds]
        self.train_ids = [i for i in indices if i not in set(self.val_ids)]

    def train_dataloader(self):
        return DataLoader(Subset(self.dataset, self.train_ids), batch_size=self.hparams.batch_size)

    def val_dataloader(self):
        return DataLoader(Subset(self.dataset, self.val_ids), batch_size=self.hparams.batch_size)

    test_dataloader = val_dataloader


class Regressor(L.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x).squeeze(-1)

    def step(self, batch, stage):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self(x), y)
        self.log(f"{stage}_loss", loss, on_epoch=True, on_step=False)
        return loss

    def training_step(self, batch, _):
        return self.step(batch, "train")

    def validation_step(self, batch, _):
        return self.step(batch, "val")

    def test_step(self, batch, _):
        return self.step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr)


L.seed_everything(53)
x = torch.randn(48, 3)
dataset = TensorDataset(x, x.sum(1) + 0.1 * torch.randn(48))
scores = []
for fold in range(3):
    L.seed_everything(fold)
    data = FoldData(dataset, fold)
    model = Regressor()
    checkpoint = ModelCheckpoint(dirpath=f"fold_{fold}", monitor="val_loss", mode="min")
    trainer = L.Trainer(max_epochs=6, callbacks=[checkpoint, EarlyStopping("val_loss", patience=2, mode="min")],
                        logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(model, datamodule=data)
    scores.append(trainer.test(model, datamodule=data, ckpt_path="best", verbose=False)[0]["test_loss"])
numbers = {"mean": sum(scores) / len(scores), "worst": max(scores)}
