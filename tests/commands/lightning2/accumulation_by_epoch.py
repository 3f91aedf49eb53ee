"""GradientAccumulationScheduler, clipping by value, and a printed mean at each epoch's end."""
import lightning as L
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader, TensorDataset


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.criterion = torch.nn.SmoothL1Loss()

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.criterion(self(x), y)
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def on_train_epoch_end(self):
        if self.trainer.is_global_zero:
            print(f"epoch {self.current_epoch}: loss {self.trainer.callback_metrics['loss']:.4f}")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


torch.manual_seed(45)
x = torch.randn(40, 3)
y = torch.stack([x.sum(1), x[:, 0] - x[:, 1]], 1)
accumulator = GradientAccumulationScheduler(scheduling={0: 1, 2: 2, 4: 5})
model = Regression()
trainer = L.Trainer(max_epochs=6, callbacks=[accumulator], gradient_clip_val=0.1, gradient_clip_algorithm="value",
                    logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=4))
numbers = {"steps": trainer.global_step, "loss": trainer.callback_metrics["loss"].item()}
