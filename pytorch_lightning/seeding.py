"""Random numbers that depend only on the seed and on counters.

Batch order, augmentation and dropout don't come from a stream that has to be saved and repaired: before each use
the three streams (python, numpy, torch) are seeded from a hash of (seed, purpose, counters). So any batch can be
made again, in any process, without running those before it.

The two scopes let a hand-written loop draw the same numbers as a ``Trainer``:

>>> import torch
>>> with step_scope(seed=1, global_step=5):
...     a = torch.rand(2)
>>> with step_scope(seed=1, global_step=5):
...     b = torch.rand(2)
>>> bool((a == b).all())
True
"""

import contextlib
import functools
import math
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, cast

import numpy as np
import torch

# Purposes: the second word of every key. Released numbers never change, or old runs couldn't be resumed.
MODEL, DATA, ORDER, EVALUATION, WORKER, LOADERS, SHUFFLED = range(1, 8)

LISTED = 2**20
"""Samples: up to so many a shuffled epoch has the order of torch's list of them, and beyond that of ``permutation``."""

AHEAD = 64
"""How many hashes ``build_seeder`` makes at once."""

_newest: dict[int, list[tuple[int, int, int]]] = {}
"""By purpose, the hashes of its last seedings: what a stream was seeded with is among them."""

_pack = struct.Struct("<5Q").pack
_unpack = struct.Struct("<QQI").unpack_from
_WORD = 2**64 - 1
_seed_torch = torch.default_generator.manual_seed
_python: Any = cast("Any", random.seed).__self__
_seed_python = super(random.Random, _python).seed


@functools.cache
def generator_types() -> tuple[type, ...]:
    """The types of objects that ``reseed_generators`` takes. numpy imports its own when they are first asked for."""
    return (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def seed_everything(seed: int, workers: bool = True) -> int:
    """Seed python's, numpy's and torch's streams; returns ``seed``.

    A ``Trainer`` without ``seed`` takes ``torch.initial_seed()``, so this also decides its order and dropout.
    Loader workers are always seeded; ``workers`` is accepted for programs that were written for Lightning 2.
    Raises ``TypeError`` where ``seed`` isn't an int.

    >>> seed_everything(7)
    7
    """
    if not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed_everything needs a whole number; received {seed!r}")
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    return seed


def seed_streams(seed: int, purpose: int, a: int = 0, b: int = 0, c: int = 0) -> int:
    """Seed the three streams from (seed, purpose, a, b, c); returns 63 bits for a device's own generator.

    Takes about 7 us, most of it in ``random.seed`` and ``np.random.seed``, and three times that between training
    steps, where nothing of it is in the processor's caches.
    """
    words = for_torch, for_python, for_numpy = _words_of(seed, purpose, a, b, c)
    _newest[purpose] = [words]
    # torch.manual_seed would also walk over every device type: 130 us
    _seed_torch(for_torch >> 1)
    random.seed(for_python)
    np.random.seed(for_numpy)
    return int(for_torch >> 1)


def _words_of(seed: int, purpose: int, a: int = 0, b: int = 0, c: int = 0) -> tuple[int, int, int]:
    return _unpack(blake2b(_pack(seed & _WORD, purpose, a, b, c), digest_size=24).digest())


def build_seeder(seed: int, purpose: int, *counters: int | None) -> Callable[[int], int]:
    """``seed_at(n)`` does what ``seed_streams(seed, purpose, *counters)`` does with n in the place of the None.

    It hashes for many n at once, since that costs a tenth, and n usually is one more than before.
    """
    place, key = counters.index(None), [counter or 0 for counter in (*counters, 0, 0)][:3]
    first, ahead = 0, list[tuple[int, int, int]]()

    def seed_at(n: int) -> int:
        nonlocal first
        if not 0 <= n - first < len(ahead):
            first = n
            ahead.clear()
            _newest[purpose] = ahead
            for key[place] in range(n, n + AHEAD):
                ahead.append(_unpack(blake2b(_pack(seed & _WORD, purpose, *key), digest_size=24).digest()))
        for_torch, for_python, for_numpy = ahead[n - first]
        # as in seed_streams, and what random.seed does with a whole number
        _seed_torch(for_torch >> 1)
        _seed_python(for_python)
        _python.gauss_next = None
        np.random.seed(for_numpy)
        return for_torch >> 1

    return seed_at


def derive(seed: int, purpose: int, *counters: int) -> int:
    """63 bits that are a function of (seed, purpose, counters)."""
    words = [seed & _WORD, purpose, *(counter & _WORD for counter in counters)]
    return int.from_bytes(blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=8).digest(), "little") >> 1


