"""The rolling saves of a run: its newest state, whatever happens."""

import contextlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from pytorch_lightning.checkpoints.checkpoint import checked, upgrade
from pytorch_lightning.checkpoints.folders import Folder, open_folder
from pytorch_lightning.checkpoints.layout import POSITION
from pytorch_lightning.checkpoints.sharded import Cut, is_cut, with_part
from pytorch_lightning.checkpoints.store import DamagedCheckpoint
from pytorch_lightning.errors import CheckpointError, MisconfigurationException, Notices, Problem
from pytorch_lightning.faults import fault
from pytorch_lightning.processes import ALONE, Processes

SAVE = re.compile(r"step-(\d{12,})(?:\.(\d+))?\.ckpt")
"""The step, and a number if there is another save of that step."""
DAMAGED, ASIDE = ".damaged", ".aside"


class Position(NamedTuple):
    """What a save says of itself, without its tensors."""

    step: int
    epoch: int
    batch_nb: int
    finished: bool
    """Training was complete."""
    run_id: str
    job: str | None
    """The cluster's job that the run belongs to."""


def position_of(checkpoint: dict[str, Any]) -> Position:
    """The position of a checkpoint."""
    run, progress = checkpoint["parts"].get("run", {}), checkpoint["parts"].get("progress", {})
    return Position(
        checkpoint["global_step"],
        checkpoint["epoch"],
        progress.get("batch_nb", 0),
        bool(run.get("finished")),
        run.get("id", ""),
        run.get("job"),
    )


class Saved(NamedTuple):
    """A save that was read."""

    name: str
    position: Position
    checkpoint: dict[str, Any]


class Written(NamedTuple):
    """A save that was written."""

    path: str
    size: int
    seconds: float


def folder_problem(folder: str | os.PathLike[str]) -> Problem | None:
    """Why saves can't be written to ``folder``; None where they can."""
    return open_folder(folder).problem()


def saves_in(names: list[str], suffix: str = "") -> list[str]:
    """The saves among file names, the newest first: by step, since clocks may be set back.

    >>> saves_in(["step-000000000002.ckpt", ".lock", "step-000000000010.ckpt", "step-000000000011.ckpt.damaged"])
    ['step-000000000010.ckpt', 'step-000000000002.ckpt']
    """
    found = [name for name in names if name.endswith(suffix) and SAVE.fullmatch(name.removesuffix(suffix))]
    return sorted((n for n in found if suffix or SAVE.fullmatch(n)), key=_order_of, reverse=True)


def step_of(name: str) -> int:
    """The step in the name of a save.

    >>> step_of("step-000000001234.ckpt")
    1234
    """
    match = SAVE.match(name)
    assert match is not None
    return int(match[1])


