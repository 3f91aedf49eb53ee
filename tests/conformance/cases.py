"""What is run in each strategy and number of processes. A case returns plain data; the tests compare it."""

import contextlib
import copy
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.checkpoints.consolidation import consolidate
from pytorch_lightning.checkpoints.sharded import Cut, is_sharded, write_sharded
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.processes import own_piece
from pytorch_lightning.strategies import STRATEGIES, Distributed, FullySharded
from tests.conformance import models

SHARED = [name for name in STRATEGIES if name not in (None, "dp")]
"""The strategies for several processes: a new one is run through everything by being in the table."""


@dataclass(frozen=True)
class Place:
    """Where a case is run: by which strategy, in how many processes, with how many virtual ranks."""

    backend: Any
    nb: int
    virtual: int
    folder: str
    name: str = ""

    def trainer(self, **options: Any) -> Trainer:
        fixed = {"progress_bar": False, "print_weights_summary": False, "seed": 1, "process_timeout_minutes": 1}
        silence = ("no-validation", "unused-parameter", "distributed-sampler", "not-shuffled")
        return Trainer(
            **{
                "experiment": False,
                "max_nb_epochs": 2,
                "distributed_backend": self.backend,
                "virtual_ranks": self.virtual,
                "silence": silence,
                **fixed,
                **options,
            }
        )

    def path(self, name: str) -> Path:
        return Path(self.folder, f"{self.name}-{self.nb}-{self.virtual}-{name}")


def make(kind: type[models.Net]) -> models.Net:
    torch.manual_seed(0)
    return kind()


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def fit(place: Place, kind: type[models.Net], **options: Any) -> dict[str, Any]:
    model, trainer = make(kind), place.trainer(**options)
    done = trainer.fit(model)
    return {"done": done, **outcome(model, trainer)}


def outcome(model: models.Net, trainer: Trainer) -> dict[str, Any]:
    return {
        "weights": weights_of(model),
        "metrics": {k: v for k, v in trainer.tqdm_metrics.items() if k != "own"},  # a process's own number
        "steps": (trainer.global_step, trainer.current_epoch, trainer._run.progress.nb_optimizer_steps),
        "seen": model.seen,
    }


FITS: dict[str, tuple[type[models.Net], dict[str, Any]]] = {
    "plain": (models.Net, {}),
    "two optimizers": (models.TwoOptimizers, {}),
    "a step per optimizer": (models.Gan, {}),
    "a step per optimizer, accumulated": (models.Gan, {"accumulate_grad_batches": 2}),
    "accumulated": (models.Net, {"accumulate_grad_batches": 2}),
    "accumulated by epoch": (models.Net, {"accumulate_grad_batches": {1: 1, 2: 3}}),
    "counted": (models.Counted, {}),
    "counted and accumulated": (models.Counted, {"accumulate_grad_batches": 2}),
    "clipped by norm": (models.Net, {"gradient_clip": 0.1}),
    "clipped by norm, smooth": (models.Smooth, {"gradient_clip": 0.1}),
    "clipped by value": (models.Net, {"gradient_clip": 0.01, "gradient_clip_algorithm": "value"}),
    "clipped, a step per optimizer": (models.Gan, {"gradient_clip": 0.05}),
    "scheduled": (models.Scheduled, {}),
    "milestones": (models.Net, {"lr_scheduler_milestones": [1]}),
    "line search": (models.Lbfgs, {}),
    "line search, accumulated": (models.Lbfgs, {"accumulate_grad_batches": 2}),
    "waits": (models.Waits, {}),
    "ends early": (models.EndsEarly, {}),
    "ends early, accumulated": (models.EndsEarly, {"accumulate_grad_batches": 2}),
    "skips batches": (models.SkipsBatches, {}),
    "one batch": (models.OneBatch, {"max_nb_epochs": 3}),
    "streamed": (models.Streamed, {}),
    "listed": (models.Listed, {}),
    "own batch sampler": (models.OwnBatches, {}),
    "distributed sampler": (models.WithDistributedSampler, {}),
    "several validation sets": (models.SeveralSets, {}),
    "validated in the middle": (models.Net, {"val_check_interval": 2}),
    "a few steps": (models.Net, {"max_nb_steps": 5}),
    "a share of the data": (models.Net, {"train_percent_check": 0.5, "val_percent_check": 0.6}),
    "a trial": (models.Net, {"fast_dev_run": True}),
    "64": (models.Net, {"precision": "64"}),
    "bf16": (models.Net, {"precision": "bf16"}),
    "16": (models.Net, {"precision": "16"}),
    "16, accumulated and clipped": (
        models.Net,
        {"precision": "16", "accumulate_grad_batches": 2, "gradient_clip": 0.1},
    ),
    "16, a step per optimizer": (models.Gan, {"precision": "16"}),
    "bf16-true": (models.Sgd, {"precision": "bf16-true"}),
    "16-true": (models.Sgd, {"precision": "16-true"}),
    "smooth": (models.Smooth, {}),
    "smooth, accumulated": (models.Smooth, {"accumulate_grad_batches": 2}),
}
"""Fits that must give what one process gives."""

