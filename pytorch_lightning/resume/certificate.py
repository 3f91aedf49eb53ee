"""The certificate of a run: a line for each rolling save, of what it follows from and of what it holds."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.chain import NAME, Chain
from pytorch_lightning.checkpoints.digest import digests
from pytorch_lightning.data.witness import Witness
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.processes import Processes
from pytorch_lightning.run.progress import Progress

POSITION = ("global_step", "epoch", "batch_nb")
KINDS = {
    **dict.fromkeys((*POSITION, "since", "seed", "virtual_ranks", "processes"), int),
    **dict.fromkeys(("code", "data", "options", "versions", "batches", "sha256"), dict),
    "callbacks": list,
}
"""What a line holds, beside its hashes."""
MOST_THREADS = 2**12


def is_line(entry: Mapping[str, Any]) -> bool:
    """Whether ``entry`` is what a line of a certificate holds."""
    if any(type(entry.get(name)) is not kind for name, kind in KINDS.items()):
        return False
    versions, batches = entry["versions"], entry["batches"]
    threads = versions.get("threads")
    are_noted = all(
        rank.isdecimal() and isinstance(pair, list) and [type(number) for number in pair] == [int, int]
        for rank, pair in batches.items()
    )
    return are_noted and isinstance(versions.get("device"), str) and type(threads) is int and 0 < threads < MOST_THREADS


class Certificate:
    """Writes a run's ``certificate.jsonl``; every process has one, and the first writes.

    A line is on the disk before its save appears under its name, so each save has a line, also after a kill. A line
    whose save never appeared stays: what follows it is appended by the run that resumes from an earlier save, and says
    so by its ``global_step``. What was trained on is noted since the run's beginning (``since``): so the lines of any
    two saves tell what lies between them.
    """

    def __init__(
        self,
        witness: Witness,
        progress: Progress,
        processes: Processes,
        folder: str | None,
        origin: Mapping[str, Any],
    ) -> None:
        """``folder`` is that of the run's saves; ``origin`` what its numbers follow from. Raises ``CheckpointError``
        where the file of the run that is resumed isn't whole."""
        self.witness, self.origin = witness, dict(origin)
        self._progress, self._processes = progress, processes
        self.since = progress.global_step
        """The ``global_step`` at which ``witness`` began to note."""
        self._path = None if folder is None else Path(folder).parent / NAME
        before, problem = processes.from_first(self._found() if processes.is_first else None)
        if problem is not None:
            raise CheckpointError(f"{problem} Put back the file as it was, or resume without certificate=True.")
        if before is not None:
            self.begin(before)

    def _found(self) -> tuple[dict[str, Any] | None, str | None]:
        """The line of the save that is resumed, or what is wrong with the file."""
        place = [getattr(self._progress, name) for name in POSITION]
        try:
            lines = () if self._path is None else reversed(self._chain.lines)
        except CheckpointError as error:
            return None, str(error)
        return next((line for line in lines if [line[name] for name in POSITION] == place), None), None

    @cached_property
    def _chain(self) -> Chain:
        assert self._path is not None
        return Chain(self._path, is_line)

    def begin(self, line: Mapping[str, Any]) -> None:
        """The state is that of the save of ``line``."""
        self.since = line["since"]
        self.witness.begin({int(rank): (order, data) for rank, (order, data) in line["batches"].items()})

    def entry(self) -> dict[str, Any]:
        """What a line says of the state as it is now, but for its hashes. All processes call it."""
        progress = self._progress
        own = self.witness.at(progress.batch_nb)
        noted = {rank: pair for each in self._processes.gather(own) for rank, pair in each.items()}
        return {
            **{name: getattr(progress, name) for name in POSITION},
            "since": self.since,
            **self.origin,
            "batches": {str(rank): list(noted[rank]) for rank in sorted(noted)},
        }

    def append(self, entry: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> None:
        """Write the line of a save that is about to be written; in the first process, by the thread that writes."""
        self._chain.append({**entry, "sha256": digests(checkpoint)})
