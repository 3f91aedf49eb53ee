"""Layers that are frozen first, and optimizers with two modes, in several processes that are killed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.callbacks.test_schedule_free import Averaged
from tests.callbacks.test_unfreeze import Net
from tests.launchers.ranks import in_ranks

NB_EPOCHS = 4

PROGRAM = """
import json, os, signal, torch
from pathlib import Path
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ScheduleFree, Unfreeze
from tests.callbacks.test_schedule_free import Averaged
from tests.callbacks.test_unfreeze import Net
from tests.recorder import QUIET

options, rank = json.loads(os.environ["OPTIONS"]), os.environ.get("RANK", "0")
kill_at, free = options.pop("kill_at", None), options.pop("free", False)


class Killed(Net):
    def on_batch_end(self):
        if self.global_step == kill_at:
            if rank == "0":
                trainer._plan.rolling._writer and trainer._plan.rolling._writer.wait()
            trainer._strategy.processes.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    def configure_optimizers(self):
        return Averaged(self.parameters(), 0.3) if free else super().configure_optimizers()

    def validation_step(self, data_batch, batch_nb):
        return {"val_loss": self.training_step(data_batch, batch_nb)}

    @property
    def val_dataloader(self):
        return self.tng_dataloader


callback = ScheduleFree() if free else Unfreeze({"backbone.top": 1, "backbone": 2}, lr_factor=0.25)
trainer = Trainer(callbacks=[callback], **{
    **QUIET, "max_nb_epochs": 4, "virtual_ranks": 2, "save_every_nb_batches": 1, "resume": "auto",
    "default_save_path": "logs", **options})
model = Killed()
trainer.fit(model)
told = [[p.tolist() for p in model.parameters()], trainer.metrics["val_loss"], trainer.validate()["val_loss"]]
Path(f"told_{rank}.json").write_text(json.dumps(told))
"""


def told(folder: Path, nb: int, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    done = in_ranks(folder, PROGRAM, nb=nb, OPTIONS=json.dumps(options))
    if "kill_at" in options:
        assert "SIGKILL" in done.stderr, done.stderr
        return None
    assert done.returncode == 0, done.stderr
    each = [json.loads((folder / f"told_{rank}.json").read_text()) for rank in range(nb)]
    assert all(one == each[0] for one in each)
    return each[0]


def by_hand(free: bool) -> tuple[list[Any], float]:
    """Plain torch: each batch of a pair has a copy of the model, and the statistics of the first one stay. The weights,
    and what they are validated with."""
    model, rates = Net(), (0.02, 0.005, 0.005)
    batches, backbone = list(model.tng_dataloader), model.backbone
    if free:
        optimizer: Any = Averaged(model.parameters(), 0.3)
        optimizer.train()
    else:
        backbone.requires_grad_(False)
        backbone.top[1].eval()
        backbone.bottom[1].eval()
        optimizer = torch.optim.AdamW(model.head.parameters(), rates[0], weight_decay=0.1)
    for epoch in range(NB_EPOCHS):
        if epoch in (1, 2) and not free:
            half = backbone.top if epoch == 1 else backbone.bottom
            half.requires_grad_(True).train()
            optimizer.add_param_group({"params": list(half.parameters())})
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            group["lr"] = group["lr"] if free else rate * 0.5**epoch
        for first, second in zip(batches[::2], batches[1::2], strict=True):
            optimizer.zero_grad()
            other = copy.deepcopy(model)
            model.training_step(first, 0).backward()
            other.training_step(second, 0).backward()
            for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
                if mine.grad is not None:
                    mine.grad = (mine.grad + theirs.grad) / 2
            optimizer.step()
    if free:
        optimizer.eval()
    model.eval()
    with torch.no_grad():
        value = sum(float(model.training_step(batch, 0)) for batch in batches) / len(batches)
    return [p.tolist() for p in model.parameters()], value


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("backend", ["ddp", "fsdp"])
def test_the_same_in_several_processes_and_after_kills(tmp_path: Path, backend: str, free: bool) -> None:
    options = {"distributed_backend": backend, "free": free}
    weights, value = by_hand(free)
    one, whole = told(tmp_path / "one", 1, free=free), told(tmp_path / "whole", 2, **options)
    for trained in (one, whole):
        for values, others in zip(trained[0], weights, strict=True):
            torch.testing.assert_close(torch.tensor(values), torch.tensor(others), rtol=1e-4, atol=1e-5)
        assert trained[1:] == pytest.approx([value, value], rel=1e-4)
    for kill_at in (2, 7):
        told(tmp_path / str(kill_at), 2, kill_at=kill_at, **options)
        assert told(tmp_path / str(kill_at), 2, **options) == whole, kill_at
    told(tmp_path / "fewer", 2, kill_at=7, **options)
    fewer = told(tmp_path / "fewer", 1, free=free)
    for values, others in zip(fewer[0], weights, strict=True):
        torch.testing.assert_close(torch.tensor(values), torch.tensor(others), rtol=1e-4, atol=1e-5)
