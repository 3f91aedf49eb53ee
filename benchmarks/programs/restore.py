"""RESTORE: python -m benchmarks.programs.restore CONTESTANT FOLDER new|resumed

``new`` trains a step and writes a checkpoint of 1 GB (84 million parameters with Adam); ``resumed`` goes on from it.
Both print the seconds from where training is asked for to the beginning of the first step (``first``) and to its end
(``second``), and the most private memory until the first step, for each byte of the state, over what the process had
before it made the model. The time of a restore is that of ``resumed`` without that of ``new``: each does all else too.

By hand a restore is ``torch.load(mmap=True)`` and ``load_state_dict``. What is mapped from a file isn't private, and
some of it is read in the first step only: that is why its end is measured too.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import workloads as w
from benchmarks.programs.memory import Watch, megabytes

STARTS: list[float] = []
PEAK: list[float] = []
LAYERS = 80


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(LAYERS)))


def batches(nb: int) -> Any:
    return [torch.ones(1, 1024)] * nb


STATE = 3 * LAYERS * (1024 + 1) * 1024 * 4 / 2**20
"""MB of the weights, and of two numbers of Adam's for each."""


def begin(watch: Watch) -> None:
    """A step begins."""
    if not STARTS:
        PEAK.append(watch.peak())
    STARTS.append(time.perf_counter())


def lean(folder: Path, resumed: bool) -> float:
    watch, path = Watch(), folder / "state.pt"
    net = network()
    start = time.perf_counter()
    optimizer = torch.optim.Adam(net.parameters())
    if resumed:
        state = torch.load(path, mmap=True, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        del state
    for x in batches(2):
        begin(watch)
        optimizer.zero_grad()
        net(x).pow(2).mean().backward()
        optimizer.step()
    if not resumed:
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, path)
    return start


def ours(folder: Path, resumed: bool) -> float:
    from pytorch_lightning import LightningModule, Trainer

    class Wide(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            begin(watch)
            return {"loss": self.net(data_batch).pow(2).mean()}

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

        @property
        def tng_dataloader(self) -> Any:
            return batches(8)

    path = folder / "state.ckpt"
    options: dict[str, Any] = {"resume": path, "max_nb_steps": 4} if resumed else {"max_nb_steps": 2}
    watch = Watch()
    model = Wide()
    start = time.perf_counter()
    trainer = Trainer(max_nb_epochs=1, default_save_path=str(folder), **options)
    trainer.fit(model)
    if not resumed:
        trainer.save_checkpoint(path)
    return start


def main(name: str, folder: str, how: str) -> None:
    w.import_optimizers()
    before = megabytes("RssAnon")
    start = globals()[name](Path(folder), how == "resumed")
    memory = (PEAK[0] - before) / STATE
    print(json.dumps({"first": STARTS[0] - start, "second": STARTS[1] - start, "memory": memory}))


if __name__ == "__main__":
    main(*sys.argv[1:])
