"""A loader's batches dealt out to processes: in rounds for training, one after the other for evaluation."""

from collections.abc import Iterator
from typing import Any

from pytorch_lightning.data.replay import ReplayableLoader
from pytorch_lightning.processes import Share

IDLE = object()
"""What a virtual rank gets in a last round that has no batch for it."""


class RoundsLoader(ReplayableLoader):
    """The slots of one process: for each round a batch, or ``IDLE``, for each of its virtual ranks.

    ``start`` and ``limit`` count rounds. Every process gives the same number of slots per virtual rank, whatever
    the length of the epoch: nothing is padded, and nobody waits for a batch that doesn't come.
    """

    def __init__(self, loader: ReplayableLoader, share: Share) -> None:
        self._loader, self.share = loader, share

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        nb = self.share.nb
        nb_given = 0
        for batch in self._loader.batches(epoch, start * nb, None if limit is None else limit * nb):
            yield batch
            nb_given += 1
        nb_rounds = self.share.nb_rounds(self._loader.nb_drawn) - start
        for _ in range(nb_rounds * len(self.share.mine) - nb_given):
            yield IDLE

    def crc_at(self, nb_batches: int) -> int | None:
        # the last round may be a short one
        nb = nb_batches * self.share.nb
        found = (self._loader.crc_at(n) for n in range(nb, nb - self.share.nb, -1))
        return next((crc for crc in found if crc is not None), None)

    def indices_at(self, epoch: int, number: int) -> Any:
        return self._loader.indices_at(epoch, number)

    def expect(self, crc: int, on_other_order: Any) -> None:
        self._loader.expect(crc, on_other_order)


def numbered(loader: ReplayableLoader, share: Share, epoch: int, limit: int | None) -> Iterator[tuple[int, Any]]:
    """This process's batches of an evaluation, each with its number in the loader."""
    batches = loader.batches(epoch, 0, limit)
    return enumerate(batches) if share.nb == 1 else zip(_numbers_of(share), batches, strict=False)


def _numbers_of(share: Share) -> Iterator[int]:
    first = 0
    while True:
        for offset in share.mine:
            yield first + offset
        first += share.nb
