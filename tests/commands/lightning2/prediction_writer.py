"""A callback that gathers what predict gives, and a Trainer only for predictions from a checkpoint."""
import os

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader


class Writer(BasePredictionWriter):
    def __init__(self, output_dir, write_interval="epoch"):
        super().__init__(write_interval)
        self.output_dir = output_dir

    def write_on_epoch_end(self, trainer, pl_module, predictions, batch_indices):
        os.makedirs(self.output_dir, exist_ok=True)
        torch.save(predictions, os.path.join(self.output_dir, "predictions.pt"))


class Model(L.LightningModule):
    def __init__(self, width=2):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(3, width)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return self(batch).pow(2).mean()

    def predict_step(self, batch, batch_idx):
        return {"mean": self(batch).mean(1), "idx": batch_idx}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


L.seed_everything(57)
loader = DataLoader(torch.randn(20, 3), batch_size=5)
trainer = L.Trainer(max_epochs=2, default_root_dir="root", enable_progress_bar=False)
trainer.fit(Model(), loader)
path = trainer.checkpoint_callback.best_model_path
model = Model.load_from_checkpoint(path)
model.eval()
predictor = L.Trainer(callbacks=[Writer("out")], logger=False, enable_progress_bar=False)
predictor.predict(model, loader, return_predictions=False)
predictions = torch.load("out/predictions.pt")
numbers = {"nb": len(predictions), "sum": float(torch.cat([p["mean"] for p in predictions]).sum())}
