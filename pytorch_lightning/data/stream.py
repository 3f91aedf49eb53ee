"""Loaders that can only be run: each from its epoch's start, or from where its own state says."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import torch
from torch.utils.data import DataLoader

from pytorch_lightning import seeding
from pytorch_lightning.data import workers
from pytorch_lightning.data.generators import find_generators
from pytorch_lightning.data.index_plan import set_epoch
from pytorch_lightning.data.loader import OrderWatcher, ReplayableLoader, keeps_state, length_of
from pytorch_lightning.data.same_batches import FirstUse
from pytorch_lightning.data.seeded_view import LANE, SeededIterable, loader_name, pass_name
from pytorch_lightning.data.workers import OF_MEMORY, is_death, options_of, started, starts_workers, without_signal
from pytorch_lightning.errors import FitError, describe
from pytorch_lightning.processes import EVERYTHING, Processes, Share

MOST_SKETCHES = 100
"""Of so many batches it is known what they were like: training is a few behind."""


class StreamLoader(ReplayableLoader):
    """Anything with ``__iter__``: each batch is made after the streams were seeded for it.

    A training loader with a state of its own is begun and used up as often as in the run that wrote the state: the
    same iterators in the same order, so that whatever it carries from one epoch to the next is the same.
    """

    def __init__(self, loader: Any, seed: int, loader_id: int, share: Share = EVERYTHING) -> None:
        self._seed, self._loader_id, self._share = seed, loader_id, share
        self._view: SeededIterable | None = None
        self._loader = loader
        self.bound_to_workers = getattr(loader, "bound_to_workers", None)
        if isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__:
            self.nb_workers = self.bound_to_workers = loader.num_workers
            self._view = SeededIterable(loader.dataset, seed, loader_id, loader.batch_size or 1, (loader.collate_fn,))
            self._loader = DataLoader(
                self._view, batch_size=loader.batch_size, drop_last=loader.drop_last, **options_of(loader)
            )
        self.keeps_state = not loader_id and self._view is None and keeps_state(loader)
        self.takes_back = not self.keeps_state
        self._used_up = self._starts = self._is_compared = False
        self._running: Any = None
        self._watcher: OrderWatcher | None = None
        self._loaded: dict[str, Any] | None = None
        self._open: Iterator[Any] | None = None
        """The batches of the pass that was begun last, where it isn't known to be at its end."""
        self._epoch = self._nb_fetched = 0
        """Of that pass."""
        self._sketches: dict[int, list[Any]] = {}
        self._expected: tuple[list[Any], Callable[[], None]] | None = None
        own = [getattr(loader, name, None) for name in ("generator", "sampler", "batch_sampler")]
        self._generators = [g for g in find_generators(own) if isinstance(g, torch.Generator)]
        """That of a sampler, which no state may hold."""
        # a loader of the user's own: what it draws from is seeded when a pass begins
        self._of_loader = find_generators(loader) if self._view is None and not self.keeps_state else []
        self._at_start: list[torch.Tensor] = []
        self._lane = 0
        self.goes_on = False
        """Whether an epoch begins where the one before ended: it is a part of a pass."""
        self._before = self._start = 0
        """Batches of the pass that came before this epoch, and those of this epoch that came before the resume."""
        self._of_epoch: int | None = None
        self._place: tuple[int, int, int] | None = None
        """The place that was saved: the number of the pass, the batches of it before this epoch, and those of this
        epoch that were fetched."""
        self._first_use: FirstUse | None = None
        self._may_be_empty = False
        self._looked_at: int | None = None
        """The epoch at whose start they were read: asking a loader for its state may make it draw."""

    def use_in(self, processes: Processes, own: bool) -> None:
        if not own:
            self._first_use = FirstUse(processes, self._loader_id)
            return
        self._may_be_empty, self._lane = True, LANE * processes.rank
        if self._view is not None:
            self._view.enter_lane(self._lane)

    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        if self.goes_on:
            return self._going_on(epoch, start, limit)
        self._end_pass()
        if self._watcher is not None:
            self._watcher.begin_order(epoch, starts_workers(self._loader))
        first, loaded, self._loaded = 0, self._loaded, None
        if loaded is not None:
            first = self._resume(loaded)
            if start and not loaded["open"]:  # the end of an epoch: only the next one begins another pass
                self.nb_drawn = start
                if self._watcher is not None:
                    self._watcher.end_order()
                return iter(())
        if loaded is None or not loaded["open"] or loaded["epoch"] != epoch:
            first = self._begin(epoch, 0)
        end = None if limit is None else max(0, limit - first)
        return self._dealt(islice(self._open, end), first, start)  # type: ignore[arg-type]

    def finish(self, epoch: int, nb_batches: int, is_whole: bool) -> None:
        if not is_whole or self.keeps_state or self._is_compared or self._open is None:
            return
        if self._nb_fetched < nb_batches:  # a resume at the end of an epoch reads none of it
            return
        self._is_compared = True  # once is enough: it takes one batch more
        with seeding.preserved(), contextlib.suppress(Exception):
            next(self._open)
            self.on_longer()

    def watch(self, watcher: OrderWatcher) -> None:
        # one with a state of its own says itself what it was like
        self._watcher = None if self.keeps_state else watcher

    def _begin(self, epoch: int, first: int) -> int:
        """Begin a pass; ``first`` batches of it are done. Returns ``first``."""
        if self._used_up:
            raise FitError(
                f"{loader_name(self._loader_id)} yielded its batches in an earlier epoch and can't start again;"
                f" received {describe(self._loader)}, an iterator. Return a DataLoader, a list, or another iterable"
                " that can be iterated more than once."
            )
        self._prepare(epoch)
        self._starts = self._starts or starts_workers(self._loader)
        iterator = self._running = without_signal(started(self._loader))
        self._used_up = iterator is self._loader
        self._epoch, self._nb_fetched = epoch, first
        self._sketches.clear()
        self._open = self._seeded(iterator, epoch, first)
        return first

    def sketch_at(self, nb_batches: int) -> list[Any] | None:
        # an epoch whose data a hook changes isn't fetched again as it was
        is_same = self._watcher is None or not self._watcher.has_changed()
        number = self._before + nb_batches
        return [number, self._sketches[number]] if is_same and number in self._sketches else None

    def expect_like(self, sketch: list[Any], on_other_order: Callable[[], None]) -> None:
        self._expected = sketch, on_other_order

    def close(self) -> None:
        if self._starts:  # workers that the user's own loader had before are the user's
            workers.end_workers(self._loader, self._running)
        self._running = None

    def _prepare(self, epoch: int) -> None:
        if self._view is not None:
            self._view.begin_epoch(epoch)
        for chained in (self._loader, getattr(self._loader, "dataset", None), getattr(self._loader, "sampler", None)):
            set_epoch(chained, epoch)
        seeding.seed_order(self._seed, epoch, self._loader_id, self._of_loader, ())
        if self._looked_at != epoch:
            self._looked_at, self._at_start = epoch, [generator.get_state() for generator in self._generators]

    def _dealt(self, batches: Iterator[Any], first: int, start: int) -> Iterator[Any]:
        """This process's share of ``batches``. The others' are made too: only so do all see the same stream."""
        from pytorch_lightning.data.sketch import is_alike

        for nb, _ in zip(range(1, start - first + 1), batches, strict=False):
            self.on_dropped(nb, start - first)
        expected, self._expected = self._expected, None
        if expected is not None:
            (number, before), on_other_order = expected
            if number in self._sketches and not is_alike(before, self._sketches[number]):
                on_other_order()
        self.nb_drawn = start
        if self._watcher is not None:
            self._watcher.end_order()
        waiting = list[Any]()
        for batch in batches:
            self.nb_drawn += 1
            if self._share.has(self.nb_drawn - 1):
                if not self._share.whole:
                    yield batch
                    continue
                waiting.append(batch)
            if self._share.whole and not self.nb_drawn % self._share.nb:  # now it is known to be a round
                yield from waiting
                waiting.clear()

    def _seeded(self, iterator: Iterator[Any], epoch: int, first: int) -> Iterator[Any]:
        from pytorch_lightning.data.sketch import sketch

        seed, loader_id, batch_nb = self._seed, self._loader_id, first
        while True:
            if self.keeps_state and batch_nb == first:
                # many draw the whole order here, and must do so again behind any state
                seeding.seed_order(seed, epoch, loader_id, (), ())
            else:
                # a stream may shuffle before its first batch, alike in all processes
                seeding.seed_streams(seed, seeding.DATA, epoch, batch_nb, loader_id + self._lane * bool(batch_nb))
            try:
                batch = next(iterator)
            except StopIteration:
                self._compare_first(())
                if not batch_nb and not self._may_be_empty:
                    text = f"{loader_name(loader_id)} yielded no batches ({pass_name(loader_id, epoch)})"
                    raise FitError(f"{text}. Check its dataset and its length.") from None
                self._open = self._looked_at = None
                return
            except Exception as error:
                if is_death(error, iterator):
                    raise FitError(
                        f"{error}. {OF_MEMORY} New workers can't resume the stream of an IterableDataset in the middle:"
                        " resume from the last save."
                    ) from error
                error.add_note(
                    f"raised by {loader_name(loader_id)} ({pass_name(loader_id, epoch)}, batch_nb {batch_nb})"
                )
                raise
            if self._first_use is not None:
                self._compare_first(batch)
            batch_nb = self._nb_fetched = batch_nb + 1
            if not loader_id and not self.keeps_state:
                self._sketches[batch_nb] = sketch(batch)
                self._sketches.pop(batch_nb - MOST_SKETCHES, None)
            yield batch

    def _compare_first(self, batch: Any) -> None:
        first_use, self._first_use = self._first_use, None
        if first_use is not None:
            first_use.compare_batch(batch)

    # ------------------------------------------------------------------------------------------ epochs of one pass
    def place_in_pass(self, epoch: int, nb_batches: int, is_over: bool) -> list[int] | None:
        if not self.goes_on:
            return None
        if self._place is not None:
            return [*self._place]
        if self._of_epoch != epoch:
            return [*self._next_place(epoch), 0]
        return [self._epoch, self._before, self._nb_taken() if is_over else nb_batches]

    def load_place(self, place: list[int]) -> None:
        self._place = (place[0], place[1], place[2]) if self.goes_on else None

    def _nb_taken(self) -> int:
        """How many batches of this epoch any process took: all take whole rounds."""
        return -(-max(self._nb_fetched - self._before, self._start) // self._share.nb) * self._share.nb

    def _next_place(self, epoch: int) -> tuple[int, int]:
        """The number of the pass that ``epoch`` begins in, and how many batches of it came before."""
        if self._open is None:
            return epoch, 0
        return self._epoch, self._before + self._nb_taken()

    def _going_on(self, epoch: int, start: int, limit: int | None) -> Iterator[Any]:
        """The batches of an epoch that begins where the one before ended, or at the beginning of another pass where
        that was the end."""
        loaded, self._loaded, place, self._place = self._loaded, None, self._place, None
        number, before, taken = (*self._next_place(epoch), 0) if place is None else place
        is_open = self._open is not None
        if not is_open and self._watcher is not None:
            self._watcher.begin_order(number, starts_workers(self._loader))
        if loaded is not None:
            self._resume(loaded)
        if not is_open and (loaded is None or not loaded["open"]) and not (loaded is not None and start):
            self._begin(number, 0)
        self._of_epoch, self._before, self._start = epoch, before, max(start, taken)
        return self._part(epoch, start, limit, ends_order=not is_open)

    def _part(self, epoch: int, start: int, limit: int | None, ends_order: bool) -> Iterator[Any]:
        number, total = 0, self._before + start - self._nb_fetched
        for number, _ in zip(range(1, total + 1), self._open or (), strict=False):
            self.on_dropped(number, total)
        if ends_order and self._watcher is not None:
            self._watcher.end_order()
        self.nb_drawn = start
        first = [] if start or limit == 0 else [*islice(self._open or (), 1)]
        if not start and not first and limit != 0:  # the last epoch ended where the pass did
            if self._watcher is not None:
                self._watcher.begin_order(epoch, starts_workers(self._loader))
            self._before = self._begin(epoch, 0)
            if self._watcher is not None:
                self._watcher.end_order()
        end = None if limit is None else limit - start - len(first)
        yield from self._dealt(chain(first, islice(self._open or (), end)), start, start)

    # ------------------------------------------------------------------------------------------ a state of its own
    def _end_pass(self) -> None:
        """Let a pass that gave its last batch come to its end: what it does there is part of its state."""
        length = length_of(self._loader) if self.keeps_state and self._open is not None else None
        if length is not None and self._nb_fetched >= length:
            next(self._open, None)  # type: ignore[arg-type]
            self._open = self._looked_at = None

    def own_state(self, epoch: int) -> dict[str, Any] | None:
        if not self.keeps_state or self._loaded is not None:
            return self._loaded
        with seeding.preserved():
            self._end_pass()
            is_open = self._open is not None
            if not is_open:  # some begin the next pass when their state is read
                self._prepare(epoch)
            return {
                "open": is_open,
                "epoch": self._epoch if is_open else epoch,
                "batches": self._nb_fetched if is_open else 0,
                "generators": self._at_start,
                "state": self._loader.state_dict(),
            }

    def load_own(self, state: dict[str, Any]) -> None:
        loader, sampler = self._loader, getattr(self._loader, "sampler", None)
        if self.keeps_state and getattr(loader, "persistent_workers", False) and not hasattr(sampler, "state_dict"):
            raise FitError(
                f"the order of {type(loader).__name__} isn't known: it keeps its workers from one epoch to"
                f" the next, and its {type(sampler).__name__} has no state_dict. Train with persistent_workers=False."
            )
        self._loaded = state if self.keeps_state else None

    def _resume(self, loaded: dict[str, Any]) -> int:
        """Put its state back into the loader; returns how many batches of the pass that it is in are done."""
        try:
            for generator, state in zip(self._generators, loaded["generators"], strict=False):
                generator.set_state(state)
            self._loader.load_state_dict(loaded["state"])
            return self._begin(loaded["epoch"], loaded["batches"]) if loaded["open"] else 0
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(".")
            raise FitError(
                f"{type(self._loader).__name__} can't resume from its own state: {why}. Return the loader that"
                " the checkpoint was written with, with as many workers."
            ) from error
