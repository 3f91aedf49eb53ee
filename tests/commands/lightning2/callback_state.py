"""A callback with a state of its own, which a second fit continues from a checkpoint."""
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader


class Counter(Callback):
    def __init__(self, what="epochs", verbose=True):
        self.what = what
        self.verbose = verbose
        self.state = {"epochs": 0, "batches": 0}

    @property
    def state_key(self):
        # note: we do not include `verbose` here on purpose
        return f"Counter[what={self.what}]"

    def on_train_epoch_end(self, trainer, pl_module):
        if self.what == "epochs":
            self.state["epochs"] += 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.what == "batches":
            self.state["batches"] += 1

    def load_state_dict(self, state_dict):
        self.state.update(state_dict)

    def state_dict(self):
        return self.state.copy()


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


def train(epochs, ckpt_path=None):
    callbacks = [Counter(), Counter("batches"), ModelCheckpoint(dirpath="saves", save_last=True)]
    trainer = L.Trainer(max_epochs=epochs, callbacks=callbacks, logger=False, enable_progress_bar=False)
    model = Model()
    trainer.fit(model, DataLoader(data, batch_size=4), ckpt_path=ckpt_path)
    trainer.save_checkpoint("end.ckpt")
    return model, callbacks


L.seed_everything(44)
data = torch.randn(20, 2)
model, _ = train(2)
model, callbacks = train(5, ckpt_path="end.ckpt")
numbers = {"epochs": callbacks[0].state["epochs"], "batches": callbacks[1].state["batches"]}
