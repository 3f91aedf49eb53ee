"""A teacher in eval mode, self.device, and batches that are changed after the transfer."""
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Distillation(L.LightningModule):
    def __init__(self, teacher, student, temperature=2.0):
        super().__init__()
        self.save_hyperparameters(ignore=["teacher", "student"])
        self.teacher, self.student = teacher, student
        self.teacher.requires_grad_(False)

    def on_fit_start(self):
        self.scale = torch.full((1,), 0.5, device=self.device)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        if self.trainer.training:
            x = x * 0.9
        return x, y

    def training_step(self, batch, batch_idx):
        x, y = batch
        t = self.hparams.temperature
        with torch.no_grad():
            soft = (self.teacher(x) / t).softmax(1)
        logits = self.student(x)
        hard_loss = nn.functional.cross_entropy(logits, y)
        soft_loss = nn.functional.kl_div((logits / t).log_softmax(1), soft, reduction="batchmean")
        self.log_dict({"hard": hard_loss, "soft": soft_loss})
        return self.scale.squeeze() * hard_loss + soft_loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.student.parameters(), lr=0.01)


L.seed_everything(28)
x = torch.randn(32, 5)
model = Distillation(nn.Linear(5, 3), nn.Linear(5, 3))
trainer = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=8))
