"""What the functions that make batches read beside their arguments: globals, closures, defaults, and the attributes of
the object that a method is bound to."""

import dis
import functools
from collections.abc import Iterator
from inspect import getattr_static
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from pytorch_lightning.data.generators import is_of_the_program

GLOBAL, ATTRIBUTE = ("LOAD_GLOBAL", "LOAD_NAME"), ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR")
NOT_THERE = object()


class Holder:
    """Something that is read from. ``now()`` is what it has."""

    def now(self) -> dict[str, Any]:
        raise NotImplementedError


class OfFunction(Holder):
    """What a function of the program has from outside."""

    def __init__(self, function: FunctionType) -> None:
        self._function, self._globals = function, _globals_of(function.__code__)

    def now(self) -> dict[str, Any]:
        function, there = self._function, self._function.__globals__
        found = {name: there[name] for name in self._globals if name in there}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                found[name] = cell.cell_contents
            except ValueError:  # not filled yet
                continue
        if function.__defaults__ or function.__kwdefaults__:
            found |= {"defaults": function.__defaults__, "kwdefaults": function.__kwdefaults__}
        return found


class OfObject(Holder):
    """The attributes of an object, those of these names."""

    def __init__(self, held: Any, names: frozenset[str]) -> None:
        self._held, self._names = held, sorted(names)

    def now(self) -> dict[str, Any]:
        held = self._held
        found = {name: _attribute(held, name) for name in self._names}
        return {name: value for name, value in found.items() if value is not NOT_THERE}


class OfClass(Holder):
    """The attributes of a class of the program."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def now(self) -> dict[str, Any]:
        return dict(vars(self._kind))


def _attribute(held: Any, name: str) -> Any:
    """As ``getattr``, but methods aren't bound, and of properties only the library's are asked: those of a user may do
    anything, so their code is given."""
    for place in (vars(held), *(vars(held).get(of, {}) for of in ("_parameters", "_buffers", "_modules"))):
        if name in place:
            return place[name]
    of_kind = getattr_static(type(held), name, NOT_THERE)
    if isinstance(of_kind, property) and str(getattr(of_kind.fget, "__module__", "")).startswith("pytorch_lightning."):
        try:
            return of_kind.__get__(held)
        except Exception:  # there is none yet
            return NOT_THERE
    return of_kind


def holders_of(value: Any) -> Iterator[Holder | Any]:
    """What is to be looked at where ``value`` is code: holders, and objects."""
    if isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, MethodType):
        names = _read_of_self(type(value.__self__), value.__func__)
        yield from (value.__func__, value.__self__ if names is None else OfObject(value.__self__, names))
    elif isinstance(value, FunctionType):
        if is_of_the_program(value.__module__ or ""):
            yield OfFunction(value)
    elif isinstance(value, type) and is_of_the_program(value.__module__):
        yield OfClass(value)
        yield from value.__bases__
    elif isinstance(value, (staticmethod, classmethod)):
        yield value.__func__
    elif isinstance(value, property):
        yield from (value.fget, value.fset)


def inside(holder: Holder) -> Iterator[tuple[str, Any]]:
    """What is in a holder, by name; of modules, layers and the program's own files, what is read of them."""
    for name, value in holder.now().items():
        names: frozenset[str] | None = None
        if isinstance(holder, OfFunction) and isinstance(value, (nn.Module, ModuleType)):
            names = _read_of(holder._function.__code__, name)
            if names is not None and isinstance(value, nn.Module):
                names = _with_methods(type(value), names)
        if isinstance(value, ModuleType):
            if is_of_the_program(value.__name__):
                yield name, OfObject(value, frozenset(vars(value)) if names is None else names)
        else:
            yield name, value if names is None else OfObject(value, names)


@functools.lru_cache(maxsize=4096)
def _globals_of(code: CodeType) -> tuple[str, ...]:
    """Those that code reads, functions inside it included."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in GLOBAL}
    return tuple(sorted(names.union(*map(_globals_of, _inner(code)))))


def _inner(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


@functools.lru_cache(maxsize=4096)
def _read_of(code: CodeType, name: str) -> frozenset[str] | None:
    """The attributes of the variable ``name`` that code reads; None where it may read any, since it hands it on."""
    found, steps = set[str](), list(dis.get_instructions(code))
    for step, then in zip(steps, [*steps[1:], None], strict=True):
        names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if step.opname in ("MAKE_CELL", "COPY_FREE_VARS", *ATTRIBUTE) or name not in names:
            continue
        if step.opname == "LOAD_CLOSURE":
            continue  # functions inside follow
        *others, last = names  # from Python 3.13 on one instruction loads two variables
        is_read = last == name and name not in others and not (others and step.opname.endswith("STORE_FAST"))
        if then is None or then.opname not in ATTRIBUTE or not is_read:
            return None
        found.add(then.argval)
    for inner in _inner(code):
        of_inner = _read_of(inner, name) if name in (*inner.co_freevars, *_globals_of(inner)) else frozenset[str]()
        if of_inner is None:
            return None
        found |= of_inner
    return frozenset(found)


def _read_of_self(kind: type, function: Any) -> frozenset[str] | None:
    """The attributes that a method reads of its object; None where it may be any."""
    code = getattr(function, "__code__", None)
    if code is None or not code.co_varnames or "super" in _globals_of(code) or not issubclass(kind, nn.Module):
        return None
    names = _read_of(code, code.co_varnames[0])
    return None if names is None else _with_methods(kind, names)


def _with_methods(kind: type, names: frozenset[str]) -> frozenset[str] | None:
    """``names``, and what methods and properties among them read of the same object."""
    found, waiting = set[str](), [*names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        member = getattr_static(kind, name, None)
        function = member.fget if isinstance(member, property) else member
        if not isinstance(function, FunctionType) or not is_of_the_program(function.__module__ or ""):
            continue
        code = function.__code__
        read = _read_of(code, code.co_varnames[0]) if code.co_varnames else frozenset[str]()
        if read is None or "super" in _globals_of(code):
            return None
        waiting += read
    return frozenset(found)
