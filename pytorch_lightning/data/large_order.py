"""The order of more samples than a list should hold: any position of it is known at once, without a walk."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from pytorch_lightning import seeding
from pytorch_lightning.data.loader import KEYED
from pytorch_lightning.processes import Share

BLOCK = 2**15
"""Samples whose places are computed together."""


@dataclass(frozen=True)
class LargeOrder:
    """One epoch of ``nb_samples``. ``word`` decides how they are shuffled; None: they are in their own order."""

    nb_samples: int
    batch_size: int
    drop_last: bool
    word: int | None

    def __len__(self) -> int:
        return self.nb_samples // self.batch_size if self.drop_last else -(-self.nb_samples // self.batch_size)

    def crc_at(self, nb_batches: int) -> int:
        """Stands for the indices of the first ``nb_batches`` batches: the CRC of all that decides them."""
        word = -1 if self.word is None else self.word
        nb = min(nb_batches * self.batch_size, self.nb_samples)
        return crc32(struct.pack("<4q", KEYED, self.nb_samples, word, nb))

    def batches(self, start: int, stop: int, share: Share) -> Iterator[Sequence[int]]:
        """The samples of the batches ``start`` to ``stop``, in lists; nothing in place of those of other processes."""
        size = self.batch_size
        shuffle = None if self.word is None else seeding.permutation(self.nb_samples, self.word)
        together = max(1, BLOCK // (size * len(share.mine))) * share.nb
        for first in range(start, stop, together):
            numbers = range(first, min(first + together, stop))
            own = np.array([n for n in numbers if share.has(n)], dtype=np.int64)
            places: Any = (own[:, None] * size + np.arange(size)).ravel()
            places = places[places < self.nb_samples]
            samples = (places if shuffle is None else shuffle(places)).tolist()
            at = 0
            for number in numbers:
                if share.has(number):
                    yield samples[at : at + size]
                    at += size
                else:
                    yield ()


def large_order(sampler: Any, word: int) -> LargeOrder | None:
    """The order of an epoch that ``word`` decides, where ``sampler`` is what a ``DataLoader`` makes that shuffles or
    doesn't, of more samples than torch should list; otherwise None: it has to be asked."""
    inner: Any = sampler.sampler if type(sampler) is BatchSampler else None
    is_shuffled = type(inner) is RandomSampler and not inner.replacement
    if not is_shuffled and type(inner) is not SequentialSampler:
        return None
    nb = len(inner.data_source)
    if nb <= seeding.LISTED or (is_shuffled and inner.num_samples != nb):
        return None
    return LargeOrder(nb, sampler.batch_size, sampler.drop_last, word if is_shuffled else None)