def _order_of(name: str) -> tuple[int, int]:
    match = SAVE.match(name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def spaced(steps: Sequence[int]) -> list[int]:
    """Those of ``steps``, the newest first, that stay where saves are to be spaced over a run: the newest two, the
    first, and in between ever fewer, since each goes whose neighbours are no further apart than the later one is from
    the newest. So of n about ``2 * log2(n)`` stay, and a batch that is n before the newest save has one at most n
    before it, unless there never was one. It is a function of what is there: a kill in between changes nothing.

    >>> spaced([10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    [10, 9, 8, 6, 2, 0]
    """
    kept = [*steps[:1]]
    for step, before in pairwise(steps[1:]):
        if kept[-1] - before > steps[0] - kept[-1]:
            kept.append(step)
    return kept + [*steps[1:]][-1:]


def superfluous(names: Sequence[str], keep: int | None, finished: bool) -> list[str]:
    """The saves among ``names``, the newest first, that go when the first of them is there: all but ``keep`` (None: all
    but those that are ``spaced``); where training is ``finished``, all others, if they aren't spaced."""
    steps = list(dict.fromkeys(map(step_of, names)))
    stay = spaced(steps) if keep is None else steps[: 1 if finished else keep]
    of_newest = [name for name in names[1:] if step_of(name) == steps[0]]
    return [*of_newest, *(name for name in names if step_of(name) not in stay)]


class RunStore:
    """Rolling saves ``step-000000001234.ckpt`` in a run's ``checkpoints`` folder, of which ``keep`` stay, or (None)
    those that are ``spaced``, also at the end.

    Use it as a context, or ``open`` and ``close`` it: meanwhile no other run can use the folder. First ask for the
    ``newest`` save or not, then ``begin``, then ``write``.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int | None = 2,
        notices: Notices | None = None,
        job: str | None = None,
    ) -> None:
        self.folder = os.fspath(folder)
        self.run_id = uuid.uuid4().hex
        """Names the run in its saves; that of the newest save once that was read."""
        self.newest_path: str | None = None
        """The newest save that was read or written."""
        self._files, self._keep, self._job = open_folder(folder), None if keep is None else max(2, keep), job
        self._notices = Notices() if notices is None else notices

    def open(self, patience: float = 2.0) -> "RunStore":
        """Keep others out. Raises ``CheckpointError``, naming the holder, where another run does."""
        problem = self._files.problem()
        if problem is not None:
            raise MisconfigurationException(str(problem))
        self._files.lock(patience)
        return self

    def close(self) -> None:
        """Let others in."""
        self._files.unlock()

    def __enter__(self) -> "RunStore":
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def newest(self, read: Callable[[str], dict[str, Any]] | None = None) -> Saved | None:
        """The contents of the newest save whose checksums are right, or None.

        ``read`` reads one by its name, verified. Damaged ones are renamed. Raises ``CheckpointError`` where all are:
        training never starts anew silently.
        """
        names, damaged, found = self._files.names(), [], None
        for name in saves_in(names):
            try:
                checkpoint = upgrade((read or self._files.read)(name), f"{self.folder}/{name}")
            except DamagedCheckpoint:
                damaged.append(name)
                with contextlib.suppress(OSError):
                    self._files.rename(name, name + DAMAGED)
                continue
            except CheckpointError:
                if name in self._files.names():
                    raise
                return self.newest(read)  # another run removed it meanwhile, where there are no locks
            found = Saved(name, position_of(checkpoint), checkpoint)
            self.newest_path = f"{self.folder}/{name}"
            self.run_id = found.position.run_id or self.run_id
            break
        if found is not None and damaged:
            self._notices.say_again(
                "damaged-save",
                f"{', '.join(damaged)} in {self.folder}: damaged, renamed to *{DAMAGED}; {found.name} is the newest"
                " good save",
            )
        damaged += saves_in(names, DAMAGED)
        if found is None and damaged:
            raise CheckpointError(
                f"no save in {self.folder} can be trusted: {', '.join(sorted(damaged))} damaged. Put back a good copy,"
                " or remove them to start anew."
            )
        return found

    def begin(self, step: int | None) -> None:
        """Set where the run resumes; None: it starts anew. Saves past that are a different history: set aside."""
        later = [name for name in saves_in(self._files.names()) if step is None or step_of(name) > step]
        for name in later:
            self._files.rename(name, name + ASIDE)
        if later:
            self._notices.say(
                "saves-set-aside",
                f"{self.folder} holds {len(later)} saves that this run doesn't resume from, up to {later[0]}: renamed"
                f" to *{ASIDE}",
            )

    def write(
        self, checkpoint: dict[str, Any] | Cut, step: int, finished: bool = False, processes: Processes = ALONE
    ) -> Written:
        """Write a save, then remove those that it makes ``superfluous``.

        Every process calls it where each has a part of the ``checkpoint``. Raises ``CheckpointError`` where it can't
        be written; those before it are then untouched.
        """
        start, name = time.monotonic(), processes.from_first(self._name_of(step, is_cut(checkpoint)))
        checkpoint = with_part(checkpoint, "run", {"id": self.run_id, "finished": finished, "job": self._job})
        size = self._files.write(checkpoint, name, processes)
        if processes.is_first:
            if finished:
                self._files.verify(name)  # it will be the only one
            self._prune(name, finished)
        fault("store.done")
        self.newest_path = f"{self.folder}/{name}"
        return Written(self.newest_path, size, time.monotonic() - start)

    def _name_of(self, step: int, as_folder: bool) -> str:
        """A file takes the place of another at once; where one of them is a folder, the new one gets a number."""
        there = next((name for name in saves_in(self._files.names()) if step_of(name) == step), None)
        if there is None or not (as_folder or self._files.is_folder(there)):
            return there or f"step-{step:012d}.ckpt"
        return f"step-{step:012d}.{_order_of(there)[1] + 1}.ckpt"

    def _prune(self, name: str, finished: bool) -> None:
        names = self._files.names()
        saves = [other for other in saves_in(names) if other != name]
        old = superfluous([name, *saves], self._keep, finished) + (saves_in(names, DAMAGED) if finished else [])
        for other in reversed(old):
            fault("store.replace") if finished else fault("store.prune")
            with contextlib.suppress(OSError):
                self._files.remove(other)


@dataclass(frozen=True)
class FoundRun:
    """A run's folder on the disk."""

    folder: str
    version: int
    has_saves: bool
    """Also where all of them are damaged."""
    position: Position | None
    """That of its newest readable save; not verified."""


def find_runs(save_path: str | os.PathLike[str], name: str) -> Iterator[FoundRun]:
    """The runs under ``{save_path}/{name}/version_{n}``, the highest n first, read lazily."""
    parent = f"{os.fspath(save_path).rstrip('/')}/{name}"
    listed = open_folder(parent).names()
    versions = sorted((int(n[8:]) for n in listed if re.fullmatch(r"version_\d+", n)), reverse=True)
    for version in versions:
        folder = f"{parent}/version_{version}"
        yield FoundRun(folder, version, *look_into(f"{folder}/checkpoints"))


def look_into(folder: str) -> tuple[bool, Position | None]:
    """Whether a folder has saves, and the position of its newest readable one, which isn't verified."""
    saves = open_folder(folder)
    names, position = saves.names(), None
    for _ in range(3):  # a run that is training may remove a save between the list and the look
        position = next((at for save in saves_in(names) if (at := _peek(saves, save)) is not None), None)
        before, names = names, saves.names()
        if position is not None or saves_in(before) == saves_in(names):
            break
    return bool(saves_in(names) or saves_in(names, DAMAGED)), position


def _peek(saves: Folder, save: str) -> Position | None:
    try:
        return position_of(checked(saves.peek(save), POSITION, save))
    except (CheckpointError, OSError):
        return None


def newest_run(save_path: str | os.PathLike[str], name: str) -> FoundRun | None:
    """The newest run that has saves."""
    return next((run for run in find_runs(save_path, name) if run.has_saves), None)
