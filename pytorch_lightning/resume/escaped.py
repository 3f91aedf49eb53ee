"""Random generators that the search for them doesn't reach, and that draw all the same: they are reported."""

import gc
import random
import sys
from collections.abc import Callable, Iterable
from itertools import chain, compress, starmap
from types import GeneratorType, ModuleType
from typing import Any

import numpy as np

from pytorch_lightning.data.generators import is_global_stream, state_of
from pytorch_lightning.errors import Notices
from pytorch_lightning.resume.plain_values import Encoder, fingerprint

MOST_LOOKS = 2
"""So many saves look for them."""
MOST_HOLDERS = 200
KINDS = (random.Random, np.random.Generator, np.random.RandomState)
OURS = ("pytorch_lightning", "torch", "numpy", "builtins", "pytest", "_pytest")


class EscapedGenerators:
    """Compares the generators of this process that nobody seeds when it begins to watch and at the saves after that.
    To visit every object of the process takes 50 to 100 ms; the save after the one where it began does so only where a
    generator has drawn."""

    def __init__(self, known: Callable[[], list[Any]], notices: Notices) -> None:
        self._find_known, self._notices = known, notices
        self._nb_looks, self._alive, self._visited = -1, list[Any](), False
        self._known, self._before = set[int](), dict[int, str]()

    def begin(self) -> None:
        """Note what there is now."""
        self._nb_looks, self._known = 0, {id(generator) for generator in self._find_known()}
        self._alive = self._unknown(_seen())
        self._before = {id(generator): _mark(generator) for generator in self._alive}

    def look(self) -> None:
        """A checkpoint is made."""
        if self._nb_looks < 0:
            self.begin()
            self._visited = True  # in the middle of training: whoever draws now is known
        elif self._nb_looks < MOST_LOOKS:
            self._compare()

    def _compare(self) -> None:
        self._nb_looks += 1
        objects = self._alive if self._visited else _seen()
        moved = [g for g in self._unknown(objects) if self._before.get(id(g), "") not in ("", _mark(g))]
        if moved and self._visited:
            objects = _seen()  # whose they are
        self._visited = False
        names = sorted({name for generator in moved if (name := _holder(generator))} | self._drawn_from(objects, moved))
        if names:
            self._nb_looks = MOST_LOOKS
            self._notices.say(
                "escaped-generator",
                f"random numbers come from a generator that isn't found and seeded, of {', '.join(names[:5])}: a"
                " resumed fit may draw others. Keep the generator as an attribute of the dataset or the module, or"
                " seed it from the epoch",
            )
        if self._nb_looks == MOST_LOOKS:
            self._alive.clear()

    def _unknown(self, objects: list[Any]) -> list[Any]:
        found = [value for value in objects if type(value) is not GeneratorType]
        return [g for g in found if id(g) not in self._known and not is_global_stream(g)]

    def _drawn_from(self, objects: list[Any], moved: list[Any]) -> set[str]:
        """The installed code that is in the middle of a pass with a generator that has drawn, or that it made for
        that."""
        settled = {*self._known, *self._before} - {id(generator) for generator in moved}
        names = set()
        for value in objects:
            frame = value.gi_frame if type(value) is GeneratorType else None
            if frame is None or "site-packages" not in frame.f_code.co_filename:
                continue
            if frame.f_locals.get("seed") is not None:  # it was given one
                continue
            module = str(frame.f_globals.get("__name__"))
            made = [g for g in frame.f_locals.values() if issubclass(type(g), KINDS) and not is_global_stream(g)]
            if any(id(g) not in settled for g in made) and _is_foreign(module):
                names.add(f"{module}.{frame.f_code.co_name}")
        return names


def _seen() -> list[Any]:
    """All generators of random numbers, and all that are python's own. No other thread runs while all objects are held:
    it couldn't complete a tuple that it is making."""
    kinds, waiting = set[type]({GeneratorType}), list[type](KINDS)
    while waiting:
        kinds.add(kind := waiting.pop())
        waiting += kind.__subclasses__()
    objects, numbers, collects = list[Any](), {*map(id, kinds)}, gc.isenabled()
    every = chain.from_iterable(starmap(gc.get_objects, [()]))
    looked = compress(objects, map(numbers.__contains__, map(id, map(type, objects))))
    gc.disable()  # a collection calls code of others
    try:
        objects += every  # python changes threads after a call, and these three lines make none
        found = [*looked]
        del objects[:]
    finally:
        if collects:
            gc.enable()
    return found


def _mark(generator: Any) -> str:
    encoder = Encoder(float("inf"))
    try:
        return fingerprint(encoder.nodes, encoder.add(state_of(generator)))
    except Exception:  # SystemRandom has no state
        return ""


def _holder(generator: Any) -> str:
    """What holds a generator; an empty text where that is a part of python's or of these libraries."""
    waiting, seen = [generator], {id(generator)}
    while waiting and len(seen) < MOST_HOLDERS:
        held = waiting.pop(0)
        for holder in _holders(held, seen):
            seen.add(id(holder))
            module = holder.__name__ if isinstance(holder, ModuleType) else type(holder).__module__
            if isinstance(holder, ModuleType) or (module != "builtins" and hasattr(holder, "__dict__")):
                kind = "" if isinstance(holder, ModuleType) else f".{type(holder).__qualname__}"
                return f"{module}{kind}" if _is_foreign(module) else ""
            waiting.append(holder)
    return "code that hides it"


def _holders(held: Any, seen: set[int]) -> Iterable[Any]:
    found = gc.get_referrers(held)
    return [h for h in found if id(h) not in seen and h is not found and type(h).__name__ not in ("frame", "list")]


def _is_foreign(module: str) -> bool:
    root = module.partition(".")[0]
    return root not in OURS and root not in sys.stdlib_module_names
