"""What steps return, as numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from math import isfinite
from operator import add
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from pytorch_lightning.errors import FitError, describe

PLAIN = (float, int, str)
NO_LOSS = torch.zeros(())
"""Stands for the loss of a batch for which ``training_step`` returned None: it contributes nothing."""
RUNNING = 100
"""``tng_loss`` is the mean over this many batches."""


class Place(Protocol):
    """Where a fit is, for messages."""

    epoch: int
    batch_nb: int


def to_number(value: Any) -> float | int | None:
    """A number, a bool, a numpy scalar or a tensor of one element as a python number; None for anything else.

    >>> to_number(torch.tensor([2.5])), to_number("x"), to_number(True)
    (2.5, None, 1)
    """
    if isinstance(value, (bool, int, float)):
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 and not value.is_complex() else None
    if getattr(value, "size", None) == 1 and hasattr(value, "item"):  # numpy, without importing it
        item = value.item()
        return item if isinstance(item, (int, float)) else None
    return None


def numbers_of(values: Mapping[str, Any], where: str) -> dict[str, float | int]:
    """``values`` as numbers, strings left out.

    Raises ``FitError``, naming the key, for what is neither a number nor a string.
    """
    result: dict[str, float | int] = {}
    for key, value in values.items():
        number = to_number(value)
        if number is not None:
            result[str(key)] = number
        elif not isinstance(value, str) and value is not None:
            raise FitError(
                f"{where} gave {describe(value)} under {key!r}; expected a number or a tensor of one element."
                f" Return its mean, or leave it out."
            )
    return result


def read_output(output: Any, name: str, place: Place) -> tuple[Tensor, Mapping[str, Any] | None, float | None]:
    """The loss, ``prog`` as it is at this moment, and ``loss_count`` of what a training step returned.

    Of None, ``NO_LOSS`` with a count of 0. Raises ``FitError`` unless there is a loss of one element with a graph.
    """
    if isinstance(output, Tensor):
        if not output.requires_grad or output.numel() != 1:
            check_loss(output, name, place)
        return output, None, None
    try:
        loss = output["loss"]
        if isinstance(loss, Tensor):
            if not loss.requires_grad or loss.numel() != 1:
                check_loss(loss, name, place)
            prog, count = output.get("prog"), output.get("loss_count")
            if prog is None:
                prog = output.get("tqdm_metrics")
            if prog is not None:
                prog = {**(prog if type(prog) is dict else _checked_prog(prog, name, place))}
                for key, value in prog.items():  # as it is now: a parameter or a buffer changes later
                    if isinstance(value, Tensor):
                        one = value.is_cpu and value.numel() == 1 and not value.is_complex()
                        prog[key] = value.item() if one else value.detach().clone()
                    elif type(value) not in PLAIN:
                        number = to_number(value)
                        prog[key] = value if number is None else number
            if "prog_epoch" in output:
                prog = _with_epoch(prog, output["prog_epoch"], name, place)
            return loss, prog, None if count is None else _checked_count(count, name, place)
        received = f"'loss': {describe(loss)}"
    except (TypeError, KeyError, IndexError, AttributeError):
        if output is None:
            return NO_LOSS, None, 0
        received = f"a dict with the keys {list(output)}" if isinstance(output, Mapping) else describe(output)
    raise FitError(
        f"{name} returned {received}; expected a dict with the key 'loss' holding a tensor of one element,"
        f" or that tensor itself. Return {{'loss': loss}}. {at(place)}"
    )


def _checked_prog(prog: Any, name: str, place: Place) -> Mapping[str, Any]:
    if not isinstance(prog, Mapping):
        raise FitError(
            f"{name} returned 'prog': {describe(prog)}; expected a dict of numbers by name."
            f" Return {{'loss': loss, 'prog': {{'name': number}}}}. {at(place)}"
        )
    return prog


def _with_epoch(prog: Mapping[str, Any] | None, of_epoch: Any, name: str, place: Place) -> Mapping[str, Any] | None:
    from pytorch_lightning.run.epoch_metrics import EpochProg, checked

    return prog if of_epoch is None else EpochProg(prog, checked(of_epoch, name, at(place)))


def _checked_count(count: Any, name: str, place: Place) -> float:
    number = to_number(count)
    if number is None or not 0 <= number < math.inf:
        raise FitError(
            f"{name} returned 'loss_count': {describe(count)}; expected how many items the loss is a mean over,"
            f" a number that isn't negative. Return {{'loss': loss, 'loss_count': len(targets)}}. {at(place)}"
        )
    return number


def check_loss(loss: Tensor, name: str, place: Place) -> None:
    """Raises ``FitError`` where ``loss`` isn't one element with a graph."""
    if loss.numel() != 1:
        raise FitError(
            f"{name} returned a loss of shape {tuple(loss.shape)}; expected one element."
            f" Return loss.mean(). {at(place)}"
        )
    if not loss.requires_grad:
        raise FitError(
            f"{name} returned a loss without a graph (it doesn't require gradients), so it can't be trained on."
            " Don't detach it or take its .item(), and don't compute it under torch.no_grad();"
            f" check that some parameter requires gradients. {at(place)}"
        )


