"""Whether objects are as they were, looked at between two batches: so quick, and not into every value."""

from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

MOST_OBJECTS = 500
MOST_ENTRIES = 64
"""Of a list, tuple, dict or set: longer ones are compared as a whole, by their length."""
MOST_DEEP = 6
CODE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)

Seen = tuple[str, Any, Any]
"""The path of an object, the object, and what it held."""


class WatchedObjects:
    """What ``roots``, named objects, are made of: attributes, small lists and dicts, and tensors."""

    def __init__(self, roots: dict[str, Any]) -> None:
        self._seen: list[Seen] = []
        self._known: set[int] = set()
        for name, root in roots.items():
            self._note(name, root, 0)

    def changed(self) -> list[str]:
        """The paths of what isn't as it was: attributes, entries, or a tensor that was written to."""
        found: list[str] = []
        for path, held, before in self._seen:
            now = _content(held)
            if isinstance(before, dict) and isinstance(now, dict):
                names = [name for name in {**before, **now} if before.get(name, found) is not now.get(name, found)]
                found += [_inside(path, held, name) for name in names]
            elif not _is_same(before, now):
                found.append(path)
        return found

    def _note(self, path: str, held: Any, depth: int) -> None:
        if id(held) in self._known or depth > MOST_DEEP or len(self._seen) >= MOST_OBJECTS:
            return
        content = _content(held)
        if content is None:
            return
        self._known.add(id(held))
        self._seen.append((path, held, content))
        if isinstance(content, dict):
            for name, value in content.items():
                self._note(_inside(path, held, name), value, depth + 1)
        elif isinstance(content, tuple):
            for place, value in enumerate(content):
                self._note(f"{path}[{place}]", value, depth + 1)


def _content(held: Any) -> Any:
    """What is compared of an object: a dict or a tuple of objects, a number, or None where nothing is."""
    if isinstance(held, torch.Tensor):
        return None if held.is_inference() else held._version
    if isinstance(held, dict):
        return dict(held) if len(held) <= MOST_ENTRIES else len(held)
    if isinstance(held, (list, tuple)):
        return tuple(held) if len(held) <= MOST_ENTRIES else len(held)
    if isinstance(held, (set, frozenset)):
        return len(held)
    if isinstance(held, CODE):
        return None
    there = getattr(held, "__dict__", None)
    return dict(there) if isinstance(there, dict) else None


def _inside(path: str, held: Any, name: Any) -> str:
    return f"{path}[{name!r}]" if isinstance(held, dict) else f"{path}.{name}"


def _is_same(before: Any, now: Any) -> bool:
    if isinstance(before, tuple) and isinstance(now, tuple):
        return len(before) == len(now) and all(one is other for one, other in zip(before, now, strict=True))
    return type(before) is type(now) and bool(before == now)
