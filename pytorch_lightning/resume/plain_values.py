"""Plain data as a table of nodes that a checkpoint can hold, and back: types, aliases and cycles are kept.

A value that isn't a number or a text is ``("node", n)``, and ``nodes[n]`` says what it is. So a list that two
attributes share is one node, and is one list again afterwards.
"""

import argparse
import collections
import dataclasses
import enum
import pathlib
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pytorch_lightning.checkpoints.snapshot import checksum

LEAVES = (type(None), bool, int, float, complex, str, bytes)
DICTS: dict[str, type] = {c.__name__: c for c in (dict, collections.OrderedDict, collections.Counter)}
FACTORIES: dict[str, type] = {c.__name__: c for c in (int, float, list, dict, set, str, bool)}
"""What a defaultdict may make."""
LISTS: dict[str, type] = {c.__name__: c for c in (list, collections.deque)}
NAMESPACES: dict[str, type] = {c.__name__: c for c in (types.SimpleNamespace, argparse.Namespace)}
SETS: dict[str, type] = {c.__name__: c for c in (set, frozenset)}
LONGEST_DTYPE = 10_000
"""Characters that describe the type of an array's items."""
FRAME = 16
"""About what a value takes beside its own bytes."""


class NotPlainError(Exception):
    """A value that isn't plain data."""


class TooLargeError(Exception):
    """A value that takes more than may be kept."""


class Encoder:
    """Makes nodes of values, of at most ``limit`` bytes. Tensors and arrays aren't copied unless ``copies``."""

    def __init__(self, limit: float, copies: bool = False) -> None:
        self.nodes: list[Any] = []
        self.size = 0
        self._limit, self._copies = limit, copies
        self._known: dict[int, int] = {}
        self._alive: list[Any] = []

    def add(self, value: Any) -> Any:
        """``value`` as a leaf or a node. Raises ``NotPlainError`` or ``TooLargeError``, and then keeps none of it."""
        before = len(self.nodes), self.size, len(self._alive)
        try:
            return self._add(value)
        except RecursionError:
            self._forget(*before)
            raise NotPlainError from None
        except (NotPlainError, TooLargeError):
            self._forget(*before)
            raise

    def _forget(self, nb_nodes: int, size: int, nb_alive: int) -> None:
        del self.nodes[nb_nodes:], self._alive[nb_alive:]
        self.size = size
        self._known = {key: n for key, n in self._known.items() if n < nb_nodes}

    def _add(self, value: Any) -> Any:
        kind = type(value)
        if kind in LEAVES:
            self._count(len(value) + FRAME if kind in (str, bytes) else FRAME)
            return value
        if id(value) in self._known:
            return "node", self._known[id(value)]
        n = self._known[id(value)] = len(self.nodes)
        self.nodes.append(None)
        self._alive.append(value)  # or its id may be another's
        self._count(4 * FRAME)
        self.nodes[n] = self._node(value, kind)
        return "node", n

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self._limit:
            raise TooLargeError

    def _node(self, value: Any, kind: type) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value, kind)
        name = kind.__name__
        if kind in LISTS.values():
            return name, getattr(value, "maxlen", None), [self._add(item) for item in value]
        if kind is tuple or kind is torch.Size:
            return name, [self._add(item) for item in value]
        if kind in DICTS.values():
            return name, [[self._add(key), self._add(item)] for key, item in value.items()]
        if kind is collections.defaultdict and value.default_factory in (None, *FACTORIES.values()):
            factory = None if value.default_factory is None else value.default_factory.__name__
            return name, factory, [[self._add(key), self._add(item)] for key, item in value.items()]
        if kind in SETS.values():
            return name, [self._add(item) for item in in_order(value)]
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(value, kind)
        if kind is bytearray:
            return name, bytes(value)
        if kind in (torch.dtype, torch.device):
            return name, str(value).removeprefix("torch.")
        if isinstance(value, pathlib.PurePath):
            return "path", str(value)
        if kind in NAMESPACES.values():
            return name, [[key, self._add(item)] for key, item in vars(value).items()]
        return self._instance(value, kind)

    def _tensor(self, value: Any, kind: type) -> Any:
        plain = kind in (Tensor, torch.nn.Parameter) and value.layout == torch.strided and not value.is_quantized
        device = value.device.type
        if not plain or device == "meta":
            raise NotPlainError
        self._count(value.nbytes)
        data, requires = value, value.requires_grad
        if requires or value.is_conj() or value.is_neg():
            data, requires = value.detach().resolve_conj().resolve_neg(), requires and value.is_leaf
        return "tensor", data.clone() if self._copies else data, device, kind is torch.nn.Parameter, requires

    def _array(self, value: Any, kind: type) -> Any:
        if kind is not np.ndarray and not isinstance(value, np.generic):
            raise NotPlainError  # a memmap, say
        if value.dtype.hasobject or is_mapped(value):
            raise NotPlainError
        self._count(value.nbytes)
        flat = np.array(value, order="C", copy=True) if self._copies else np.ascontiguousarray(value)
        content = (
            torch.from_numpy(flat.reshape(-1).view(np.uint8)) if value.nbytes else torch.empty(0, dtype=torch.uint8)
        )
        what = "scalar" if isinstance(value, np.generic) else "array"
        return what, content, repr(np.lib.format.dtype_to_descr(value.dtype)), list(value.shape)

    def _instance(self, value: Any, kind: type) -> Any:
        """Members of enums, named tuples and dataclasses, whose class is found again by its name."""
        place = kind.__module__, kind.__qualname__
        if find_class(*place) is not kind:
            raise NotPlainError
        if isinstance(value, enum.Enum):
            return "enum", *place, value.name
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return "named", *place, [self._add(item) for item in value]
        if not isinstance(value, (dict, list, tuple, set, torch.nn.Module)) and hasattr(value, "__dict__"):
            return "dataclass", *place, [[key, self._add(item)] for key, item in vars(value).items()]
        raise NotPlainError


