"""Tests over several loaders, with names of their own, and one number over all of them at the end."""
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Model(L.LightningModule):
    names = ["clean", "noisy"]

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.test_preds = {name: [] for name in self.names}

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self(x), y)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        name = self.names[dataloader_idx]
        right = (self(x).argmax(1) == y).float()
        self.test_preds[name].append(right)
        self.log(f"{name}/acc", right.mean(), add_dataloader_idx=False)

    def on_test_epoch_end(self):
        every = torch.cat([torch.cat(right) for right in self.test_preds.values()])
        self.log("acc", every.mean())
        for right in self.test_preds.values():
            right.clear()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


def loader(x, y, batch_size=8):
    return DataLoader(TensorDataset(x, y), batch_size=batch_size, num_workers=0)


L.seed_everything(51)
x = torch.randn(52, 3)
y = (x[:, 0] > x[:, 1]).long()
noise = torch.randn(20, 3)
model = Model()
trainer = L.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, loader(x[:32], y[:32]))
results = trainer.test(model, dataloaders=[loader(x[32:], y[32:]), loader(x[32:] + noise, y[32:], 10)])
numbers = {}
for result in results:
    numbers.update(result)