def at(place: Place) -> str:
    """The place in a fit, for the end of a message."""
    return f"(epoch {place.epoch}, batch_nb {place.batch_nb})"


Loss = Tensor | float


class Weighed(NamedTuple):
    """A loss that has a weight: that of a batch with a ``loss_count``, or of a round of several virtual ranks."""

    loss: Loss
    weight: Loss
    """Of the batch, or the sum of those of a round."""
    summed: Loss | None = None
    """The sum of the losses of a round, each multiplied by its weight."""
    counted: bool = True
    """Whether the weights are ``loss_count``."""
    joins: bool = False
    """Whether the same items were counted for another optimizer."""


EpochSum = tuple[float, float, float]
"""Of an epoch: the sum of the losses, each multiplied by its weight; that of the weights; that of ``loss_count``."""
FLOATS = {float}


def _read(unread: Sequence[Loss | Weighed]) -> Iterator[float]:
    """The numbers in ``unread``, in their order; those on a device are read together."""
    flat = [v for each in unread for v in (each[:3] if type(each) is Weighed else (each,)) if v is not None]
    waiting = [value.reshape(()) for value in flat if isinstance(value, Tensor)]
    there = iter(torch.stack(waiting).tolist() if waiting else ())
    return (next(there) if isinstance(value, Tensor) else float(value) for value in flat)  # type: ignore[arg-type]


