"""A fit as a checkpoint, and back."""

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from pytorch_lightning import __version__, seeding
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.checkpoint import (
    FORMAT,
    TRAINER_KEYS,
    Part,
    module_part,
    plain_hparams,
    to_plain,
)
from pytorch_lightning.checkpoints.store import write_checkpoint
from pytorch_lightning.data.loader import ReplayableLoader
from pytorch_lightning.errors import CheckpointError, FitError, Notices
from pytorch_lightning.processes import own_piece
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.trainer.hooks import is_overridden
from pytorch_lightning.trainer.optimizers import Schedule
from pytorch_lightning.trainer.run import FitRun


class DataPart:
    """Where the training data is: the seed, the epoch's length, and a checksum of the indices so far."""

    def __init__(
        self, loader: ReplayableLoader, run: FitRun, seed: int, check: str, nb_virtual: int, sizes: dict[str, int]
    ) -> None:
        self._loader, self._run, self._seed, self._check = loader, run, seed, check
        self._nb_virtual, self._sizes = nb_virtual, sizes

    def state_dict(self) -> dict[str, Any]:
        nb_done = self._run.progress.batch_nb
        return {
            "seed": self._seed,
            "virtual_ranks": self._nb_virtual,
            "sizes": self._sizes,
            "indices_crc": self._loader.crc_at(nb_done) if nb_done else None,
            "workers": self._loader.bound_to_workers,
            "sampler": self._loader.sampler_state(begun=nb_done > 0),
            "loader": self._loader.own_state(self._run.progress.epoch),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        before = state.get("sizes", self._sizes)
        changed = [f"{k} was {before[k]} and is {v}" for k, v in self._sizes.items() if before.get(k, v) != v]
        if changed:
            text = f"the training data changed since the checkpoint: {', '.join(changed)}"
            self._refuse(text)
            self._run.notices.say("other-data", text)
        workers, now = state.get("workers"), self._loader.bound_to_workers
        if workers != now and None not in (workers, now):
            text = f"the order of an IterableDataset depends on its workers: num_workers was {workers} and is {now}"
            self._refuse(text)
            self._run.notices.say("other-data", text)
        if state.get("sampler") is not None:
            self._loader.load_sampler(state["sampler"], self._run.progress.epoch, self._run.progress.batch_nb)
        if state.get("loader") is not None:
            self._loader.load_own(state["loader"])
        if state["indices_crc"] is not None:
            self._loader.expect(state["indices_crc"], self._other_order)

    def _other_order(self) -> None:
        text = (
            "the training loader doesn't give the order that it gave before the checkpoint: its sampler or its dataset"
            " has changed, or draws from something that can't be seeded"
        )
        self._refuse(text)
        self._run.notices.say("other-order", text)

    def _refuse(self, text: str) -> None:
        if self._check == "error":
            raise FitError(f"{text}. Mend that, or pass resume_check='warn' to go on with it.")


class RandomPart:
    """The global random streams, for hooks that draw between batches."""

    def state_dict(self) -> dict[str, Any]:
        return seeding.get_generator_states()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        seeding.set_generator_states(state)


class GradientsPart:
    """Gradients that wait for a later step, since a user's ``optimizer_step`` let its turn pass."""

    def __init__(self, module: LightningModule, optimizers: Sequence[Optimizer], strategy: Strategy) -> None:
        self._optimizers = optimizers if is_overridden(module, "optimizer_step") else ()
        self._strategy = strategy

    def state_dict(self) -> dict[str, Any]:
        each = (enumerate(parameters_of(optimizer)) for optimizer in self._optimizers)
        return {"waiting": [{i: {"grad": p.grad} for i, p in some if p.grad is not None} for some in each]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for optimizer, waiting in zip(self._optimizers, state["waiting"], strict=True):
            groups = [{"params": list(range(len(parameters_of(optimizer))))}]
            own = self._strategy.cut_up(optimizer, {"state": waiting, "param_groups": groups})["state"]
            for i, parameter in enumerate(parameters_of(optimizer)):
                parameter.grad = own[i]["grad"].to(parameter.device) if i in own else None


def parameters_of(optimizer: Optimizer) -> list[Any]:
    """Its parameters, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class VersionsPart:
    """What else decides the last bits: versions, and the number of threads."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    def state_dict(self) -> dict[str, Any]:
        return {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        now = self.state_dict()
        changed = [
            f"{name} was {state[name]} and is {now[name]}" for name in now if state.get(name, now[name]) != now[name]
        ]
        if changed:
            text = f"the checkpoint was written elsewhere, so the last bits may differ: {', '.join(changed)}"
            self._notices.say("other-versions", text)


class CallbacksPart:
    """All callbacks by name, whatever their order. What callbacks that aren't here had saved is kept."""

    def __init__(self, callbacks: Sequence[Callback], notices: Notices) -> None:
        self._callbacks: dict[str, Callback] = {}
        self._absent: dict[str, Any] = {}
        self._notices = notices
        counts: Counter[str] = Counter()
        for callback in callbacks:
            self._callbacks[f"{callback.state_name} {counts[callback.state_name]}"] = callback
            counts[callback.state_name] += 1

    def state_dict(self) -> dict[str, Any]:
        return {**self._absent, **{name: callback.state_dict() for name, callback in self._callbacks.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._absent = {name: kept for name, kept in state.items() if kept and name not in self._callbacks}
        if self._absent:
            names = ", ".join(name.rpartition(" ")[0] for name in self._absent)
            text = f"the checkpoint holds the state of callbacks that aren't here; it is kept: {names}"
            self._notices.say("absent-callbacks", text)
        for name, callback in self._callbacks.items():
            if name in state:
                callback.load_state_dict(state[name])


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

    def checkpoint(self, weights_only: bool = False, whole: bool = True) -> dict[str, Any]:
        """Everything as one dict of plain data; without ``whole`` tensors that are cut up stay so."""
        gather: Any = self.strategy.whole if whole else (lambda data: data)
        progress = self.run.progress
        self.run.tick()
        checkpoint: dict[str, Any] = {
            **gather(module_part(self.module)),
            "epoch": progress.epoch,
            "global_step": progress.global_step,
            "hparams": plain_hparams(self.module.hparams, self.run.notices),
            "format": FORMAT,
            "library": f"pytorch-lightning-classic {__version__}, torch {torch.__version__}",
        }
        if not weights_only:
            checkpoint["optimizer_states"] = [gather(o.state_dict()) for o in self.optimizers]
            checkpoint["lr_schedulers"] = [schedule.scheduler.state_dict() for schedule in self.schedules]
            checkpoint["parts"] = gather({name: part.state_dict() for name, part in self.parts.items()})
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

    def save(self, path: str | Path, weights_only: bool = False) -> bool:
        """Write a checkpoint; False where it was left out since a weight isn't finite."""
        if not self.is_finite(str(path)):
            return False
        processes = self.strategy.processes
        problem = None
        if processes.is_first or self.strategy.saves_together:
            checkpoint = self.checkpoint(weights_only)
            try:
                if processes.is_first:
                    write_checkpoint(checkpoint, path)
            except CheckpointError as error:
                problem = str(error)
        # when anybody goes on the file is there; and nobody waits for one that couldn't write it
        problem = processes.from_first(problem)
        if problem is not None:
            raise CheckpointError(problem)
        return True

    def is_finite(self, what: str) -> bool:
        """Whether every weight is; otherwise ``what`` isn't to be written, which is an error or a notice."""
        weights = (own_piece(p) for p in self.module.parameters() if p.is_floating_point())
        finite = all(map(is_finite, weights))
        if all(self.strategy.processes.gather(finite)) if self.strategy.saves_together else finite:
            return True
        text = f"a weight isn't finite, so {what} isn't written; what was saved before stays"
        if self.stop_on_nan:
            raise FitError(f"{text}. Lower the learning rate, or clip gradients.")
        self.run.notices.say("weights-not-finite", text)
        return False

    def restore(self, checkpoint: dict[str, Any], path: str) -> None:
        """Put back everything but the module, and the loggers, which are made later."""
        absent = sorted({*self.parts, "loggers"} - set(checkpoint["parts"]))
        if absent:
            raise CheckpointError(f"{path} can't be gone on with: its parts are without {', '.join(absent)}.")
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
                state = self.strategy.cut_up(target, state) if kind == "optimizers" else state
                load_part(target, state, f"{path}: {type(target).__name__}")
        for name, part in self.parts.items():
            load_part(part, checkpoint["parts"][name], f"{path}: {name}")
        for optimizer in self.optimizers if self.run.progress.nb_optimizer_steps else ():
            optimizer._opt_called = True  # type: ignore[attr-defined]  # or a schedule that steps first is warned of


def is_finite(weight: torch.Tensor) -> bool:
    """Whether every value is: where their sum is, all are, and that is found ten times as fast."""
    return bool(torch.isfinite(weight.sum())) or bool(torch.isfinite(weight).all())


def load_part(target: Any, state: dict[str, Any], where: str) -> None:
    """Put ``state`` back into ``target``. Raises ``CheckpointError`` where it doesn't fit."""
    own = set(target.defaults) if isinstance(target, Optimizer) else set()  # before torch adds one when it loads
    try:
        target.load_state_dict(state)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        why = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise CheckpointError(f"{where} doesn't fit: {why}. Resume with the model that wrote it.") from error
    # torch takes the state of another kind of optimizer, and fails in the first step
    for group in target.param_groups if isinstance(target, Optimizer) else ():
        absent = sorted(own - set(group))
        if absent:
            raise CheckpointError(
                f"{where} doesn't fit: the state is another optimizer's, without {', '.join(absent)}."
                " Resume with the optimizer that wrote it."
            )
