"""Attributes of a trainer that users read."""

from typing import TYPE_CHECKING, Any

from pytorch_lightning.errors import MisconfigurationException, describe
from pytorch_lightning.processes import ALONE
from pytorch_lightning.strategies.devices import choose_devices
from pytorch_lightning.trainer.live_lists import LiveList

if TYPE_CHECKING:
    from pytorch_lightning.options.config import Config
    from pytorch_lightning.processes import Processes
    from pytorch_lightning.root_module.root_module import LightningModule
    from pytorch_lightning.run.run import FitRun
    from pytorch_lightning.strategies import Strategy
    from pytorch_lightning.trainer.fit_result import FitResult
    from pytorch_lightning.trainer.optimization import Optimization


class ReadAttributes:
    """Read-only views of the last fit; before one they are 0, empty or None."""

    config: "Config"
    module: "LightningModule | None"
    _plan: "FitResult | None"
    _nb_started: int
    _run: "FitRun | None"

    _strategy: "Strategy | None"

    @property
    def _processes(self) -> "Processes":
        return ALONE if self._strategy is None else self._strategy.processes

    @property
    def use_dp(self) -> bool:
        """Whether the last run used several GPUs in one process."""
        return self._strategy is not None and self._strategy.several_devices

    @property
    def use_ddp(self) -> bool:
        """Whether the last run was one of several processes."""
        return self._processes.nb > 1 or self._nb_started > 1

    @property
    def proc_rank(self) -> int:
        """The global rank of this process; rank 0 shows, logs and writes."""
        return self._processes.rank

    @property
    def node_rank(self) -> int:
        """The index of this machine."""
        return self._processes.node_rank

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return self._processes.nb

    @property
    def data_parallel_device_ids(self) -> list[int] | None:
        """The GPUs of ``gpus``; None on the CPU."""
        indices = [device.index for device in choose_devices(self.config.gpus)[0] if device.type != "cpu"]
        return indices or None

    @property
    def model(self) -> Any:
        """The module of the last fit or test."""
        return self.module

    @property
    def progress(self) -> Any:
        """The ``Progress`` of the last fit; None before."""
        return None if self._run is None else self._run.progress

    @property
    def current_epoch(self) -> int:
        """The epoch, counted from 0."""
        return 0 if self._run is None else self._run.progress.epoch

    @property
    def global_step(self) -> int:
        """Training batches finished, over all epochs."""
        return 0 if self._run is None else self._run.progress.global_step

    @property
    def batch_nb(self) -> int:
        """The index of the batch in its epoch, counted from 0."""
        return 0 if self._run is None else self._run.progress.batch_nb

    @property
    def timings(self) -> Any:
        """Where the time of the last fit went (``seconds`` by phase, ``total``, or as text); None before."""
        return None if self._run is None else self._run.timings

    @property
    def seed(self) -> int | None:
        """The seed of the last fit; before a fit the option."""
        return self.config.seed if self._plan is None else self._plan.seed

    def _optimization(self, what: str) -> "Optimization":
        found = getattr(self._plan, "optimization", None)
        if found is None or self._run is None or not self._run.running:
            raise MisconfigurationException(f"{what} needs a fit that is going on. Call it in a hook.")
        return found  # type: ignore[no-any-return]

    @property
    def optimizers(self) -> list[Any]:
        """What ``configure_optimizers`` gave. In a hook the list may be changed, or another one assigned: that trains
        from the next window on. Raises ``MisconfigurationException`` where it can't."""
        optimizers = [] if self._plan is None else self._plan.get_optimizers()
        return LiveList(optimizers, lambda changed: self._optimization("a change of optimizers").replace(changed))

    @optimizers.setter
    def optimizers(self, optimizers: list[Any]) -> None:
        self._optimization("a change of optimizers").replace(optimizers)

    @property
    def lr_schedulers(self) -> list[Any]:
        """The schedulers of the last fit."""
        schedules = [] if self._plan is None else self._plan.get_schedules()
        return LiveList([schedule.scheduler for schedule in schedules], _refuse_schedules)

    @lr_schedulers.setter
    def lr_schedulers(self, schedulers: list[Any]) -> None:
        _refuse_schedules(schedulers)

    @property
    def avg_loss(self) -> float:
        """The mean loss of the last 100 training batches; 0 before the first."""
        return float(self.tqdm_metrics.get("tng_loss", 0.0))

    @property
    def tqdm_metrics(self) -> dict[str, Any]:
        """What the progress bar shows: the training metrics, then those of the last validation."""
        return {} if self._run is None else self._run.metrics.shown()

    @property
    def tng_tqdm_dic(self) -> dict[str, Any]:
        """An alias of ``tqdm_metrics``."""
        return self.tqdm_metrics

    @property
    def nb_tng_batches(self) -> int | None:
        """Training batches per epoch; None if the loader has no length."""
        return 0 if self._run is None else self._run.nb_tng_batches

    @property
    def nb_val_batches(self) -> int | None:
        """Validation batches; 0 without validation, None if a loader has no length."""
        return 0 if self._run is None else self._run.nb_val_batches

    @property
    def max_nb_epochs(self) -> int:
        """The option."""
        return self.config.max_nb_epochs

    @property
    def min_nb_epochs(self) -> int:
        """The option."""
        return self.config.min_nb_epochs

    @property
    def add_log_row_interval(self) -> int:
        """The option."""
        return self.config.add_log_row_interval

    @property
    def gradient_clip(self) -> float:
        """The option; 0 is off."""
        return self.config.gradient_clip

    @property
    def fast_dev_run(self) -> bool:
        """The option."""
        return self.config.fast_dev_run

    @property
    def checkpoint_callback(self) -> Any:
        """The option, as it was given."""
        return getattr(self.config.checkpoint_callback, "other", self.config.checkpoint_callback)

    @property
    def early_stop_callback(self) -> Any:
        """The option; None with ``enable_early_stop=False``."""
        return getattr(self.config.early_stop_callback, "other", self.config.early_stop_callback)

    @property
    def use_amp(self) -> bool:
        """Whether precision is '16'."""
        return self.config.precision == "16"


def _refuse_schedules(changed: list[Any]) -> None:
    raise MisconfigurationException(
        f"lr_schedulers can't be changed; received {describe(changed)}. Let configure_optimizers return the schedules"
        " that are to be used, and call self.trainer.reconfigure_optimizers()."
    )
