"""optimizer_step with its closure: a warm-up of the rate."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class WarmUp(L.LightningModule):
    def __init__(self, lr: float = 0.1, warmup_steps: int = 6):
        super().__init__()
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.layer = torch.nn.Linear(5, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sub(2).abs().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    # learning rate warm-up
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        # update params
        optimizer.step(closure=optimizer_closure)

        # manually warm up lr without a scheduler
        if self.trainer.global_step < self.warmup_steps:
            lr_scale = min(1.0, float(self.trainer.global_step + 1) / self.warmup_steps)
            for pg in optimizer.param_groups:
                pg["lr"] = lr_scale * self.lr


class Skipping(WarmUp):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        for pg in optimizer.param_groups:
            pg["lr"] = self.lr / (1 + batch_idx)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


torch.manual_seed(10)
data = torch.randn(36, 5)
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
model = Skipping()
trainer.fit(model, DataLoader(data, batch_size=6))
