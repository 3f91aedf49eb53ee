"""State of callbacks that is sharded, as weights are under fsdp: it is saved whole, and comes back sharded."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from pytorch_lightning.processes import is_sharded
from pytorch_lightning.strategies import Strategy

Path = tuple[Any, ...]
"""The keys and indices that lead to a tensor."""


def places_of(state: Any) -> list[tuple[list[Any], int]]:
    """Where in nested ``state`` there are sharded tensors, and the dimension that is shared out."""
    found = []
    for path, tensor in _tensors_in(state):
        for placement in tensor.placements if is_sharded(tensor) else ():
            if placement.is_shard():
                found.append((list(path), int(placement.dim)))
    return found


def sharded_again(state: Any, places: Any, strategy: Strategy, module: nn.Module, nb_saved: int) -> Any:
    """``state`` with the tensors at ``places`` sharded. One process has whole weights: what it kept of them under their
    names is sharded as they are."""
    dimensions = {tuple(path): dim for path, dim in places}
    weights = {name: p for name, p in module.named_parameters() if is_sharded(p)}

    def piece(path: Path, tensor: Tensor) -> Any:
        if is_sharded(tensor):  # each process has read its own part
            return tensor
        if path in dimensions:
            return strategy.shard_tensor(tensor, dimensions[path])
        like: Any = weights.get(str(path[-1]).removeprefix("module.")) if path and nb_saved == 1 else None
        if like is None or like.shape != tensor.shape:
            return tensor
        return strategy.shard_tensor(tensor, next(p.dim for p in like.placements))

    return _replaced(state, piece, ()) if dimensions or (weights and nb_saved == 1) else state


def _tensors_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors_in(item, (*path, key))


def _replaced(value: Any, piece: Any, path: Path) -> Any:
    if isinstance(value, Tensor):
        return piece(path, value)
    if isinstance(value, dict):
        made = value.copy()  # of its own type
        made.update({key: _replaced(item, piece, (*path, key)) for key, item in value.items()})
        return made
    if type(value) in (list, tuple):
        return type(value)(_replaced(item, piece, (*path, n)) for n, item in enumerate(value))
    return value
