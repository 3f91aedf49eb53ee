"""BIG: python -m benchmarks.programs.big CONTESTANT SAMPLES FOLDER [two] [middle]

Trains on that many samples, batch 256, shuffled. Prints the seconds from where training is asked for to where the fifth
step begins, and the MB by which the process grew over what it was before (of two processes: what the larger one has).

``middle`` resumes in the middle of the epoch. Nobody can wait for that middle, so the checkpoint of a few steps is made
one: its counters, and the checksum of the order up to there, are replaced by those that training would have brought.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import workloads as w
from benchmarks.programs.memory import forget_peak, megabytes

BATCH = 256
STEPS: list[float] = []
"""When each step of this start began."""


class Free(Dataset[Any]):
    """``nb`` samples that cost nothing."""

    def __init__(self, nb: int) -> None:
        self.nb, self.sample = nb, (torch.zeros(8), torch.zeros(1))

    def __len__(self) -> int:
        return self.nb

    def __getitem__(self, index: int) -> Any:
        return self.sample


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(8, 1)


def lean(nb: int, folder: Path, *words: str) -> None:
    loader = DataLoader(Free(nb), BATCH, shuffle=True)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for x, y in loader:
        STEPS.append(time.perf_counter())
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
        if len(STEPS) == 8:
            break


def accelerate_peer(nb: int, folder: Path, *words: str) -> None:
    from accelerate import Accelerator

    accelerator, net = Accelerator(cpu=True), network()
    optimizer: Any = torch.optim.SGD(net.parameters(), lr=0.01)
    net, optimizer, loader = accelerator.prepare(net, optimizer, DataLoader(Free(nb), BATCH, shuffle=True))
    for x, y in loader:
        STEPS.append(time.perf_counter())
        optimizer.zero_grad()
        accelerator.backward(nn.functional.mse_loss(net(x), y))
        optimizer.step()
        if len(STEPS) == 8:
            break


def lightning(nb: int, folder: Path, *words: str) -> None:
    import lightning.pytorch as pl

    class Line(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            STEPS.append(time.perf_counter())
            x, y = batch
            return nn.functional.mse_loss(self.net(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    names = "logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"
    off: Any = dict.fromkeys(names, False)
    trainer = pl.Trainer(max_steps=8, accelerator="cpu", devices=1, **off)
    trainer.fit(Line(), DataLoader(Free(nb), BATCH, shuffle=True))


def hf_trainer(nb: int, folder: Path, *words: str) -> None:
    from transformers import Trainer, TrainingArguments

    class Named(Free):
        def __getitem__(self, index: int) -> Any:
            return {"x": self.sample[0], "labels": self.sample[1]}

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Any, labels: Any) -> Any:
            STEPS.append(time.perf_counter())
            return {"loss": nn.functional.mse_loss(self.net(x), labels)}

    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=BATCH, max_steps=8, use_cpu=True, report_to=[], save_strategy="no",
        logging_strategy="no", disable_tqdm=True, max_grad_norm=0.0,
    )  # fmt: skip
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    Trainer(model, arguments, train_dataset=Named(nb), optimizers=(optimizer, None)).train()


def ours(nb: int, folder: Path, *words: str) -> None:
    from benchmarks.programs.big_ours import fit

    fit(nb, folder, two="two" in words, middle="middle" in words)


def main(name: str, nb: int, folder: str, *words: str) -> None:
    w.import_optimizers()
    before = megabytes()
    forget_peak()
    start = time.perf_counter()
    globals()[name](nb, Path(folder), *words)
    if "two" in words:
        told = Path(folder, "fifth").read_text()
        seconds = float(told) - start
        size = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    else:
        seconds, size = STEPS[4] - start, megabytes("VmHWM") - before
    print(json.dumps({"seconds": seconds, "mb": size}), flush=True)
    if name == "ours" and "middle" not in words:
        from benchmarks.programs.big_ours import to_the_middle

        to_the_middle(nb, Path(folder), 2 if "two" in words else 1)


if __name__ == "__main__":
    os.chdir(sys.argv[3])  # some write where they are
    # under its own name, so that others which import it have the same STEPS
    from benchmarks.programs import big

    big.main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
