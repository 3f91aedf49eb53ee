"""CK's memory: python -m benchmarks.programs.save_memory CONTESTANT FOLDER

The most memory while saves are made, above the most of steps without one, for each byte of the state (model and Adam).
Saves are made after the tenth and the twentieth of 25 steps.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import workloads as w
from benchmarks.programs.memory import forget_peak, megabytes

STATE = 3 * sum(p.numel() * p.element_size() for p in w.ck_network().parameters()) / 2**20
"""MB: the weights, and two numbers of Adam's for each."""
NB, QUIET = 25, 3
"""Steps, and the one from which on the memory of steps is looked at."""
SEEN: list[float] = []


def look(n: int) -> None:
    """Step ``n`` begins."""
    if n == QUIET:
        forget_peak()
    if n == 9:
        SEEN.append(megabytes("VmHWM"))
        forget_peak()


def lean(folder: str) -> None:
    from benchmarks.contestants.lean_fits import save_durably

    net = w.ck_network()
    optimizer = torch.optim.Adam(net.parameters())
    for n, x in enumerate(w.ck_batches(NB)):
        look(n)
        optimizer.zero_grad()
        net(x).pow(2).mean().backward()
        optimizer.step()
        if n % 10 == 9:
            save_durably({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder, "kept.pt"))


def ours(folder: str) -> None:
    from benchmarks.contestants.ours import Large
    from pytorch_lightning import Trainer

    class Watched(Large):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            look(batch_nb)
            return super().training_step(data_batch, batch_nb)

    trainer = Trainer(max_nb_epochs=1, default_save_path=folder, save_every_nb_batches=10)
    trainer.fit(Watched(NB))


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
    print(json.dumps({"peak": max(0.0, megabytes("VmHWM") - SEEN[0]) / STATE}))
