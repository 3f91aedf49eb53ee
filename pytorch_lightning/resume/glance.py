"""Many tensors at a glance, where reading their values again would take ten times as long."""

from typing import Any, NamedTuple

from torch import Tensor

MANY = 64
"""Lists of so many entries are worth it."""


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
