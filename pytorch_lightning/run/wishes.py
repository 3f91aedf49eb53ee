"""What was asked of a run: a stop, a checkpoint. It is done at the next save point, where state is whole."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.run.progress import FORGOTTEN, INTERRUPTED, NEVER


class SaveRequest(NamedTuple):
    """A requested checkpoint."""

    path: Path | None
    """None is the run's own rolling save."""
    on_saved: Callable[[], None] | None = None
    weights_only: bool = False
    on_refused: Callable[[], None] | None = None

    def without_callback(self) -> tuple[Path | None, None, bool]:
        """What is sent to other processes."""
        return self.path, None, self.weights_only


@dataclass(kw_only=True, slots=True)
class Wishes:
    """What callbacks, signals and the clock want of a fit. The loop reads ``pending`` and ``next_save_point`` alone."""

    alone: bool = True
    """Whether there are no other processes to agree with. With others a wish waits for the next agreed step."""
    saves: list[SaveRequest] = field(default_factory=list)
    stop: str = ""
    """The reason of a requested stop; becomes ``progress.stop_reason`` at the next save point."""
    pending: bool = False
    """Whether a stop or a save was asked for since the last save point."""
    next_save_point: int = NEVER
    """The ``global_step`` at which the loop comes to a save point even if nobody asked."""

    def to_stop(self, reason: str) -> None:
        """Ask that training ends. The first wish counts; but a signal, after which a later fit resumes, gives way to a
        wish that is for good."""
        for_good = not reason.startswith(FORGOTTEN)
        if not self.stop or (for_good and self.stop.startswith(INTERRUPTED)):
            self.stop = reason
        self.note()

    def to_save(self, request: SaveRequest) -> None:
        """Ask for a checkpoint."""
        self.saves.append(request)
        self.note()

    def note(self) -> None:
        """Let the loop come to a save point after this window."""
        self.pending = self.pending or self.alone
