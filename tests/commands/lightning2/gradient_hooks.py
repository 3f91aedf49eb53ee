"""configure_gradient_clipping, a schedule for each step, and weights that are kept within bounds."""
import lightning as L
import torch
from torch.utils.data import DataLoader


class Clipped(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).sub(5).pow(2).sum()
        return loss

    def configure_gradient_clipping(self, optimizer, gradient_clip_val, gradient_clip_algorithm):
        self.clip_gradients(optimizer, gradient_clip_val=0.3, gradient_clip_algorithm="value")

    def on_train_batch_end(self, outputs, batch, batch_idx):
        with torch.no_grad():
            self.layer.weight.clamp_(-0.4, 0.4)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]


torch.manual_seed(36)
model = Clipped()
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(torch.randn(18, 3), batch_size=3))
