"""Measures where the time of a fit goes.

Waiting for data, validation, saving and logging are measured whenever they happen. Forward, backward and optimizer
are measured in one window of 50 and taken for all, so that an ordinary step pays only for two looks at the clock.
On an accelerator those three are measured by its own events: nothing waits for it, and what is measured is its time;
the others are the time of the process.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SAMPLE_EVERY, FIRST_SAMPLE = 50, 10
"""Windows. The first few also pay for what is loaded and chosen once."""

PHASES = {
    "start": "start",
    "data": "waiting for data",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "training": "training",
    "validation": "validation",
    "saving": "saving",
    "logging": "logging",
    "other": "other",
}
"""The phases, and how they are called in a line of text."""

WITHIN_OTHER = "hooks, first steps, and what surrounds each step"
"""Said where ``other`` is more than 5 %."""

SAMPLED = ("forward", "backward", "optimizer")
HINT_SHARE, HINT_SECONDS = 0.25, 0.5

_clock = time.perf_counter


class Timings:
    """The seconds of a fit by phase. ``seconds``, ``total`` and ``str()`` may be read at any time."""

    def __init__(self) -> None:
        self.nb_windows: Callable[[], int] = int
        """How many windows were trained in this fit."""
        self._began = _clock()
        self._ended: float | None = None
        self._rest_of_training: float | None = None
        self._measured: dict[str, float] = {}
        self._data = 0.0
        self._sampled = dict.fromkeys(SAMPLED, 0.0)
        self._nb_sampled = 0
        self._device: torch.device | None = None
        self._phase: str | None = None
        self._since: Any = None
        self._spans: list[tuple[str, Any, Any]] = []
        """Of the last sampled window: the phase and two events. An accelerator may not have reached them yet."""

    def begin(self, device: "torch.device", nb_windows: Callable[[], int]) -> None:
        """Training is about to run on ``device``; ``nb_windows`` tells how many windows are done."""
        self.nb_windows = nb_windows
        self._device = None if device.type == "cpu" else device

    def end_training(self) -> None:
        """The last step was made: what follows ends the fit."""
        self._rest_of_training = max(0.0, _clock() - self._began - self._data - sum(self._measured.values()))

    def end(self) -> None:
        """The fit is over."""
        self._settle()
        self._ended = _clock()

    def waiting(self, batches: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
        """The batches of ``batches(*arguments)``, the time until each one is there measured."""
        start = _clock()
        if "start" not in self._measured:
            self._measured["start"] = start - self._began - self._measured.get("validation", 0.0)
        iterator = batches(*arguments)
        self._data += _clock() - start
        return self._waiting(iterator)

    def _waiting(self, iterator: Iterator[Any]) -> Iterator[Any]:
        clock, nothing = _clock, object()
        while True:
            start = clock()
            batch = next(iterator, nothing)
            self._data += clock() - start
            if batch is nothing:
                return
            yield batch

    @contextlib.contextmanager
    def measuring(self, phase: str) -> Iterator[None]:
        """A scope whose time belongs to ``phase``."""
        start = _clock()
        try:
            yield
        finally:
            self._measured[phase] = self._measured.get(phase, 0.0) + _clock() - start

    def sampling(self, train_window: Callable[..., None]) -> Callable[..., None]:
        """``train_window``, made of functions from ``timed``, counted as a sample."""

        def sampled_window(*arguments: Any) -> None:
            self._settle()
            train_window(*arguments)
            if self._device is None:
                self._settle()

        return sampled_window

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with its time given to ``phase``, less that of other phases inside it."""

        def call(*arguments: Any, **named: Any) -> Any:
            outer = self._switch(phase)
            try:
                return function(*arguments, **named)
            finally:
                self._switch(outer)

        return call

    def _switch(self, phase: str | None) -> str | None:
        """Begin ``phase``; returns the one that was running."""
        if self._device is None:
            now: Any = _clock()
        else:
            import torch

            now = torch.Event(self._device, enable_timing=True)
            now.record()
        outer, since = self._phase, self._since
        if outer is not None:
            self._spans.append((outer, since, now))
        self._phase, self._since = phase, now
        return outer

    def _settle(self) -> None:
        """Add up what was sampled last. An accelerator has mostly done that window long ago."""
        self._nb_sampled += bool(self._spans)
        for phase, start, end in self._spans:
            if self._device is not None:
                end.synchronize()
            self._sampled[phase] += end - start if self._device is None else start.elapsed_time(end) / 1000
        self._spans.clear()

    @property
    def total(self) -> float:
        """Seconds from the call of ``fit`` to its end, or to now."""
        return (_clock() if self._ended is None else self._ended) - self._began

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by phase; they add up to ``total``.

        A fit of less than 11 windows has ``training`` in place of ``forward``, ``backward`` and ``optimizer``. On an
        accelerator, which runs behind, these three leave out the last sample until the next one or the end.
        """
        found = {**self._measured, "data": self._data}
        rest = max(0.0, self.total - sum(found.values()))
        if self._nb_sampled:
            scale = max(self.nb_windows(), self._nb_sampled) / self._nb_sampled
            # a few samples on a crowded machine may say more than there was
            scale = min(scale, rest / max(sum(self._sampled.values()), 1e-9))
            found.update({phase: seconds * scale for phase, seconds in self._sampled.items()})
            rest -= sum(self._sampled.values()) * scale
        elif self.nb_windows():
            found["training"] = rest if self._rest_of_training is None else min(rest, self._rest_of_training)
            rest -= found["training"]
        found["other"] = max(0.0, rest)
        return {phase: found[phase] for phase in PHASES if phase in found}

    def __str__(self) -> str:
        total = max(self.total, 1e-9)
        seconds = {phase: s for phase, s in self.seconds.items() if s >= 0.005 * total}
        why = f": {WITHIN_OTHER}" if seconds.get("other", 0.0) >= 0.05 * total else ""
        parts = [f"{PHASES[p]} {s:.1f} s ({s / total:.0%}{why * (p == 'other')})" for p, s in seconds.items()]
        return f"fit took {total:.1f} s: {', '.join(parts)}"


def hint(seconds: dict[str, float], nb_workers: int | None, nb_cpus: int | None = None) -> str | None:
    """What to change where much time was spent waiting for data; None where nothing is known to help.

    ``nb_workers`` is the training loader's; None where it has none to give.

    >>> hint({"data": 6.1, "forward": 3.9}, nb_workers=0, nb_cpus=4)
    '61% of the training time was spent waiting for data: try num_workers=2 in tng_dataloader, or auto_nb_workers=True'
    """
    nb_cpus = (os.cpu_count() or 1) if nb_cpus is None else nb_cpus
    training = sum(s for phase, s in seconds.items() if phase not in ("start", "validation", "saving"))
    share = seconds.get("data", 0.0) / max(training, 1e-9)
    if nb_workers is None or nb_cpus < 2 or share < HINT_SHARE or seconds["data"] < HINT_SECONDS:
        return None
    try_this = "num_workers=2" if not nb_workers else f"more than the {nb_workers} workers of now"
    auto = ", or auto_nb_workers=True" if nb_workers < nb_cpus else ""
    if nb_workers >= nb_cpus:
        try_this = "a cheaper dataset, since there are no more processors for further workers"
    return f"{share:.0%} of the training time was spent waiting for data: try {try_this} in tng_dataloader{auto}"
