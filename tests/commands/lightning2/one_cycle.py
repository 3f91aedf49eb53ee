"""A schedule that steps with each batch, and needs the number of all steps."""
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class LitResnet(L.LightningModule):
    def __init__(self, lr=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 2))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.model(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(
            self.parameters(),
            lr=self.hparams.lr,
            momentum=0.9,
            weight_decay=5e-4,
        )
        scheduler_dict = {
            "scheduler": torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                0.1,
                total_steps=self.trainer.estimated_stepping_batches,
            ),
            "interval": "step",
        }
        return {"optimizer": optimizer, "lr_scheduler": scheduler_dict}


L.seed_everything(7)
x = torch.randn(50, 6)
model = LitResnet(lr=0.05)
trainer = L.Trainer(
    max_epochs=3,
    accelerator="auto",
    devices=1,
    callbacks=[L.pytorch.callbacks.LearningRateMonitor(logging_interval="step")],
)
trainer.fit(model, DataLoader(TensorDataset(x, (x[:, 0] > x[:, 1]).long()), batch_size=10))
