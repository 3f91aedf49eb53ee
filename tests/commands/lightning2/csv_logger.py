"""A CSVLogger, rows by hand, and what training ends with."""
import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        values = {"loss": loss, "acc": 0.5}  # add more items if needed
        self.log_dict(values)
        return loss

    def on_train_epoch_end(self):
        self.logger.log_metrics({"weight": self.layer.weight.norm().item()}, step=self.current_epoch)
        self.log("bias", self.layer.bias.sum())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


torch.manual_seed(20)
model = Model()
logger = CSVLogger("logs", name="my_exp_name")
trainer = L.Trainer(max_epochs=2, logger=logger, log_every_n_steps=2, enable_progress_bar=False)
trainer.fit(model, DataLoader(torch.randn(20, 2), batch_size=4))