def in_order(values: Iterable[Any]) -> list[Any]:
    """The members of a set in an order that doesn't depend on the process."""
    return sorted(values, key=lambda value: (type(value).__name__, repr(value)))


def find_class(module: str, name: str) -> Any:
    """The enum, named tuple or dataclass of that name; None where it isn't there. Nothing is imported, and no other
    class is found, so that a file can't call for code."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):  # not by getattr, which may import or run something
        found = vars(found).get(part) if isinstance(found, (types.ModuleType, type)) else None
    if not isinstance(found, type) or hasattr(found, "__del__"):
        return None
    fits = issubclass(found, enum.Enum) or dataclasses.is_dataclass(found)
    return found if fits or (issubclass(found, tuple) and hasattr(found, "_fields")) else None


def is_mapped(array: Any) -> bool:
    """Whether an array looks into a file or into memory that others see."""
    base = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return base is not None and type(base).__name__ in ("mmap", "memoryview", "SharedMemory")


def fingerprint(nodes: Sequence[Any], value: Any) -> str:
    """A checksum of what an encoder made: the same in every process for equal values."""
    done: dict[int, int] = {}

    def numbered(value: Any) -> str:
        if type(value) is not tuple or value[0] != "node":
            return f"{type(value).__name__} {value!r}"
        if value[1] in done:
            return f"again {done[value[1]]}"
        done[value[1]] = len(done)
        return written(nodes[value[1]])

    def written(part: Any) -> str:
        kind = type(part)
        if kind is str:
            return f"str {part!r}"
        if kind is tuple and part:
            if part[0] == "node":
                return numbered(part)
            if part[0] == "tensor":
                _, data, device, is_parameter, requires = part
                return f"[str 'tensor',tensor {checksum(data)},str {device!r},bool {is_parameter},bool {requires}]"
        if isinstance(part, Tensor):
            return f"tensor {checksum(part)}"
        if isinstance(part, (list, tuple)):
            return f"[{','.join(map(written, part))}]"
        return f"{type(part).__name__} {part!r}"

    return digest(numbered(value))


def digest(text: str) -> str:
    """A checksum of a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class Decoder:
    """Makes values of nodes. ``value(ref, like)`` writes into ``like`` where that can hold it, so that whoever else
    knows that object sees the new value. Where it ``copies``, no value shares memory with the nodes."""

    def __init__(
        self, nodes: Sequence[Any], device: torch.device, can_write: Callable[[int], bool], copies: bool = False
    ) -> None:
        self._nodes, self._device, self._can_write, self._copies = nodes, device, can_write, copies
        self._made: dict[int, Any] = {}
        self._used: set[int] = set()

    def value(self, encoded: Any, like: Any = None) -> Any:
        """The value that was encoded."""
        if type(encoded) is not tuple:
            return encoded
        n = encoded[1]
        if n not in self._made:
            fits = like if id(like) not in self._used else None
            self._made[n] = made = self._make(n, self._nodes[n], fits)
            self._used.add(id(made))
        return self._made[n]

    def _make(self, n: int, node: Any, like: Any) -> Any:
        kind = node[0]
        if kind in LISTS:
            return self._list(n, node, like)
        if kind in DICTS or kind == "defaultdict":
            return self._dict(n, node, like)
        if kind in NAMESPACES:
            return self._namespace(n, node, like)
        if kind in SETS:
            items = [self.value(item) for item in node[1]]
            if kind == "set" and type(like) is set:
                like.clear()
                like.update(items)
                return like
            return SETS[kind](items)
        if kind in ("tuple", "Size"):
            items = self._items(node[1], like)
            same = (
                type(like) is tuple
                and len(like) == len(items)
                and all(a is b for a, b in zip(like, items, strict=True))
            )
            return like if same else (tuple if kind == "tuple" else torch.Size)(items)
        if kind == "tensor":
            return self._tensor(node, like)
        if kind in ("array", "scalar"):
            return self._array(node, like)
        if kind == "bytearray":
            return bytearray(node[1])
        if kind in ("dtype", "device"):
            found = vars(torch).get(node[1]) if kind == "dtype" else torch.device(node[1])
            if not isinstance(found, (torch.dtype, torch.device)):
                raise NotPlainError
            return found
        if kind == "path":
            return pathlib.Path(node[1])
        return self._instance(node)

    def _items(self, encoded: Sequence[Any], like: Any) -> list[Any]:
        old = list(like) if isinstance(like, (list, tuple, collections.deque)) else []
        old += [None] * (len(encoded) - len(old))
        return [self.value(item, before) for item, before in zip(encoded, old, strict=False)]

    def _list(self, n: int, node: Any, like: Any) -> Any:
        kind, most, encoded = node
        fits = type(like) is LISTS[kind] and getattr(like, "maxlen", None) == most
        made: Any = like if fits else [] if kind == "list" else collections.deque(maxlen=most)
        self._made[n] = made
        self._used.add(id(made))
        items = self._items(encoded, like)
        made.clear()
        made.extend(items)
        return made

    def _dict(self, n: int, node: Any, like: Any) -> Any:
        kind, pairs = node[0], node[-1]
        if kind == "defaultdict":
            made: Any = collections.defaultdict(FACTORIES.get(node[1]) if node[1] else None)
            fits = type(like) is collections.defaultdict and like.default_factory is made.default_factory
        else:
            made, fits = DICTS[kind](), type(like) is DICTS[kind]
        made = like if fits else made
        self._made[n] = made
        self._used.add(id(made))
        old = dict(like) if isinstance(like, dict) else {}
        keys = [self.value(key) for key, _ in pairs]
        items = [self.value(item, old.get(key)) for key, (_, item) in zip(keys, pairs, strict=True)]
        made.clear()
        for key, item in zip(keys, items, strict=True):
            made[key] = item  # update of a Counter would count, and dict.update leave an OrderedDict without order
        return made

    def _namespace(self, n: int, node: Any, like: Any) -> Any:
        kind, pairs = node
        made = self._made[n] = like if type(like) is NAMESPACES[kind] else NAMESPACES[kind]()
        self._used.add(id(made))
        old = dict(vars(made))
        vars(made).clear()
        vars(made).update({key: self.value(item, old.get(key)) for key, item in pairs})
        return made

    def _tensor(self, node: Any, like: Any) -> Any:
        _, data, device, is_parameter, requires = node
        kind = torch.nn.Parameter if is_parameter else Tensor
        if (
            type(like) is kind
            and like.shape == data.shape
            and like.dtype == data.dtype
            and self._is_writable(like, device)
        ):
            with torch.no_grad():
                like.copy_(data)
            return like.requires_grad_(requires) if like.is_leaf else like
        made = data.to(self._device if device != "cpu" else "cpu", copy=self._copies)
        return torch.nn.Parameter(made, requires) if is_parameter else made.requires_grad_(requires)

    def _is_writable(self, like: Tensor, device: str) -> bool:
        if like.device.type != device or like.is_inference() or (like.requires_grad and not like.is_leaf):
            return False
        overlaps = any(stride == 0 and size > 1 for stride, size in zip(like.stride(), like.shape, strict=True))
        return not overlaps and (device != "cpu" or not like.numel() or self._can_write(like.data_ptr()))

    def _array(self, node: Any, like: Any) -> Any:
        import ast

        kind, content, descr, shape = node
        if len(descr) > LONGEST_DTYPE:
            raise NotPlainError
        dtype = np.lib.format.descr_to_dtype(ast.literal_eval(descr))
        if dtype.hasobject or (not content.numel() and 0 not in (*shape, dtype.itemsize)):
            raise NotPlainError
        made = content.numpy().view(dtype).reshape(shape) if content.numel() else np.empty(shape, dtype)
        made = made.copy() if self._copies else made
        if kind == "scalar":
            return made.reshape(-1)[0]
        fits = type(like) is np.ndarray and like.shape == made.shape and like.dtype == dtype and like.flags.writeable
        if fits and (not like.nbytes or self._can_write(like.ctypes.data)):
            like[...] = made
            return like
        return made

    def _instance(self, node: Any) -> Any:
        kind, module, name, content = node
        found = find_class(module, name)
        if found is None:
            raise NotPlainError
        if kind == "enum":
            return found[content]
        if kind == "named":
            return tuple.__new__(found, [self.value(item) for item in content])
        made = object.__new__(found)
        vars(made).update({key: self.value(item) for key, item in content})
        return made


def writable_memory() -> Callable[[int], bool]:
    """A function that says whether an address may be written to without anybody else seeing it: memory that is shared
    with other processes or with a file mustn't be."""
    private: list[tuple[int, int]] = []
    try:
        with open("/proc/self/maps") as file:
            for line in file:
                span, rights = line.split()[:2]
                if rights.startswith("rw") and rights.endswith("p"):
                    first, last = span.split("-")
                    private.append((int(first, 16), int(last, 16)))
    except OSError:  # not Linux: what torch knows must do
        return lambda address: True
    return lambda address: any(first <= address < last for first, last in private)


def storage_is_shared(value: Any) -> bool:
    """Whether a tensor lies in memory that other processes see."""
    return isinstance(value, Tensor) and value.device.type == "cpu" and cast("Any", value).is_shared()
