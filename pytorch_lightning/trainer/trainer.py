"""``Trainer``: the options, and what a user calls. No algorithm is here."""

import contextlib
import datetime
import inspect
import os
import signal
import threading
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from pytorch_lightning import seeding
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import MisconfigurationException, Notices, describe
from pytorch_lightning.root_module.root_module import LightningModule, Standin
from pytorch_lightning.trainer import files, stages
from pytorch_lightning.trainer.attributes import ReadAttributes
from pytorch_lightning.trainer.config import OBJECT_OPTIONS, build_config, resolve_aliases
from pytorch_lightning.trainer.loop import run_fit
from pytorch_lightning.trainer.plan import FitPlan, all_callbacks, plan_fit
from pytorch_lightning.trainer.run import FitRun


class Trainer(ReadAttributes):
    """Trains, validates, tests and predicts with a ``LightningModule``.

    ``Trainer().fit(model)`` works without any argument. Options that count ``batches`` or ``steps`` mean training
    batches and optimizer steps. The meaning of each option stands in ``docs/Trainer/index.md``; in short:

    experiment: a test-tube Experiment, a Logger, a list of them, None (a folder under ``default_save_path``), or
    False. early_stop_callback, checkpoint_callback: in either order. callbacks: further ones.

    *How long*: max_nb_epochs, min_nb_epochs, max_nb_steps, max_time (minutes or a timedelta), enable_early_stop.
    *How much*: train_percent_check, val_percent_check, test_percent_check, overfit_pct (all three, the same
    training batches each epoch), fast_dev_run (one batch of each, nothing kept).
    *Steps*: accumulate_grad_batches (a number, or {epoch from 1: number}), gradient_clip (0: off) with
    gradient_clip_algorithm 'norm' or 'value', lr_scheduler_milestones, precision ('32', '64', 'bf16', '16',
    'bf16-true', '16-true'), use_amp with amp_level.
    *Validation*: val_check_interval (a fraction of the epoch, or a number of batches), check_val_every_n_epoch,
    nb_sanity_val_steps (validation batches before training).
    *Seen and kept*: progress_bar, process_position, current_gpu_name, print_weights_summary,
    add_log_row_interval and log_save_interval (batches), track_grad_norm (-1: off), print_nan_grads, stop_on_nan,
    default_save_path, silence (codes of notices).
    *Again*: seed (None: ``torch.initial_seed()``), deterministic, resume (a checkpoint), resume_check.
    *Speed*: compile (True, or a dict of torch.compile's options), fused_optimizers, profile (a trace of a few steps).
    *Where*: gpus (None: the CPU; a number, a list, '0,1', or -1 for all).

    Raises ``MisconfigurationException`` for values that can't work, all of them in one error.
    """

    def __init__(
        self,
        experiment: Any = None,
        early_stop_callback: Any = None,
        checkpoint_callback: Any = None,
        *,
        callbacks: Sequence[Callback] = (),
        gradient_clip: float = 0,
        gradient_clip_algorithm: str = "norm",
        cluster: Any = None,
        process_position: int = 0,
        current_gpu_name: Any = 0,
        nb_gpu_nodes: int = 1,
        gpus: int | str | list[int] | None = None,
        nb_processes: int = 1,
        distributed_backend: Any = None,
        virtual_ranks: int | None = None,
        exact_elastic: bool = False,
        gather_validation: bool = True,
        process_timeout_minutes: float = 10,
        progress_bar: bool = True,
        overfit_pct: float = 0.0,
        track_grad_norm: float = -1,
        check_val_every_n_epoch: int = 1,
        fast_dev_run: bool = False,
        accumulate_grad_batches: int | dict[int, int] | str = 1,
        enable_early_stop: bool = True,
        max_nb_epochs: int = 1000,
        min_nb_epochs: int = 1,
        max_nb_steps: int | None = None,
        max_time: float | datetime.timedelta | None = None,
        train_percent_check: float = 1.0,
        val_percent_check: float = 1.0,
        test_percent_check: float = 1.0,
        val_check_interval: float = 1.0,
        log_save_interval: int = 100,
        add_log_row_interval: int = 10,
        lr_scheduler_milestones: Sequence[int] | str | None = None,
        precision: str | None = None,
        use_amp: bool = False,
        amp_level: str = "O2",
        print_nan_grads: bool = False,
        stop_on_nan: bool = True,
        print_weights_summary: bool = True,
        nb_sanity_val_steps: int = 5,
        seed: int | None = None,
        deterministic: bool = False,
        compile: bool | dict[str, Any] = False,
        fused_optimizers: bool = False,
        profile: bool = False,
        default_save_path: str | Path = "./lightning_logs",
        resume: str | Path | None = None,
        resume_check: str = "error",
        save_every_minutes: float = 5.0,
        save_every_nb_batches: int | None = None,
        crash_bundle: bool = True,
        silence: Sequence[str] = (),
        **aliases: Any,
    ) -> None:
        options = {name: value for name, value in locals().items() if name in option_defaults()}
        options.update(resolve_aliases(aliases, list(option_defaults())))
        self.config = build_config(options, option_defaults()["default_save_path"])
        self.options = options
        self.interrupted = False
        self.module: LightningModule | None = None
        self._notices = Notices(self.config.silence)
        self._callbacks = all_callbacks(self.config)
        self._plan: FitPlan | None = None
        self._run: FitRun | None = None

    @classmethod
    def from_args(cls, hparams: Namespace | Mapping[str, Any], **overrides: Any) -> Self:
        """A Trainer with the options that ``hparams`` (what ``parse_args`` gave, or a dict) holds; other entries
        are left alone. ``overrides`` win."""
        values = hparams if isinstance(hparams, Mapping) else vars(hparams)
        options = {name: values[name] for name in option_defaults() if name in values and name not in OBJECT_OPTIONS}
        return cls(**{**options, **overrides})

    def fit(self, model: LightningModule) -> int:
        """Train ``model``. Returns 1 when training is complete and 0 when it was interrupted.

        May be called again: a fresh run, unless ``resume`` is set. Raises ``MisconfigurationException`` for what
        can be seen before the first batch, ``FitError`` for what a batch showed.
        """
        self._begin(model, FitRun(module=model, notices=self._notices))
        run = self._run
        assert run is not None
        # gradients: a fit may be started from another one's validation
        with (
            seeding.preserved(),
            torch.enable_grad(),
            _deterministic(self.config.deterministic),
            _stopping_on_interrupt(run),
        ):
            plan = self._plan = plan_fit(self.config, model, run, self._callbacks, self._notices)
            stages.announce(plan)
            failed = True
            try:
                run_fit(plan)
                failed = False
            except KeyboardInterrupt:  # the second Ctrl-C; the first asks for a stop at the next save point
                run.interrupted = True
            except Exception as error:
                stages.note_place(error, run)
                raise
            finally:
                stages.finish_fit(plan, failed)
        self.interrupted = run.interrupted
        return int(not run.interrupted)

    def validate(self, model: LightningModule | None = None, ckpt: str | Path | None = None) -> dict[str, float | int]:
        """Run the validation set through ``model`` (default: the one of the last fit); returns what
        ``validation_end`` returned, as numbers. ``ckpt`` is the path of a checkpoint, or 'best'."""
        return self._evaluate("validation", model, ckpt)  # type: ignore[no-any-return]

    def test(self, model: LightningModule | None = None, ckpt: str | Path | None = None) -> dict[str, float | int]:
        """Run the test set through ``model`` (default: the one of the last fit): ``test_step`` and ``test_end``
        where they are defined, ``validation_step`` and ``validation_end`` otherwise. Returns their numbers."""
        return self._evaluate("test", model, ckpt)  # type: ignore[no-any-return]

    def predict(
        self,
        model: LightningModule | None = None,
        dataloader: Any = None,
        ckpt: str | Path | None = None,
        write_to: str | Path | None = None,
    ) -> list[Any]:
        """``predict_step`` of every batch of ``dataloader`` (default: ``test_dataloader``), on the CPU, in the
        loader's order. ``write_to`` is a folder: output n goes to its file ``{n:08d}.pt`` and nothing is
        returned."""
        return self._evaluate("predict", model, ckpt, dataloader, write_to)  # type: ignore[no-any-return]

    def _evaluate(
        self, stage: str, model: LightningModule | None, ckpt: Any, loader: Any = None, write_to: Any = None
    ) -> Any:
        module = model or self.module
        if module is None:
            name = "validate" if stage == "validation" else stage
            raise MisconfigurationException(f"there is no model yet. Pass one: trainer.{name}(model).")
        run = self._run
        if run is None or run.module is not module:
            run = FitRun(module=module, notices=self._notices)
        self._begin(module, run)
        with seeding.preserved(), _deterministic(self.config.deterministic):
            return stages.run_stage(stage, self.config, run, self._callbacks, self._plan, ckpt, loader, write_to)

    def save_checkpoint(self, path: str | Path) -> None:
        """Write a checkpoint to ``path``: at the next save point during a fit, at once after one."""
        if self._plan is None or self._run is None:
            raise MisconfigurationException("there is nothing to save before fit. Call fit(model) first.")
        if self._run.running:
            self._run.save(path)
        else:
            self._plan.saver.save(path)

    @property
    def experiment(self) -> Any:
        """The user's test-tube Experiment; without one a stand-in whose ``log(dict)`` reaches the loggers."""
        experiment = files.experiment_of(self.config)
        if experiment is not None:
            return experiment
        return Standin(None if self._plan is None else self._plan.rows.log_by_hand)

    def _begin(self, model: LightningModule, run: FitRun) -> None:
        if not isinstance(model, LightningModule):
            raise MisconfigurationException(
                f"a model must be a LightningModule; received {describe(model)}."
                " Subclass pytorch_lightning.LightningModule and call super().__init__()."
            )
        if "_parameters" not in model.__dict__:
            raise MisconfigurationException(
                f"{type(model).__name__}.__init__ doesn't call super().__init__(). Call it first."
            )
        self.module, self._run = model, run
        run.min_nb_epochs, run.max_nb_epochs = self.config.min_nb_epochs, self.config.max_nb_epochs
        run.fast_dev_run = self.config.fast_dev_run
        model.trainer = self


def option_defaults() -> dict[str, Any]:
    """Every option of the Trainer and its default, in the order of the signature."""
    parameters = inspect.signature(Trainer.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "self" and p.kind != p.VAR_KEYWORD}


@contextlib.contextmanager
def _stopping_on_interrupt(run: FitRun) -> Iterator[None]:
    """A scope in which Ctrl-C ends the fit at the next save point, and the second one at once."""
    run.running = True
    if threading.current_thread() is not threading.main_thread():
        try:
            yield
        finally:
            run.running = False
        return

    def stop(number: int, frame: Any) -> None:
        if run.interrupted:
            raise KeyboardInterrupt
        run.interrupted = True
        run.stop("interrupted by Ctrl-C")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        run.running = False
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """A scope in which torch uses deterministic algorithms only, if ``wanted``."""
    if not wanted:
        yield
        return
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        torch.backends.cudnn.benchmark = benchmark