ELASTIC = {
    "sgd": (models.Sgd, {}),
    "sgd, accumulated": (models.Sgd, {"accumulate_grad_batches": 2}),
    "adam, exact": (models.Net, {"exact_elastic": True}),
    "a step per optimizer, exact": (models.Gan, {"exact_elastic": True, "accumulate_grad_batches": 2}),
}
"""Fits of four virtual ranks, on 4, 2 and 1 processes."""

CASES: dict[str, Callable[[Place], Any]] = {}


def case(function: Callable[[Place], Any]) -> Callable[[Place], Any]:
    CASES[function.__name__] = function
    return function


@case
def numbers(place: Place) -> Any:
    """validate, test and predict after a fit."""
    model, trainer = make(models.Net), place.trainer()
    trainer.fit(model)
    few = [models.data(8)[:8]]
    return {
        "validated": trainer.validate(),
        "tested": trainer.test(),
        "predicted": torch.cat(trainer.predict()),
        "predicted one batch": torch.cat(trainer.predict(model, few)),
        "untouched": weights_of(model),
    }


@case
def small_sets(place: Place) -> Any:
    """validate and predict on 1 to 17 samples: fewer batches than processes, and all remainders."""
    model, found = make(models.Small), {}
    trainer = place.trainer(virtual_ranks=None)
    for nb in range(1, 18):
        model.nb_val = nb
        found[nb] = {**trainer.validate(model), "predicted": torch.cat(trainer.predict(model, model.val_dataloader))}
    return found


@case
def rows(place: Place) -> Any:
    """What is written to the log."""
    folder = place.path("rows")
    trainer = place.trainer(
        experiment=None,
        default_save_path=str(folder),
        track_grad_norm=2,
        add_log_row_interval=1,
        silence=("not-shuffled",),
    )
    trainer.fit(make(models.TwoOptimizers))
    if not trainer._processes.is_first:
        return None
    import pandas

    (written,) = folder.glob("*/version_0/metrics.csv")
    frame = pandas.read_csv(written).drop(columns=["created_at", "own"])
    return {"folder": written.parts[-3], "columns": list(frame.columns), "values": torch.from_numpy(frame.to_numpy())}


@case
def checkpoint(place: Place) -> Any:
    """A file of ModelCheckpoint, and the model that it makes."""
    folder = place.path("checkpoints")
    place.trainer(checkpoint_callback=ModelCheckpoint(folder)).fit(make(models.SeesNothing))
    path = folder / "_ckpt_epoch_2.ckpt"
    return {
        "file": torch.load(path, weights_only=True),
        "loaded": weights_of(models.SeesNothing.load_from_checkpoint(path)),
        "tested": place.trainer().test(make(models.SeesNothing), ckpt=path),
        "size": path.stat().st_size,
    }


@case
def resumed(place: Place) -> Any:
    """One epoch and a file; then each file that any place wrote is resumed."""
    path = place.path("epoch-1.ckpt")
    model, trainer = make(models.TwoOptimizers), place.trainer(max_nb_epochs=1)
    trainer.fit(model)
    trainer.save_checkpoint(path)
    again, trainer = make(models.TwoOptimizers), place.trainer(resume=path, virtual_ranks=None)
    trainer.fit(again)
    found = {"itself": outcome(again, trainer)}
    for written in sorted(Path(place.folder).glob("*-epoch-1.ckpt")):
        other, trainer = make(models.TwoOptimizers), place.trainer(resume=written, virtual_ranks=None)
        trainer.fit(other)
        found[written.name] = outcome(other, trainer)
    return found


class SavesOnce(Callback):
    """Makes a rolling save after the first validation and copies it; ``trainer`` is set before the fit."""

    trainer: Any = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, run: Any, metrics: Any) -> None:
        if run.progress.epoch == 0:
            rolling = self.trainer._plan.rolling
            rolling.save(wait=True)
            if rolling.wait_for_newest() is not None:
                save, copy = Path(rolling.wait_for_newest()), self.folder / Path(rolling.wait_for_newest()).name
                self.folder.mkdir()
                shutil.copytree(save, copy) if save.is_dir() else shutil.copy(save, copy)


@case
def pieces(place: Place) -> Any:
    """A rolling save, consolidated if it is sharded, and resumed, also by other numbers of processes."""
    callback = SavesOnce(place.path("pieces"))
    trainer = place.trainer(
        callbacks=[callback],
        checkpoint_callback=ModelCheckpoint(place.path("beside")),
        default_save_path=place.path("rolling"),
        save_every_nb_batches=1000,
    )
    callback.trainer = trainer
    # sums of four are rounded differently on other numbers of processes, and Adam would make much of that
    kinds = {2: models.Gan, 4: models.Sgd}
    trainer.fit(make(kinds[place.virtual]))
    found: dict[str, Any] = {"resumed": {}}
    (save,) = place.path("pieces").glob("step-*")
    found["files"] = sorted(p.name for p in save.iterdir()) if save.is_dir() else []
    if trainer._processes.is_first and save.is_dir():
        file = consolidate(place.path("pieces"), place.path("one.ckpt"))
        found["consolidated"] = torch.load(file, weights_only=True)
        found["beside"] = torch.load(place.path("beside") / "_ckpt_epoch_1.ckpt", weights_only=True)
    for written in sorted(Path(place.folder).glob("*-pieces/step-*")):
        virtual = int(written.parent.name.split("-")[2])
        other = make(kinds[virtual])
        trainer = place.trainer(resume=written, virtual_ranks=None)
        trainer.fit(other)
        found["resumed"][written.parent.name, virtual] = outcome(other, trainer)
    return found


