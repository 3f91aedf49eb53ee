"""Batches that are left out: those of a fork that was told to skip some."""

from collections.abc import Iterator, Sequence
from typing import Any

from pytorch_lightning.data.loader import ReplayableLoader
from pytorch_lightning.run.progress import NEVER, Progress
from pytorch_lightning.timings import Timings

NOTHING = object()
Rest = tuple[Iterator[Any], int]
"""Batches, and the ``batch_nb`` up to which they are trained on."""


class Skips:
    """Steps over the batches in ``ranges``, (first, end) in global_steps: they keep their numbers, and make no step. A
    window ends before them.

    Where the order is a list of indices the data of these batches aren't read. Others are read and dropped.
    """

    def __init__(self, ranges: Sequence[Sequence[int]], progress: Progress, timings: Timings) -> None:
        self._ranges = sorted((int(first), int(end)) for first, end in ranges)
        self._progress, self._timings = progress, timings
        self._loader: ReplayableLoader | None = None
        self._limit: int | None = None
        self._jumps = False

    def begin(self, loader: ReplayableLoader, limit: int | None) -> Rest:
        """The batches that come next in an epoch of ``limit``, up to those that are left out."""
        self._loader, self._limit = loader, limit
        self._jumps = loader.begins_anywhere and limit is not None
        return self._begin()

    def _begin(self) -> Rest:
        assert self._loader is not None
        progress, until = self._progress, self._until()
        limit = until if self._jumps else self._limit  # workers read ahead, but not what won't be used
        return self._timings.waiting(self._loader.batches, progress.epoch, progress.batch_nb, limit), until

    def _until(self) -> int:
        progress, last = self._progress, NEVER if self._limit is None else self._limit
        ahead = next((first for first, end in self._ranges if end > progress.global_step), NEVER)
        return min(last, progress.batch_nb + max(0, ahead - progress.global_step))

    def step_over(self, batches: Iterator[Any]) -> Rest:
        """Leave out those that come now, as far as this epoch has them; returns the rest."""
        progress, last = self._progress, NEVER if self._limit is None else self._limit
        ends = [end for first, end in self._ranges if first <= progress.global_step < end]
        # none, where batches were None: these aren't counted
        nb = min(max(ends, default=progress.global_step) - progress.global_step, last - progress.batch_nb)
        if not self._jumps:
            nb_read = next((n for n in range(nb) if next(batches, NOTHING) is NOTHING), nb)
            progress.epoch_over, nb = progress.epoch_over or nb_read < nb, nb_read
        progress.batch_nb, progress.global_step = progress.batch_nb + nb, progress.global_step + nb
        if not self._jumps:
            return batches, self._until()
        next(batches, NOTHING)  # they are at their end: a resume compares here what came before
        return self._begin()
