"""A run that loses its processes, and ends with the weights of one that kept them.

``python elastic.py`` trains the same classifier twice. The first run has four processes from its first batch to its
last. The second starts with four, loses two of them to SIGKILL, goes on with two, then with one, and ends with four
again. The program prints how far their weights are apart: not a bit with ``exact_elastic=True``, and what rounding
makes of another order of sums without it (``--rounded``).
"""

import os
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer

STARTS = ((4, 12), (2, 22), (1, 32), (4, None))
"""How many processes each start has, and the batch in which half of them are lost (None: it trains to its end)."""


class Classifier(LightningModule):
    """Tells three kinds of waves apart."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 3))

    def training_step(self, data_batch: list[Tensor], batch_nb: int) -> Tensor:
        self.perhaps_lost()
        x, y = data_batch
        return F.cross_entropy(self.network(x), y)

    def perhaps_lost(self) -> None:
        """The upper half of the processes is killed in the batch that ``LOST_AT`` names."""
        is_upper = self.trainer.proc_rank >= self.trainer.world_size // 2
        if is_upper and str(self.global_step) == os.environ.get("LOST_AT"):
            os.kill(os.getpid(), signal.SIGKILL)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        draw = torch.Generator().manual_seed(0)
        kind = torch.arange(960) % 3
        x = (torch.linspace(0, 6, 32) * (1 + kind[:, None])).sin() + torch.randn(960, 32, generator=draw)
        return DataLoader(TensorDataset(x, kind), batch_size=8, shuffle=True)


def train(given: Namespace) -> None:
    """One start of a run: it goes on from the newest save in the folder."""
    torch.manual_seed(0)
    trainer = Trainer(
        nb_processes=given.nb_processes,
        virtual_ranks=4,
        exact_elastic=not given.rounded,
        resume="auto",
        save_every_nb_batches=5,
        max_nb_epochs=2,
        default_save_path=given.folder,
        progress_bar=False,
        print_weights_summary=False,
        seed=1,
        silence=("no-validation",),
    )
    trainer.fit(model := Classifier())
    torch.save(model.state_dict(), f"{given.folder}/weights.pt")


def start(folder: Path, nb_processes: int, lost_at: int | None, rounded: bool) -> None:
    """Start this program on the run in ``folder``. Exits with what it said if it didn't end as it should."""
    command = [sys.executable, __file__, "--folder", str(folder), "--nb_processes", str(nb_processes)]
    done = subprocess.run(
        command + ["--rounded"] * rounded,
        env={**os.environ, "LOST_AT": str(lost_at)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if (done.returncode == 0) != (lost_at is None):
        raise SystemExit(done.stdout)


def compare(folder: Path, rounded: bool, starts: Sequence[tuple[int, int | None]] = STARTS) -> None:
    """Both runs, and what is different between their weights."""
    start(folder / "kept", starts[0][0], None, rounded)
    for nb_processes, lost_at in starts:
        saves = sorted((folder / "lost").rglob("step-*.ckpt"))
        begins = f"from batch {int(saves[-1].stem[5:])}" if saves else "from the start"
        start(folder / "lost", nb_processes, lost_at, rounded)
        ends = "to the end" if lost_at is None else f"lost {(nb_processes + 1) // 2} in batch {lost_at}"
        print(f"{nb_processes} process{'es' * (nb_processes > 1)}, {begins}: {ends}")
    kept, lost = (torch.load(folder / name / "weights.pt") for name in ("kept", "lost"))
    pairs = [(kept[name].flatten(), lost[name].flatten()) for name in kept]
    a, b = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    print(f"{int((a != b).sum())} of {len(a)} weights differ, by at most {float((a - b).abs().max()):.1g}")


def main() -> None:
    parser = ArgumentParser(description="Train a run that loses its processes, and compare it with one that doesn't.")
    parser.add_argument("--folder", default="elastic_runs", help="where both runs lie; a new folder")
    parser.add_argument("--rounded", action="store_true", help="without exact_elastic")
    parser.add_argument("--nb_processes", type=int, help="train once with so many processes, and compare nothing")
    given = parser.parse_args()
    if given.nb_processes is None and Path(given.folder).exists():
        parser.error(f"{given.folder} exists: its runs would be resumed. Remove it, or pass --folder.")
    if given.nb_processes is None:
        compare(Path(given.folder), given.rounded)
    else:
        train(given)


if __name__ == "__main__":
    main()
