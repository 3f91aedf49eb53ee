"""Objects of torchmetrics as attributes, logged as they are."""
import lightning as L
import torch
import torch.nn.functional as F
import torchmetrics
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy


class LitModel(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)
        self.train_acc = torchmetrics.classification.Accuracy(task="multiclass", num_classes=4)
        self.valid_acc = MulticlassAccuracy(num_classes=4, average="micro")

    def training_step(self, batch, batch_idx):
        x, y = batch
        preds = self.layer(x)
        loss = F.cross_entropy(preds, y)
        # log step metric
        self.train_acc(preds, y)
        self.log("train_acc_step", self.train_acc)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.layer(x)
        self.valid_acc(logits, y)
        self.log("valid_acc", self.valid_acc, on_step=False, on_epoch=True)
        self.log("valid_loss", F.cross_entropy(logits, y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2)


torch.manual_seed(18)
x = torch.randn(50, 6)
y = x[:, :4].argmax(1)
model = LitModel()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(TensorDataset(x, y), 8), DataLoader(TensorDataset(x[:21], y[:21]), 8))
numbers = {name: float(trainer.callback_metrics[name]) for name in ("valid_acc", "valid_loss")}
