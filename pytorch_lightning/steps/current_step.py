"""What is being done right now: written by the functions that run a window, read where one of them fails."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

OUTSIDE = "outside"
"""Between two windows."""
FETCHING = "fetching"
"""Waiting for the loader."""
FETCHING_NEXT = "fetching the next"
"""The same, while the batch before isn't counted yet: its rows and hooks come when the next batch is there."""
PREPARING = "preparing"
"""A batch is there: ``on_batch_start``, and the copy to the device."""
RUNNING = "running"
"""Forward and backward."""
BY_HAND = "by hand"
"""In a ``training_step`` that makes its own steps."""
READYING = "readying"
"""Between the backward pass and the optimizer's step: gradient hooks, norms, clipping."""
STEPPED = "stepped"
"""An optimizer may have stepped: the weights aren't those that the batch saw."""


class CurrentStep:
    """The phase of a window, and what it works on. Writing to it is a few attribute stores a step and no call."""

    __slots__ = ("arguments", "buffers_before", "phase", "slots", "virtual_rank", "weights")

    def __init__(self, buffers_before: Callable[[], Mapping[str, Tensor] | None] = lambda: None) -> None:
        self.phase = OUTSIDE
        self.arguments: tuple[Any, ...] = ()
        """Of ``training_step``: the batch, its ``batch_nb`` and, with several optimizers, ``optimizer_i``. Until it is
        called, the batch alone."""
        self.weights: Any = None
        """The ``WindowWeights`` that the loss is weighed by."""
        self.virtual_rank = 0
        self.slots: Sequence[tuple[int, Any]] = ()
        """Where there are several virtual ranks: what this process has taken of the round."""
        self.buffers_before = buffers_before
        """The module's buffers as the step found them, by name; None where they weren't kept."""

    @property
    def is_fetching(self) -> bool:
        """Whether the loader is at work."""
        return self.phase in (FETCHING, FETCHING_NEXT)

    def leave(self) -> None:
        """The window is over; its batch can be freed."""
        self.phase, self.arguments, self.slots = OUTSIDE, (), ()
