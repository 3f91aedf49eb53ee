"""One optimizer and its schedule by hand, with clipping."""
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader


class MyModel(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(4, 4)

    def compute_loss(self, batch):
        return (self.layer(batch) - batch.roll(1, 1)).pow(2).sum()

    def training_step(self, batch, batch_idx):
        opt = self.optimizers()
        opt.zero_grad()
        loss = self.compute_loss(batch)
        self.manual_backward(loss)

        # clip gradients
        self.clip_gradients(opt, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
        opt.step()

        # step every epoch
        sch = self.lr_schedulers()
        if self.trainer.is_last_batch:
            sch.step()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


torch.manual_seed(6)
model = MyModel()
trainer = pl.Trainer(max_epochs=4, enable_checkpointing=False, logger=False)
trainer.fit(model, DataLoader(torch.randn(20, 4), batch_size=5))
