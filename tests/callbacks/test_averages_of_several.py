"""Averages of the weights in several processes, and of runs that are killed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launchers.ranks import in_ranks

PROGRAM = """
import json, os, signal, torch
from pathlib import Path
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from tests.callbacks.test_weight_averaging import NB_EPOCHS, Net, Watcher
from tests.recorder import QUIET

options, rank = json.loads(os.environ["OPTIONS"]), os.environ.get("RANK", "0")
kill_at, has_bn, is_manual = options.pop("kill_at", None), options.pop("bn", False), options.pop("manual", False)


class Killed(Net):
    automatic_optimization = not is_manual

    def training_step(self, data_batch, batch_nb):
        output = super().training_step(data_batch, batch_nb)
        if self.automatic_optimization:
            return output
        self.manual_step(0, output)
        if batch_nb % 2:
            self.manual_step(0, super().training_step(data_batch, batch_nb))

    def on_batch_end(self):
        if self.global_step == kill_at:
            if rank == "0":
                trainer._plan.rolling._writer and trainer._plan.rolling._writer.wait()
            trainer._strategy.processes.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    def __init__(self):
        super().__init__()
        self.layers[1] = self.layers[1] if has_bn else torch.nn.Identity()


kind = options.pop("kind", "ema")
decay = {"decay": 0.9} if kind == "ema" else {}
averaging = WeightAveraging(kind, **decay, start=2, every=2, **options.pop("average", {}))
watcher, keep = Watcher(), ModelCheckpoint("best", save_top_k=1)
trainer = Trainer(callbacks=[averaging, watcher], checkpoint_callback=keep, **{
    **QUIET, "max_nb_epochs": NB_EPOCHS, "virtual_ranks": 2, "save_every_nb_batches": 1, "resume": "auto",
    "default_save_path": "logs", **options})
model = Killed()
trainer.fit(model)
own = [p.tolist() for p in model.parameters()]
best = trainer.test(model, ckpt="best", weights="average")["val_loss"]
loaded = [p.tolist() for p in model.parameters()]
state = averaging.state_dict()
last = trainer.test(model, weights="average")["val_loss"]
told = {"own": own, "average": {n: t.tolist() for n, t in state["weights"].items()}, "nb": state["nb"],
        "values": watcher.values, "loaded": loaded, "best": best, "kept": keep.best, "last": last}
Path(f"told_{rank}.json").write_text(json.dumps(told))
"""


def told(folder: Path, nb: int, **options: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    done = in_ranks(folder, PROGRAM, nb=nb, OPTIONS=json.dumps(options))
    if "kill_at" in options:
        assert "SIGKILL" in done.stderr, done.stderr
        return {}
    assert done.returncode == 0, done.stderr
    each = [json.loads((folder / f"told_{rank}.json").read_text()) for rank in range(nb)]
    assert all(one == each[0] for one in each)
    assert each[0]["best"] == pytest.approx(each[0]["kept"], rel=1e-6)
    return each[0]  # type: ignore[no-any-return]


def assert_close(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["nb"] == other["nb"]
    for name, values in one["average"].items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(other["average"][name]))
    torch.testing.assert_close(one["values"], other["values"])


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_same_in_one_process_and_several(tmp_path: Path, kind: str) -> None:
    one = told(tmp_path / "one", 1, kind=kind, bn=True)
    two = told(tmp_path / "two", 2, kind=kind, bn=True)
    sharded = told(tmp_path / "sharded", 2, kind=kind, bn=True, distributed_backend="fsdp")
    assert one["nb"] > 3
    assert_close(one, two)
    assert_close(one, sharded)


@pytest.mark.parametrize("backend", ["ddp", "fsdp"])
def test_killed_and_resumed(tmp_path: Path, backend: str) -> None:
    options = {"distributed_backend": backend, "bn": True}
    whole = told(tmp_path / "whole", 2, **options)
    for kill_at in (1, 5, 9):
        folder = tmp_path / str(kill_at)
        told(folder, 2, kill_at=kill_at, **options)
        again = told(folder, 2, **options)
        again["values"] = whole["values"][: len(whole["values"]) - len(again["values"])] + again["values"]
        assert again == whole, kill_at


@pytest.mark.parametrize(("before", "after", "backend"), [(2, 1, "fsdp"), (1, 2, "fsdp"), (2, 1, "ddp")])
def test_on_another_number_of_processes(tmp_path: Path, before: int, after: int, backend: str) -> None:
    whole = told(tmp_path / "whole", before, distributed_backend=backend)
    told(tmp_path / "cut", before, distributed_backend=backend, kill_at=5)
    again = told(tmp_path / "cut", after, distributed_backend=backend)
    again["values"] = whole["values"][:1] + again["values"][-2:]
    assert_close(again, whole)


def test_statistics_of_batch_norm_in_several_processes(tmp_path: Path) -> None:
    one = told(tmp_path / "one", 1, bn=True, average={"update_bn": True})
    two = told(tmp_path / "two", 2, bn=True, average={"update_bn": True})
    assert_close(one, two)


def test_a_finished_run_that_is_begun_again_has_the_whole_average(tmp_path: Path) -> None:
    first = told(tmp_path, 2, distributed_backend="fsdp")
    again = told(tmp_path, 2, distributed_backend="fsdp")
    assert again["average"] == first["average"]
    assert (again["nb"], again["last"]) == (first["nb"], first["last"])


def test_own_steps_average_the_buffers_of_the_first_process(tmp_path: Path) -> None:
    options = {"bn": True, "manual": True, "uneven_batches": "drop"}
    whole = told(tmp_path / "whole", 2, **options)  # alike in both
    told(tmp_path / "cut", 2, kill_at=5, **options)
    again = told(tmp_path / "cut", 2, **options)
    again["values"] = whole["values"][: len(whole["values"]) - len(again["values"])] + again["values"]
    assert again == whole
