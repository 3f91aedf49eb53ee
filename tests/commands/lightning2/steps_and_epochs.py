"""on_step and on_epoch at once: logged_metrics and callback_metrics with their suffixes; an EarlyStopping on one."""
import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader, TensorDataset


class LitModel(L.LightningModule):
    def __init__(self, lr=0.02):
        super().__init__()
        self.lr = lr
        self.l1 = torch.nn.Linear(3, 1)

    def forward(self, x):
        return self.l1(x)

    def training_step(self, batch, batch_idx):
        loss = self._common_step(batch, batch_idx)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, logger=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss = self._common_step(batch, batch_idx)
        self.log("val_loss", loss, on_epoch=True, sync_dist=True, batch_size=batch[0].size(0))

    def _common_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.l1_loss(self(x).squeeze(-1), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


L.seed_everything(47)
x = torch.randn(50, 3)
y = x.sum(1)
model = LitModel()
stopping = EarlyStopping(monitor="train_loss_epoch", patience=2, min_delta=0.001, check_on_train_epoch_end=True)
trainer = L.Trainer(max_epochs=5, callbacks=[stopping], enable_progress_bar=False, log_every_n_steps=1)
trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=8), DataLoader(TensorDataset(x, y), batch_size=16))
numbers = {
    "epoch": float(trainer.callback_metrics["train_loss_epoch"]),
    "step": float(trainer.callback_metrics["train_loss_step"]),
    "val": float(trainer.logged_metrics["val_loss"]),
    "epochs": trainer.current_epoch,
}
