"""Options of the Trainer: accumulation, clipping, a limit of steps."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class Accumulating(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def training_step(self, batch, batch_idx):
        loss = (self.layer(batch) - 3 * batch).pow(2).sum(1).mean()
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, logger=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


torch.manual_seed(12)
model = Accumulating()
trainer = L.Trainer(
    max_steps=9,
    accumulate_grad_batches=2,
    gradient_clip_val=0.7,  # by norm
    gradient_clip_algorithm="norm",
    default_root_dir="runs",
    log_every_n_steps=1,
    enable_progress_bar=False,
    precision="32-true",
    strategy="auto",
    num_nodes=1,
)
trainer.fit(model, DataLoader(torch.randn(24, 3), batch_size=4))
