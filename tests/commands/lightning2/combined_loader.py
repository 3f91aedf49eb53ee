"""Labelled and unlabelled batches at once: a dict of loaders, by a CombinedLoader."""
import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, TensorDataset


class SemiSupervised(L.LightningModule):
    def __init__(self, weight: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch["labelled"]
        (u,) = batch["unlabelled"]
        supervised = F.cross_entropy(self.net(x), y)
        p = self.net(u).softmax(-1)
        entropy = -(p * p.clamp_min(1e-8).log()).sum(-1).mean()
        self.log_dict({"supervised": supervised, "entropy": entropy})
        return supervised + self.hparams.weight * entropy

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


L.seed_everything(41)
x = torch.randn(24, 4)
loaders = CombinedLoader(
    {
        "labelled": DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=6),
        "unlabelled": DataLoader(TensorDataset(torch.randn(60, 4)), batch_size=10),
    },
    mode="max_size_cycle",
)
model = SemiSupervised()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, train_dataloaders=loaders)
