"""Plain data as bytes: one line of JSON that describes the contents, then the numbers of tensors and arrays as they
lie in memory."""

import json
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytorch_lightning.messages import kinds

MAKERS = {kind.__name__: kind for kind in (list, dict, set, int, float, str)}
"""What a ``defaultdict`` may fill gaps with."""


class NotPlain(TypeError):
    """A value that can't be sent, or has a part that can't: ``what`` that is, and where it lies."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.keys: list[Any] = []
        """The keys, indices and names of attributes that lead to the part, the last one first."""

    @property
    def place(self) -> str:
        """Where the part lies, as one would write it."""
        return "".join(key if isinstance(key, Attribute) else f"[{key!r}]" for key in reversed(self.keys))


class Attribute(str):
    """The name of an attribute, among keys."""


def encode(value: Any) -> Tensor:
    """``value`` as bytes. Raises ``NotPlain``."""
    encoder = _Encoder()
    try:
        root = encoder.encode(value)
        head = json.dumps([encoder.types, [b.nbytes for b in encoder.buffers], root], separators=(",", ":")).encode()
    except RecursionError:
        raise NotPlain("data that is nested too deeply, or contains itself") from None
    except ValueError as error:  # of json: a number that has too many digits
        raise NotPlain(str(error)) from None
    parts = [np.array([len(head)], dtype="<i8").view(np.uint8), np.frombuffer(head, np.uint8), *encoder.buffers]
    message = np.empty(sum(part.nbytes for part in parts), np.uint8)
    at = 0
    for part in parts:
        message[at : at + part.nbytes] = part
        at += part.nbytes
    return torch.from_numpy(message)


class _Encoder:
    """Each value becomes what JSON has, or a list of a word and what that needs."""

    def __init__(self) -> None:
        self.types: list[tuple[str, str]] = []
        self.buffers: list[Any] = []
        self._numbers: dict[type, int] = {}
        self._sent: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no other object gets its id
        self._encoders: dict[type, Callable[[Any], list[Any]]] = {
            list: lambda v: self._several("list", v),
            tuple: lambda v: self._several("tuple", v),
            set: lambda v: self._several("set", v),
            frozenset: lambda v: self._several("frozenset", v),
            dict: lambda v: ["dict", *self._pairs(v)],
            defaultdict: self._defaultdict,
            bytes: lambda v: self._bytes("bytes", v),
            bytearray: lambda v: self._bytes("bytearray", v),
            Tensor: self._tensor,
            np.ndarray: self._array,
            np.memmap: lambda v: self._array(v.view(np.ndarray)),
        }

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in kinds.RAW:
            return value
        encoder = self._encoders.get(kind)
        if encoder is not None:
            return encoder(value)
        if kind in kinds.SHORT:
            try:
                return [kind.__name__, kinds.SHORT[kind][0](value)]
            except (TypeError, ValueError):
                raise self._refusal(kind) from None
        if isinstance(value, np.generic) and kind is value.dtype.type:
            return ["scalar", self._array(np.asarray(value))]
        return self._of_a_type(value, kind)

    def _within(self, key: Any, value: Any) -> Any:
        try:
            return self.encode(value)
        except NotPlain as error:
            error.keys.append(key)
            raise

    def _several(self, word: str, values: Any) -> list[Any]:
        items = list(values)
        if kinds.RAW.issuperset(map(type, items)):
            return [f"{word} as it is", items]
        return [word, [self._within(i, item) for i, item in enumerate(items)]]

    def _pairs(self, values: dict[Any, Any]) -> list[Any]:
        return [
            self._several("list", values),
            [self._within(key, value) for key, value in values.items()],
        ]

    def _defaultdict(self, value: defaultdict[Any, Any]) -> list[Any]:
        maker = value.default_factory
        if maker is not None and MAKERS.get(getattr(maker, "__name__", "")) is not maker:
            raise NotPlain("a defaultdict whose default isn't made by " + ", ".join(MAKERS))
        return ["defaultdict", None if maker is None else maker.__name__, *self._pairs(value)]

    def _bytes(self, word: str, value: Any) -> list[Any]:
        self.buffers.append(np.frombuffer(bytes(value), np.uint8))
        return [word]

    # ------------------------------------------------------------------ numbers
    def _again(self, value: Any) -> list[Any] | None:
        """The reference to a tensor or an array that was encoded before; registers a new one."""
        if id(value) in self._sent:
            return ["again", self._sent[id(value)]]
        self._sent[id(value)] = len(self._sent)
        self._kept.append(value)
        return None

    def _tensor(self, value: Tensor) -> list[Any]:
        again = self._again(value)
        if again is not None:
            return again
        try:
            return ["tensor", value.requires_grad, *self._values(value.detach())]
        except RuntimeError as error:  # a dtype or a device that torch can't copy from
            raise NotPlain(f"a tensor of {value.dtype} on {value.device} ({error})") from None

    def _values(self, value: Tensor) -> list[Any]:
        if value.is_nested or value.is_quantized:
            raise NotPlain(f"a {'nested' if value.is_nested else 'quantized'} tensor")
        layout, shape, dtype = value.layout, list(value.shape), str(value.dtype)
        if value.device.type == "meta":
            return ["shape", dtype, shape]
        if layout == torch.strided:
            whole = value.cpu().resolve_conj().resolve_neg().contiguous()
            flat = whole.as_strided((whole.numel(),), (1,))  # that of one number may have any stride
            self.buffers.append(flat.view(torch.uint8).numpy())
            return ["dense", dtype, shape]
        if layout == torch.sparse_coo:
            return ["sparse", shape, value.is_coalesced(), *map(self._values, (value._indices(), value._values()))]
        if layout in (torch.sparse_csr, torch.sparse_bsr):
            parts = value.crow_indices(), value.col_indices(), value.values()
        elif layout in (torch.sparse_csc, torch.sparse_bsc):
            parts = value.ccol_indices(), value.row_indices(), value.values()
        else:
            raise NotPlain(f"a tensor of layout {layout}")
        return ["compressed", str(layout), shape, *map(self._values, parts)]

    def _array(self, value: Any) -> list[Any]:
        again = self._again(value)
        if again is not None:
            return again
        if value.dtype == object:
            return ["objects", list(value.shape), self._several("list", value.ravel().tolist())]
        if value.dtype.hasobject or value.dtype.kind not in "biufcSUVMm":
            raise NotPlain(f"an array of {value.dtype}")
        by_columns = value.flags.f_contiguous and not value.flags.c_contiguous
        self.buffers.append(np.frombuffer(value.tobytes(), np.uint8))
        return ["array", self.encode(np.lib.format.dtype_to_descr(value.dtype)), list(value.shape), by_columns]

    # ------------------------------------------------------------------ values of other types
    def _of_a_type(self, value: Any, kind: type) -> list[Any]:
        if isinstance(value, type) or not kinds.is_plain(kind):
            raise self._refusal(kind)
        if isinstance(value, Enum):
            if kind.__members__.get(value.name) is not value:  # type: ignore[attr-defined]
                raise self._refusal(kind)
            return ["member", self._number(kind), value.name]
        attributes = {} if kinds.is_of_c(kind) else kinds.attributes_of(value)
        named = [list(attributes), [self._within(Attribute(f".{k}"), v) for k, v in attributes.items()]]
        if isinstance(value, Tensor):
            return ["kind of tensor", self._number(kind), *named, self._tensor(value.as_subclass(Tensor))]
        if isinstance(value, deque):
            return ["deque", self._number(kind), *named, value.maxlen, self._several("list", value)]
        container = kinds.container_of(kind)
        if container is not None:
            return ["kind of", self._number(kind), *named, container, self._contents(container, value)]
        try:
            kinds.blank(kind)
        except TypeError:
            raise self._refusal(kind) from None
        return ["fields", self._number(kind), *named]

    def _contents(self, container: str, value: Any) -> Any:
        base: Any = kinds.CONTAINERS[container]
        if container in ("dict", "ordered"):
            return self._pairs(OrderedDict(base.items(value)))
        if container in ("list", "tuple", "set", "frozenset"):
            return self._several("list", base.__iter__(value))
        return self.encode(base.__getnewargs__(value)[0] if container in ("str", "bytes") else base(value))

    def _number(self, kind: type) -> int:
        number = self._numbers.setdefault(kind, len(self._numbers))
        if number == len(self.types):
            self.types.append(kinds.note(kind))
        return number

    def _refusal(self, kind: type) -> NotPlain:
        return NotPlain(f"a {kinds.full_name(kind)}")