class Metrics:
    """The numbers of a run: those of training, read only on request, and those of the last validation."""

    def __init__(self) -> None:
        self.validation: dict[str, float | int] = {}
        """What ``validation_end`` returned last."""
        self.validation_names: tuple[str, ...] = ()
        """Their names, known from the sanity validation on."""
        self.evaluated: dict[str, float | int] = {}
        """What ``Trainer.validate`` and ``Trainer.test`` gave since."""
        self.extremes: dict[str, tuple[float, float]] | None = {}
        """The least and the largest value that each metric had; None where a part of the run isn't known."""
        self.grad_norms: dict[str, float] = {}
        """Gradient norms of the last window, if ``track_grad_norm`` is on."""
        self.nb_nonfinite = 0
        """The number of losses that weren't finite, if training continues after one."""
        self._losses: list[float] = []
        """Of the last 100 batches, as far as they were read."""
        self._unread: list[Loss | Weighed] = []
        self.saw_none = False
        """Whether ``training_step`` returned None for a batch of the epoch."""
        self._watched: list[Tensor] = []
        self._nb_nonfinite_read = 0
        self._epoch: EpochSum | None = 0.0, 0.0, 0.0
        """None where a fit resumes in the middle of an epoch whose first losses aren't known."""
        self._prog: dict[str, Any] = {}
        self.of_epoch: Any = None
        """The ``EpochMetrics``, once a step returned ``prog_epoch``."""
        self.last_epoch: dict[str, float | int] = {}
        """The metrics of the last epoch that was completed."""
        self.module: Any = None
        self.mine: Sequence[int] = (0,)
        """The virtual ranks of this process."""

    def record(
        self, loss: Loss, prog: Mapping[str, Any] | None, joins: bool = False, weighed: "Weighed | None" = None
    ) -> None:
        """Keep the loss and ``prog`` of one batch, unread. ``prog`` replaces that of the batch before; one that
        ``joins`` is of the same batch, and is added to what an earlier optimizer's step gave. ``weighed``: what it
        adds to the mean over the epoch, where that isn't the loss itself."""
        self._unread.append(loss if weighed is None else weighed)
        if prog:
            if type(prog) is not dict:
                prog = self.take_of_epoch(prog, self.mine[0], 1.0 if weighed is None else weighed.weight)
            self._prog = {**self._prog, **prog} if joins else {**prog}

    def take_of_epoch(self, prog: Any, virtual_rank: int, weight: Any) -> Any:
        """Add what comes with ``prog`` for the epoch, which weighs ``weight``; returns ``prog`` alone."""
        if not hasattr(prog, "of_epoch"):
            return prog
        if self.of_epoch is None:
            self.of_epoch = self.make_of_epoch()
        self.of_epoch.add(prog.of_epoch, virtual_rank, float(weight))
        return {**prog}

    def make_of_epoch(self) -> Any:
        """What collects the metrics of an epoch."""
        from pytorch_lightning.run.epoch_metrics import EpochMetrics

        return EpochMetrics(self.module, self.mine)

    @property
    def epoch_names(self) -> set[str]:
        """The names of what an epoch gives at its end, as far as they are known."""
        return {"tng_loss_epoch", *self.last_epoch, *(() if self.of_epoch is None else self.of_epoch.names)}

    def show(self, prog: Mapping[str, Any] | None) -> None:
        """Keep the ``prog`` of a batch without a loss."""
        if prog:
            self._prog = {**prog}

    def watch(self, loss: Tensor) -> None:
        """Keep a loss that is no batch's own until it is known whether it is finite."""
        self._watched.append(loss.reshape(()))

    def read(self) -> None:
        """Read what was recorded since the last time; waits for the device where that isn't numbers yet. Called from
        time to time, so that little is kept unread."""
        if not self._unread:
            return
        unread, self._unread, epoch = self._unread, [], self._epoch
        if epoch is not None and set(map(type, unread)) == FLOATS:
            total: float = reduce(add, unread, epoch[0])
            if isfinite(total):  # added one by one: ``sum`` may round otherwise, and so at a cut
                self._epoch = total, epoch[1] + len(unread), epoch[2]
                self._losses = (self._losses + cast("list[float]", unread))[-RUNNING:]
                return
        self._read_each(_read(unread), unread)

    def _read_each(self, numbers: Iterator[float], unread: Sequence[Loss | Weighed]) -> None:
        losses, epoch = list[float](), self._epoch
        for each in unread:
            loss = next(numbers)
            losses.append(loss)
            self._nb_nonfinite_read += not isfinite(loss)
            summed, weight, items = loss, 1.0, 0.0
            if type(each) is Weighed:
                weight = next(numbers)
                summed = loss * weight if each.summed is None else next(numbers)
                items = weight if each.counted and not each.joins else 0.0
            if not isfinite(summed):  # left out, where training continues after it
                summed = weight = 0.0
            if epoch is not None:
                epoch = epoch[0] + summed, epoch[1] + weight, epoch[2] + items
        self._losses, self._epoch = [*self._losses, *losses][-RUNNING:], epoch

    def read_losses(self) -> list[float]:
        """The losses of the last 100 batches; waits for the device where they aren't numbers yet."""
        self.read()
        return list(self._losses)

    def nonfinite_since_read(self) -> int:
        """How many losses since the last call aren't finite."""
        self.read()
        nb, self._nb_nonfinite_read = self._nb_nonfinite_read, 0
        watched, self._watched = self._watched, []
        return nb + (int((~torch.isfinite(torch.stack(watched))).sum()) if watched else 0)

    @property
    def must_be_read(self) -> bool:
        """Whether as many losses wait, of batches or of steps, as ``tng_loss`` is the mean of."""
        return len(self._unread) >= RUNNING or len(self._watched) >= RUNNING

    def begin_epoch(self) -> None:
        """What is recorded from now on is of another epoch."""
        self.read()
        self._epoch, self.saw_none = (0.0, 0.0, 0.0), False

    @property
    def epoch_loss(self) -> float | None:
        """The mean loss of the epoch so far, weighted by ``loss_count`` where that is given; None before its first
        batch, and where a part of it isn't known."""
        self.read()
        return None if self._epoch is None or not self._epoch[1] else self._epoch[0] / self._epoch[1]

    @property
    def has_no_loss(self) -> bool:
        """Whether no batch of the epoch contributed a loss so far, and ``training_step`` returned None for some."""
        self.read()
        return self.saw_none and self._epoch is not None and not self._epoch[1]

    @property
    def nb_items(self) -> float:
        """The sum of the ``loss_count`` of the epoch so far; 0 where there are none."""
        self.read()
        return 0.0 if self._epoch is None else self._epoch[2]

    def note_extremes(self, values: Mapping[str, float | int]) -> None:
        """``values`` were there after an epoch, or a validation. NaN is neither the least nor the largest."""
        extremes = {} if self.extremes is None else self.extremes
        for name, value in values.items():
            if value == value:
                least, largest = extremes.get(name, (value, value))
                extremes[name] = min(least, value), max(largest, value)

    def note(self) -> tuple[Any, ...]:
        """What a window changes here, to be put back by ``take_back`` where it fails."""
        of_epoch = None if self.of_epoch is None else self.of_epoch.note()
        return self._losses, self._unread.copy(), self._epoch, self._prog, dict(self.grad_norms), of_epoch

    def take_back(self, noted: tuple[Any, ...]) -> None:
        """Put back what ``note`` gave."""
        self._losses, self._unread, self._epoch, self._prog, norms, of_epoch = noted
        if self.of_epoch is not None:
            self.of_epoch.sums = of_epoch or {}
        self.grad_norms.update(norms)  # a row may have used them

    @property
    def tng_loss(self) -> float:
        """The mean loss of the last 100 batches; NaN before the first."""
        self.read()
        losses = self._losses
        return sum(losses) / len(losses) if losses else math.nan

    def of_training(self) -> dict[str, float | int]:
        """Those of the last epoch that was completed, ``tng_loss``, and what the last batch gave as ``prog``; the last
        of these wins."""
        return {**self.last_epoch, **self.of_batches()}

    def of_batches(self) -> dict[str, float | int]:
        """``tng_loss``, and what the last batch gave as ``prog``, which wins."""
        values: dict[str, float | int] = {"tng_loss": self.tng_loss} if self._losses or self._unread else {}
        return {**values, **numbers_of(self._prog, "prog of training_step")}

    def shown(self) -> dict[str, Any]:
        """What a bar shows: training's numbers and strings, then validation's."""
        text = {str(k): v for k, v in self._prog.items() if isinstance(v, str)}
        of_epoch = {k: v for k, v in self.last_epoch.items() if k != "tng_loss_epoch"}  # which a line's mean_loss is
        return {**of_epoch, **self.of_batches(), **text, **self.validation, **self.evaluated}

    def all(self) -> dict[str, float | int]:
        """Every number by name; validation's win."""
        return {**self.of_training(), **self.validation}

    def state_dict(self) -> dict[str, Any]:
        """The running losses and the last values, as plain data."""
        prog = {k: to_number(v) for k, v in self._prog.items()}
        return {
            "losses": self.read_losses(),
            "prog": {k: v for k, v in prog.items() if v is not None},
            "validation": dict(self.validation),
            "nb_nonfinite": self.nb_nonfinite,
            **({} if self._epoch is None else {"epoch": self._epoch}),
            **({} if self.extremes is None else {"extremes": dict(self.extremes)}),
            **({"grad_norms": dict(self.grad_norms)} if self.grad_norms else {}),
            **({"last_epoch": dict(self.last_epoch)} if self.last_epoch else {}),
            **({} if self.of_epoch is None else {"of_epoch": self.of_epoch.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        self._losses, self._unread, self._prog = list(state["losses"]), [], dict(state["prog"])
        self._epoch = tuple(state["epoch"]) if "epoch" in state else None
        self.validation = dict(state["validation"])
        self.nb_nonfinite = state["nb_nonfinite"]
        self.extremes = {k: tuple(v) for k, v in state["extremes"].items()} if "extremes" in state else None
        self.grad_norms.clear()
        self.grad_norms.update(state.get("grad_norms", {}))
        self.last_epoch, self.of_epoch = dict(state.get("last_epoch", {})), None
        if "of_epoch" in state:
            self.of_epoch = self.make_of_epoch()
            self.of_epoch.load_state_dict(state["of_epoch"])
