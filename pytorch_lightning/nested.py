"""Nested data (batches, outputs, checkpoints) is traversed here, in one way."""

import contextlib
import copy
import dataclasses
import operator
from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from typing import Any

from torch import Tensor

LEAVES = (str, bytes, int, float, type(None), range, bytearray, memoryview, array)
"""Types that hold no tensors, the most frequent ones first."""
BUILTIN = (list, tuple, set, frozenset)
"""Containers that are made from their items."""


def map_tensors(
    value: Any,
    function: Callable[[Tensor], Any],
    other: Callable[[Any], Any] = lambda leaf: leaf,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """``value`` with ``function`` of every tensor in it, and ``other`` of everything else that isn't a container; or,
    with ``is_leaf``, of what that says.

    Containers keep their types and attributes: lists, tuples, named tuples, sets, deques, dicts and dataclasses, their
    subclasses, and other mappings, sequences and sets. ``value`` itself isn't changed.

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
        if type(value) in BUILTIN:
            return type(value)(map(walk, value))
        if isinstance(value, Mapping):
            return like_mapping(value, {key: walk(item) for key, item in value.items()})
        if isinstance(value, (Sequence, Set)):
            return _like_items(value, [*value], [*map(walk, value)])
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return _like_dataclass(value, walk)
        return other(value) if is_leaf is None else value

    return walk(value)


def like_mapping(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """``items`` in a mapping of the type of ``value``, with its attributes (the ``_metadata`` of a ``state_dict``);
    a plain dict where there is no way to make one."""
    if type(value) is dict:
        return items
    if type(value) is defaultdict:
        return defaultdict(value.default_factory, items)
    if type(value) is OrderedDict:
        made = OrderedDict(items)
        vars(made).update(vars(value))
        return made
    old, new = [value[key] for key in items], [*items.values()]
    return _like(value, old, new, items, lambda made: [made[key] for key in items])


def _like_items(value: Collection[Any], old: list[Any], new: list[Any]) -> Any:
    """``new`` in a sequence or set of the type of ``value``, whose items are ``old``."""
    if isinstance(value, tuple):
        with contextlib.suppress(TypeError):  # one that is written in C
            made = tuple.__new__(type(value), new)
            vars(made).update(vars(value)) if hasattr(value, "__dict__") else None
            return made
    if type(value) is deque:
        return deque(new, value.maxlen)
    return _like(value, old, new, new, list)


def _like(value: Any, old: list[Any], new: list[Any], items: Any, read: Callable[[Any], list[Any]]) -> Any:
    """A copy of ``value``, a container of a class of its own, that holds ``new`` in the place of ``old``. Its
    constructor is called only where a copy isn't enough: it may take anything. ``items`` where nothing helps."""
    if all(map(operator.is_, old, new)):
        return value  # a range, say
    memo = {id(item): made for item, made in zip(old, new, strict=True)}
    expected = sorted(id(memo[id(item)]) for item in old)
    ways: Sequence[Callable[[], Any]] = (lambda: copy.deepcopy(value, dict(memo)), lambda: type(value)(items))
    for make in ways:
        with contextlib.suppress(Exception):
            made = make()
            if sorted(map(id, read(made))) == expected:
                return made
    return items


def _like_dataclass(value: Any, walk: Callable[[Any], Any]) -> Any:
    """A copy without a call of ``__init__`` and ``__post_init__``, which may want what isn't kept."""
    made = copy.copy(value)
    fields = {field.name for field in dataclasses.fields(value) if hasattr(value, field.name)}
    others = {name for name, item in getattr(value, "__dict__", {}).items() if isinstance(item, Tensor)}
    for name in fields | others:
        object.__setattr__(made, name, walk(getattr(value, name)))
    return made
