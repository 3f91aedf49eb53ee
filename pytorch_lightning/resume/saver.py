"""A fit as a checkpoint, and back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim import Optimizer

from pytorch_lightning.checkpoints.checkpoint import (
    FORMAT,
    TRAINER_KEYS,
    Part,
    averages_in,
    fitting,
    may_be_absent,
    module_part,
    plain_hparams,
    to_plain,
)
from pytorch_lightning.checkpoints.store import write_checkpoint
from pytorch_lightning.errors import CheckpointError, FitError, noting
from pytorch_lightning.processes import own_piece
from pytorch_lightning.resume.parts import load_part
from pytorch_lightning.root_module.arguments import arguments_part
from pytorch_lightning.run.metrics import at
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.optimizers import Schedule
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.version import __version__

TOGETHER = "after a fit on several processes each of them must call save_checkpoint: rank 0 writes the file"


class UnwrittenCheckpoint(CheckpointError):
    """A file that can't be written now; every process is told so."""


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Writes and restores a fit."""

    module: Any
    run: FitRun
    optimizers: Sequence[Optimizer]
    schedules: Sequence[Schedule]
    parts: dict[str, Part]
    stop_on_nan: bool
    strategy: Strategy
    own_data: bool = False
    """Whether each process has data of its own, whose state it tells the first."""
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The scope in which a checkpoint is made, and copied or written."""

    @property
    def saves_together(self) -> bool:
        """Whether every process must take part in making a checkpoint."""
        return self.own_data or self.strategy.saves_together

    def checkpoint(self, weights_only: bool = False, whole: bool = True) -> dict[str, Any]:
        """Everything as one dict of plain data; without ``whole`` sharded tensors stay sharded."""
        gather: Any = self.strategy.whole if whole else (lambda data: data)
        progress = self.run.progress
        self.run.tick()
        checkpoint: dict[str, Any] = {
            **gather(module_part(self.module)),
            "epoch": progress.epoch,
            "global_step": progress.global_step,
            "hparams": plain_hparams(self.module.hparams, self.run.notices),
            "init_arguments": arguments_part(self.module),
            "format": FORMAT,
            "library": f"pytorch-lightning-classic {__version__}, torch {torch.__version__}",
        }
        if not weights_only:
            checkpoint["optimizer_states"] = [gather(o.state_dict()) for o in self.optimizers]
            checkpoint["lr_schedulers"] = [schedule.scheduler.state_dict() for schedule in self.schedules]
            parts: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
            sharded = _sharded_in(parts["callbacks"]) if self.strategy.saves_together else []
            checkpoint["parts"] = gather({**parts, "sharded": sharded} if sharded else parts)
        elif averages := averages_in(self.parts["callbacks"].state_dict()):
            checkpoint["parts"] = gather({"callbacks": averages})
        if whole and not self.strategy.processes.is_first:
            return {}
        own = {key: checkpoint[key] for key in TRAINER_KEYS if key in checkpoint}
        self.module.on_save_checkpoint(checkpoint)
        changed = [key for key, value in own.items() if checkpoint.get(key) is not value]
        if changed:
            raise CheckpointError(
                f"on_save_checkpoint changed the keys {changed}, which are the trainer's own. Rename yours."
            )
        return {key: to_plain(value, f"checkpoint[{key!r}]") for key, value in checkpoint.items()}

    @contextmanager
    def with_all(self, weights_only: bool = False) -> Iterator[None]:
        """In it a checkpoint has what is each process's own, and is copied or written. Every process enters it."""
        is_whole = self.strategy.processes.nb == 1 or weights_only
        attributes, gradients = (cast("Any", self.parts[name]) for name in ("attributes", "gradients"))
        with self.around(), nullcontext() if is_whole else attributes.together():
            with nullcontext() if is_whole else gradients.together(), self._epochs_together(is_whole):
                yield

    @contextmanager
    def _epochs_together(self, is_whole: bool) -> Iterator[None]:
        metrics, processes = self.run.metrics, self.strategy.processes
        if is_whole or not processes.any(metrics.of_epoch is not None):
            yield
            return
        metrics.of_epoch = metrics.of_epoch or metrics.make_of_epoch()
        metrics.of_epoch.join(processes)
        try:
            yield
        finally:
            metrics.of_epoch.leave()

    def save(self, path: str | Path, weights_only: bool = False) -> bool:
        """Write a checkpoint; False where it was left out since a weight isn't finite."""
        with nullcontext() if self.run.running else noting(TOGETHER):
            return self._save(path, weights_only)

    def _save(self, path: str | Path, weights_only: bool) -> bool:
        if not self.is_finite(str(path)):
            return False
        processes = self.strategy.processes
        problem = None
        with self.with_all(weights_only):
            checkpoint = self.checkpoint(weights_only) if processes.is_first or self.saves_together else {}
            try:
                if processes.is_first:
                    write_checkpoint(checkpoint, path)
            except CheckpointError as error:
                problem = str(error)
        # no process continues before the file exists, and none waits for one that couldn't write it
        problem = processes.from_first(problem)
        if problem is not None:
            raise UnwrittenCheckpoint(problem)
        return True

    def check_replicas(self) -> None:
        """Raises ``FitError`` where processes have trained different weights."""
        different = self.strategy.first_difference(self.module)
        if different is not None:
            raise FitError(
                f"the weights of the processes aren't the same any more: {different} isn't that of process 0."
                " Something changed them in one process only. Change weights in every process, and by the same"
                f" numbers: outside of a step nothing is exchanged. {at(self.run.progress)}"
            )

    def is_finite(self, what: str) -> bool:
        """Whether every weight is; otherwise ``what`` isn't to be written, which is an error or a notice."""
        weights = (own_piece(p) for p in self.module.parameters() if p.is_floating_point() or p.is_complex())
        finite = all(map(is_finite, weights))
        if all(self.strategy.processes.gather(finite)) if self.saves_together else finite:
            return True
        text = f"a weight isn't finite, so {what} isn't written; earlier checkpoints are kept"
        if self.stop_on_nan:
            raise FitError(f"{text}. Lower the learning rate, or clip gradients.")
        self.run.notices.say_again("weights-not-finite", text)
        return False

    def restore(self, checkpoint: dict[str, Any], path: str) -> None:
        """Put back everything but the module, and the loggers, which are made later."""
        from pytorch_lightning.resume.sharded_state import sharded_again

        saved = checkpoint["parts"]
        absent = sorted({*self.parts, "loggers"} - set(saved) - may_be_absent(checkpoint))
        if absent:
            raise CheckpointError(f"{path} can't be resumed from: it lacks the parts {', '.join(absent)}.")
        for kind, states, targets in (
            ("optimizers", checkpoint["optimizer_states"], list(self.optimizers)),
            ("schedulers", checkpoint["lr_schedulers"], [s.scheduler for s in self.schedules]),
        ):
            if len(states) != len(targets):
                raise CheckpointError(
                    f"{path} doesn't fit configure_optimizers: it holds {len(states)} {kind}, and that gives"
                    f" {len(targets)}. Resume with the model that wrote it."
                )
            for target, state in zip(targets, states, strict=True):
                state = self.strategy.shard_optimizer_state(target, state) if kind == "optimizers" else state
                load_part(target, state, f"{path}: {type(target).__name__}")
        with fitting(f"{path}: callbacks"):
            nb = saved.get("attributes", {}).get("nb", 0)
            callbacks = sharded_again(saved["callbacks"], saved.get("sharded", []), self.strategy, self.module, nb)
        for name in (name for name in self.parts if name in saved):
            load_part(self.parts[name], callbacks if name == "callbacks" else saved[name], f"{path}: {name}")
        for optimizer in self.optimizers if self.run.progress.nb_optimizer_steps else ():
            optimizer._opt_called = True  # type: ignore[attr-defined]  # or a schedule that steps first is warned of


def _sharded_in(state: Any) -> list[Any]:
    from pytorch_lightning.resume.sharded_state import places_of

    return places_of(state)


def is_finite(weight: torch.Tensor) -> bool:
    """Whether every value is: where the sum of real numbers is, all are, and that is found ten times as fast."""
    if weight.dtype == torch.float4_e2m1fn_x2:
        return True  # it has no other numbers
    if weight.dtype.itemsize == 1:  # torch has neither a sum nor ``isfinite`` of these
        weight = weight.float()
    return (not weight.is_complex() and isfinite(weight.sum().item())) or bool(torch.isfinite(weight).all())
