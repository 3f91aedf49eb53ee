"""A fit that is continued from a checkpoint."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).sub(1).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


torch.manual_seed(23)
loader = DataLoader(torch.randn(24, 4), batch_size=6)
first = Model()
trainer = L.Trainer(max_epochs=2, logger=False, enable_progress_bar=False, enable_checkpointing=False)
trainer.fit(first, loader)
trainer.save_checkpoint("half.ckpt")

model = Model()
trainer = L.Trainer(max_epochs=4, logger=False, enable_progress_bar=False, enable_checkpointing=False)
trainer.fit(model, loader, ckpt_path="half.ckpt")
