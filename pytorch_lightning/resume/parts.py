"""The parts of a checkpoint: what has state, and how it is saved and restored."""

import contextlib
import copy
import inspect
import platform
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pytorch_lightning import seeding
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.checkpoint import fitting
from pytorch_lightning.checkpoints.snapshot import nb_bytes, tensors_of
from pytorch_lightning.data.loader import TORCHS, ReplayableLoader
from pytorch_lightning.errors import CheckpointError, FitError, Notices, describe
from pytorch_lightning.processes import Processes, Share, Subject, own_piece
from pytorch_lightning.resume.epoch_length import EpochLength
from pytorch_lightning.resume.own_generators import set_states_of, states_of
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.hooks import is_overridden
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.gradients import Gradients
from pytorch_lightning.steps.optimizers import parameters_of
from pytorch_lightning.strategies import Strategy

SHORT = 2.0
"""Seconds. A look for generators that escape takes some 40 ms, and a shorter fit is hardly ever resumed."""
LEFT = Subject("gradients")
OWN_SHARES = Subject("states of loaders", "Return plain data from the state_dict of the loader, or of its sampler.")


class DataPart:
    """Where the training data is: the seed, the epoch's length, and a checksum of the indices so far."""

    def __init__(
        self,
        loader: ReplayableLoader,
        run: FitRun,
        seed: int,
        check: str,
        share: Share,
        sizes: dict[str, int],
        length: EpochLength,
        processes: Processes,
    ) -> None:
        self._loader, self._run, self._seed, self._check = loader, run, seed, check
        self._share, self._sizes, self._length, self._processes = share, sizes, length, processes

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "seed": self._seed,
            "virtual_ranks": self._share.nb,
            "order": self._loader.order,
            "length": self._length.state_dict(),
        }
        if self._share.own:
            state["by_rank"] = self._processes.gather(self._of_loader(), OWN_SHARES)
        return state | self._of_loader()

    def _of_loader(self) -> dict[str, Any]:
        nb_done = self._run.progress.batch_nb
        finished = self._loader.finished_epoch
        return {
            "finished": None if nb_done or finished is None else list(finished),
            "sizes": self._sizes,
            "indices_crc": self._loader.crc_at(nb_done) if nb_done else None,
            "sketch": self._loader.sketch_at(nb_done) if nb_done and self._processes.nb == 1 else None,
            "workers": self._loader.bound_to_workers,
            "sampler": self._loader.sampler_state(begun=nb_done > 0),
            "loader": self._loader.own_state(self._run.progress.epoch),
            **self._place(nb_done),
        }

    def _place(self, nb_done: int) -> dict[str, Any]:
        progress = self._run.progress
        place = self._loader.place_in_pass(progress.epoch, nb_done, progress.epoch_over)
        return {} if place is None else {"place": place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        by_rank = state.get("by_rank")
        if (by_rank is not None) != self._share.own:
            raise CheckpointError(
                "the run was begun with data_is_sharded="
                f"{not self._share.own}, and now it is {self._share.own}. Pass what it was begun with."
            )
        state = state if by_rank is None else {**state, **by_rank[self._processes.rank]}
        self._loader.use_order(state.get("order", TORCHS))
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
        if state.get("place") is not None:
            self._loader.load_place(state["place"])
        self._length.load_state_dict(state.get("length"))
        if state["indices_crc"] is not None:
            self._loader.expect(state["indices_crc"], self._other_order)
        elif state.get("sketch") is not None and self._processes.nb == 1:
            self._loader.expect_like(state["sketch"], self._other_order)
        elif state.get("finished") is not None:
            epoch, nb, crc = state["finished"]
            self._loader.expect_finished((epoch, nb, crc), self._other_order)

    def _other_order(self) -> None:
        text = (
            "the order of the training data differs from that before the checkpoint: its sampler or its dataset"
            " has changed, or uses random numbers that can't be seeded"
        )
        self._refuse(text)
        self._run.notices.say("other-order", text)

    def _refuse(self, text: str) -> None:
        if self._check == "error":
            raise FitError(f"{text}. Fix that, or pass resume_check='warn' to resume anyway.")


class RandomPart:
    """The global random streams and the model's own generators, for hooks that draw between batches.

    Generators that escape are looked for from the beginning, where ``early``, and otherwise from the first save on;
    ``always``, or in fits that take a while."""

    def __init__(
        self, generators: list[Any], of_data: Callable[[], list[Any]], notices: Notices, *, early: bool, always: bool
    ) -> None:
        self._generators, self._saved = generators, dict[str, Any]()
        self._of_data, self._notices, self._early = of_data, notices, early
        self._looks_from = 0.0 if always else time.monotonic() + SHORT
        self._escaped: Any = None

    def begin(self) -> None:
        """Training begins."""
        from pytorch_lightning.resume.escaped import EscapedGenerators

        self.restore()
        self._escaped = EscapedGenerators(lambda: [*self._generators, *self._of_data()], self._notices)
        if self._early:
            self._escaped.begin()

    def state_dict(self) -> dict[str, Any]:
        if self._escaped is not None and time.monotonic() >= self._looks_from:
            self._escaped.look()
        own = states_of(self._generators)
        return {**seeding.get_short_states(), **({"own": own} if own else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state
        self.restore()

    def restore(self) -> None:
        """Put back what ``load_state_dict`` was given: hooks that run at each start may have drawn since."""
        if self._saved:
            seeding.set_generator_states(self._saved)
            set_states_of(self._generators, self._saved.get("own", {}))


class GradientsPart:
    """Gradients that wait for a later step, since a user's ``optimizer_step`` let its turn pass; and the references of
    ``loss_count``."""

    def __init__(
        self, module: LightningModule, optimizers: Sequence[Optimizer], strategy: Strategy, gradients: Gradients
    ) -> None:
        self._optimizers = optimizers if is_overridden(module, "optimizer_step") else ()
        self._strategy, self._gradients = strategy, gradients
        self._module, self._all_optimizers = module, optimizers
        self._by_rank: list[dict[int, Any]] | None = None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Every process enters it where the first one makes a checkpoint. Gradients that wait for a step that the user
        makes weren't exchanged yet: each process has its own."""
        processes = self._strategy.processes
        if not self._module.automatic_optimization and processes.nb > 1:
            own = self._left()
            self._by_rank = processes.gather(own, LEFT) if processes.any(bool(own)) else [own] * processes.nb
        try:
            yield
        finally:
            self._by_rank = None

    def _left(self) -> dict[int, Any]:
        """The gradients that are there, where the user's own steps decide what becomes of them."""
        return {i: p.grad for i, p in enumerate(self._parameters()) if p.grad is not None}

    def _parameters(self) -> list[Any]:
        return list(dict.fromkeys([*self._module.parameters(), *parameters_of(self._all_optimizers)]))

    def state_dict(self) -> dict[str, Any]:
        return {
            "waiting": [self._waiting_of(n, optimizer) for n, optimizer in enumerate(self._optimizers)],
            "weights": {n: list(weights) for n, weights in self._gradients.waiting.items()},
            "references": [float(reference) for reference in self._gradients.references],
            **({} if self._module.automatic_optimization else {"by_hand": self._by_rank or [self._left()]}),
        }

    def _waiting_of(self, n: int, optimizer: Optimizer) -> dict[int, Any]:
        """The gradients that optimizer ``n`` lets wait; what else is there is cleared before it counts."""
        parameters = parameters_of([optimizer]) if n in self._gradients.waiting else ()
        return {i: {"grad": p.grad} for i, p in enumerate(parameters) if p.grad is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._gradients.references[:] = state.get("references", self._gradients.references)
        for n, (optimizer, waiting) in enumerate(zip(self._optimizers, state["waiting"], strict=True)):
            parameters = parameters_of([optimizer])
            groups = [{"params": list(range(len(parameters)))}]
            own = self._strategy.shard_optimizer_state(optimizer, {"state": waiting, "param_groups": groups})["state"]
            if own:
                first, total = state.get("weights", {}).get(n, (1.0, 1.0))
                self._gradients.waiting[n] = first, total
            for i, parameter in enumerate(parameters):
                parameter.grad = own[i]["grad"].to(parameter.device) if i in own else None
        if not self._module.automatic_optimization and "by_hand" in state:
            by_rank = state["by_hand"]
            left = by_rank[self._strategy.processes.rank % len(by_rank)]
            for i, parameter in enumerate(self._parameters()):
                parameter.grad = left[i].to(parameter.device) if i in left else None


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
            text = f"the last bits may differ, since the checkpoint was written with others: {', '.join(changed)}"
            self._notices.say("other-versions", text)


class CallbacksPart:
    """All callbacks by name, whatever their order. What callbacks that aren't here had saved is kept."""

    def __init__(self, callbacks: Sequence[Callback], notices: Notices) -> None:
        self.by_name: dict[str, Callback] = {}
        self._absent: dict[str, Any] = {}
        self._notices = notices
        counts: Counter[str] = Counter()
        for callback in callbacks:
            self.by_name[f"{callback.state_name} {counts[callback.state_name]}"] = callback
            counts[callback.state_name] += 1

    def state_dict(self) -> dict[str, Any]:
        return {**self._absent, **{name: callback.state_dict() for name, callback in self.by_name.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._absent = {name: kept for name, kept in state.items() if kept and name not in self.by_name}
        if self._absent:
            names = ", ".join(name.rpartition(" ")[0] for name in self._absent)
            text = f"the checkpoint contains the state of callbacks that are missing now; it is kept: {names}"
            self._notices.say("absent-callbacks", text)
        for name, callback in self.by_name.items():
            if name in state:
                callback.load_state_dict(state[name])


class Kept:
    """A part as another process left it, or as it was at an earlier moment."""

    def __init__(self, state: dict[str, Any], folders: Sequence[Path] = ()) -> None:
        self._state, self.folders = state, folders

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state


def load_part(target: Any, state: dict[str, Any], where: str) -> None:
    """Put ``state`` back into ``target``. Raises ``CheckpointError`` where it doesn't fit."""
    own = set(target.defaults) if isinstance(target, Optimizer) else set()  # before torch adds one when it loads
    with fitting(where):
        _check_size(state)
        load_in_place(target, state)
        check_steps(target, state)
    # torch takes the state of another kind of optimizer, and fails in the first step
    for group in target.param_groups if isinstance(target, Optimizer) else ():
        absent = sorted(own - set(group))
        if absent:
            raise CheckpointError(
                f"{where} doesn't fit: it is the state of a different optimizer, without {', '.join(absent)}."
                " Resume with the optimizer that wrote it."
            )


def load_in_place(target: Any, state: dict[str, Any]) -> None:
    """``target.load_state_dict(state)``; the groups and the state of an optimizer, in whose place torch puts new ones,
    stay the same objects, since others may hold them: an optimizer around it, say."""
    if getattr(type(target), "load_state_dict", None) is not Optimizer.load_state_dict:
        target.load_state_dict(state)  # one that does it itself knows what it holds
        return
    groups, states = target.param_groups, target.state
    target.load_state_dict(state)
    pairs = [*zip(groups, target.param_groups, strict=True), (states, target.state)]  # as many, or torch refuses them
    for old, new in pairs:
        content = dict(new)
        old.clear()
        old.update(content)
    target.param_groups, target.state = groups, states


def _check_size(state: Any) -> None:
    """Raises ``ValueError`` where copies of its tensors would take much more than the tensors: torch's optimizers make
    some before they look at shapes."""
    tensors = [own_piece(tensor) for tensor in tensors_of(state)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > 2**24 + 2 * nb_bytes(tensors) and not any(tensor.device.type == "meta" for tensor in tensors):
        raise ValueError(f"its tensors repeat themselves; each by itself, they are {size >> 20} MB")


def check_steps(target: Any, state: Any) -> None:
    """Raises ``ValueError``, ``TypeError`` or others where an optimizer or a schedule of torch's has taken a ``state``
    with which it can't step. Those of others know themselves what theirs are."""
    kind = type(target)
    if kind.__module__ == "torch.optim.lr_scheduler" and not hasattr(target, "lr_lambdas"):
        absent = {name for name in target.state_dict() if not name.startswith("_")} - set(state)
        if absent:
            raise ValueError(f"it is without {', '.join(absent)}")
        if not hasattr(target, "_schedulers"):  # those of several hold theirs
            _step_a_copy(target)
    elif isinstance(target, Optimizer) and kind.__module__.startswith("torch.optim."):
        takes = inspect.signature(kind).parameters
        for group in target.param_groups:
            kind(group["params"], **{name: group[name] for name in takes if name in group and name not in OF_GROUPS})
            if group.get("capturable") and any(p.device.type == "cpu" for p in group["params"]):
                raise ValueError("it is capturable, which it can't be on the CPU")
            if float(group["lr"]) != group["lr"] or len(group.get("betas", (0, 0))) != 2:
                raise ValueError("lr or betas aren't numbers")
            if kind not in (torch.optim.LBFGS, torch.optim.Adafactor):
                states = {p: target.state[p] for p in group["params"] if target.state.get(p)}
                _check_states(states)
                if group.get("amsgrad") and any("exp_avg" in s and "max_exp_avg_sq" not in s for s in states.values()):
                    raise ValueError("it has no maxima, which amsgrad needs")


def _step_a_copy(schedule: Any) -> None:
    twin = copy.copy(schedule)
    groups = [
        {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in group.items()}
        for group in schedule.optimizer.param_groups
    ]
    twin.optimizer = SimpleNamespace(param_groups=groups, defaults=schedule.optimizer.defaults, step=print)
    # a OneCycleLR at its end has no further step
    with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
        twin.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))


OF_GROUPS = ("params", "lr")
"""What isn't like others: a schedule, or a user, may have set a learning rate that no optimizer begins with."""
NUMBERS = ("step", "eta", "mu", "mu_product")
"""What torch's optimizers keep as one number for each parameter, beside tensors of its shape."""


def _check_states(states: dict[Any, Any]) -> None:
    if len({frozenset(state) for state in states.values()}) > 1:
        raise ValueError("the states of its parameters hold different things")
    for parameter, state in states.items():
        for name, value in state.items():
            if name in NUMBERS:
                fits = not isinstance(value, str) and float(value) >= 0
            else:
                fits = (name, value) == ("momentum_buffer", None) or value.shape == parameter.shape
            if not fits:
                raise ValueError(f"{name} of a parameter of shape {tuple(parameter.shape)} is {describe(value)}")
