"""Early stopping, the best checkpoint, and a test of the best."""
import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset


class Lit(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.mse_loss(self.layer(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", torch.nn.functional.mse_loss(self.layer(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", torch.nn.functional.mse_loss(self.layer(x), y))

    def configure_optimizers(self):
        # so high that it gets worse after a while
        return torch.optim.SGD(self.parameters(), lr=0.9)


L.seed_everything(1)
x = torch.randn(40, 3)
y = x.sum(1, keepdim=True) + 0.3 * torch.randn(40, 1)
loader, val = DataLoader(TensorDataset(x[:24], y[:24]), 8), DataLoader(TensorDataset(x[24:], y[24:]), 8)
checkpoint_callback = ModelCheckpoint(
    dirpath="my/path/",
    filename="sample-{epoch:02d}-{val_loss:.2f}",
    monitor="val_loss",
    mode="min",
    save_top_k=1,
    save_last=True,
)
early_stop = EarlyStopping(monitor="val_loss", min_delta=0.00, patience=4, verbose=False, mode="min")
model = Lit()
trainer = L.Trainer(max_epochs=30, callbacks=[early_stop, checkpoint_callback], logger=False, enable_progress_bar=False)
trainer.fit(model, loader, val)
print(checkpoint_callback.best_model_path)
numbers = {"best": float(checkpoint_callback.best_model_score), "epochs": trainer.current_epoch}
numbers["test"] = trainer.test(model, val, ckpt_path="best")[0]["test_loss"]
model = Lit.load_from_checkpoint(checkpoint_callback.best_model_path)
