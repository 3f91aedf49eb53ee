"""All that the loop changes."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

NEVER = 2**62
"""A batch that no epoch reaches."""
INTERRUPTED = "interrupted by "
"""How the stop reason begins where it was a signal, whose name follows."""
EARLY = "early stopping: "
"""How it begins where it was an EarlyStopping, which asks again at the next start."""
FORGOTTEN = ("max_", INTERRUPTED)
"""The prefixes of reasons that end a fit but not one that resumes it: a limit, or a signal."""


@dataclass(slots=True)
class Progress:
    """Where a fit is. The loop always starts from here, so a resume is no special case."""

    epoch: int = 0
    """Epochs finished; the number of the current one, counted from 0."""
    batch_nb: int = 0
    """Batches of this epoch that were taken from the loader and finished."""
    global_step: int = 0
    """Training batches finished, over all epochs."""
    nb_optimizer_steps: int = 0
    """Windows that ended in a step of the optimizers."""
    nb_validations: int = 0
    """Validations finished."""
    validated_batch: int = 0
    """``batch_nb`` at this epoch's last validation."""
    validated_step: int = 0
    """``global_step`` at the last validation."""
    epoch_started: bool = False
    """``on_epoch_start`` was called for this epoch."""
    epoch_over: bool = False
    """The loader has no more batches, or a hook ended the epoch."""
    stop_reason: str = ""
    """Why training stops; empty while it continues."""
    steps_begun: bool = False
    """Optimizers may have stepped since the last window ended: ``batch_nb`` isn't where the parameters are."""
    seconds: float = 0.0
    """Wall time spent in the fits before this one that it continues."""

    def next_epoch(self) -> None:
        """Move to the next epoch's start."""
        self.epoch += 1
        self.batch_nb = self.validated_batch = 0
        self.epoch_started = self.epoch_over = False

    @property
    def interrupted(self) -> bool:
        """Whether it stops because of a signal, to be resumed from here later."""
        return self.stop_reason.startswith(INTERRUPTED)

    def forget_limits(self) -> None:
        """Forget a stop at a limit, by a signal or by early stopping: a resumed fit may have other limits, or
        more patience."""
        if self.stop_reason.startswith((*FORGOTTEN, EARLY)):
            self.stop_reason = ""

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data; but where state is whole no step has begun."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "steps_begun"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        for name, value in state.items():
            setattr(self, name, value)
        self.validated_step = state.get("validated_step", self.global_step)


def nb_checked(length: int | None, percent: float) -> int | None:
    """How many of ``length`` batches a percent check leaves: at least one unless the loader is empty; None: all.

    >>> nb_checked(10, 0.25), nb_checked(10, 0.01), nb_checked(10, 100), nb_checked(None, 1.0)
    (2, 1, 10, None)
    """
    if length is None:
        return None
    return min(length, max(1, int(length * percent + 1e-9)))


def at_most(nb: int | None, most: int | None) -> int | None:
    """``nb``, or ``most`` where that is less; None is no limit.

    >>> at_most(7, 3), at_most(None, 3), at_most(7, None)
    (3, 3, 7)
    """
    known = [n for n in (nb, most) if n is not None]
    return min(known) if known else None


def next_multiple(number: int, after: int) -> int:
    """The least multiple of ``number`` that is greater than ``after``.

    >>> next_multiple(5, 4), next_multiple(5, 5)
    (5, 10)
    """
    return (after // number + 1) * number


def validation_batches(nb_batches: int | None, interval: float) -> Sequence[int]:
    """The values of ``batch_nb`` after which to validate in an epoch of ``nb_batches``.

    ``interval`` is a fraction of the epoch where it is at most 1, a number of batches otherwise. Without a length
    (None) a number of batches only; the end of the epoch is the caller's.

    >>> validation_batches(7, 0.5), list(validation_batches(7, 3)), validation_batches(1, 0.25)
    ([4, 7], [3, 6], [1])
    """
    if interval > 1:
        return range(int(interval), (nb_batches or NEVER) + 1, int(interval))
    if nb_batches is None:
        return []
    nb_checks = int(1 / interval + 1e-9)
    return sorted({min(nb_batches, ceil(nb_batches * interval * i - 1e-9)) for i in range(1, nb_checks + 1)})


def next_due(batches: Sequence[int], after: int) -> int:
    """The first entry of the ascending ``batches`` that is greater than ``after``; a huge number if none is.

    >>> next_due([4, 7], 4), next_due(range(3, 100, 3), 3)
    (7, 6)
    """
    place = bisect_right(batches, after)
    return batches[place] if place < len(batches) else NEVER


def accumulation_at(epoch: int, accumulate: int | dict[int, int]) -> int:
    """The window's size in ``epoch`` (from 0), where ``accumulate`` is a number or {epoch from 1: number}.

    >>> [accumulation_at(epoch, {1: 2, 3: 8}) for epoch in range(4)]
    [2, 2, 8, 8]
    """
    if isinstance(accumulate, int):
        return accumulate
    begun = [start for start in accumulate if start <= epoch + 1]
    return accumulate[max(begun)] if begun else 1


def nb_of_steps(
    nb_batches: int | None, accumulate: int | dict[int, int], nb_epochs: int, most: int | None
) -> int | None:
    """The windows of ``nb_epochs`` epochs of ``nb_batches`` each, at most ``most``; None where that isn't known.

    >>> nb_of_steps(10, 4, 2, None), nb_of_steps(10, {1: 1, 2: 5}, 3, None), nb_of_steps(None, 1, 3, 100)
    (6, 14, 100)
    """
    if nb_batches is None:
        return most
    nb = sum(ceil(nb_batches / accumulation_at(epoch, accumulate)) for epoch in range(nb_epochs))
    return nb if most is None else min(nb, most)
