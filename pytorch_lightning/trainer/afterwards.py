"""What is left, in the process that asked for it, of a fit that others did."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch.optim import Optimizer

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.checkpoint import Part
from pytorch_lightning.errors import Notices
from pytorch_lightning.loggers.logger import LoggerGroup
from pytorch_lightning.options.config import Config
from pytorch_lightning.processes import ALONE
from pytorch_lightning.resume.parts import Kept, load_part
from pytorch_lightning.resume.saver import Saver
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run import files
from pytorch_lightning.run.hooks import hook_table
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.optimizers import Schedule, read_optimizers
from pytorch_lightning.strategies import SingleDevice
from pytorch_lightning.trainer.optimization import tell_callbacks


@contextlib.contextmanager
def _as_the_fit_began(module: LightningModule, callbacks: Sequence[Callback]) -> Iterator[None]:
    """A scope in which what callbacks freeze is frozen."""
    frozen = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    modes = [(layer, layer.training) for layer in module.modules()]
    for callback in callbacks:
        callback.before_optimizers(module)
    yield
    for parameter, is_trained in frozen:
        parameter.requires_grad_(is_trained)
    for layer, training in modes:
        layer.training = training


class Afterwards:
    """Answers what a user may ask after a fit, as its plan does where the fit was in this process."""

    folder_of_saves: str | None = None

    def __init__(
        self,
        config: Config,
        module: LightningModule,
        run: FitRun,
        notices: Notices,
        state: Mapping[str, Any],
    ) -> None:
        self.module, self.run, self.seed = module, run, int(state["seed"])
        self._config, self._notices, self._state = config, notices, state
        self._optimization: tuple[list[Optimizer], list[Schedule]] | None = None

    def get_optimizers(self) -> Sequence[Optimizer]:
        """Made anew for the trained parameters by ``configure_optimizers``, with the state that the fit left."""
        return self._restored()[0]

    def get_schedules(self) -> Sequence[Schedule]:
        """The schedules of these optimizers."""
        return self._restored()[1]

    def _restored(self) -> tuple[list[Optimizer], list[Schedule]]:
        if self._optimization is None:
            with _as_the_fit_began(self.module, self._config.callbacks):
                found = read_optimizers(self.module.configure_optimizers(), self._config.lr_scheduler_milestones)
                tell_callbacks(self._config.callbacks, self.module, *found)
            targets = [*found[0], *(schedule.scheduler for schedule in found[1])]
            states = [*self._state["optimizers"], *self._state["schedulers"]]
            for target, state in zip(targets, states, strict=True):
                load_part(target, state, type(target).__name__)
            self._optimization = found
        return self._optimization

    @cached_property
    def loggers(self) -> LoggerGroup:
        """The run's loggers, to add rows to."""
        return files.reopen_loggers(self._config, self.module, self.run, self._notices)

    @cached_property
    def rows(self) -> Rows:
        """Writes rows to ``loggers``."""
        return Rows(
            self.run,
            self.loggers,
            [],
            hook_table(self.module, [], self.run),
            every=self._config.add_log_row_interval,
            save_every=self._config.log_save_interval,
            needed={},
            device=torch.device("cpu"),
            stop_on_nan=self._config.stop_on_nan,
        )

    @cached_property
    def saver(self) -> Saver:
        """Writes checkpoints of the finished fit."""
        parts: dict[str, Part] = {name: Kept(state) for name, state in self._state["parts"].items()}
        parts.update(progress=self.run.progress, metrics=self.run.metrics)
        strategy = SingleDevice()
        strategy.attach(torch.device("cpu"), ALONE)
        return Saver(
            module=self.module,
            run=self.run,
            optimizers=self.get_optimizers(),
            schedules=self.get_schedules(),
            parts=parts,
            stop_on_nan=self._config.stop_on_nan,
            strategy=strategy,
        )
