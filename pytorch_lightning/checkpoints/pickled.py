"""What a pickle may make: the objects that a checkpoint is made of, and what may be called for them."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch

MOST_ALIKE = 100
"""So many keys of one dict may have the same hash."""

ITEM_SIZES = {
    "ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Long": 8, "Float": 4, "Int": 4, "QInt32": 4, "BFloat16": 2,
    "Half": 2, "Short": 2, "Bool": 1, "Byte": 1, "Char": 1, "QInt8": 1, "QUInt2x4": 1, "QUInt4x2": 1, "QUInt8": 1,
    "Untyped": 1,
}  # fmt: skip
"""Bytes of an element, by the name of the storage's class without ``Storage``."""


class Refused(Exception):
    """Why a pickle isn't read. ``name``: what it would call, where that is why."""

    def __init__(self, why: str, name: str | None = None) -> None:
        super().__init__(why)
        self.name = name


class Made:
    """What instructions would make, other than text and numbers."""

    __slots__ = ("arguments", "depth", "is_open", "items", "kind", "name", "state", "weight")

    def __init__(self, kind: str, weight: int = 0, name: str = "", arguments: Any = ()) -> None:
        self.kind, self.name, self.arguments = kind, name, arguments
        """``kind``: 'list', 'tuple', 'dict', 'set', 'name', 'storage', or 'call' for what ``name`` would return."""
        self.items: Any = ()
        """What it is filled with; of a dict keys and values in turn."""
        self.state: Any = None
        self.weight, self.depth = weight, 1
        """``weight``: about the bytes that containers would take if each place had a copy of its own."""
        self.is_open = True
        """It may still be filled: nothing refers to it yet."""

    def __str__(self) -> str:
        return "a tensor" if "_rebuild" in self.name else f"a {self.name.rpartition('.')[2] or self.kind}"

    def is_a(self, kind: str) -> bool:
        """Whether it is a container of that kind; an OrderedDict is a dict too."""
        return self.kind == kind or (self.kind == "call" and kind == "dict" and self.name in DICTS)


class Storage(NamedTuple):
    """The bytes of tensors, which lie beside the pickle."""

    key: str
    size: int
    """In bytes."""


def check_call(name: str, arguments: list[Any], callables: Collection[str]) -> int:
    """The bytes that a copy of what ``name`` returns takes beyond those in the file. Raises ``Refused`` where calling
    it isn't what a checkpoint does, or would take memory or time."""
    if name in callables:
        return 0
    if name not in CALLS:
        raise Refused(f"it calls {name}", name)
    check = CALLS[name]
    return 0 if check is None else check(arguments, callables) or 0


