"""transformers.Trainer without logging, saving and evaluation."""

import tempfile
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from benchmarks import workloads as w


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.criterion = w.w1_network(), nn.MSELoss()

    def forward(self, x: Any, labels: Any) -> Any:
        y = self.net(x)
        return {"loss": self.criterion(y, labels), "logits": y}


class Samples(Dataset[Any]):
    def __init__(self, nb: int) -> None:
        self.x, self.y = w.w1_data(nb).tensors

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return {"x": self.x[index], "labels": self.y[index]}


class Listed(Trainer):
    """Takes a list of ready batches for a loader."""

    def get_train_dataloader(self) -> Any:
        return self.train_dataset


def trainer(folder: str, kind: Any = Trainer, **data: Any) -> Any:
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,
        num_train_epochs=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        max_grad_norm=0.0,
        prediction_loss_only=True,
    )
    model = Regression()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return kind(model, arguments, optimizers=(optimizer, None), **data)


def W1(nb: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer(folder, train_dataset=Samples(nb)).train()


def W1list(nb: int) -> None:
    batches = [{"x": x, "labels": y} for x, y in w.w1_batches(nb)]
    with tempfile.TemporaryDirectory() as folder:
        trainer(folder, Listed, train_dataset=batches).train()


def W4(nb: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer(folder, eval_dataset=Samples(nb)).evaluate()
