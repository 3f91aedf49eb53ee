"""The collectives of N steps, counted by torch's profiler: of a script that uses torch alone, and of a fit.

``main(folder)`` runs both in each of several processes and writes down, for each case, how many of which kind and size
there were in all steps of an epoch but the first and the last.
"""

import json
import os
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import Distributed, FullySharded

NB = 12
"""Steps of an epoch."""
FROM, TO = 3, 9
"""Those that are counted."""


class Rows(Dataset[Any]):
    """So many that an epoch of a fit has ``3 * NB`` steps, and none of them takes memory."""

    def __len__(self) -> int:
        return 3 * NB * 4 * int(os.environ["WORLD_SIZE"])

    def __getitem__(self, i: int) -> Any:
        return [torch.linspace(-0.1, 0.02 * (i % 7), 256)]


class Net(LightningModule):
    """Two buckets of 256 kB, with ``bucket_cap_mb=0.25``."""

    def __init__(self, batchnorm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(256) if batchnorm else nn.Identity()
        self.net = nn.Sequential(nn.Linear(256, 256), norm, nn.Linear(256, 256), nn.Linear(256, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = self(data_batch[0]).pow(2).mean()
        return {"loss": loss, "prog": {"doubled": 2 * loss}}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"val_loss": self(data_batch[0]).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.001)

    def loader(self) -> Any:
        return DataLoader(Rows(), batch_size=4, shuffle=True)

    tng_dataloader = val_dataloader = property(loader)


def kinds(profiler: Any) -> list[tuple[str, int]]:
    """Each collective: its name, and the numbers that one process gives."""
    found = []
    for event in profiler.events():
        if event.name.startswith("gloo:"):
            shapes = [s for s in event.input_shapes if s]
            found.append((event.name, sum(int(torch.Size(s).numel()) for s in shapes)))
    return found


class Counting(Callback):
    """Profiles the steps that are counted, of the second epoch; or all of that epoch."""

    def __init__(self, whole: bool = False) -> None:
        self.found: list[Any] = []
        self._profiler: Any = None
        self._whole = whole

    def on_batch_end(self, run: Any) -> None:
        place = run.progress.epoch, run.progress.batch_nb + 1
        if place == ((0, NB) if self._whole else (1, FROM)):
            self._profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
            self._profiler.__enter__()
        if place == ((2, 1) if self._whole else (1, TO)):
            self._profiler.__exit__(None, None, None)
            self.found = kinds(self._profiler)


def whole_epoch(folder: str, nb: int) -> list[Any]:
    """All of an epoch of ``nb`` steps, with what comes before and after it."""
    counting = Counting(whole=True)
    fit_with(counting, folder, Net(), buckets(), max_nb_epochs=3, max_nb_tng_batches=nb)
    return counting.found


def raw(kind: str, batchnorm: bool = False, accumulate: int = 1, clip: float = 0.0) -> list[Any]:
    net: Any = Net(batchnorm)
    wrapped: Any = net
    if kind == "ddp":
        wrapped = nn.parallel.DistributedDataParallel(net, bucket_cap_mb=0.25)
    else:
        from torch.distributed.fsdp import fully_shard

        for layer in net.net:
            fully_shard(layer) if isinstance(layer, nn.Linear) else None
        fully_shard(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    profiler: Any = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
    for step in range(TO):
        if step == FROM:
            profiler.__enter__()
        last = (step + 1) % accumulate == 0
        if kind == "fsdp":
            net.set_requires_gradient_sync(last)
        with wrapped.no_sync() if kind == "ddp" and not last else torch.enable_grad():
            wrapped(torch.randn(4, 256)).pow(2).mean().backward()
        if last:
            if clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    profiler.__exit__(None, None, None)
    return kinds(profiler)


def fitted(folder: str, backend: Any, batchnorm: bool = False, accumulate: int = 1, clip: float = 0.0) -> list[Any]:
    counting = Counting()
    options = {"accumulate_grad_batches": accumulate, "gradient_clip": clip, "max_nb_epochs": 2}
    fit_with(counting, folder, Net(batchnorm), backend, **options)
    return counting.found


def fit_with(counting: Counting, folder: str, net: Net, backend: Any, **options: Any) -> None:
    """With a bar, and rows every other step."""
    where = f"{folder}/{os.environ['RANK']}"
    options = {"add_log_row_interval": 2, "seed": 1, "default_save_path": where, "max_nb_tng_batches": NB, **options}
    options["max_nb_val_batches"] = 4
    Trainer(callbacks=[counting], distributed_backend=backend, print_weights_summary=False, **options).fit(net)


def sharded() -> Any:
    return FullySharded(shard=[nn.Linear])


def buckets() -> Any:
    return Distributed(bucket_cap_mb=0.25)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddp": (buckets, {}),
    "ddp norm clipped": (buckets, {"batchnorm": True, "clip": 0.5}),
    "ddp accumulated": (buckets, {"accumulate": 3}),
    "fsdp clipped": (sharded, {"clip": 0.5}),
    "fsdp accumulated": (sharded, {"accumulate": 3}),
}


def main(folder: str, compares: bool = True) -> None:
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    found: dict[str, Any] = {}
    for case, (backend, options) in CASES.items() if compares else [("ddp", CASES["ddp"])]:
        found[f"raw {case}"] = raw(case[:4].strip(), **options)
        found[f"fit {case}"] = fitted(folder, backend(), **options)
    if compares:
        found["short epoch"], found["long epoch"] = (whole_epoch(folder, nb) for nb in (NB, 3 * NB))
    told: dict[str, Any] = {k: sorted(Counter(map(tuple, v)).items()) for k, v in found.items()}
    told["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path(folder, f"counted_{os.environ['RANK']}.json").write_text(json.dumps(told))
