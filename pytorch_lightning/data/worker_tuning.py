"""How many workers make the batches of training, found out while it runs.

The batches don't depend on that number, so it may change between any two of them. For each number the time of a batch
is measured, what is waited for it and what is computed; more workers are tried while waiting takes a noticeable part
of it and more of them help. Each new worker first makes one of the last batches again: where that has other bits, the
number stays.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from pytorch_lightning.data.read_positions import File, moved, read_positions, still_open
from pytorch_lightning.data.watched_objects import OPEN_FILE, WatchedObjects
from pytorch_lightning.data.witness import checksum
from pytorch_lightning.errors import FitError, Notices

MEASURED = 12
"""Batches that are measured for a number of workers, at least."""
SETTLED_AFTER = 200
"""Batches after which the best number so far is taken."""
WAITS = 0.05
"""Of a batch's time: where less than this is waiting, more workers aren't tried."""
BETTER = 0.95
"""Times the time of a batch: with more workers it must be less than this."""
LEAST_SHARE_FREE = 0.1
"""Of the memory: what must stay free once more workers have started."""
MUCH = 0.25
"""Of a batch's time: where more than this is waiting, fewer workers would make it longer."""
FEW = 4
"""Of processors: with fewer all numbers of workers are tried."""
PATIENCE, LONGEST = 60.0, 20
"""Seconds, and times the time of a batch: workers that make none for longer wait for what no fork has, say for a thread
or for a lock that one held."""
CHECK_SHARE = 0.005
"""Of the time: closer looks at the dataset's attributes may take so much of it."""
UNSEEN = (
    "{names} changed after batch {nb} of this epoch at the earliest, in a way that wasn't seen at once, and the workers"
    " that auto_nb_workers chose made batches from what it was before. Run this again with auto_nb_workers=False, from"
    " a save that is older."
)

_clock = time.perf_counter


class Measured(NamedTuple):
    """Seconds of a batch with some number of workers."""

    period: float
    waiting: float


