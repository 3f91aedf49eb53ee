"""predict_step, with a loader of the module's own and with another one."""
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Predictor(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self(x), y)

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        pred = self(x)
        return pred.argmax(dim=-1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)

    def predict_dataloader(self):
        return DataLoader(TensorDataset(X[:10], Y[:10]), batch_size=4)


torch.manual_seed(15)
X = torch.randn(30, 4)
Y = X[:, :3].argmax(1)
model = Predictor()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(TensorDataset(X, Y), batch_size=6))
own = trainer.predict(model)
predictions = trainer.predict(model, dataloaders=DataLoader(TensorDataset(X, Y), batch_size=6), return_predictions=True)
numbers = {"own": int(torch.cat(own).sum()), "all": int(torch.cat(predictions).sum()), "nb": len(predictions)}