def reseed_generators(generators: Sequence[Any], word: int) -> None:
    """Seed generator objects (torch's, numpy's, python's), each with its own function of ``word``."""
    for place, generator in enumerate(generators):
        value = derive(word, 0, place)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(value)
        elif isinstance(generator, random.Random):
            generator.seed(value)
        elif isinstance(generator, np.random.RandomState):
            generator.seed(value % 2**32)
        else:
            generator.bit_generator.state = type(generator.bit_generator)(value).state


def _accelerator() -> tuple[str, Any] | None:
    """The kind of accelerator in use ('cuda', say) and torch's module for it; None without one.

    None in a worker of a loader, which may not touch the accelerator of the process that started it.
    """
    found = torch.accelerator.current_accelerator()
    if found is None:
        return None
    module: Any = torch.get_device_module(found)
    is_in_use = getattr(module, "is_initialized", module.is_available)  # torch.mps has no state of its own
    return (found.type, module) if is_in_use() else None


def get_generator_states() -> dict[str, Any]:
    """The states of the global streams, as data that a checkpoint can hold.

    Keys: ``python`` (what ``random.getstate`` gives), ``numpy`` (its MT19937 words as a tensor), ``torch``, and, where
    an accelerator is in use, its kind: ``cuda``, say (a list, one tensor per device).
    """
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": _plain_numpy(np.random.get_state(legacy=True)),
        "torch": torch.default_generator.get_state(),
    }
    accelerator = _accelerator()
    if accelerator is not None:
        kind, module = accelerator
        several = hasattr(module, "get_rng_state_all")  # not with torch.mps, which has one device
        states[kind] = module.get_rng_state_all() if several else [module.get_rng_state()]
    return states


def get_short_states() -> dict[str, Any]:
    """The same, but a stream that nothing was drawn from since it was seeded is the number that it was seeded with."""
    states, word = get_generator_states(), torch.default_generator.initial_seed()
    seeds = {"torch": word}
    for words in (words for newest in _newest.values() for words in newest):
        if words[0] >> 1 == word:
            seeds |= {"python": words[1], "numpy": words[2]}
    return states | {name: seed for name, seed in seeds.items() if _is_seeded(name, states[name], seed)}


def _is_seeded(name: str, state: Any, seed: int) -> bool:
    """Whether a stream has the state that seeding it with ``seed`` gives."""
    if name == "torch":
        return torch.equal(state, torch.Generator().manual_seed(seed).get_state())
    if name == "python":
        return bool(state == random.Random(seed).getstate())
    # each word of MT19937 follows from the one before; to seed another stream and read it takes ten times as long
    _, words, position, has_gauss, gauss = state
    words = words.numpy()
    following = (1812433253 * (words[:-1] ^ (words[:-1] >> 30)) + np.arange(1, len(words))) & 0xFFFFFFFF
    is_at_start = (position, has_gauss, gauss, words[0]) == (len(words), 0, 0.0, seed)
    return is_at_start and bool((words[1:] == following).all())


def _plain_numpy(state: Any) -> list[Any]:
    kind, words, position, has_gauss, gauss = state
    return [str(kind), torch.from_numpy(words.astype(np.int64)), int(position), int(has_gauss), float(gauss)]


