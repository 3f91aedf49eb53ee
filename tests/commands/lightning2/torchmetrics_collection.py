"""A MetricCollection and its clones."""
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection


class MyModule(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        metrics = MetricCollection([MeanAbsoluteError(), MeanSquaredError()])
        self.train_metrics = metrics.clone(prefix="train_")
        self.valid_metrics = metrics.clone(prefix="val_")

    def training_step(self, batch, batch_idx):
        x, y = batch
        y_hat = self.layer(x)
        output = self.train_metrics(y_hat, y)
        # use log_dict instead of log
        # metrics are logged with keys: train_MeanAbsoluteError, train_MeanSquaredError
        self.log_dict(output)
        return torch.nn.functional.mse_loss(y_hat, y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.valid_metrics.update(self.layer(x), y)

    def on_validation_epoch_end(self):
        self.log_dict(self.valid_metrics.compute())
        self.valid_metrics.reset()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


torch.manual_seed(19)
x = torch.randn(40, 3)
y = x.mean(1, keepdim=True)
model = MyModule()
trainer = L.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(TensorDataset(x, y), 8), DataLoader(TensorDataset(x[:15], y[:15]), 8))
numbers = {"mae": trainer.callback_metrics["val_MeanAbsoluteError"].item()}
