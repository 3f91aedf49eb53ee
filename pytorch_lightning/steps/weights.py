"""What each batch of a window weighs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pytorch_lightning.errors import FitError


def power_above(count: float) -> float:
    """The least power of two above ``count``.

    >>> power_above(0.3), power_above(1), power_above(5000)
    (0.5, 2.0, 8192.0)
    """
    return math.ldexp(1.0, math.frexp(count)[1])


def mixed_counts(place: str = "") -> FitError:
    """What is raised where some batches of a window have a count."""
    return FitError(
        "training_step returned 'loss_count' for some batches of a window and not for others. Return it always or"
        f" never. {place}".strip()
    )


@dataclass(slots=True)
class WindowWeights:
    """How much each batch of a window weighs: what the gradients of its losses were divided by, and should be.

    The sum of the counts is known when the last batch has run, and its backward pass with it. Until then a loss is
    multiplied by ``count / (reference * size)``, where the reference is the power of two above the largest count so
    far. So scaled losses stay in the range of 16 bits whichever batch comes first, and no factor changes a bit; a
    count that raises the reference divides the gradients of the batches before it.
    """

    size: int = 1
    accumulate: int = 1
    """The size of a full window in this epoch."""
    counted: bool | None = None
    reference: float = 0.0
    """0 before the first count."""
    total: float = 0.0
    nb_empty: int = 0
    """Batches that returned None or a ``loss_count`` of 0, and contribute nothing."""
    joins: bool = False
    """Whether the batch was another optimizer's before."""
    scale: Callable[[float], None] = lambda factor: None
    """Multiplies the gradients of this window."""

    def open(self, size: int, accumulate: int) -> None:
        """Begin a window of ``size`` batches."""
        self.size, self.accumulate, self.counted = size, accumulate, None
        self.reference, self.total, self.nb_empty = 0.0, 0.0, 0

    def weigh(self, loss: Tensor, count: float | None) -> Tensor:
        """``loss``, divided so that the window's losses add up to their mean, weighted by ``loss_count``."""
        if self.size == 1:
            self.total = 1.0 if count is None else count
            return loss
        self._check(count is not None)
        if count is None:
            self.total += 1.0
            return loss / self.size
        self.total += count
        if count >= self.reference:
            before, self.reference = self.reference, power_above(count)
            if before:
                self.scale(before / self.reference)
        return loss * (count / (self.reference * self.size))

    def skip(self, counted: bool = True) -> None:
        """A batch has a ``loss_count`` of 0; without ``counted`` it has no loss at all."""
        self.nb_empty += 1
        if counted and self.size > 1:
            self._check(True)

    def _check(self, counted: bool) -> None:
        if self.counted is None:
            self.counted = counted
        if self.counted != counted:
            raise mixed_counts()

    def has_none(self) -> bool:
        """Whether no batch of a window that has empty ones contributes anything. Then begins anew."""
        self.nb_empty = 0
        return self.size == 1 or not self.total

    def correction(self) -> float:
        """What the gradients must still be multiplied by, now that all batches are known."""
        if self.size == 1 or not self.total:
            return 1.0
        return (self.reference * self.size if self.counted else self.size) / self.total


