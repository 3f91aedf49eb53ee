"""What validate and test return, and what the Trainer remembers."""
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.layer(batch).abs().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main():
    global model, numbers
    pl.seed_everything(33)
    data = torch.randn(22, 2)
    train, val = DataLoader(data, batch_size=8), DataLoader(data[:9], batch_size=4)
    model = Model()
    checkpoint = pl.callbacks.ModelCheckpoint(monitor="val_loss")
    trainer = pl.Trainer(max_epochs=3, callbacks=[checkpoint], enable_progress_bar=False)
    trainer.fit(model, train, val)
    validated = trainer.validate(model, dataloaders=val)
    tested = trainer.test(dataloaders=val)[0]
    numbers = {
        "val": validated[0]["val_loss"],
        "test": tested["test_loss"],
        "val_again": float(trainer.validate(model, val, verbose=False)[0]["val_loss"]),
        "score": checkpoint.best_model_score.item(),
    }


if __name__ == "__main__":
    main()
