"""What steps return, as numbers."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from pytorch_lightning.errors import FitError, describe

PLAIN = (float, int, str)
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

    Raises ``FitError`` unless there is a loss of one element with a graph.
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
            return loss, prog, None if count is None else _checked_count(count, name, place)
        received = f"'loss': {describe(loss)}"
    except (TypeError, KeyError, IndexError, AttributeError):
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


class Metrics:
    """The numbers of a run: those of training, read only on request, and those of the last validation."""

    def __init__(self) -> None:
        self.validation: dict[str, float | int] = {}
        """What ``validation_end`` returned last."""
        self.validation_names: tuple[str, ...] = ()
        """Their names, known from the sanity validation on."""
        self.evaluated: dict[str, float | int] = {}
        """What ``Trainer.validate`` and ``Trainer.test`` gave since."""
        self.grad_norms: dict[str, float] = {}
        """Gradient norms of the last window, if ``track_grad_norm`` is on."""
        self.nb_nonfinite = 0
        """The number of losses that weren't finite, if training continues after one."""
        self._losses: deque[Tensor | float] = deque(maxlen=RUNNING)
        self._unread = 0
        self._prog: dict[str, Any] = {}

    def record(self, loss: Tensor | float, prog: Mapping[str, Any] | None, joins: bool = False) -> None:
        """Keep the loss and ``prog`` of one batch, unread. ``prog`` replaces that of the batch before; one that
        ``joins`` is of the same batch, and is added to what an earlier optimizer's step gave."""
        self._losses.append(loss)
        self._unread += 1
        if prog:
            self._prog = {**self._prog, **prog} if joins else {**prog}

    def read_losses(self) -> list[float]:
        """The losses of the last 100 batches; waits for the device where they aren't numbers yet."""
        # tensors are always the last ones
        if self._losses and isinstance(self._losses[-1], Tensor):
            waiting = [loss for loss in self._losses if isinstance(loss, Tensor)]
            numbers = iter(torch.stack([loss.reshape(()) for loss in waiting]).tolist())
            read = [next(numbers) if isinstance(loss, Tensor) else loss for loss in self._losses]
            self._losses = deque(read, maxlen=RUNNING)
        return list(self._losses)  # type: ignore[arg-type]

    def nonfinite_since_read(self) -> int:
        """How many losses since the last call aren't finite. Called at least every 100 batches, it misses none."""
        new, self._unread = self._unread, 0
        return sum(not math.isfinite(loss) for loss in self.read_losses()[-new:]) if new else 0

    @property
    def must_be_read(self) -> bool:
        """Whether one more loss would push out one that hasn't been checked."""
        return self._unread >= RUNNING

    @property
    def tng_loss(self) -> float:
        """The mean loss of the last 100 batches; NaN before the first."""
        losses = self.read_losses()
        return sum(losses) / len(losses) if losses else math.nan

    def of_training(self) -> dict[str, float | int]:
        """``tng_loss``, and what the last batch gave as ``prog``, which wins."""
        values: dict[str, float | int] = {"tng_loss": self.tng_loss} if self._losses else {}
        return {**values, **numbers_of(self._prog, "prog of training_step")}

    def shown(self) -> dict[str, Any]:
        """What a bar shows: training's numbers and strings, then validation's."""
        text = {str(k): v for k, v in self._prog.items() if isinstance(v, str)}
        return {**self.of_training(), **text, **self.validation, **self.evaluated}

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
            **({"grad_norms": dict(self.grad_norms)} if self.grad_norms else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        self._losses = deque(state["losses"], maxlen=RUNNING)
        self._prog = dict(state["prog"])
        self.validation = dict(state["validation"])
        self.nb_nonfinite = state["nb_nonfinite"]
        self.grad_norms.clear()
        self.grad_norms.update(state.get("grad_norms", {}))
