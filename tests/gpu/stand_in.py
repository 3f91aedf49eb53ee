"""A device that isn't the CPU, in a few lines of Python: it stands in for a missing GPU.

``install()`` makes it torch's accelerator. A tensor there has its numbers in the CPU's memory, and an operation takes
place on the CPU; but to torch, and to what is tested, it is another device:

- tensors of the two devices don't mix, as they don't on a GPU;
- it has a generator of its own, which seeding the CPU's doesn't touch, and autocast of its own;
- ``WAITS`` notes each time that a GPU would have been waited for: numbers that are read, and copies that aren't
  ``non_blocking``;
- an allocation of more than ``MOST_BYTES`` is ``torch.OutOfMemoryError``.

It computes at once, so nothing that depends on time or on streams can be seen on it.
"""

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

NAME = "standin"
DEVICE = torch.device("cpu")  # the device itself, once it is installed
MOST_BYTES = 2**34

WAITS: list[str] = []
"""What would have waited for a GPU, and where it was asked for."""

_PACKAGES = ("pytorch_lightning", "tests", "benchmarks")
_has_begun = False


def install() -> None:
    """Make the stand-in torch's accelerator, for as long as this process lives."""
    global DEVICE
    if is_installed():
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    DEVICE = torch.device(NAME, 0)
    _register()
    torch.Event = AnyEvent  # type: ignore[misc]
    # what copies and loads storages below the operations
    clone = torch.UntypedStorage.clone
    torch.UntypedStorage.clone = lambda own: (  # type: ignore[method-assign]
        _show_storage(own.raw.clone()) if own.device.type == NAME else clone(own)  # type: ignore[attr-defined]
    )
    torch.serialization.register_package(
        1, lambda storage: None, lambda raw, where: _show_storage(raw) if where.startswith(NAME) else None
    )


def is_installed() -> bool:
    """Whether this process has it."""
    return DEVICE.type == NAME


def is_here(tensor: Tensor) -> bool:
    """Whether ``tensor`` is on the stand-in."""
    return tensor.device.type == NAME


# ------------------------------------------------------------------ tensors
def raw_of(tensor: Tensor) -> Tensor:
    """The tensor of the CPU that holds the numbers of ``tensor``, in the same memory."""
    storage: Any = tensor.untyped_storage()
    raw = torch.empty(0, dtype=tensor.dtype)
    return raw.set_(storage.raw, tensor.storage_offset(), tensor.shape, tensor.stride())


def _show(tensor: Tensor, raw: Tensor, storage: Any = None) -> Tensor:
    """Let ``tensor`` have the numbers of ``raw``. ``storage`` is that of another one with the same memory."""
    global _has_begun
    _has_begun = True
    if storage is None:
        storage = _show_storage(raw.untyped_storage())
    place = torch.ops.aten.set_.source_Storage_storage_offset
    place._op_dk(torch._C.DispatchKey.CPU, tensor, storage, raw.storage_offset(), raw.shape, raw.stride())
    return tensor


def _show_storage(raw: Any) -> Any:
    storage: Any = torch._C._construct_storage_from_data_pointer(raw.data_ptr(), DEVICE, raw.nbytes())
    storage.raw = raw  # which keeps the memory as long as the storage lives
    return storage


def _layout(raw: Tensor) -> tuple[Any, ...]:
    storage = raw.untyped_storage()
    return (storage._cdata, storage.data_ptr(), storage.nbytes(), raw.storage_offset(), raw.shape, raw.stride())