class RoundWeights:
    """The same where a window's batches belong to several virtual ranks, in this process or in others.

    A loss is divided by a power of two, and multiplied by ``count / reference``. The gradients are divided by the
    rest at the window's end: so their bits don't depend on how many processes there are. The power of two is at
    least the number of batches of the window, so that scaled losses stay in the range of 16 bits; or less, by
    ``later``, a power of two by which the exchange divides all the same, where nothing has that range. A window
    begins with the reference that the window before came to, which is the same in every process and is saved. A
    larger count raises it, and divides the gradients of the batches before: only those may have lost bits below the
    range of 16 bits.
    """

    def __init__(self, references: list[Any], i: int, scale: Callable[[Any], None], later: int = 1) -> None:
        self._references, self._i, self._scale, self._later = references, i, scale, later
        self.counted = False
        self.reference: Any = 0.0
        self.divisor = 1.0
        self.total: Any = 0.0
        self._largest: Any = 0.0
        self._own = 0.0
        self._so_far: bool | None = None
        """Whether the rounds of the window so far had counts."""

    def open(self, nb_batches: int, nb_samples: int | None = None) -> None:
        """Begin a window of at most ``nb_batches`` batches of all virtual ranks, or one that closes at
        ``nb_samples``."""
        self.divisor = power_above(nb_batches - 1) / self._later
        self.total, self._largest, self._own = 0.0, 0.0, 0.0
        self.reference, self._so_far = self._references[self._i], None
        if nb_samples is not None:
            self.divisor, self.reference = 1.0, power_above(nb_samples)

    def note(self, count: float | None) -> None:
        """A batch of this process has such a ``loss_count``, and its backward pass is about to come."""
        self.counted = count is not None
        self._own += 1.0 if count is None else count
        if count is not None and not isinstance(self.reference, Tensor) and count >= self.reference:
            self._raise(power_above(count))

    def settle(self, largest: Any, total: Any, counted: Any) -> None:
        """All processes have told the counts of a round: ``largest`` is the largest, ``total`` their sum. Called before
        the backward pass in which gradients are exchanged; with tensors on an accelerator, which isn't waited for."""
        self.total = self.total + total
        if isinstance(largest, Tensor):
            before = torch.as_tensor(self.reference, dtype=largest.dtype, device=largest.device)
            self._largest = torch.maximum(largest, torch.as_tensor(self._largest, device=largest.device))
            raised = torch.where(counted, torch.maximum(_tensor_above(largest), before), 1.0)
            self._raise(raised, scales=self.counted)
            return
        if self._so_far not in (None, counted):
            raise mixed_counts()
        self.counted = self._so_far = counted
        self._largest = max(largest, self._largest)
        if counted and largest >= self.reference:
            self._raise(power_above(largest))

    def _raise(self, reference: Any, scales: bool = True) -> None:
        before, self.reference = self.reference, reference
        if scales and (isinstance(before, Tensor) or before):
            self._scale(before / reference)

    def weigh(self, loss: Tensor, count: float | None) -> Tensor:
        """``loss``, divided as far as can be known before the window's end."""
        factor = 1.0 / self.divisor if count is None else count / (self.reference * self.divisor)
        return loss * (factor.to(loss.dtype) if isinstance(factor, Tensor) else factor)

    def close(self, parameters: Sequence[Tensor], averaged_over: int) -> bool:
        """Divide the gradients of ``parameters`` by the rest of the weight; False if there is no weight."""
        # what this process had itself is known without waiting for an accelerator
        if not (self._own or bool(self.total)):
            return False
        on_device = isinstance(self.reference, Tensor)
        factor = averaged_over * self.divisor * (self.reference if self.counted or on_device else 1.0) / self.total
        if on_device or factor != 1.0:
            multiply([cast("Tensor", parameter.grad) for parameter in parameters], factor)
        if on_device:
            self._references[self._i] = torch.maximum(_tensor_above(self._largest), self.reference / 2)
        elif self.counted:
            self._references[self._i] = max(power_above(self._largest), self.reference / 2)
        return True


@torch.no_grad()
def multiply(gradients: Sequence[Tensor], factor: Any) -> None:
    """Multiply each gradient by ``factor``, a number or a tensor on their device: those of a kind at once, but for 16
    bits, where torch would round the factor first."""
    kinds: dict[tuple[Any, ...], list[Tensor]] = {}
    for gradient in gradients:
        kinds.setdefault((type(gradient), gradient.layout, gradient.dtype, gradient.device), []).append(gradient)
    for (kind, layout, dtype, _), alike in kinds.items():
        number = factor.to(dtype) if isinstance(factor, Tensor) else factor
        if kind is Tensor and layout is torch.strided and dtype in (torch.float32, torch.float64):
            torch._foreach_mul_(alike, number)
        else:
            for gradient in alike:
                gradient.mul_(number)


def _tensor_above(count: Tensor) -> Tensor:
    return torch.ldexp(torch.ones_like(count), torch.frexp(count).exponent)
