"""Nested data (batches, outputs, checkpoints) is traversed here, in one way."""

import copy
import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

LEAVES = (str, bytes, int, float, type(None))
"""The most frequent types that hold no tensors."""


def map_tensors(
    value: Any,
    function: Callable[[Tensor], Any],
    other: Callable[[Any], Any] = lambda leaf: leaf,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """``value`` with ``function`` of every tensor in it, and ``other`` of everything else that isn't a container; or,
    with ``is_leaf``, of what that says.

    Lists, tuples, named tuples, dicts and other mappings, dataclasses and their subclasses keep their types; sets and
    other objects are leaves. ``value`` itself isn't changed.

    >>> import torch
    >>> map_tensors({"x": [torch.ones(2), 3]}, lambda tensor: tensor.sum().item())
    {'x': [2.0, 3]}
    """

    def walk(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if isinstance(value, LEAVES):
            return other(value) if is_leaf is None else value
        if is_leaf is not None and is_leaf(value):
            return other(value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(walk, value))
        if isinstance(value, (list, tuple)):
            return type(value)(map(walk, value))
        if isinstance(value, Mapping):
            return like_mapping(value, {key: walk(item) for key, item in value.items()})
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed = {f.name: walk(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
            return dataclasses.replace(value, **changed)
        return other(value) if is_leaf is None else value

    return walk(value)


def like_mapping(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """``items`` in a mapping of the type of ``value``, with its attributes (the ``_metadata`` of a ``state_dict``);
    a plain dict where its type can't be made from one."""
    if type(value) is dict:
        return items
    if isinstance(value, defaultdict):
        return type(value)(value.default_factory, items)
    try:
        made: Any = type(value)(items)  # type: ignore[call-arg]
    except TypeError:
        return items
    if isinstance(value, OrderedDict):
        vars(made).update(copy.copy(vars(value)))
    return made
