"""What certificate=True costs a run, and how long verify takes, for a small model and one of 25 million parameters.

Runs with and without it take turns, so that a busy machine slows both; their medians are compared.
usage: python benchmarks/certificate_cost.py [rounds]
"""

import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.data.witness import checksum
from pytorch_lightning.verify import main as verify


class Stack(LightningModule):
    """Layers of ``width``, trained by Adam on rows of that many numbers."""

    def __init__(self, width: int = 64, nb_layers: int = 2, nb_rows: int = 32_000) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(nb_layers)))
        self.width, self.nb_rows = width, nb_rows

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layers(data_batch[0]).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-4)

    @property
    def tng_dataloader(self) -> Any:
        x = torch.randn(self.nb_rows, self.width, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x), 32, shuffle=True)


CASES = {
    "small (8 thousand parameters, 1,000 batches, 4 saves)": ((64, 2, 32_000), 250),
    "25 million parameters (40 batches, 4 saves)": ((500, 100, 1_280), 10),
}


def seconds(folder: str, size: tuple[int, int, int], every: int, certificate: bool) -> tuple[float, float]:
    """Of a run: on the clock, and of the processor, in all threads."""
    torch.manual_seed(1)
    model = Stack(*size)
    trainer = Trainer(
        max_nb_epochs=1, seed=1, save_every_nb_batches=every, keep_saves="spaced", resume="auto", progress_bar=False,
        print_weights_summary=False, silence=("no-validation", "first-save"), default_save_path=folder,
        certificate=certificate,
    )  # fmt: skip
    start = time.perf_counter(), time.process_time()
    trainer.fit(model)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main(rounds: int) -> None:
    for name, (size, every) in CASES.items():
        found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for number in range(rounds):
            for certificate in (False, True) if number % 2 else (True, False):
                with tempfile.TemporaryDirectory(dir=".") as folder:
                    found[certificate].append(seconds(folder, size, every, certificate))
        print(name)
        for which, clock in enumerate(("on the clock", "of the processor")):
            without, with_it = (statistics.median(pair[which] for pair in found[c]) for c in (False, True))
            print(f"    {without:.2f} s {clock}, {with_it:.2f} s with a certificate: ratio {with_it / without:.3f}")
        with tempfile.TemporaryDirectory(dir=".") as folder:
            trained, _ = seconds(folder, size, every, True)
            run, start = str(Path(folder, "Stack", "version_0")), time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                status = verify([run, "--script", __file__, "--model", "Stack", "--all"])
            took = time.perf_counter() - start
            print(f"    trained in {trained:.2f} s; verify --all in {took:.2f} s, status {status}", flush=True)
    batch = torch.randn(2**22)
    start = time.perf_counter()
    checksum([batch])
    print(f"a batch: {1000 * (time.perf_counter() - start) / 16:.2f} ms for each MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