def set_generator_states(states: dict[str, Any]) -> None:
    """Put back what ``get_generator_states`` or ``get_short_states`` gave."""
    if isinstance(states["python"], int):
        random.seed(states["python"])
    else:
        version, words, gauss = states["python"]
        random.setstate((version, tuple(words), gauss))
    if isinstance(states["numpy"], int):
        np.random.seed(states["numpy"])
    else:
        kind, numpy_words, position, has_gauss, numpy_gauss = states["numpy"]
        np.random.set_state((kind, numpy_words.numpy().astype(np.uint32), position, has_gauss, numpy_gauss))
    if isinstance(states["torch"], int):
        _seed_torch(states["torch"])
    else:
        torch.default_generator.set_state(states["torch"])
    accelerator = _accelerator()
    if accelerator is None:
        return
    kind, module = accelerator
    if torch.accelerator.device_count() == len(states.get(kind, ())):
        if hasattr(module, "set_rng_state_all"):
            module.set_rng_state_all(states[kind])
        else:
            module.set_rng_state(states[kind][0])


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """A scope that leaves the global streams as it found them."""
    states = get_generator_states()
    try:
        yield
    finally:
        set_generator_states(states)


def order_word(seed: int, epoch: int, loader_id: int, chosen: Sequence[int]) -> int:
    """What decides the order of one epoch of a loader, as one number; see ``seed_order``."""
    return derive(seed, ORDER, epoch, loader_id, *chosen)


@contextlib.contextmanager
def torch_order_scope(
    seed: int, epoch: int, loader_id: int, generators: Sequence[Any], chosen: Sequence[int]
) -> Iterator[None]:
    """A scope in which what draws from torch's stream and from ``generators`` alone gives the order that it gives after
    ``seed_order``. Leaves the streams as it found them, ``generators`` not."""
    word, state = order_word(seed, epoch, loader_id, chosen), torch.default_generator.get_state()
    _seed_torch(_words_of(word, ORDER)[0] >> 1)
    reseed_generators(generators, word)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def seed_order(seed: int, epoch: int, loader_id: int, generators: Sequence[Any], chosen: Sequence[int]) -> None:
    """Seed what decides the order of one epoch: the global streams and the sampler's own ``generators``.

    ``chosen`` are the initial seeds of the user's torch generators: ``Generator().manual_seed(n)`` decides too.
    """
    word = order_word(seed, epoch, loader_id, chosen)
    seed_streams(word, ORDER)
    reseed_generators(generators, word)


def initial_seeds(generators: Iterable[Any]) -> tuple[int, ...]:
    """The initial seeds of the torch generators among ``generators``."""
    return tuple(g.initial_seed() for g in generators if isinstance(g, torch.Generator))


@contextlib.contextmanager
def order_scope(seed: int, epoch: int, generator: torch.Generator | None = None) -> Iterator[None]:
    """A scope in which a loader gives the training order that a ``Trainer(seed=seed)`` uses in ``epoch``.

    ``generator`` is the one that the loader was made with, if any. Leaves all streams as it found them.

    >>> from torch.utils.data import DataLoader
    >>> loader = DataLoader(range(6), batch_size=3, shuffle=True)
    >>> with order_scope(seed=1, epoch=0):
    ...     batches = list(loader)
    """
    generators = [] if generator is None else [generator]
    states = [g.get_state() for g in generators]
    with preserved():
        seed_order(seed, epoch, 0, generators, initial_seeds(generators))
        try:
            yield
        finally:
            for g, state in zip(generators, states, strict=True):
                g.set_state(state)


