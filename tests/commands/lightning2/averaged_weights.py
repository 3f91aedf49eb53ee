"""EMAWeightAveraging: the average is validated, kept and tested."""
import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8, bias=False), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", torch.nn.functional.cross_entropy(self.net(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test_loss", torch.nn.functional.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05)


torch.manual_seed(61)
x = torch.randn(40, 4)
loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=5)
keep = ModelCheckpoint("kept", monitor="val_loss")
average = EMAWeightAveraging(decay=0.8, update_every_n_steps=2, update_starting_at_step=3)
trainer = L.Trainer(max_epochs=3, callbacks=[average, keep], logger=False, num_sanity_val_steps=0)
net = Classifier()
trainer.fit(net, loader, loader)
numbers = {"val_loss": trainer.callback_metrics["val_loss"].item()}
numbers["test_loss"] = trainer.test(net, loader)[0]["test_loss"]
model = Classifier.load_from_checkpoint(keep.best_model_path)
