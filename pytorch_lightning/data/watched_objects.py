"""Whether objects are as they were, looked at between two batches: so quick, and not into every value."""

import functools
import io
import logging
import random
import socket
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from pytorch_lightning.data.read_by_code import Holder, holders_of, inside

MOST_OBJECTS = 1000
MOST_ENTRIES = 64
"""Of a list, tuple, dict or set: longer ones are compared as a whole, by their length."""
MOST_DEEP = 6
CODE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, functools.partial)
MOST_OF_CODE = 1000
"""Functions, methods and classes."""
OPEN_FILE = "{} is an open file, whose position all workers would share"
PLAIN = (int, float, str, bytes, bool)
NOT_DATA = (logging.Logger, random.Random)
"""What is in them decides nothing, or is decided anew for each batch."""
MOST_BYTES = 4096
"""Of an array: longer ones are looked at where they are attributes of the data, but not between any two batches."""

Seen = tuple[str, Any, Any]
"""The path of an object, the object, and what it held."""


class WatchedObjects:
    """What ``roots``, named objects, are made of: attributes, small lists and dicts, tensors, and what their code reads
    elsewhere."""

    def __init__(self, roots: dict[str, Any]) -> None:
        self._seen: list[Seen] = []
        self._known: set[int] = set()
        self._code: dict[int, Any] = {}
        self.shared: list[str] = []
        """What workers that are forked would share, and how."""
        for name, root in roots.items():
            self._note(name, root, 0)

    def changed(self) -> list[str]:
        """The paths of what isn't as it was: attributes, entries, or a tensor that was written to."""
        found: list[str] = []
        for path, held, before in self._seen:
            now = _content(held)
            if isinstance(before, dict) and isinstance(now, dict):
                names = [name for name in {**before, **now} if _is_other(before.get(name, found), now.get(name, found))]
                found += [_inside(path, held, name) for name in names]
            elif not _is_same(before, now):
                found.append(path)
        return found

    def _note(self, path: str, held: Any, depth: int) -> None:
        if id(held) in self._known or depth > MOST_DEEP or len(self._seen) >= MOST_OBJECTS:
            return
        if isinstance(held, (*CODE, staticmethod, classmethod, property)):
            self._note_code(path, held, depth)
            return
        if not isinstance(held, Holder):
            self._note_code(path, type(held), depth)
        self._note_shared(path, held)
        content = _content(held)
        if content is None or (isinstance(held, Holder) and not content):
            return
        self._known.add(id(held))
        self._seen.append((path, held, content))
        if isinstance(held, Holder):
            for name, value in inside(held):
                self._note(_inside(path, held, name), value, depth + 1)
            return
        if isinstance(content, dict):
            for name, value in content.items():
                self._note(_inside(path, held, name), value, depth + 1)
        elif isinstance(content, tuple):
            for place, value in enumerate(content):
                self._note(f"{path}[{place}]", value, depth + 1)

    def _note_shared(self, path: str, held: Any) -> None:
        if isinstance(held, (list, tuple, dict)) and len(held) > MOST_ENTRIES:  # which are of one kind, most likely
            place, held = next(iter(held.items() if isinstance(held, dict) else enumerate(held)))
            path = f"{path}[{place!r}]"
        if isinstance(held, io.IOBase) and not isinstance(held, (io.BytesIO, io.StringIO)):
            self.shared.append(OPEN_FILE.format(path))
        elif isinstance(held, socket.socket):
            self.shared.append(f"{path} is a connection, and each worker would read what was sent to others")

    def _note_code(self, path: str, code: Any, depth: int) -> None:
        """What it reads. Code itself isn't looked at: a method that is bound anew is the same one."""
        if id(code) in self._code or len(self._code) >= MOST_OF_CODE:
            return
        self._code[id(code)] = code
        for each in holders_of(code):
            self._note(path, each, depth)


def _content(held: Any) -> Any:
    """What is compared of an object: a dict or a tuple of objects, a number, or None where nothing is."""
    if isinstance(held, Holder):
        return held.now()
    if isinstance(held, torch.Tensor):
        return None if held.is_inference() else held._version
    if isinstance(held, dict):
        return dict(held) if len(held) <= MOST_ENTRIES else len(held)
    if isinstance(held, (list, tuple)):
        return tuple(held) if len(held) <= MOST_ENTRIES else len(held)
    if isinstance(held, (set, frozenset)):
        return len(held)
    if isinstance(held, np.ndarray):
        return held.tobytes() if held.nbytes <= MOST_BYTES and not held.dtype.hasobject else None
    if isinstance(held, (*CODE, *NOT_DATA)):
        return None
    there = getattr(held, "__dict__", None)
    return dict(there) if isinstance(there, dict) else None


def _is_other(one: Any, other: Any) -> bool:
    return one is not other and not (type(one) is type(other) and type(one) in PLAIN and one == other)


def _inside(path: str, held: Any, name: Any) -> str:
    return f"{path}[{name!r}]" if isinstance(held, dict) else f"{path}.{name}"


def _is_same(before: Any, now: Any) -> bool:
    if isinstance(before, tuple) and isinstance(now, tuple):
        return len(before) == len(now) and not any(map(_is_other, before, now))
    return type(before) is type(now) and bool(before == now)
