"""Attributes of a trainer that users read."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pytorch_lightning.errors import CheckpointError, MisconfigurationException, describe, near
from pytorch_lightning.lightning2 import advice
from pytorch_lightning.options.meaning import ALIASES
from pytorch_lightning.processes import ALONE
from pytorch_lightning.root_module.root_module import Standin
from pytorch_lightning.trainer.live_lists import LiveList

if TYPE_CHECKING:
    from pytorch_lightning.options.config import Config
    from pytorch_lightning.processes import Processes
    from pytorch_lightning.root_module.root_module import LightningModule
    from pytorch_lightning.run.run import FitRun
    from pytorch_lightning.strategies import Strategy
    from pytorch_lightning.trainer.fit_result import FitResult
    from pytorch_lightning.trainer.optimization import Optimization


OTHER_NAMES = {
    "tng_tqdm_dic": "tqdm_metrics",
    "training_tqdm_dict": "tqdm_metrics",
    "data_parallel": "use_dp",
    **ALIASES,
}
"""Further names of 2019 for attributes."""
ASSIGNED_BY_OTHERS = ("folder", "metrics")
"""Attributes that a subclass may have had of its own, before the Trainer had them."""
OF_THE_MODULE = ("tng_dataloader", "val_dataloader", "test_dataloader", "on_gpu")


class ReadAttributes:
    """Views of the last fit, before one 0, empty or None; and the options by name, which may be assigned."""

    config: "Config"
    module: "LightningModule | None"
    _plan: "FitResult | None"
    _nb_started: int
    _run: "FitRun | None"

    _strategy: "Strategy | None"

    def _use_options(self, options: dict[str, Any]) -> None:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        own = vars(self)
        if name in OTHER_NAMES:
            return getattr(self, OTHER_NAMES[name])
        if name in own.get("options", ()):
            return getattr(self.config, name)
        if name in OF_THE_MODULE and own.get("module") is not None:
            from pytorch_lightning.run.hooks import is_overridden

            there = name == "on_gpu" or is_overridden(self.module, name)
            return getattr(self.module, name) if there else None
        if name in OF_THE_MODULE:
            return None
        text = advice("trainer_members", name) or advice("keras_members", name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}" + (f". {text}." if text else ""))

    def __setattr__(self, name: str, value: Any) -> None:
        option, options = ALIASES.get(name, name), vars(self).get("options", {})
        if name in ASSIGNED_BY_OTHERS:
            vars(self)[name] = value
        elif option not in options:
            super().__setattr__(name, value)
        elif self._run is not None and self._run.running:
            raise MisconfigurationException(
                f"{name} can't be changed in the middle of a fit; received {describe(value)}. Set it before fit; for"
                " accumulate_grad_batches by epoch pass {epoch: number}, and to end training call run.stop in a"
                " callback."
            )
        else:
            self._use_options({**options, option: value})

    def __getstate__(self) -> dict[str, Any]:
        from pytorch_lightning.run import files

        experiment = files.experiment_of(self.config)
        if experiment is not None and not experiment.debug:
            raise MisconfigurationException(
                "a Trainer whose Experiment is writing can't be pickled: its files are open in this process. Make the"
                " Experiment and the Trainer in the process that uses them."
            )
        return dict(vars(self))

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

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
        from pytorch_lightning.strategies.devices import choose_devices

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
    def metrics(self) -> dict[str, float | int]:
        """Every metric that can be monitored, as it is now: those of training, then those of the last validation."""
        if "metrics" in vars(self):
            return vars(self)["metrics"]  # type: ignore[no-any-return]
        return {} if self._run is None else self._run.metrics.all()

    def best_metric(self, name: str, mode: str = "auto") -> float:
        """The best value that the metric ``name`` had in the run, also before a resume: after a validation, or for one
        that only training gives at the end of an epoch. ``mode`` is 'min', 'max', or 'auto' (by the name). Raises
        ``MisconfigurationException`` where there is none."""
        from pytorch_lightning.callbacks.monitor import direction

        chosen = direction(name, mode)
        there = {} if self._run is None else self._run.metrics.extremes
        if there is None:
            raise MisconfigurationException(
                f"the best value of {name!r} isn't known: the checkpoint that this run resumed is of a version that"
                " didn't keep it. Read it from metrics.csv."
            )
        if name not in there:
            known = f" Available: {', '.join(sorted(there))}." if there else ""
            raise MisconfigurationException(
                f"there is no metric {name!r} so far.{known}{near(name, there)} Validate, or complete an epoch, first."
            )
        return there[name][chosen == "max"]

    @property
    def folder(self) -> Path | None:
        """The folder of the last run's files; None if it writes none."""
        return vars(self).get("folder") or (None if self._run is None else self._run.folder)

    @property
    def nb_tng_batches(self) -> int | None:
        """Training batches per epoch; None if the loader has no length. May be read in ``configure_optimizers``."""
        return 0 if self._run is None else self._counted(self._run, "nb_tng_batches")

    @property
    def nb_val_batches(self) -> int | None:
        """Validation batches; 0 without validation, None if a loader has no length. May be read in
        ``configure_optimizers``."""
        return 0 if self._run is None else self._counted(self._run, "nb_val_batches")

    @property
    def nb_total_steps(self) -> int | None:
        """The optimizer steps of a whole fit, unless something ends it early: epochs, windows and all limits of batches
        and steps applied. None where the loader has no length, or ``training_step`` makes its own steps, or samples say
        when a step comes, and there is no ``max_nb_steps``; and before a fit. May be read in
        ``configure_optimizers``."""
        from pytorch_lightning.run.progress import nb_of_steps

        config = self.config
        nb = None if self._run is None or config.accumulate_nb_samples else self.nb_tng_batches
        if self._run is None:
            return None
        if not self._run.module.automatic_optimization:
            return config.max_nb_steps
        return nb_of_steps(nb, config.accumulate_grad_batches, config.max_nb_epochs, config.max_nb_steps)

    @staticmethod
    def _counted(run: "FitRun", name: str) -> int | None:
        if run.counting is None:
            return getattr(run, name)  # type: ignore[no-any-return]
        try:
            return getattr(run.counting, name)()  # type: ignore[no-any-return]
        except AttributeError as error:  # of a user's loader: it would seem that the trainer hasn't this attribute
            raise MisconfigurationException(f"{name} can't be known: {type(error).__name__}: {error}") from error

    @property
    def experiment(self) -> Any:
        """The user's test-tube Experiment; without one a stand-in whose ``log(dict)`` reaches the loggers."""
        from pytorch_lightning.run import files

        experiment = files.experiment_of(self.config)
        if experiment is not None and self._processes.is_first:
            return experiment
        return Standin(None if self._plan is None else self._plan.rows.log_by_hand, like=experiment)

    @property
    def checkpoint_callback(self) -> Any:
        """The option, as it was given."""
        return getattr(self.config.checkpoint_callback, "other", self.config.checkpoint_callback)

    @property
    def early_stop_callback(self) -> Any:
        """The option; None with ``enable_early_stop=False``."""
        return getattr(self.config.early_stop_callback, "other", self.config.early_stop_callback)

    def hpc_save(self, folderpath: str | Path, experiment: Any = None) -> str:
        """Write ``hpc_ckpt_{n}.ckpt`` to ``folderpath``, one more than those that are there: at the next save point
        during a fit, at once after one. Saves ``experiment`` too. Returns the path."""
        if experiment is not None:
            experiment.save()
        path = f"{folderpath}/hpc_ckpt_{max(hpc_checkpoints(folderpath), default=0) + 1}.ckpt"
        self.save_checkpoint(path)
        return path

    def hpc_load(self, folderpath: str | Path, on_gpu: bool = False) -> None:
        """Resume from the newest ``hpc_ckpt_{n}.ckpt`` of ``folderpath``: the weights of the model of the last fit at
        once, all else in the next ``fit``. ``on_gpu`` is ignored: ``gpus`` says where. Raises ``CheckpointError`` where
        there is none."""
        found = hpc_checkpoints(folderpath)
        if not found:
            raise CheckpointError(f"{folderpath} holds no hpc_ckpt_*.ckpt. Write one by trainer.hpc_save(folder).")
        self.resume = found[max(found)]
        if self.module is not None:
            from pytorch_lightning.checkpoints.checkpoint import restore_module
            from pytorch_lightning.checkpoints.sharded import read_any

            restore_module(self.module, read_any(self.resume), self.resume)

    @property
    def use_amp(self) -> bool:
        """Whether precision is '16'."""
        return self.config.precision == "16"


def hpc_checkpoints(folder: str | Path) -> dict[int, str]:
    """The files of ``hpc_save`` in ``folder``, by number."""
    found = (
        re.fullmatch(r"hpc_ckpt_(\d+)\.ckpt", name) for name in (os.listdir(folder) if Path(folder).is_dir() else ())
    )
    return {int(match[1]): f"{folder}/{match[0]}" for match in found if match}


def _refuse_schedules(changed: list[Any]) -> None:
    raise MisconfigurationException(
        f"lr_schedulers can't be changed; received {describe(changed)}. Let configure_optimizers return the schedules"
        " that are to be used, and call self.trainer.reconfigure_optimizers()."
    )
