"""What stands after a fit, in the process that asked for it."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch.optim import Optimizer

from pytorch_lightning.lightning2 import advice
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.resume.saver import Saver
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.optimizers import Schedule


class Outcome(int):
    """What ``fit`` returns: 1, or 0 where Ctrl-C ended it. At the end of a notebook's cell it is shown in words."""

    words: str

    @classmethod
    def of(cls, run: FitRun) -> "Outcome":
        """That of ``run``."""
        made = cls(not run.interrupted)
        nb, reason = run.progress.epoch, run.progress.stop_reason
        epochs = f"{nb} epoch{'s' * (nb != 1)}, {run.progress.global_step} batches"
        made.words = (
            f"{int(made)}: training {'was interrupted' if run.interrupted else 'is complete'} ({epochs}; {reason})"
        )
        return made

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self.words)

    def __getattr__(self, name: str) -> Any:
        text = advice("keras_members", name)
        raise AttributeError(f"fit returns 1 or 0, which has no {name!r}" + (f". {text}." if text else ""), name=name)

    def __reduce__(self) -> Any:
        return int, (int(self),)


class FitResult(Protocol):
    """What users and later runs read of a fit: its ``FitPlan`` where the fit ran in this process, and ``Afterwards``
    where other processes ran it."""

    @property
    def module(self) -> LightningModule: ...

    @property
    def run(self) -> FitRun: ...

    @property
    def seed(self) -> int: ...

    @property
    def rows(self) -> Rows: ...

    @property
    def loggers(self) -> LoggerGroup: ...

    @property
    def saver(self) -> Saver: ...

    @property
    def folder_of_saves(self) -> str | None:
        """The folder of the rolling saves, if this process knows it."""

    def get_optimizers(self) -> Sequence[Optimizer]:
        """The optimizers, with the state that the fit left."""

    def get_schedules(self) -> Sequence[Schedule]:
        """The schedules of these optimizers."""
