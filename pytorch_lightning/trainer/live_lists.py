"""``trainer.optimizers`` and ``trainer.lr_schedulers`` as users see them: lists that never differ from what trains."""

from collections.abc import Callable, Iterable
from typing import Any


def _changing(name: str) -> Any:
    method = getattr(list, name)

    def change(self: "LiveList", *arguments: Any, **options: Any) -> Any:
        changed = list(self)
        returned = method(changed, *arguments, **options)
        self._on_change(changed)  # raises where it can't be
        self._take(changed)
        return self if name == "__iadd__" else returned

    change.__name__, change.__doc__ = name, getattr(list, name).__doc__
    return change


class LiveList(list[Any]):
    """A list each change of which goes to ``on_change`` first, which is given the list as it would be."""

    def __init__(self, values: Iterable[Any], on_change: Callable[[list[Any]], None]) -> None:
        super().__init__(values)
        self._on_change = on_change

    def _take(self, values: list[Any]) -> None:
        super().__setitem__(slice(None), values)

    __setitem__ = _changing("__setitem__")
    __delitem__ = _changing("__delitem__")
    __iadd__ = _changing("__iadd__")
    __imul__ = _changing("__imul__")
    append = _changing("append")
    extend = _changing("extend")
    insert = _changing("insert")
    remove = _changing("remove")
    pop = _changing("pop")
    clear = _changing("clear")
    sort = _changing("sort")
    reverse = _changing("reverse")

    def __reduce__(self) -> Any:
        return list, (list(self),)
