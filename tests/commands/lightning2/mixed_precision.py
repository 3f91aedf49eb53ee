"""Mixed precision, a profiler, clipping, and modules in a dict."""
import lightning as L
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


class MultiTask(L.LightningModule):
    def __init__(self, tasks=("a", "b")):
        super().__init__()
        self.tasks = tasks
        self.body = nn.Linear(6, 8)
        self.heads = nn.ModuleDict({task: nn.Linear(8, 1) for task in tasks})

    def forward(self, x):
        h = torch.relu(self.body(x))
        return {task: head(h) for task, head in self.heads.items()}

    def training_step(self, batch, batch_idx):
        x, y = batch
        out = self(x)
        losses = {task: nn.functional.mse_loss(out[task].float().squeeze(1), y[:, i]) for i, task in enumerate(self.tasks)}
        for task, loss in losses.items():
            self.log(f"train/{task}", loss, on_step=False, on_epoch=True)
        total = sum(losses.values())
        self.log("train/total", total, prog_bar=True)
        return total

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


torch.manual_seed(50)
x = torch.randn(32, 6)
y = torch.stack([x.sum(1), x.abs().sum(1)], 1)
model = MultiTask()
trainer = L.Trainer(max_epochs=3, precision="bf16-mixed", profiler="simple", gradient_clip_val=1.0, logger=False,
                    accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=8))
numbers = {task: trainer.callback_metrics[f"train/{task}"].item() for task in model.tasks}
