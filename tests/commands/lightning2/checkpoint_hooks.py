"""Things of the module's own in its checkpoints, and of a callback's."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class Counter(L.Callback):
    def __init__(self):
        self.nb = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.nb += 1

    def state_dict(self):
        return {"nb": self.nb}

    def load_state_dict(self, state_dict):
        self.nb = state_dict["nb"]


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.vocabulary = {}

    def training_step(self, batch, batch_idx):
        self.vocabulary[f"word {batch_idx}"] = batch_idx
        return self.layer(batch).pow(2).mean()

    def on_save_checkpoint(self, checkpoint):
        checkpoint["vocabulary"] = self.vocabulary

    def on_load_checkpoint(self, checkpoint):
        self.vocabulary = checkpoint["vocabulary"]

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


L.seed_everything(37)
counter = Counter()
trained = Model()
trainer = L.Trainer(max_epochs=2, callbacks=[counter], logger=False, enable_checkpointing=False)
trainer.fit(trained, DataLoader(torch.randn(12, 2), batch_size=3))
trainer.save_checkpoint("model.ckpt")
model = Model.load_from_checkpoint("model.ckpt")
numbers = {"words": len(model.vocabulary), "nb": counter.nb}
