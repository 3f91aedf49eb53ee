"""This library in processes of its own."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import workloads as w
from benchmarks.contestants import lean_processes
from benchmarks.contestants.ours import W2, Classifier, fit, stalled
from benchmarks.programs import tell
from pytorch_lightning import LightningModule


class Timed(LightningModule):
    """Writes down how long a step took, from a tenth of ``nb_steps`` to the end of training."""

    def time_from(self, nb_steps: int, path: str) -> None:
        self.first, self.path, self.start = nb_steps // 10, path, 0.0

    def look(self) -> None:
        """A step begins."""
        if self.global_step == self.first:
            self.start = time.perf_counter()

    def on_fit_end(self) -> None:
        seconds = time.perf_counter() - self.start
        if self.trainer.proc_rank == 0:
            Path(self.path).write_text(str(seconds * 1e6 / (self.global_step - self.first)))


class TimedClassifier(Timed, Classifier):
    """DDP2's."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.look()
        return super().training_step(data_batch, batch_nb)


def DDP2(nb: int) -> dict[str, float]:
    """Microseconds a step, from a tenth of the batches to the end of training."""
    model = TimedClassifier(max(1, nb // w.W2_EPOCHS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "us")
        model.time_from(model.nb * w.W2_EPOCHS, str(path))
        W2(nb, model, nb_processes=2)
        return {"value": float(path.read_text())}


class Small(Timed):
    """DDPS's."""

    def __init__(self, nb: int) -> None:
        super().__init__()
        self.net, self.nb = w.ddps_network(), nb

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.look()
        x, y = data_batch
        return {"loss": nn.functional.cross_entropy(self.net(x), y)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(w.ddps_data(self.nb), batch_size=32, shuffle=True)


def DDPS(nb: int) -> dict[str, float]:
    """Microseconds a step, from a tenth of the batches to the end of training."""
    model = Small(max(1, nb // w.DDPS_EPOCHS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "us")
        model.time_from(model.nb * w.DDPS_EPOCHS, str(path))
        fit(model, max_nb_epochs=w.DDPS_EPOCHS, nb_processes=2)
        return {"value": float(path.read_text())}


def BIG(nb: int) -> dict[str, float]:
    """As for lean, and ``nb`` samples, from the start and from the middle, with one process and with two."""
    found = lean_processes.BIG(nb, "ours")
    for prefix, words in (("", ()), ("two_", ("two",))):
        told = {}
        for size in (max(nb // 1000, 20_000), nb):
            with tempfile.TemporaryDirectory() as folder:
                told["more", size] = tell("big", "ours", size, folder, *words)
                told["resume_more", size] = tell("big", "ours", size, folder, *words, "middle")
        for kind in ("more", "resume_more"):
            few, many = (found_at for (its, _), found_at in told.items() if its == kind)
            found |= {f"{prefix}{kind}_{key}": many[key] - few[key] for key in many}
    return found


def CK(nb: int) -> dict[str, float]:
    """Milliseconds that the loop stands still for a save, and the memory that it takes."""
    standing = stalled(max(nb, lean_processes.LEAST))
    with tempfile.TemporaryDirectory() as folder:
        return {**standing, **tell("save_memory", "ours", folder)}


def RESTORE(nb: int) -> dict[str, float]:
    return lean_processes.RESTORE(nb, "ours")


def FSDP2R(nb: int) -> dict[str, float]:
    """Bytes that a resume reads, for each of a process's own shards; ``auto``: where it looks for the checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        new, *resumed = (tell("shards", "ours", folder, how) for how in ("new", "resumed", "auto"))
    value, auto = ((told["read"] - new["read"]) / new["own"] for told in resumed)
    return {"value": value, "auto": auto}


def COLL(nb: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return tell("collectives", "ours", folder)


def START2(nb: int) -> dict[str, float]:
    """Seconds from the start of a script to the end of the first step in the processes that it starts."""
    return lean_processes.until_written([sys.executable], "ours")


COLUMNS = ["global_step", "tng_loss", "lr_0", "acc", "grad_2_norm_total", "gpu_0", "other", "another", "more"]


def REPORT(nb: int) -> dict[str, float]:
    """Seconds of the command, from start to end, and the MB that it writes for ``nb`` rows."""
    draws = torch.randn(nb, len(COLUMNS), generator=torch.Generator().manual_seed(1)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        rows = [",".join(map(str, [10 * n, *row[1:]])) for n, row in enumerate(draws)]
        Path(folder, "metrics.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
        Path(folder, "meta_tags.csv").write_text("key,value\n")
        page = Path(folder, "report.html")
        start = time.perf_counter()
        command = [sys.executable, "-m", "pytorch_lightning", "report", folder, "-o", str(page)]
        subprocess.run(command, check=True, capture_output=True)
        return {"value": time.perf_counter() - start, "mb": page.stat().st_size / 1e6}