LISTS_ALONE = ("aten::_foreach", "aten::_fused")
"""Operations on lists of tensors, which are all of one device: numbers of the CPU aren't taken there."""
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class _Call:
    """One operation: its arguments, as tensors of the CPU, and what they were."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._there: dict[int, tuple[Tensor, Tensor, Any]] = {}
        self._storages: dict[Any, Any] = {}

    def take(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._take_tensor(value)
        if type(value) in (list, tuple):
            if self._name.startswith(LISTS_ALONE) and any(isinstance(v, Tensor) and not is_here(v) for v in value):
                raise RuntimeError(f"{self._name} takes no list with tensors of the CPU on {DEVICE}")
            return type(value)(map(self.take, value))
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if isinstance(value, torch.UntypedStorage):
            self._storages[value.raw._cdata] = value  # type: ignore[attr-defined]
            return value.raw  # type: ignore[attr-defined]
        return value

    def _take_tensor(self, tensor: Tensor) -> Tensor:
        if is_here(tensor):
            raw = raw_of(tensor)
            self._there[id(raw)] = raw, tensor, _layout(raw)
            self._storages[raw.untyped_storage()._cdata] = tensor.untyped_storage()
            return raw
        # a GPU too takes a number from the CPU, and indices
        if tensor.dim() and self._name.split(".")[0] not in INDEXING:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices,"
                f" {DEVICE} and {tensor.device}! ({self._name})"
            )
        return tensor

    def settle(self) -> None:
        """Show what has become of the arguments: some got other memory, or another shape."""
        for raw, tensor, before in self._there.values():
            now = _layout(raw)
            if now != before:
                kept = tensor.untyped_storage() if now[:3] == before[:3] else None
                other = None if now[0] == before[0] else self._storages.get(now[0])
                _show(tensor, raw, kept or other)

    def give(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) in self._there:
                return self._there[id(value)][1]
            shown = torch._C._acc.create_empty_tensor([0], value.dtype)  # type: ignore[attr-defined]
            return _show(shown, value, self._storages.get(value.untyped_storage()._cdata))
        return type(value)(map(self.give, value)) if type(value) in (list, tuple) else value


SHAPED_BY_VALUES = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal", "is_nonzero")
"""Operations that a GPU is waited for in: what they return depends on numbers."""


def _run(operation: Any, *arguments: Any, **options: Any) -> Any:
    """What every operation goes through that has no function of its own below."""
    name = operation.name()
    call = _Call(name)
    taken, named = call.take(arguments), {key: call.take(value) for key, value in options.items()}
    named.pop("pin_memory", None)
    if name.startswith("aten::empty"):
        _check_room(taken[0] if taken else named["size"], named.get("dtype"))
    if any(argument.name == "generator" for argument in operation._schema.arguments):
        named["generator"] = named.get("generator") or generator
    short = name.split("::")[1].split(".")[0]
    masks = short in ("index", "index_put_") and any(getattr(i, "dtype", None) is torch.bool for i in taken[1])
    if short in SHAPED_BY_VALUES or masks:
        _wait(name)
    with _drawing() if short in DRAWING else contextlib.nullcontext():
        returned = operation(*taken, **named)
    call.settle()
    return call.give(returned)


DRAWING = ("native_dropout",)
"""Operations that draw and take no generator."""


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """A scope in which the CPU's stream is the device's."""
    outer = torch.default_generator.get_state()
    torch.default_generator.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(outer)


def _check_room(size: Any, dtype: torch.dtype | None) -> None:
    nb = torch.empty(0, dtype=dtype).element_size()
    for length in size:
        nb *= length
    if nb > MOST_BYTES:
        raise torch.OutOfMemoryError(f"{NAME} out of memory. Tried to allocate {nb / 2**30:.2f} GiB.")


def _wait(what: str) -> None:
    own = [f for f in traceback.extract_stack() if any(f"/{package}/" in f.filename for package in _PACKAGES)]
    place = next((f for f in reversed(own) if f.filename != __file__), None)
    WAITS.append(what if place is None else f"{what} in {place.name}, {place.filename}:{place.lineno}")


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    here, there = source.device.type == NAME, target.device.type == NAME
    if not (here and there) and not non_blocking:
        _wait("a copy that blocks")
    (raw_of(target) if there else target).copy_(raw_of(source) if here else source)
    return target


def _read(tensor: Tensor) -> Any:
    _wait("a number that is read")
    return raw_of(tensor).item()


def _convolve(*arguments: Any) -> Any:
    return _run(torch.ops.aten.convolution.default, *arguments)


def _convolve_back(gradient: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> Any:
    sizes = [gradient.shape[1]]
    return _run(torch.ops.aten.convolution_backward.default, gradient, x, weight, sizes, *rest)


# ------------------------------------------------------------------ autocast
IN_16_BITS = ("linear", "matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm", "conv1d", "conv2d", "conv3d")
IN_16_BITS += ("conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input")
IN_32_BITS = ("cross_entropy_loss", "nll_loss_nd", "mse_loss", "layer_norm", "log_softmax.int", "softmax.int", "sum")
"""A few of those that CUDA's autocast knows."""


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() and value.dtype != torch.float64 else value
    return type(value)(_cast(item, dtype) for item in value) if type(value) in (list, tuple) else value