@case
def waiting(place: Place) -> Any:
    """A rolling save of a moment when gradients wait for a later step, resumed as above."""
    callback = SavesOnce(place.path("waiting"))
    if not callback.folder.exists():  # this place's turn comes twice
        trainer = place.trainer(
            callbacks=[callback], default_save_path=place.path("waiting-runs"), save_every_nb_batches=1000
        )
        callback.trainer = trainer
        trainer.fit(make(models.Waits))
    found = {}
    for written in sorted(Path(place.folder).glob("*-waiting/step-*")):
        other = make(models.Waits)
        trainer = place.trainer(resume=written, virtual_ranks=None)
        trainer.fit(other)
        found[written.parent.name] = outcome(other, trainer)
    return found


@case
def half_written(place: Place) -> Any:
    """Shards that the last process can't write: the others learn of it."""
    trainer = place.trainer(max_nb_epochs=1)
    trainer.fit(make(models.Smooth))
    processes = trainer._processes
    good, blocked = place.path("half"), place.path("a-file")
    blocked.write_text("")
    is_last = processes.rank == processes.nb - 1
    try:
        write_sharded(Cut({"epoch": 1}, {}), (blocked if is_last else good) / "step-1", processes)
    except CheckpointError as error:
        return str(error), is_sharded(good / "step-1")
    return "written"


@case
def unwritable(place: Place) -> Any:
    """A checkpoint that the first process can't write: all learn of it."""
    trainer = place.trainer(max_nb_epochs=1)
    trainer.fit(make(models.Smooth))
    blocked = place.path("in-the-way")
    blocked.write_text("")
    try:
        trainer.save_checkpoint(blocked / "x.ckpt")
    except CheckpointError as error:
        return str(error)
    return "written"


class Held(models.Net):
    """Notes how many weights this process holds in hooks between steps."""

    def note(self) -> None:
        counts = [own_piece(p).numel() for p in self.parameters()]
        self.seen.append(sum(counts))

    def on_fit_start(self) -> None:
        self.note()

    def on_batch_end(self) -> None:
        self.note()

    def on_post_performance_check(self) -> None:
        self.note()


@case
def held(place: Place) -> Any:
    """What each process holds between steps, where every layer that has 20 weights is a group."""
    backend = FullySharded(min_parameters=20) if place.backend == "fsdp" else place.backend
    return fit(place, Held, distributed_backend=backend)


@case
def unused(place: Place) -> Any:
    """Parameters that get no gradient."""
    try:
        result: Any = fit(place, models.Unused)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    if place.backend != "ddp":
        return {"default": result, "find": result}
    finding = Place(Distributed(find_unused_parameters=True), place.nb, place.virtual, place.folder)
    return {"default": result, "find": fit(finding, models.Unused)}


@case
def bad_gradient(place: Place) -> Any:
    """The names of parameters whose gradient isn't finite."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        fit(place, models.BadGradient, print_nan_grads=True, max_nb_steps=1, stop_on_nan=False)
    return told.getvalue()


@case
def given_back(place: Place) -> Any:
    """The caller's model after a fit is the one that it was, with trained weights."""
    model = make(models.Tied)
    before = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    kinds = [type(m) for m in model.modules()]
    attributes = [set(vars(m)) for m in model.modules()]
    backend = FullySharded(shard=[nn.Linear]) if place.backend == "fsdp" else place.backend
    trainer = place.trainer(distributed_backend=backend)
    trainer.fit(model)
    trained = outcome(model, trainer)
    after = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    hooks = [t for m in model.modules() for n, t in vars(m).items() if "hooks" in n and isinstance(t, dict) and t]
    plain = all(type(p) is nn.Parameter and p.numel() for p in model.parameters())
    copied = weights_of(copy.deepcopy(model))
    trainer.fit(model)  # a second fit starts from these weights
    return {
        "trained": trained,
        "same objects": before == after,
        "same types": kinds == [type(m) for m in model.modules()],
        "same attributes": [set(vars(m)) - {"_trainer"} for m in model.modules()] == attributes,
        "no hooks": not hooks,
        "plain": plain,
        "copy": copied,
        "second fit": outcome(model, trainer),
    }


@case
def not_gathered(place: Place) -> Any:
    """Each process makes its own numbers of its own batches."""
    return fit(place, models.Net, gather_validation=False)


@case
def scalar(place: Place) -> Any:
    """A parameter without dimensions."""
    try:
        return fit(place, models.Scalar, max_nb_steps=1)["done"]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
