"""Many tensors at a glance, where reading their values again would take ten times as long, and their mark made
without a table of nodes."""

import functools
import operator
import zlib
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pytorch_lightning.checkpoints.snapshot import checksum_of_kind
from pytorch_lightning.resume.plain_values import FRAME, LEAVES, digest

MANY = 64
"""Lists of so many entries are worth it."""
NUMBERS = frozenset((type(None), bool, int, float))
NOT_SEEN = (TypeError, RuntimeError, ValueError, BufferError)


def mark_of_leaf(value: Any) -> str:
    """The fingerprint of a number or None."""
    return _digest(f"{type(value).__name__} {value!r}")


@functools.lru_cache(maxsize=1024)
def _digest(text: str) -> str:
    return digest(text)


class Glance(NamedTuple):
    """The tensors of a list of many, and how often torch wrote to each."""

    tensors: list[Tensor]
    sizes: list[int]
    """How many of them each entry holds."""
    versions: list[int]

    def fits(self, other: "Glance | None") -> bool:
        """Whether they are the same ones, and torch wrote to none of them in between."""
        if other is None or self[1:] != other[1:]:
            return False
        return all(a is b for a, b in zip(self.tensors, other.tensors, strict=True))

    def mark(self, value: Any, limit: float) -> str | None:
        """What ``plain_values.fingerprint`` says of ``value``, whose glance this is, in a third of the time; None where
        that has to look closer: at tensors that numpy doesn't show as they are, aliases, more than ``limit`` bytes."""
        held = [*self.tensors, *(item for item in value if type(item) is not Tensor)]
        if len({*map(id, held)}) < len(held):
            return None
        try:
            if 4 * FRAME * (1 + len(held)) + sum(tensor.nbytes for tensor in self.tensors) > limit:
                return None
            parts = iter([_written(tensor) for tensor in self.tensors])
        except (TypeError, RuntimeError, ValueError, BufferError):
            return None
        sizes = zip(value, self.sizes, strict=True)
        items = [
            next(parts) if type(item) is Tensor else _joined(item, [next(parts) for _ in range(n)]) for item, n in sizes
        ]
        return digest(_joined(value, items))


def _written(tensor: Tensor) -> str:
    content: Any = tensor.numpy()
    checksum = zlib.crc32(content, checksum_of_kind(tensor.dtype, tensor.shape))
    return f"[str 'tensor',tensor {checksum},str 'cpu',bool False,bool False]"


def _joined(value: Any, parts: list[str]) -> str:
    inside = ",".join(parts)
    return f"[str 'tuple',[{inside}]]" if type(value) is tuple else f"[str 'list',NoneType None,[{inside}]]"


def glance(value: Any) -> Glance | None:
    """What is seen of a list or tuple of many tensors, or of many lists or tuples of tensors (ready batches); None of
    anything else."""
    if type(value) not in (list, tuple) or len(value) < MANY:
        return None
    nested = [item if type(item) in (list, tuple) else (item,) for item in value]
    tensors = [part for parts in nested for part in parts]
    if not all(type(tensor) is Tensor and not tensor.is_inference() for tensor in tensors):
        return None
    return Glance(tensors, [len(parts) for parts in nested], [tensor._version for tensor in tensors])


class Seen:
    """A value of lists, tuples, dicts, arrays, tensors, numbers and texts, to be looked at again and again: which
    objects it holds, and the checksums of their memory. ``fits()`` takes a twentieth of a mark."""

    def __init__(self, value: Any) -> None:
        """Raises one of ``NOT_SEEN`` where the value holds anything else, or memory that isn't in one piece."""
        self.value = value
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._dicts: list[tuple[dict[Any, Any], list[Any], list[Any]]] = []
        self._arrays: list[tuple[Any, Any, int]] = []
        waiting, known = [value], set[int]()
        while waiting:
            held = waiting.pop()
            if type(held) in LEAVES or id(held) in known:
                continue
            known.add(id(held))
            if type(held) is list:
                self._lists.append((held, [*held]))
                waiting += held
            elif type(held) is tuple:  # whoever holds it still holds the same
                waiting += held
            elif type(held) is dict:
                self._dicts.append((held, [*held], [*held.values()]))
                waiting += [*held, *held.values()]
            else:
                self._arrays.append((held, *_memory_of(held)))

    def fits(self) -> bool:
        """Whether the value is what it was."""
        lists = [*self._lists, *(([*now], names) for now, names, _ in self._dicts)]
        lists += [([*now.values()], values) for now, _, values in self._dicts]
        if not all(len(now) == len(was) and all(map(operator.is_, now, was)) for now, was in lists):
            return False
        try:
            return all(_memory_of(held) == (kind, crc) for held, kind, crc in self._arrays)
        except NOT_SEEN:
            return False


def _memory_of(held: Any) -> tuple[Any, int]:
    """What kind of memory an array or a tensor has, and its checksum."""
    if type(held) is np.ndarray and not held.dtype.hasobject and held.flags.c_contiguous:
        array: Any = held
        return (held.dtype, held.shape), zlib.crc32(array)
    if type(held) is Tensor and not held.requires_grad and held.is_contiguous():
        content: Any = held.numpy()
        return (held.dtype, held.shape), zlib.crc32(content)
    raise TypeError
