"""What a pickle would make, found without making any of it.

``outline`` walks over a pickle's instructions as an unpickler does, on a stack of its own. Nothing is imported, called
or allocated because a file says so. What would take much more memory or time than it takes in the file is refused:
calls that allocate, tensors larger than their storage, objects that contain themselves or each other very often, keys
that were chosen to collide.
"""

import gc
import pickletools
from collections.abc import Callable, Collection, Iterable
from typing import Any, BinaryIO, NamedTuple

from pytorch_lightning.checkpoints.checkpoint import MOST_DEPTH
from pytorch_lightning.checkpoints.pickled import (
    ITEM_SIZES,
    MOST_ALIKE,
    Made,
    Refused,
    Storage,
    check_call,
    check_keys,
    is_metadata,
    is_tuple,
)

DEEPEST = MOST_DEPTH + 20
"""A tensor in the innermost container is made of containers, too."""
ROOM, RATIO = 16 * 2**20, 40
"""Python's objects may take ``ROOM`` bytes, and ``RATIO`` times what the pickle takes; honest ones take 38."""


class Outline(NamedTuple):
    """A pickle as data."""

    root: Any
    """A ``Made``, text, a number, a bool or None."""
    storages: list[Storage]


def outline(file: BinaryIO, size: int, callables: Collection[str] = (), newer: bool = False) -> Outline:
    """The pickle that begins at ``file``'s position, of ``size`` bytes at most; ``file`` is then at its end.

    ``callables`` are names of more that may be called than a plain checkpoint calls. ``newer``: its instructions may
    be those of protocol 4. Raises ``Refused``.
    """
    machine = Machine(ROOM + RATIO * size, callables)
    known = INSTRUCTIONS if newer else {name: what for name, what in INSTRUCTIONS.items() if name not in NEWER}
    collects = gc.isenabled()
    gc.disable()  # it would look again and again for cycles among many objects that have none
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name not in known:
                raise Refused(f"it has the instruction {opcode.name}, which no checkpoint has")
            method, given = known[opcode.name]
            method(machine, argument if given is None else given)
        return Outline(machine.last(1)[0], machine.storages)
    except Refused:
        raise
    except Exception as error:  # a stack that is empty, text that isn't text, ...
        raise Refused(f"it isn't a whole pickle: {type(error).__name__}: {error}") from error
    finally:
        if collects:
            gc.enable()