def _in_autocast(operation: Any, chosen: Callable[[], torch.dtype]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        off = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(off):
            return operation(*_cast(arguments, chosen()), **{k: _cast(v, chosen()) for k, v in options.items()})

    return call


_libraries: list[torch.library.Library] = []


def _register() -> None:
    every, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _libraries.extend([every, aten])
    every.fallback(_run, "PrivateUse1")
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    aten.impl("_local_scalar_dense", _read, "PrivateUse1")
    aten.impl("_fused_sdp_choice", lambda *arguments, **options: 0, "PrivateUse1")
    aten.impl("convolution_overrideable", _convolve, "PrivateUse1")
    aten.impl("convolution_backward_overrideable", _convolve_back, "PrivateUse1")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    casts = [(IN_16_BITS, lambda: torch.get_autocast_dtype(NAME)), (IN_32_BITS, lambda: torch.float32)]
    for names, chosen in casts:
        for name in names:
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
            aten.impl(name, _in_autocast(operation, chosen), "AutocastPrivateUse1")


# ------------------------------------------------------------------ what torch asks of a device
generator = torch.Generator()


class Event:
    """A moment on the device, which computes at once."""

    nb_recorded = 0

    def __init__(self) -> None:
        self._moment: float | None = None

    def record(self, stream: Any = None) -> None:
        self._moment = time.perf_counter()
        Event.nb_recorded += 1

    def synchronize(self) -> None:
        assert self._moment is not None

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: "Event") -> float:
        assert self._moment is not None
        assert end._moment is not None
        return (end._moment - self._moment) * 1000


class Stream:
    """The one stream that there is: whatever it is given is done at once."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    __hash__ = None  # type: ignore[assignment]

    def synchronize(self) -> None:
        pass


class AnyEvent(torch.Event):
    """``torch.Event``, for the stand-in too."""

    def __new__(cls, device: Any = None, **options: Any) -> Any:
        if getattr(device, "type", device) == NAME:
            return Event()
        return super().__new__(cls, device, **options)


class Module:
    """``torch.standin``."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return _has_begun  # as CUDA: with the first tensor

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        pass

    def current_stream(self, device: Any = None) -> "Stream":
        return Stream()

    def stream(self, stream: Any) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def device(self, index: Any) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def synchronize(self, device: Any = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        generator.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, device: Any = NAME) -> Tensor:
        return generator.get_state()

    def get_rng_state_all(self) -> list[Tensor]:
        return [generator.get_state()]

    def set_rng_state(self, state: Tensor, device: Any = NAME) -> None:
        generator.set_state(state)

    def set_rng_state_all(self, states: list[Tensor]) -> None:
        generator.set_state(states[0])

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return MOST_BYTES // 2, MOST_BYTES

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


@contextlib.contextmanager
def counting_waits() -> Iterator[list[str]]:
    """The waits in this scope."""
    first, found = len(WAITS), list[str]()
    yield found
    found.extend(WAITS[first:])
