"""A base class with the steps, and two that derive from it."""
import abc

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Base(L.LightningModule, abc.ABC):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters("lr")

    @abc.abstractmethod
    def loss_function(self, y_hat, y): ...

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.loss_function(self(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", self.loss_function(self(x), y), on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Linear(Base):
    def __init__(self, lr=0.05):
        super().__init__(lr=lr)
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x)

    def loss_function(self, y_hat, y):
        return torch.nn.functional.smooth_l1_loss(y_hat, y)


class Wide(Linear):
    def configure_optimizers(self):
        return torch.optim.RMSprop(self.parameters(), lr=0.01)

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)


torch.manual_seed(27)
x = torch.randn(30, 3)
loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)
for model in (Linear(), Wide()):
    trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(model, loader, loader)
numbers = {"val_loss": trainer.callback_metrics["val_loss"].item()}
