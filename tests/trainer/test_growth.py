"""A long fit costs late what it costs early."""

import gc
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytorch_lightning import LightningModule
from tests.recorder import quiet_trainer

NB, WINDOW = 50_000, 500
EARLY, LATE = range(1_000, 3_000, WINDOW), range(NB - 2_000, NB, WINDOW)


class Still(torch.optim.Optimizer):
    """Leaves everything as it is, in no time."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


class Marked(LightningModule):
    """One weight. Over the first window of each range it counts the calls, over the others it takes the time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls: dict[int, int] = {}
        self.seconds: dict[int, float] = {}
        self.blocks: dict[int, int] = {}
        self.now = -1

    def count(self, frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.calls[self.now] += 1

    def mark(self, batch_nb: int) -> None:
        sys.setprofile(None)
        if self.now in self.seconds:
            self.seconds[self.now] = time.process_time() - self.seconds[self.now]
        self.now = batch_nb
        if batch_nb in (EARLY[0], LATE[0]):
            gc.collect()
            self.blocks[batch_nb] = sys.getallocatedblocks()
            self.calls[batch_nb] = 0
            sys.setprofile(self.count)
        elif batch_nb in EARLY or batch_nb in LATE:
            self.seconds[batch_nb] = time.process_time()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if batch_nb % WINDOW == 0:
            self.mark(batch_nb)
        loss = (self.weight * data_batch).sum()
        return {"loss": loss, "prog": {"own": loss}}

    def configure_optimizers(self) -> Any:
        return Still(self.parameters(), {})

    @property
    def tng_dataloader(self) -> Any:
        return [torch.ones(1)] * (NB + 1)


def test_a_step_costs_the_same_after_50_000_and_memory_is_flat(tmp_path: Path) -> None:
    model = Marked()
    quiet_trainer(tmp_path, max_nb_epochs=1, progress_bar=True).fit(model)
    early, late = model.calls[EARLY[0]], model.calls[LATE[0]]
    assert abs(late - early) < 0.02 * early, (early, late)
    assert model.blocks[LATE[0]] - model.blocks[EARLY[0]] < 500, model.blocks
    # what grows inside a single call, a list that is copied say, only time shows
    seconds = [min(model.seconds[n] for n in places[1:]) for places in (EARLY, LATE)]
    assert seconds[1] < 2 * seconds[0], model.seconds