def shuffled(
    n: int, seed: int, epoch: int, start: int = 0, stop: int | None = None, *, generator: torch.Generator | None = None
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The samples ``start`` to ``stop`` (default: the end) of the order in which a ``Trainer(seed=seed)`` goes through
    ``n`` samples in ``epoch``, where its loader is a ``DataLoader(shuffle=True)``: int64, of shape (stop - start,).

    ``generator`` is the one that the loader was made with, if any. Up to 2^20 samples this is the order that the loader
    itself gives inside ``order_scope``. Beyond, it takes memory for what is asked for only, and any part of a billion
    samples is there at once; ask for many batches together, since a call takes some 0.2 ms. All streams stay as they
    are.

    >>> shuffled(10**12, seed=1, epoch=0, start=10**11, stop=10**11 + 3)
    array([299887909693, 828580987880, 379311020558])
    """
    places = range(n)[start:stop]
    if n > LISTED:
        word = order_word(seed, epoch, 0, initial_seeds([generator]))
        return permutation(n, word)(np.arange(places.start, places.stop))
    with order_scope(seed, epoch, generator):
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # as iter(DataLoader) does
        order = list(torch.utils.data.RandomSampler(range(n), generator=generator)) if n else []
    return np.array(order[places.start : places.stop], dtype=np.int64)


ROUNDS = 8
_ODD = np.array([0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93], dtype=np.uint64)
_HALF = np.uint64(32)


def permutation(n: int, word: int) -> Callable[[Any], np.ndarray[Any, np.dtype[np.int64]]]:
    """A permutation of 0 to n - 1 that ``word`` decides, as a function of an array of positions.

    It is a Feistel network over the cells of the smallest near-square table that has room for n: in turns the row and
    the column are moved on by a keyed hash of the other one. A cell beyond n is sent through again until it isn't one
    (cycle walking), so that each sample comes once. Rounds and constants never change, or old runs couldn't be resumed.
    """
    nb_rows = math.isqrt(max(n - 1, 0)) + 1
    nb_columns = -(-n // nb_rows)
    keys = np.array([derive(word, SHUFFLED, turn) for turn in range(ROUNDS)], dtype=np.uint64)
    sizes = np.array([nb_rows, nb_columns], dtype=np.uint64)

    def through(cells: Any) -> Any:
        pair = [*np.divmod(cells, sizes[1])]
        for turn in range(ROUNDS):
            moved, size = pair[turn % 2], sizes[turn % 2]
            mixed = pair[1 - turn % 2] + keys[turn]
            mixed *= _ODD[0]
            mixed ^= mixed >> _HALF
            mixed *= _ODD[1]
            mixed >>= _HALF
            mixed *= size
            mixed >>= _HALF  # below size, without a division
            moved += mixed
            np.subtract(moved, size, out=moved, where=moved >= size)
        return pair[0] * sizes[1] + pair[1]

    def at(positions: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        found = through(np.asarray(positions).astype(np.uint64))
        beyond = np.flatnonzero(found >= n)
        while beyond.size:
            found[beyond] = through(found[beyond])
            beyond = beyond[found[beyond] >= n]
        return found.astype(np.int64)  # type: ignore[no-any-return]

    return at


@contextlib.contextmanager
def step_scope(seed: int, global_step: int, virtual_rank: int = 0) -> Iterator[None]:
    """A scope with the random numbers of the training step ``global_step`` (counted in batches from 0) of a
    ``Trainer(seed=seed)``.

    ``virtual_rank`` is the place in the global batch, 0 with one process. Leaves the streams as it
    found them.

    >>> import torch
    >>> with step_scope(seed=1, global_step=7):
    ...     first = torch.rand(3)
    >>> with step_scope(seed=1, global_step=7):
    ...     torch.equal(torch.rand(3), first)
    True
    """
    with preserved():
        seed_device(seed_streams(seed, MODEL, global_step, virtual_rank))
        yield


def seed_device(word: int) -> None:
    """Seed the generators of the accelerators in use; nothing where there are none."""
    accelerator = _accelerator()
    if accelerator is not None:
        _, module = accelerator
        getattr(module, "manual_seed_all", module.manual_seed)(word)
