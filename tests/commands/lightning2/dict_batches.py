"""Batches that are dicts, types in the signatures, a loss in a dict beside other things."""
from typing import Any, Dict

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __len__(self) -> int:
        return 22

    def __getitem__(self, i: int) -> Dict[str, Any]:
        x = torch.tensor([i / 22, 1 - i / 22])
        return {"features": x, "label": int(i > 11), "name": f"row {i}"}


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch: Dict[str, Tensor], batch_idx: int) -> STEP_OUTPUT:
        logits = self.layer(batch["features"])
        loss = torch.nn.functional.cross_entropy(logits, batch["label"])
        self.log("train_loss", loss)
        return {"loss": loss, "logits": logits.detach()}

    def validation_step(self, batch: Dict[str, Tensor], batch_idx: int) -> STEP_OUTPUT:
        logits = self.layer(batch["features"])
        hits = (logits.argmax(1) == batch["label"]).float()
        output = {"val_acc": hits.mean()}
        self.log_dict(output)
        return output

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.Adam(self.parameters(), lr=0.1)


torch.manual_seed(26)
model = Model()
trainer = Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit(model, DataLoader(Rows(), batch_size=4), DataLoader(Rows(), batch_size=8))
numbers = {"val_acc": float(trainer.callback_metrics["val_acc"])}
