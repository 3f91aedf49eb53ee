"""A moving average of the weights, updated in a hook, and used in the validation."""
import copy

import lightning as L
import torch
from torch.utils.data import DataLoader


class WithEma(L.LightningModule):
    def __init__(self, decay=0.8):
        super().__init__()
        self.decay = decay
        self.net = torch.nn.Linear(3, 1)
        self.ema = copy.deepcopy(self.net)
        for p in self.ema.parameters():
            p.requires_grad_(False)

    def training_step(self, batch, batch_idx):
        return self.net(batch).sub(1).pow(2).mean()

    def on_before_zero_grad(self, optimizer):
        pass

    @torch.no_grad()
    def on_train_batch_end(self, outputs, batch, batch_idx):
        for p, own in zip(self.ema.parameters(), self.net.parameters()):
            p.lerp_(own, 1 - self.decay)

    def validation_step(self, batch, batch_idx):
        metrics = {"val_loss": self.net(batch).sub(1).pow(2).mean()}
        metrics["val_ema_loss"] = self.ema(batch).sub(1).pow(2).mean()
        self.log_dict(metrics, prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters(), lr=0.05)


torch.manual_seed(30)
data = torch.randn(30, 3)
model = WithEma()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(data, batch_size=5), DataLoader(data[:11], batch_size=5))
numbers = {"ema": trainer.callback_metrics["val_ema_loss"].item()}
