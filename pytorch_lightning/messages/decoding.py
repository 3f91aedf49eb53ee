"""Plain data out of bytes that another process sent. Whatever they are, no code runs that they name."""

import json
from collections import defaultdict, deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_lightning.messages import kinds
from pytorch_lightning.messages.encoding import MAKERS


class NotOurs(ValueError):
    """Bytes that ``encode`` didn't make, or that name a type that this process doesn't have."""


def decode(message: Tensor, types: Sequence[type] = (), module: nn.Module | None = None) -> Any:
    """The value that became ``message``. Raises ``NotOurs``.

    Its types are made where this process has sent one itself, where they are among ``types``, or where the code of
    ``module`` names them.
    """
    try:
        return _Decoder(message, types, module).value()
    except NotOurs:
        raise
    except Exception as error:  # whatever a stranger's bytes make of it
        raise NotOurs(f"what was sent isn't plain data ({type(error).__name__}: {error})") from error


class _Decoder:
    """Reads what ``_Encoder`` wrote; each word has a method."""

    def __init__(self, message: Tensor, known: Sequence[type], module: nn.Module | None) -> None:
        data = message.numpy()
        size = int(data[:8].view("<i8")[0])
        if not 0 <= size <= len(data) - 8:
            raise NotOurs(f"what was sent isn't plain data (it has {len(data)} bytes, and its first line {size})")
        types, self._sizes, self._root = json.loads(data[8 : 8 + size].tobytes())
        self._data, self._at, self._next = data, 8 + size, 0
        if min(self._sizes, default=0) < 0 or sum(self._sizes) != len(data) - self._at:
            raise NotOurs(f"what was sent isn't plain data (its parts have {sum(self._sizes)} bytes)")
        self._types = [_find(str(place), str(name), known, module) for place, name in types]
        self._made: list[Any] = []

    def value(self) -> Any:
        return self._decode(self._root)

    def _decode(self, node: Any) -> Any:
        if type(node) is not list:
            return node
        word, *rest = node
        if word in kinds.SHORT_BY_NAME:
            (short,) = rest
            return kinds.SHORT[kinds.SHORT_BY_NAME[word]][1](short)
        return getattr(self, "_read_" + word.replace(" ", "_"))(*rest)

    def _all(self, nodes: list[Any]) -> list[Any]:
        return [self._decode(node) for node in nodes]

    def _bytes(self) -> Any:
        """The next buffer, of this message's memory."""
        size, self._next = self._sizes[self._next], self._next + 1
        self._at += size
        return self._data[self._at - size : self._at]

    def _read_list(self, nodes: list[Any]) -> list[Any]:
        return self._all(nodes)

    def _read_list_as_it_is(self, items: list[Any]) -> list[Any]:
        return _scalars(items)

    def _read_tuple(self, nodes: list[Any]) -> tuple[Any, ...]:
        return tuple(self._all(nodes))

    def _read_tuple_as_it_is(self, items: list[Any]) -> tuple[Any, ...]:
        return tuple(_scalars(items))

    def _read_set(self, nodes: list[Any]) -> set[Any]:
        return set(self._all(nodes))

    def _read_set_as_it_is(self, items: list[Any]) -> set[Any]:
        return set(_scalars(items))

    def _read_frozenset(self, nodes: list[Any]) -> frozenset[Any]:
        return frozenset(self._all(nodes))

    def _read_frozenset_as_it_is(self, items: list[Any]) -> frozenset[Any]:
        return frozenset(_scalars(items))

    def _read_dict(self, keys: Any, values: list[Any]) -> dict[Any, Any]:
        return dict(zip(self._decode(keys), self._all(values), strict=True))

    def _read_defaultdict(self, maker: str | None, keys: Any, values: list[Any]) -> defaultdict[Any, Any]:
        return defaultdict(None if maker is None else MAKERS[maker], self._read_dict(keys, values))

    def _read_bytes(self) -> bytes:
        return bytes(self._bytes().tobytes())

    def _read_bytearray(self) -> bytearray:
        return bytearray(self._bytes().tobytes())

    # ------------------------------------------------------------------ numbers
    def _read_again(self, number: int) -> Any:
        return self._made[number]

    def _read_tensor(self, requires_grad: bool, *rest: Any) -> Tensor:
        number = len(self._made)
        self._made.append(None)
        self._made[number] = tensor = self._values(*rest).requires_grad_(bool(requires_grad))
        return tensor

    def _values(self, word: str, *rest: Any) -> Tensor:
        if word in ("dense", "shape"):
            dtype = kinds.name_in_torch(rest[0])
            if word == "shape":
                return torch.empty(rest[1], dtype=dtype, device="meta")
            data = self._bytes()
            # a copy starts where any dtype may start, and doesn't keep all that was sent
            copy = torch.empty(len(data), dtype=torch.uint8)
            copy.numpy()[:] = data
            return copy.view(dtype).reshape(rest[1])
        if word == "sparse":
            shape, coalesced, *parts = rest
            indices, values = (self._values(*part) for part in parts)
            tensor = torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)
            return tensor._coalesced_(bool(coalesced))
        if word != "compressed":
            raise NotOurs(f"what was sent isn't plain data (there is no kind of tensor {word!r})")
        layout, shape, *parts = rest
        compressed, plain, values = (self._values(*part) for part in parts)
        return torch.sparse_compressed_tensor(
            compressed, plain, values, shape, layout=kinds.name_in_torch(layout), check_invariants=True
        )

    def _read_array(self, descr: Any, shape: list[int], by_columns: bool) -> Any:
        dtype = np.lib.format.descr_to_dtype(self._decode(descr))
        order: Any = "F" if by_columns else "C"
        array = np.frombuffer(self._bytes().tobytes(), dtype).reshape(shape).copy(order)
        self._made.append(array)
        return array

    def _read_objects(self, shape: list[int], nodes: Any) -> Any:
        number = len(self._made)
        self._made.append(None)
        items = self._decode(nodes)
        array = np.empty(len(items), object)
        for i, item in enumerate(items):  # an assignment of all would look into those that are sequences
            array[i] = item
        self._made[number] = array = array.reshape(shape)
        return array

    def _read_scalar(self, node: Any) -> Any:
        return self._decode(node)[()]

    # ------------------------------------------------------------------ values of other types
    def _read_member(self, number: int, name: str) -> Enum:
        kind: Any = self._types[number]
        member: Enum = kind.__members__[name]
        return member

    def _attributes(self, names: list[str], nodes: list[Any]) -> dict[str, Any]:
        return dict(zip(map(str, names), self._all(nodes), strict=True))

    def _read_fields(self, number: int, names: list[str], nodes: list[Any]) -> Any:
        value = kinds.blank(self._types[number])
        kinds.set_attributes(value, self._attributes(names, nodes))
        return value

    def _read_kind_of_tensor(self, number: int, names: list[str], nodes: list[Any], node: Any) -> Tensor:
        attributes = self._attributes(names, nodes)
        plain = self._decode(node)
        value: Tensor = plain.detach().as_subclass(self._types[number]).requires_grad_(plain.requires_grad)
        kinds.set_attributes(value, attributes)
        return value

    def _read_deque(self, number: int, names: list[str], nodes: list[Any], limit: int | None, node: Any) -> Any:
        attributes = self._attributes(names, nodes)
        kind = self._types[number]
        value: Any = deque.__new__(kind)
        deque.__init__(value, self._decode(node), limit)
        kinds.set_attributes(value, attributes)
        return value

    def _read_kind_of(self, number: int, names: list[str], nodes: list[Any], container: str, contents: Any) -> Any:
        attributes = self._attributes(names, nodes)
        kind, base = self._types[number], kinds.CONTAINERS[container]
        value = self._filled(kind, base, contents)
        kinds.set_attributes(value, attributes)
        return value

    def _filled(self, kind: Any, base: Any, contents: Any) -> Any:
        if kinds.is_of_c(kind):
            return kind(self._decode(contents))
        if issubclass(base, dict):
            value = base.__new__(kind)
            for key, item in zip(self._decode(contents[0]), self._all(contents[1]), strict=True):
                base.__setitem__(value, key, item)
            return value
        items = self._decode(contents)
        if base in (list, set):
            value = base.__new__(kind)
            base.__init__(value, items)
            return value
        return base.__new__(kind, items)


def _find(place: str, name: str, known: Sequence[type], module: nn.Module | None) -> type:
    kind = kinds.find(place, name, known, module)
    if kind is None or not kinds.is_plain(kind):
        raise NotOurs(
            f"it is, or contains, a {place}.{name}, and this process has sent none itself. It only makes values of"
            " types that it has sent, or that the file of the model names: import the type there"
        )
    return kind


def _scalars(items: list[Any]) -> list[Any]:
    if not kinds.RAW.issuperset(map(type, items)):
        raise NotOurs("what was sent isn't plain data (a list of numbers has other things in it)")
    return items