class WorkerTuner:
    """Which number of workers is tried next: ``wanted()``, asked before each batch.

    ``begun`` is the user's own number: where there are workers, some stay; at most ``most`` are used. ``data`` are the
    dataset and what else makes batches, by name, and ``changed()`` names their attributes that changed since the epoch
    began: workers that the user didn't ask for wouldn't see that. Workers that are ``forked`` share positions in files.
    """

    def __init__(
        self,
        begun: int,
        most: int,
        data: dict[str, Any],
        changed: Callable[[], list[str]],
        notices: Notices,
        memory: Callable[[], tuple[float, float]] | None = None,
        forked: bool = True,
    ) -> None:
        self.begun = self.nb = begun
        self.settled = most <= begun and begun < 2
        self._most, self._data, self._marks_changed, self._notices = max(most, begun), data, changed, notices
        self._memory = memory_of_the_machine if memory is None else memory
        self._found: dict[int, Measured] = {}
        self._waits: list[float] = []
        self._computes: list[float] = []
        self._sums: deque[int] = deque(maxlen=self._most)
        """Checksums of the last batches of this epoch."""
        self._again: list[int] = []
        self._nb_seen, self._to_skip = 0, 2
        self._earlier: dict[int, Measured] = {}
        """Of a number that is measured once more: what it was before."""
        self._free_before = self._memory()[0]
        self._watched: WatchedObjects | None = None
        self._forked, self._read = forked, dict[int, File]()
        """Files in which the user's own loader reads on from where it was, by descriptor."""
        self._seconds_of_look = 0.0
        self._nb_given = self._last_look = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to choose or to look at."""
        return self.settled and (self.begun > 0 or self.nb == 0)

    # ------------------------------------------------------------------------------------------ measuring
    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """``batches``, their times measured."""
        given, nothing = None, object()
        while True:
            asked = since = _clock()
            before = None
            if not self.settled and self._forked and self.nb == self.begun:
                before, since = read_positions(), _clock()
            batch = next(batches, nothing)
            if batch is nothing:
                return
            there = _clock()
            if before is not None:
                # of workers this process opens what they send
                self._read |= moved(before, with_opened=not self.nb)
            if self.settled:
                pass
            elif self._to_skip:
                self._to_skip -= 1
            else:
                self._waits.append(there - since)
                if given is not None:
                    self._computes.append(asked - given)
            self._nb_seen += 1
            if not self.settled:
                self._sums.append(checksum(batch))
            given = _clock()
            yield batch

    def begin(self) -> None:
        """An epoch's batches are about to be made, from the data as they are."""
        self._watched = None if self.begun else WatchedObjects(self._data)
        self._nb_given = self._last_look = 0
        self._sums.clear()
        self._again = []

    @property
    def nb_again(self) -> int:
        """How many of the last batches are made once more, to be compared, before any that is new."""
        return len(self._again)

    def compared(self, batches: Iterator[Any]) -> int | None:
        """Takes those from ``batches``. Where one isn't as it was: the user's own number again; otherwise None."""
        again, self._again = self._again, []
        for crc in again:
            if checksum(next(batches, None)) != crc:
                return self.stop("workers make other batches of the same samples than were made without them")
        return None

    def wanted(self) -> int | None:
        """The number of workers from the next batch on; None where it stays."""
        self._nb_given += 1
        if self.nb and not self.begun and (names := self._changed_between()):
            return self._give_up(names)
        nb = self._choice()
        if nb is None:
            return None
        shared = [*(self._watched.shared if self._watched is not None else ())]
        shared += map(OPEN_FILE.format, still_open(self._read) if self._read else ())
        if shared:
            return self.stop(shared[0])
        is_first, names = not self._seconds_of_look, self._changed()
        if is_first and not names:
            names = self._changed()  # takes what all later ones take
        return self._give_up(names) if names else self._try(nb)

    def _choice(self) -> int | None:
        """Another number than now, once this one has been measured."""
        if self.settled or len(self._waits) < max(MEASURED, 3 * self.nb):
            return None
        # what isn't computing, a save or a validation say, comes now and then and is long
        compute, waiting = median(self._computes or [0.0]), sum(self._waits) / len(self._waits)
        found = Measured(compute + waiting, waiting)
        self._found[self.nb] = min(found, self._earlier.get(self.nb, found))
        nb = self._next()
        if nb is not None and nb != self.nb:
            return nb
        if self.nb in self._found:
            self._settle()
        self._waits.clear()
        self._computes.clear()
        return None

    def _next(self) -> int | None:
        """The number that is tried now, or taken for good."""
        now, best = self._found[self.nb], min(self._found, key=self._cost)
        if self._nb_seen >= SETTLED_AFTER:
            return best
        first = len(self._found) == 1
        if first and self.nb > 1 and now.waiting < WAITS * now.period:
            return self.nb // 2
        more = next((nb for nb in self._numbers() if nb not in self._found), None)
        is_enough = now.waiting < WAITS * now.period and (self._most >= FEW or first)
        helps = first or best == self.nb or self._most < FEW
        if more is not None and more < self.nb == best and now.waiting > MUCH * now.period:
            return best
        if not is_enough and helps and more is not None and self._has_memory(more):
            return more
        return self._in_doubt() if best == self.begun else best

    def _in_doubt(self) -> int:
        """The user's own number, which was best; or, where much of the time is waiting, once more the largest of the
        others: the machine may have been busy with something else while that was measured."""
        begun, others = self._found[self.begun], {*self._found} - {self.begun}
        if self._earlier or not others or begun.waiting < MUCH * begun.period:
            return self.begun
        nb = max(others)
        self._earlier[nb] = self._found.pop(nb)
        return nb

    def _cost(self, nb: int) -> tuple[float, int]:
        """Fewer workers are better where the time is about the same."""
        least = min(found.period for found in self._found.values())
        period = self._found[nb].period
        return (0.0, nb) if period * BETTER <= least else (period, nb)

    def _numbers(self) -> list[int]:
        """What is tried, in this order. A single worker makes no more batches in the time, but makes them beside what
        is computed."""
        if self._most < FEW:
            return [*range(2, self._most + 1), 1]
        numbers = {*(2**n for n in range(1, 12)), self._most}
        return sorted(nb for nb in numbers if max(self._found) < nb <= self._most)

    def _try(self, nb: int) -> int:
        self.nb, self._to_skip = nb, 3 * nb + 2  # what they have made ahead says nothing
        self._again = [] if nb == self.begun else [*self._sums][-nb:]
        self._waits.clear()
        self._computes.clear()
        if nb in self._found:
            self._settle()
        return nb

    def _settle(self) -> None:
        self.settled = True
        if self.nb == self.begun:
            return
        now, before = self._found[self.nb].period * 1e3, self._found[self.begun].period * 1e3
        self._notices.say(
            "auto-workers",
            f"auto_nb_workers: {self.nb} workers make the training batches, {now:.3g} ms a batch instead of"
            f" {before:.3g} with the {self.begun} of tng_dataloader",
        )

    # ------------------------------------------------------------------------------------------ what forbids it
    @property
    def patience(self) -> float:
        """Seconds that are waited for a batch of workers that the user didn't ask for."""
        return max(PATIENCE, LONGEST * self._found[self.begun].period)

    def _has_memory(self, nb: int) -> bool:
        free, whole = self._memory()
        of_one = max(0.0, self._free_before - free) / self.nb if self.nb else 0.0
        return free - of_one * (nb - self.nb) > LEAST_SHARE_FREE * whole

    def _changed(self) -> list[str]:
        """What of the data is other than when the epoch began."""
        names = [] if self._watched is None else self._watched.changed()
        if names:
            return names
        start = _clock()
        names = self._marks_changed()
        self._seconds_of_look = _clock() - start
        return names

    def _changed_between(self) -> list[str]:
        """What changed since the last batch, seen before the next one is taken. Where a closer look at each of them
        would cost much there is one now and then, and it is an error that it comes too late."""
        names = [] if self._watched is None else self._watched.changed()
        apart = 1 + int(self._seconds_of_look / (CHECK_SHARE * self._found[self.begun].period))
        if not names and self._nb_given - self._last_look >= apart:
            names = self._changed()
            if names and apart > 1:
                raise FitError(UNSEEN.format(names=", ".join(names[:3]), nb=self._last_look))
            self._last_look = self._nb_given
        return names

    def finish(self) -> None:
        """The epoch is over. Raises ``FitError`` where something changed in it that workers haven't seen. What changed
        after the last batch was taken changes nothing."""
        if not self.nb or self.begun or self._last_look == self._nb_given:
            return
        late = {name.partition(".")[2] for name in self._watched.changed()} if self._watched is not None else set()
        names = [name for name in self._marks_changed() if name.partition(".")[2] not in late]
        if names:
            raise FitError(UNSEEN.format(names=", ".join(names[:3]), nb=self._last_look))

    def _give_up(self, names: list[str]) -> int | None:
        return self.stop(f"{', '.join(names[:3])} changed inside an epoch, which workers wouldn't see")

    def stop(self, why: str) -> int | None:
        """The user's own number again, from the next batch on."""
        self.settled, self._again = True, []
        self._notices.say("no-auto-workers", f"auto_nb_workers has no effect: {why}")
        back, self.nb = (None if self.nb == self.begun else self.begun), self.begun
        return back


def cores_for(nb_processes: int) -> int:
    """How many workers a process may have: its part of the processors that this program may use."""
    nb = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, nb // nb_processes)


def memory_of_the_machine() -> tuple[float, float]:
    """Bytes that are free, and all that there are, of the machine or of the container; (inf, 0) where none can be
    asked."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free, whole = (1024.0 * int(lines[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        return float("inf"), 0.0
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used -= int(stat.get("inactive_file", 0))  # files that were read, which give way
        return min(free, limit - used), min(whole, limit)
    except (OSError, ValueError):
        return free, whole
