"""What stands after a fit, in the process that asked for it."""

from collections.abc import Sequence
from typing import Protocol

from torch.optim import Optimizer

from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.resume.saver import Saver
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.optimizers import Schedule


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
