"""Which types plain data is made of, and how a value of such a type is made without running any code of it.

A message names a type only by its module and name. Who reads it makes a value only of a type that it has already:
one that it has sent itself, or that the files name whose code it runs. Nothing is imported.
"""

import copyreg
import dataclasses
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import chain
from operator import index
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import ModuleType
from typing import Any
from uuid import UUID

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

RAW = frozenset({type(None), bool, int, float, str})
"""Types that JSON has too."""
CONTAINERS: dict[str, type] = {
    "ordered": OrderedDict, "dict": dict, "list": list, "tuple": tuple, "set": set, "frozenset": frozenset,
    "str": str, "bytes": bytes, "int": int, "float": float,
}  # fmt: skip
"""What a type may derive from, the nearest first."""
SHORT: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    complex: (lambda v: [v.real, v.imag], lambda v: complex(*v)),
    range: (lambda v: [v.start, v.stop, v.step], lambda v: range(*v)),
    Decimal: (str, Decimal),
    Fraction: (
        lambda v: [v.numerator, v.denominator],
        lambda v: Fraction(*map(index, v)),
    ),  # no text
    UUID: (str, UUID),
    date: (date.isoformat, date.fromisoformat),
    time: (lambda v: _moment(v), time.fromisoformat),
    datetime: (lambda v: _moment(v), datetime.fromisoformat),
    timedelta: (lambda v: [v.days, v.seconds, v.microseconds], lambda v: timedelta(*v)),
    type(...): (lambda v: None, lambda v: ...),
    torch.Size: (list, torch.Size),
    torch.device: (str, torch.device),
    **{kind: (str, kind) for kind in (PosixPath, PurePosixPath, WindowsPath, PureWindowsPath)},
    **{kind: (str, lambda v: name_in_torch(v)) for kind in (torch.dtype, torch.layout, torch.memory_format)},
}
"""Types whose values are a few numbers or a line: what these are, and the value made of them."""
SHORT_BY_NAME = {kind.__name__: kind for kind in SHORT}
EVERYBODYS = (OrderedDict, Counter, deque, nn.Parameter, PackedSequence)
"""Types that every process has, beside those of ``torch.return_types``."""


def _moment(value: datetime | time) -> str:
    if type(value.tzinfo) not in (type(None), timezone):
        raise ValueError("a zone with summer time is more than an offset")
    return value.isoformat()


def name_in_torch(text: str) -> Any:
    """The dtype, layout or memory format that is shown as ``text``.

    >>> name_in_torch("torch.float32")
    torch.float32
    """
    found = getattr(torch, text.removeprefix("torch."), None)
    if not isinstance(found, (torch.dtype, torch.layout, torch.memory_format)):
        raise ValueError(f"{text!r} isn't a dtype, a layout or a memory format")
    return found


def full_name(kind: type) -> str:
    """How a type is called in messages: that of python without its module.

    >>> full_name(int), full_name(OrderedDict)
    ('int', 'collections.OrderedDict')
    """
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def container_of(kind: type) -> str | None:
    """The name of the type in ``CONTAINERS`` that ``kind`` derives from, or None."""
    return next((name for name, base in CONTAINERS.items() if issubclass(kind, base)), None)


def has_fields(kind: type) -> bool:
    """Whether ``kind`` is a dataclass, or one of the package attrs."""
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__")


def is_plain(kind: type) -> bool:
    """Whether values of ``kind`` can be sent and made again.

    They can't where letting go of one runs code of its type, which may rely on what only its ``__init__`` makes.
    """
    if hasattr(kind, "__del__"):
        return False
    if issubclass(kind, Tensor):
        own = [base for base in kind.__mro__ if base is not Tensor and issubclass(base, Tensor)]
        return not any("__torch_dispatch__" in vars(base) for base in own)
    return issubclass(kind, (Enum, deque)) or has_fields(kind) or container_of(kind) is not None


def is_of_c(kind: type) -> bool:
    """Whether ``kind`` is a tuple of named values of C, such as those in ``torch.return_types``: only its own
    constructor, which is one of C too, makes one."""
    return issubclass(kind, tuple) and kind is not tuple and getattr(kind.__new__, "__self__", None) is kind


def blank(kind: type) -> Any:
    """A value of ``kind``, which has fields, without any. Raises ``TypeError`` where its base type is one of C."""
    return object.__new__(kind)


def attributes_of(value: object) -> dict[str, Any]:
    """The attributes of ``value`` itself, also those in slots."""
    found = dict(getattr(value, "__dict__", ()))
    for name in copyreg._slotnames(type(value)):  # type: ignore[attr-defined]
        if hasattr(value, name):
            found[name] = getattr(value, name)
    return found


def set_attributes(value: Any, attributes: dict[str, Any]) -> None:
    """Give ``value`` its attributes, past whatever its type does when one is set."""
    slots = set(copyreg._slotnames(type(value)))  # type: ignore[attr-defined]
    for name, attribute in attributes.items():
        if name in slots:
            object.__setattr__(value, name, attribute)
        else:
            vars(value)[name] = attribute


# ------------------------------------------------------------------ which types this process has
_own: dict[tuple[str, str], type] = {}
"""The types of what this process has sent, by module and name."""


def note(kind: type) -> tuple[str, str]:
    """Take note that this process sends a value of ``kind``; returns its module and name."""
    key = (kind.__module__, kind.__qualname__)
    _own[key] = kind
    return key


def find(place: str, name: str, known: Sequence[type], module: nn.Module | None) -> type | None:
    """The type of that name that this process has: sent by itself, everybody's, one of ``known``, or named by the
    code of ``module``."""
    found = _own.get((place, name))
    if found is not None:
        return found
    if place == "torch.return_types":
        kind = getattr(torch.return_types, name, None)
        return kind if isinstance(kind, type) else None
    there = chain(EVERYBODYS, known, () if module is None else types_of(module))
    return next((kind for kind in there if (kind.__module__, kind.__qualname__) == (place, name)), None)


def types_of(module: nn.Module) -> Iterator[type]:
    """The plain types that the files name in which the classes of ``module`` and of all in it are defined."""
    classes = {base for part in module.modules() for base in type(part).__mro__ if base.__module__ != "builtins"}
    modules = {name: sys.modules[name] for name in sorted({c.__module__ for c in classes}) if name in sys.modules}
    for file in modules.values():
        yield from _plain_in(file)
        for value in list(vars(file).values()):
            if isinstance(value, ModuleType):
                yield from _plain_in(value)


def _plain_in(place: object) -> Iterator[type]:
    for value in list(vars(place).values()):
        if isinstance(value, type):
            if is_plain(value):
                yield value
            if value.__module__ == getattr(place, "__name__", None):
                yield from (inner for inner in vars(value).values() if isinstance(inner, type) and is_plain(inner))
