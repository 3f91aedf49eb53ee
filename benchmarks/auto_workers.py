"""What auto_nb_workers does for data that are read and augmented in the dataset, against loops in plain torch.

W5: digits, turned, scaled and made noisy by PIL, a small network, batches of 32; the script says num_workers=0. Plain
loops with 0 and more workers and the Trainer take turns, so that a busy machine slows all; ratios are of one round.
usage: python benchmarks/auto_workers.py [rounds] [batches]
"""

import statistics
import sys
import tempfile
import time
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.data.digits import Digits
from pytorch_lightning.data.worker_tuning import cores_for

SIZE = 32


class Augmented(Dataset[Any]):
    """``nb`` pictures, each drawn anew whenever it is asked for."""

    def __init__(self, nb: int) -> None:
        digits = Digits(str(files("pytorch_lightning.data.digits")))
        self._pictures = [(digits.data[i].numpy(), int(digits.targets[i])) for i in range(1000)]
        self._nb = nb

    def __len__(self) -> int:
        return self._nb

    def __getitem__(self, i: int) -> Any:
        pixels, y = self._pictures[i % 1000]
        angle, zoom, *_ = torch.rand(2).tolist()
        picture = Image.fromarray(pixels).resize((56, 56), Image.Resampling.BICUBIC)
        picture = picture.rotate(30 * angle - 15, Image.Resampling.BICUBIC)
        side = int(44 + 12 * zoom)
        picture = picture.crop((0, 0, side, side)).resize((28, 28), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255) + 0.05 * torch.randn(28, 28), y


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def plain(data: Augmented, nb_workers: int) -> float:
    """Seconds of an epoch."""
    start, net = time.perf_counter(), network()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for x, y in DataLoader(data, SIZE, shuffle=True, num_workers=nb_workers):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return time.perf_counter() - start


class Classifier(LightningModule):
    def __init__(self, data: Augmented) -> None:
        super().__init__()
        self.net, self._loader = network(), DataLoader(data, SIZE, shuffle=True)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-3)

    @property
    def tng_dataloader(self) -> Any:
        return self._loader


def ours(data: Augmented) -> float:
    """Seconds of a whole fit."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            auto_nb_workers=True, max_nb_epochs=1, default_save_path=folder, progress_bar=False,
            print_weights_summary=False, silence=("no-validation", "first-save"),
        )  # fmt: skip
        start = time.perf_counter()
        trainer.fit(Classifier(data))
        return time.perf_counter() - start


def main() -> None:
    rounds, nb_batches = (int(word) for word in [*sys.argv[1:], "3", "1500"][:2])
    torch.set_num_threads(1)
    data, numbers = Augmented(nb_batches * SIZE), [*range(cores_for(1) + 1)]
    found: dict[Any, list[float]] = {}
    for _ in range(rounds):
        for nb in numbers:
            found.setdefault(nb, []).append(plain(data, nb))
        found.setdefault("auto", []).append(ours(data))
    best = min(numbers[1:], key=lambda nb: statistics.median(found[nb]))
    for name, seconds in found.items():
        print(f"{name!s:>4} workers: {statistics.median(seconds):6.2f} s")
    for nb, word in ((0, "no workers"), (best, f"the best number, {best}")):
        ratios = [a / b for a, b in zip(found["auto"], found[nb], strict=True)]
        print(f"auto_nb_workers takes {statistics.median(ratios):.2f} of a plain loop with {word}")


if __name__ == "__main__":
    main()
