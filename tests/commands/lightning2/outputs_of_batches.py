"""A callback reads the outputs of each training batch; the module keeps a list of them for its epoch."""
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader


class LossHistory(Callback):
    def __init__(self, every=2):
        self.every = every
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx % self.every == 0:
            self.losses.append(outputs["loss"].item())


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.training_step_outputs = []
        self.means = []

    def training_step(self, batch, batch_idx):
        pred = self.layer(batch)
        loss = (pred - batch.sum(1, keepdim=True)).pow(2).mean()
        self.training_step_outputs.append(loss.detach())
        return {"loss": loss, "pred": pred.detach()}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.last_mean = outputs["pred"].mean()

    def on_train_epoch_end(self):
        epoch_mean = torch.stack(self.training_step_outputs).mean()
        self.log("training_epoch_mean", epoch_mean, prog_bar=True)
        self.means.append(float(epoch_mean))
        # free up the memory
        self.training_step_outputs.clear()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


L.seed_everything(43)
history = LossHistory()
model = Model()
trainer = L.Trainer(max_epochs=3, callbacks=history, logger=False, enable_checkpointing=False)
trainer.fit(model, DataLoader(torch.randn(30, 3), batch_size=6))
numbers = {f"mean_{i}": mean for i, mean in enumerate(model.means)}
numbers |= {f"loss_{i}": loss for i, loss in enumerate(history.losses)}
numbers["pred"] = float(model.last_mean)
numbers["logged"] = float(trainer.callback_metrics["training_epoch_mean"])
