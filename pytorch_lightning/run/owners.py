"""Whose attributes are state: the module and what it is made of, the training data, callbacks."""

import copyreg
import functools
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.root_module.root_module import GIVEN

MOST_ITEMS = 256
"""Containers of more entries are data, and nothing is looked for in them."""
OF_MODULES = {*vars(nn.Module()), "training", "hparams", "example_input_array"}
"""What a module keeps for itself, and what has rules of its own."""
OF_OURS = (
    GIVEN,
    "_trainer",
    "_init_arguments",
    "_tng_dataloader",
    "_val_dataloader",
    "_test_dataloader",
    "_optimizer_step_pre_hooks",
)
OF_TORCH = ("_is_fsdp_managed_module", "_fsdp_use_orig_params", "_initialize_hook", "_load_hook")
"""What torch adds to modules while they are sharded, and to lazy ones until their first batch."""
LEFT_OUT = {*OF_MODULES, *OF_OURS, *OF_TORCH}
FOREIGN = (Optimizer, LRScheduler, DataLoader, torch.Tensor, ModuleType, type, BaseException)
KNOWN = ("torch.utils.data", "torchvision", "torchmetrics")
"""Libraries whose objects are datasets, samplers, transforms and metrics."""


OF_NOTHING = frozenset((type(None), bool, int, float, complex, str, bytes, torch.Tensor))
"""Types of values that hold no objects, and are most attributes."""


class Owner(NamedTuple):
    """An object whose attributes are kept."""

    path: str
    """What it is called, for messages and in files."""
    held: Any


def owners_of(roots: Iterable[Owner], before: Sequence[Owner] = ()) -> list[Owner]:
    """``roots`` and the objects of the user's own classes that they hold, each once, by the first way to it.
    ``before``: those of other roots, which come first."""
    found = [*before]
    seen = {id(owner.held) for owner in before}
    waiting = [*reversed(list(roots))]
    while waiting:
        path, held = waiting.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        found.append(Owner(path, held))
        children = [
            Owner(f"{path}.{name}" if name else path, child)
            for name, value in _held_by(held).items()
            if type(value) not in OF_NOTHING
            for name, child in _objects_in(name, value, 0)
        ]
        waiting += reversed(children)
    return found


def attributes_of(held: Any) -> dict[str, Any]:
    """The attributes of an owner that may be state, buffers that ``state_dict`` leaves out among them."""
    if isinstance(held, nn.Module):
        found = {n: v for n, v in vars(held).items() if n not in LEFT_OUT and not n.startswith("_lazy_")}
        # hidden entries of a module's own are there too: hooks' counters, say
        buffers = cast("Any", held)._non_persistent_buffers_set
        return {**found, **{name: held._buffers[name] for name in buffers if held._buffers.get(name) is not None}}
    slots = [name for name in cast("Any", copyreg)._slotnames(type(held)) if hasattr(held, name)]
    return {**{name: getattr(held, name) for name in slots}, **getattr(held, "__dict__", {})}


def may_be_set(held: Any, name: Any) -> bool:
    """Whether a file may name it: nothing of what makes a module one, and no method."""
    own = name.startswith("__")
    if isinstance(held, nn.Module):
        kept = held._non_persistent_buffers_set
        own |= name in {*LEFT_OUT, *held._parameters, *held._modules, *held._buffers} - kept
        own |= name.startswith("_lazy_")
    return not own and not callable(getattr(type(held), name, None))


def set_attribute(held: Any, name: str, value: Any) -> bool:
    """Put ``value`` where ``attributes_of`` found it; False where that may not be."""
    if not may_be_set(held, name):
        return False
    if isinstance(held, nn.Module) and name in held._buffers:
        held._buffers[name] = value
    elif name in getattr(held, "__dict__", {}) or not _is_slot(held, name):
        vars(held)[name] = value  # not through a property, or a __setattr__ that forbids it
    else:
        object.__setattr__(held, name, value)
    return True


def delete_attribute(held: Any, name: str) -> bool:
    """Remove an attribute, if it exists; False where that may not be."""
    if not may_be_set(held, name):
        return False
    if isinstance(held, nn.Module) and name in held._buffers:
        del held._buffers[name]
    elif name in getattr(held, "__dict__", {}):
        del vars(held)[name]
    elif _is_slot(held, name) and hasattr(held, name):
        object.__delattr__(held, name)
    return True


def _is_slot(held: Any, name: str) -> bool:
    return name in cast("Any", copyreg)._slotnames(type(held))


def _held_by(held: Any) -> dict[str, Any]:
    children = attributes_of(held)
    return {**children, **held._modules} if isinstance(held, nn.Module) else children


def _objects_in(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """The owners that an attribute holds, directly or in lists, tuples and dicts."""
    if _is_owner(value):
        yield name, value
    elif depth < 3 and type(value) in (list, tuple, dict) and len(value) <= MOST_ITEMS:
        pairs: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            yield from _objects_in(f"{name}[{key!r}]", item, depth + 1)


def _is_owner(value: Any) -> bool:
    kind = type(value)
    if isinstance(value, nn.Module):
        return True
    if kind.__module__ == "builtins" or isinstance(value, FOREIGN) or inspect.isroutine(value):
        return False
    if not hasattr(value, "__dict__") and not cast("Any", copyreg)._slotnames(kind):
        return False
    return not has_state(value) and is_of_the_program(kind.__module__)


def has_state(value: Any) -> bool:
    """Whether ``value`` says itself what its state is."""
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


@functools.lru_cache(maxsize=1024)
def is_of_the_program(module: str) -> bool:
    """Whether a module is the user's own code, or a library's of datasets, transforms and metrics: of other libraries'
    objects nobody knows what their attributes stand for."""
    if module.startswith(KNOWN):
        return True
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root in ("pytorch_lightning", "torch", "numpy"):
        return False
    file = str(getattr(sys.modules.get(module), "__file__", None) or "")
    return not any(file.startswith(path) for path in (_SITE, _STDLIB)) and "site-packages" not in file


_SITE, _STDLIB = sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")


def owners_of_callbacks(callbacks: Sequence[Callback]) -> list[Owner]:
    """The callbacks whose attributes are state: those of users that have no ``state_dict`` of their own."""
    found = []
    for callback in callbacks:
        own = getattr(callback, "other", callback)
        is_ours = type(own).__module__.startswith("pytorch_lightning.")
        keeps = type(own).state_dict is not Callback.state_dict if isinstance(own, Callback) else has_state(own)
        if not keeps and not is_ours:
            found.append(Owner(f"callback {callback.state_name}", own))
    names = [owner.path for owner in found]
    return [o if names.count(o.path) == 1 else Owner(f"{o.path} {i}", o.held) for i, o in enumerate(found)]