def _check_view(arguments: list[Any], _: Collection[str]) -> int:
    """A tensor must lie in its storage. One that repeats it is small, until somebody copies it."""
    storage, offset, size, stride = arguments[0], arguments[1], _numbers(arguments[2]), _numbers(arguments[3])
    if type(storage) is not Made or storage.kind != "storage" or type(offset) is not int:
        raise Refused("it has a tensor without bytes")
    if len(size) != len(stride) or min([offset, *size, *stride]) < 0:
        raise Refused("it has a tensor of an impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    item = ITEM_SIZES[storage.name.removesuffix("Storage")]
    if len(arguments) > 6 and type(arguments[6]) is Made and arguments[6].kind == "name":
        kind = getattr(torch, arguments[6].name.removeprefix("torch."), None)
        item = kind.itemsize if isinstance(kind, torch.dtype) else item
    if 0 not in size and (last + 1) * item > storage.arguments[0].size:
        raise Refused("it has a tensor that is larger than its bytes")
    return max(0, math.prod(size) * item - int(storage.arguments[0].size))


def _check_typed(arguments: list[Any], callables: Collection[str]) -> int:
    """A tensor of another class, or with attributes: what makes it comes with it."""
    function, _, own = arguments[:3]
    if type(function) is not Made or function.kind != "name" or not is_tuple(own):
        raise Refused("it calls what it has made")
    return check_call(function.name, own.items, callables)


def _check_text(arguments: list[Any], _: Collection[str]) -> None:
    """Bytes are text in a pickle; some encodings take very long, and a number would be a size."""
    if not arguments or (type(arguments[0]) is Made and arguments[0].name == "_codecs.encode"):
        return
    if type(arguments[0]) is not str or not set(arguments[1:]) <= {"latin1", "latin-1"}:
        raise Refused("it makes bytes from something else than text")


def _check_collection(arguments: list[Any], _: Collection[str]) -> None:
    if len(arguments) > 1 or (arguments and (type(arguments[0]) is not Made or arguments[0].kind not in FILLED)):
        raise Refused("it makes a collection from something else than one")
    if arguments and arguments[0].kind == "list":
        check_keys([item.items[0] if is_tuple(item) and item.items else item for item in arguments[0].items])


FILLED = ("list", "dict")

CALLS: dict[str, Callable[[list[Any], Collection[str]], int | None] | None] = {
    "torch._utils._rebuild_tensor": _check_view,
    "torch._utils._rebuild_tensor_v2": _check_view,
    "torch._utils._rebuild_tensor_v3": _check_view,
    "torch._utils._rebuild_qtensor": _check_view,
    "torch._utils._rebuild_sparse_tensor": None,
    "torch._utils._rebuild_nested_tensor": None,
    "torch._utils._rebuild_meta_tensor_no_storage": None,
    "torch._utils._rebuild_parameter": None,
    "torch._utils._rebuild_parameter_with_state": None,
    "torch._tensor._rebuild_from_type_v2": _check_typed,
    "torch.Size": None,
    "torch.device": None,
    "torch.serialization._get_layout": None,
    "builtins.complex": None,
    "_codecs.encode": _check_text,
    "builtins.bytearray": _check_text,
    "builtins.set": _check_collection,
    "collections.OrderedDict": _check_collection,
    "collections.Counter": _check_collection,
}
"""What plain data calls, and the check of the arguments where they could be harmful."""

DICTS = ("collections.OrderedDict", "collections.Counter")


def check_keys(keys: Sequence[Any]) -> None:
    """Raises ``Refused`` where many ``keys`` have the same hash: a dict of those takes the square of their number."""
    # text is hashed differently in each process
    hashes = Counter(hash(_plain(key)) for key in keys if type(key) is not str)
    if hashes and max(hashes.values()) > MOST_ALIKE:
        raise Refused(f"more than {MOST_ALIKE} keys of a dict have the same hash")


def _plain(key: Any) -> Any:
    """What hashes as ``key`` would."""
    if type(key) is not Made or key.kind == "storage":
        return key
    if key.kind == "tuple":
        return tuple(map(_plain, key.items))
    if key.name == "builtins.complex":
        return complex(*key.arguments)
    return tuple(map(_plain, key.arguments[0].items)) if key.name == "torch.Size" else key


def _is_dict(value: Any) -> bool:
    return type(value) is Made and value.is_a("dict")


def is_tuple(value: Any) -> bool:
    return type(value) is Made and value.kind == "tuple"


def is_metadata(state: Any) -> bool:
    """Whether it is what ``nn.Module.state_dict`` adds: the versions of layers."""
    if not _is_dict(state) or len(state.items) != 2 or state.items[0] != "_metadata" or not _is_dict(state.items[1]):
        return False
    return all(map(_is_dict, state.items[1].items[1::2]))


def _numbers(value: Any) -> list[int]:
    if type(value) is Made and value.name == "torch.Size" and value.arguments:
        value = value.arguments[0]
    if not is_tuple(value) or any(type(item) is not int for item in value.items):
        raise Refused("it has a tensor of an impossible shape")
    return value.items  # type: ignore[no-any-return]