class Machine:
    """The stack of an unpickler, and a method for each of its instructions."""

    def __init__(self, most: int, callables: Collection[str]) -> None:
        self.storages: list[Storage] = []
        self._most, self._callables, self._taken = most, callables, 0
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def last(self, number: int) -> list[Any]:
        """The last ``number`` values, taken off the stack: complete, and part of something else now."""
        values = self._stack[-number:]
        del self._stack[-number:]
        if len(values) < number:
            raise Refused("it isn't a whole pickle: it takes more than there is")
        return self._closed(values)

    def mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._outer.pop()
        return self._closed(values)

    def push(self, value: Any) -> None:
        self._take(len(value) + 57 if type(value) is str else 36)
        self._stack.append(value)

    def constant(self, value: Any) -> None:
        self._stack.append(value[0])

    def keep(self, place: int | None) -> None:
        self._take(100)
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def again(self, place: int) -> None:
        self._stack += self._closed([self._memo[place]])

    def make(self, what: tuple[str, int]) -> None:
        self._add(Made(*what))

    def make_tuple(self, number: int) -> None:
        values = self.since_mark() if number == -1 else self.last(number)
        made = Made("tuple", 120)
        self._add(made)
        self._fill(made, values, 0)

    def fill(self, what: tuple[str, int]) -> None:
        kind, number = what
        values = self.since_mark() if number == -1 else self.last(number)
        made = self._stack[-1]
        if type(made) is not Made or not made.is_open or not (made.is_a(kind) or made.name in self._callables):
            raise Refused(f"it fills something else than a {kind}, or one that is referred to already")
        if kind == "dict" and len(values) % 2:
            raise Refused("it isn't a whole pickle: a key has no value")
        self._fill(made, values, {"list": 0, "dict": 50, "set": 50}[kind])

    def name(self, argument: str | None) -> None:
        module, name = self.last(2) if argument is None else argument.split(" ", 1)
        self._add(Made("name", 0, f"{module.replace('__builtin__', 'builtins')}.{name}"))

    def call(self, _: Any) -> None:
        function, arguments = self.last(2)
        if type(function) is not Made or function.kind != "name" or not is_tuple(arguments):
            raise Refused("it calls what it has made")
        further = check_call(function.name, arguments.items, self._callables)
        weight = further + (600 if "_rebuild" in function.name else 200)
        made = Made("call", weight, function.name, arguments.items)
        self._add(made)
        self._weigh(made, [arguments])

    def build(self, _: Any) -> None:
        state = self.last(1)[0]
        made = self._stack[-1]
        if type(made) is not Made or made.kind != "call" or not made.is_open:
            raise Refused("it changes what isn't to be changed")
        if made.name not in self._callables and not (made.name == "collections.OrderedDict" and is_metadata(state)):
            raise Refused(f"it changes the state of a {made.name}")
        made.state = state
        self._weigh(made, [state])

    def store(self, _: Any) -> None:
        found = self.last(1)[0]
        values = found.items if is_tuple(found) else []
        if [type(v) for v in values[:5]] != [str, Made, str, str, int] or values[0] != "storage" or values[4] < 0:
            raise Refused("it refers to something else than the bytes of a tensor")
        name = values[1].name.rpartition(".")[2]
        if name.removesuffix("Storage") not in ITEM_SIZES:
            raise Refused(f"it has bytes of an unknown kind, {name}")
        size = values[4] * ITEM_SIZES[name.removesuffix("Storage")]
        self.storages.append(Storage(values[2], size))
        self._add(Made("storage", 200, name, (self.storages[-1], *values[5:])))

    def nothing(self, _: Any) -> None:
        pass

    def _take(self, size: int) -> None:
        self._taken += size
        if self._taken > self._most:
            raise Refused(f"its objects would take more than {self._most >> 20} MB")

    def _add(self, made: Made) -> None:
        self._take(made.weight)
        self._stack.append(made)

    def _fill(self, made: Made, values: list[Any], each: int) -> None:
        self._take((8 + each) * len(values))
        made.weight += (8 + each) * len(values)
        if made.items:
            made.items += values
        else:
            made.items = values
        self._weigh(made, values)

    def _weigh(self, made: Made, values: Iterable[Any]) -> None:
        for value in values:
            if type(value) is Made:
                made.weight += value.weight
                made.depth = max(made.depth, value.depth + 1)
        if made.weight > self._most:
            raise Refused(f"its objects, each as often as they are referred to, would take {made.weight >> 20} MB")
        if made.depth > DEEPEST:
            raise Refused(f"its objects lie in each other more than {DEEPEST} times")

    def _closed(self, values: list[Any]) -> list[Any]:
        for value in values:
            if type(value) is Made and value.is_open:
                value.is_open = False
                if len(value.items) > MOST_ALIKE and value.kind not in ("list", "tuple"):
                    check_keys(value.items if value.kind == "set" else value.items[::2])
        return values


NEWER = {"SHORT_BINUNICODE", "STACK_GLOBAL", "MEMOIZE", "FRAME"}
"""Instructions that ``torch.load`` doesn't know."""

INSTRUCTIONS: dict[str, tuple[Callable[[Machine, Any], None], Any]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), (Machine.push, None)),
    **dict.fromkeys(("SHORT_BINSTRING", "SHORT_BINUNICODE"), (Machine.push, None)),
    "NONE": (Machine.constant, (None,)),
    "NEWTRUE": (Machine.constant, (True,)),
    "NEWFALSE": (Machine.constant, (False,)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), (Machine.keep, None)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), (Machine.again, None)),
    "EMPTY_LIST": (Machine.make, ("list", 120)),
    "EMPTY_DICT": (Machine.make, ("dict", 120)),
    "EMPTY_SET": (Machine.make, ("set", 220)),
    "EMPTY_TUPLE": (Machine.make, ("tuple", 0)),
    "TUPLE": (Machine.make_tuple, -1),
    "TUPLE1": (Machine.make_tuple, 1),
    "TUPLE2": (Machine.make_tuple, 2),
    "TUPLE3": (Machine.make_tuple, 3),
    "APPEND": (Machine.fill, ("list", 1)),
    "APPENDS": (Machine.fill, ("list", -1)),
    "SETITEM": (Machine.fill, ("dict", 2)),
    "SETITEMS": (Machine.fill, ("dict", -1)),
    "MARK": (Machine.mark, None),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), (Machine.name, None)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), (Machine.call, None)),
    "BUILD": (Machine.build, None),
    "BINPERSID": (Machine.store, None),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), (Machine.nothing, None)),
}
"""What each instruction does, and with what; None: with its own argument."""
