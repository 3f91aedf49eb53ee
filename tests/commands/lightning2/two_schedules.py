"""Lists of optimizers and schedules, parameter groups, and the rate that is logged by hand."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class Two(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 1)

    def training_step(self, batch):
        lr = self.optimizers().param_groups[0]["lr"]
        self.log("lr", lr, on_step=True, on_epoch=False)
        loss = self.head(torch.relu(self.body(batch))).sub(1).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(
            [
                {"params": self.body.parameters(), "lr": 1e-3},
                {"params": self.head.parameters()},
            ],
            lr=1e-2,
        )
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
        warmup = {"scheduler": torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=5), "interval": "step", "name": "warmup"}
        return [optimizer], [scheduler, warmup]


torch.manual_seed(9)
model = Two()
trainer = L.Trainer(max_epochs=4, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(torch.randn(32, 4), batch_size=8))
