"""A model of a few MB whose weights are sharded, and how many bytes each process reads to resume it.

``main(folder, what)``: ``train`` trains two steps and saves shards; ``resume`` resumes, and trains on to the fourth.
"""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import FullySharded

WIDTH, DEPTH = 768, 4


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH)))
        self.odd = nn.Linear(WIDTH, 5)
        self.register_buffer("mean", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.odd(self.net(x))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self(data_batch).pow(2).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-4)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(torch.linspace(-1, 1, 48 * WIDTH).view(48, WIDTH), batch_size=2)  # type: ignore[arg-type]


class Whole(Net):
    """Looks at what it is restored from."""

    def on_load_checkpoint(self, checkpoint: Any) -> None:
        assert checkpoint["state_dict"]["net.0.weight"].shape == (WIDTH, WIDTH)


def read_so_far() -> int:
    """Bytes that this process has read from files and elsewhere, by the kernel's count."""
    return int(Path("/proc/self/io").read_text().split()[1])


SEEN: dict[str, int] = {}


class Noting(Callback):
    def on_fit_start(self, run: Any) -> None:
        SEEN["read"] = read_so_far()
        pieces = [p.to_local() if hasattr(p, "to_local") else p for p in run.module.parameters()]
        SEEN["own"] = 3 * sum(piece.nbytes for piece in pieces)  # each with two moments


def trainer(folder: str, **options: Any) -> Trainer:
    backend = FullySharded(shard=[nn.Linear])
    quiet = {"progress_bar": False, "print_weights_summary": False, "seed": 1}
    return Trainer(
        callbacks=[Noting()],
        distributed_backend=backend,
        virtual_ranks=12,
        default_save_path=folder,
        **quiet,
        **options,
    )


def main(folder: str, what: str, whole: bool = False) -> None:
    warnings.filterwarnings("error", ".*TypedStorage")
    rank, kind = os.environ["RANK"], Whole if whole else Net
    if what == "train":
        there = trainer(folder, max_nb_steps=2, save_every_nb_batches=2, resume="auto")
        there.fit(kind())
        return
    if what.startswith("again"):
        there = trainer(folder, max_nb_steps=4, save_every_nb_batches=2, keep_saves="spaced", resume="auto")
        net = kind()
        there.fit(net)
        found = {"weights": {k: v.tolist() for k, v in sums(net).items()}, "steps": there.global_step}
        Path(folder, f"{what}_{rank}.json").write_text(json.dumps(found))
        return
    (save,) = Path(folder).glob("Net/**/step-*.ckpt")
    trainer(f"{folder}/warm", max_nb_steps=1).fit(kind())  # imports what a fit does
    net = kind()
    before = read_so_far()
    trainer(f"{folder}/{what}", max_nb_steps=4, resume=str(save)).fit(net)
    found = {
        "read": SEEN["read"] - before,
        "own": SEEN["own"],
        "weights": {k: v.tolist() for k, v in sums(net).items()},
    }
    Path(folder, f"{what}_{rank}.json").write_text(json.dumps(found))


def sums(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().double().reshape(-1)[::97] for name, p in net.named_parameters()}
