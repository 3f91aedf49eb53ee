"""The random generators that user code reaches: in attributes, and in what its functions use."""

import functools
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import numpy as np
import torch

from pytorch_lightning import seeding

MOST_LEVELS, MOST_OBJECTS, MOST_ITEMS = 6, 5000, 256


def find_generators(root: object, depth: int = MOST_LEVELS, limit: int = MOST_OBJECTS) -> list[Any]:
    """The generator objects reachable from ``root`` through attributes, lists, tuples and dicts, then those that only
    its code reaches: in closures, defaults, ``functools.partial``, bound methods, ``__slots__`` and globals of the
    program's own modules.

    Looks ``depth`` levels deep and at ``limit`` objects at most; containers of over 256 entries are data. Python's,
    numpy's and torch's global streams aren't among them.
    """
    found: dict[int, Any] = {}
    for children_of in (_attributes_of, _reached_by):
        seen: set[int] = set()
        stack: list[tuple[Any, int]] = [(root, 0)]
        while stack and len(seen) < limit:
            value, level = stack.pop()
            if id(value) in seen or level > depth or isinstance(value, (torch.Tensor, np.ndarray, str, bytes)):
                continue
            seen.add(id(value))
            if isinstance(value, seeding.generator_types()):
                if not is_global_stream(value):
                    found.setdefault(id(value), value)
                continue
            if level == 0 or not _is_of_the_library(value):
                stack.extend((child, level + 1) for child in reversed(list(children_of(value))))
    return list(found.values())


def _is_of_the_library(value: Any) -> bool:
    """Whether it is an object of this library other than a loader: what that holds isn't of the one who is asked."""
    module = str(type(value).__module__)  # a metaclass may have another thing there
    return module.startswith("pytorch_lightning.") and not module.startswith("pytorch_lightning.data.")


def is_global_stream(generator: Any) -> bool:
    """Whether a generator is python's, numpy's or torch's own, which are seeded anyway."""
    own = (seeding._python, np.random.mtrand._rand)
    return generator is torch.default_generator or generator in own


def _attributes_of(value: Any) -> Iterable[Any]:
    if isinstance(value, type):
        return ()
    if isinstance(value, dict):
        return list(value.values()) if len(value) <= MOST_ITEMS else ()
    if isinstance(value, (list, tuple)):
        return list(value) if len(value) <= MOST_ITEMS else ()
    return [child for _, child in sorted(getattr(value, "__dict__", {}).items(), key=lambda kv: kv[0])]


def _reached_by(value: Any) -> Iterator[Any]:
    """What an object's attributes hold, and what the code of its class, or the function that it is, may use."""
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, FunctionType):
        yield from _used_by(value)
    elif isinstance(value, type):
        if is_of_the_program(value.__module__):
            for _, member in sorted(vars(value).items()):
                yield _function_of(member)
            yield from value.__bases__
    elif not isinstance(value, (ModuleType, CodeType)) and not inspect.isbuiltin(value):
        yield from _attributes_of(value)
        for name in _slots_of(type(value)):
            yield getattr(value, name, None)
        yield type(value)


def _function_of(member: Any) -> Any:
    """The function behind a method, a property, or whatever else a class body holds."""
    if isinstance(member, property):
        return [member.fget, member.fset]
    if isinstance(member, (staticmethod, classmethod)):
        return member.__func__
    return member if isinstance(member, (FunctionType, *seeding.generator_types())) else None


def _slots_of(kind: type) -> list[str]:
    import copyreg

    return list(cast("Any", copyreg)._slotnames(kind)) if kind.__module__ != "builtins" else []


def _used_by(function: FunctionType) -> Iterator[Any]:
    if not is_of_the_program(function.__module__ or ""):
        return
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield wrapped
    names = sorted(_names_in(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            if is_of_the_program(value.__name__):
                yield from (vars(value)[other] for other in names if other in vars(value))
        elif (
            isinstance(value, (FunctionType, type, functools.partial, *seeding.generator_types()))
            or (value is not None and is_of_the_program(type(value).__module__))
            or isinstance(value, (list, tuple, dict))
        ):
            yield value


def _names_in(code: CodeType) -> set[str]:
    """The names that code uses, functions inside it included."""
    inner = (_names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def is_of_the_program(module: str) -> bool:
    """Whether a module is the user's own code: no installed package, and nothing of python's.

    >>> is_of_the_program("__main__"), is_of_the_program("torch.nn"), is_of_the_program("random")
    (True, False, False)
    """
    root = module.partition(".")[0]
    if root in ("__main__", "__mp_main__"):  # also of a notebook, whatever started it
        return True
    if root in sys.stdlib_module_names or root in ("pytorch_lightning", "torch", "numpy", "builtins"):
        return False
    file = str(getattr(sys.modules.get(module), "__file__", None) or "")
    return "site-packages" not in file and not file.startswith((_SITE, _STDLIB))


_SITE, _STDLIB = sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")


def state_of(generator: Any) -> Any:
    """The state of a generator object."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if hasattr(generator, "getstate"):
        return generator.getstate()
    return generator.bit_generator.state if hasattr(generator, "bit_generator") else generator.get_state(legacy=False)


def set_state_of(generator: Any, state: Any) -> None:
    """Put it back."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif hasattr(generator, "setstate"):
        generator.setstate(state)
    elif not 0 <= state["state"].get("pos", 0) <= 624 or not 0 <= state.get("buffer_pos", 0) <= 4:
        raise ValueError("its place isn't one that the generator has")  # numpy would read past its end
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
