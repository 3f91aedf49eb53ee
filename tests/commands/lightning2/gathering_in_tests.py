"""A test that gathers predictions and ends with one number over all of them."""
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.criterion = torch.nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.criterion(self.layer(x), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_test_epoch_start(self):
        self.preds, self.labels = [], []

    def test_step(self, batch, batch_idx):
        x, y = batch
        logits = self.layer(x)
        self.preds.append(logits.argmax(1))
        self.labels.append(y)
        self.log("test_loss", self.criterion(logits, y))

    def on_test_epoch_end(self):
        preds, labels = torch.cat(self.preds), torch.cat(self.labels)
        true_positives = ((preds == 1) & (labels == 1)).sum()
        precision = true_positives / (preds == 1).sum().clamp(min=1)
        recall = true_positives / (labels == 1).sum()
        self.log_dict({"test_precision": precision, "test_recall": recall})

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)


torch.manual_seed(35)
x = torch.randn(45, 4)
y = (x[:, 0] + 0.5 * torch.randn(45) > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=10)
model = Model()
trainer = L.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, loader)
(numbers,) = trainer.test(model, loader, verbose=False)
