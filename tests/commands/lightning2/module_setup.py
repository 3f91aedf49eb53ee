"""setup and prepare_data of the module itself, which make data and layers."""
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Model(L.LightningModule):
    def __init__(self, batch_size=8):
        super().__init__()
        self.batch_size = batch_size

    def prepare_data(self):
        torch.save(torch.arange(48.0).view(24, 2) / 48, "data.pt")

    def setup(self, stage):
        x = torch.load("data.pt")
        self.l1 = torch.nn.Linear(x.shape[1], 1)
        torch.nn.init.constant_(self.l1.weight, 0.3)
        torch.nn.init.zeros_(self.l1.bias)
        self.train_data = TensorDataset(x, x.sum(1, keepdim=True))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.mse_loss(self.l1(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(self.train_data, batch_size=self.batch_size)

    def teardown(self, stage):
        print("done with", stage)


model = Model()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model)
