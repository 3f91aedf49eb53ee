"""``Trainer``: the options, and what a user calls. No algorithm is here."""

import datetime
import functools
import inspect
import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import MisconfigurationException, Notices, Problem, raise_together
from pytorch_lightning.launchers import signals, slurm
from pytorch_lightning.options.config import described
from pytorch_lightning.options.meaning import all_callbacks, build_config, options_in, resolve_aliases, without_config
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.seeding import preserved
from pytorch_lightning.trainer.attributes import ReadAttributes
from pytorch_lightning.trainer.deterministic import deterministic
from pytorch_lightning.trainer.finding import Finding
from pytorch_lightning.trainer.given_loaders import given_loaders, loader_and_ckpt, loaders_of_fit, need_module
from pytorch_lightning.trainer.nesting import given_back, in_one_thread, is_running, refuse_at_import

if TYPE_CHECKING:
    from pytorch_lightning.run.run import FitRun
    from pytorch_lightning.strategies import Strategy
    from pytorch_lightning.trainer.fit_result import FitResult


class Trainer(ReadAttributes, Finding):
    """Trains, validates, tests and predicts with a ``LightningModule``.

    ``Trainer().fit(model)`` works without any arguments. Invalid values raise one ``MisconfigurationException`` that
    lists all of them. Below, "batches" are training batches and "steps" are optimizer steps.
    """

    _given: Mapping[str, str | None] = {}  # options of the program beside these, as text

    def __init__(
        self,
        experiment: Any = None,
        early_stop_callback: Any = None,
        checkpoint_callback: Any = None,
        *,
        callbacks: Sequence[Callback] = (),
        gradient_clip: float = 0,
        gradient_clip_algorithm: str = "norm",
        gradient_clip_norm_type: float = 2.0,
        cluster: Any = None,
        process_position: int = 0,
        current_gpu_name: Any = 0,
        nb_gpu_nodes: int = 1,
        gpus: int | str | list[int] | None = None,
        nb_processes: int = 1,
        distributed_backend: Any = None,
        virtual_ranks: int | None = None,
        exact_elastic: bool = False,
        gather_validation: bool | str = True,
        data_is_sharded: bool = False,
        uneven_batches: str = "wait",
        auto_nb_workers: bool = False,
        process_timeout_minutes: float = 10,
        progress_bar: bool = True,
        overfit_pct: float = 0.0,
        track_grad_norm: float = -1,
        check_val_every_n_epoch: int = 1,
        fast_dev_run: bool = False,
        accumulate_grad_batches: int | dict[int, int] | str = 1,
        accumulate_nb_samples: int | None = None,
        enable_early_stop: bool = True,
        max_nb_epochs: int = 1000,
        min_nb_epochs: int = 1,
        max_nb_steps: int | None = None,
        max_time: float | datetime.timedelta | None = None,
        train_percent_check: float = 1.0,
        val_percent_check: float = 1.0,
        test_percent_check: float = 1.0,
        max_nb_tng_batches: int | None = None,
        max_nb_val_batches: int | None = None,
        max_nb_test_batches: int | None = None,
        reload_dataloaders_every_nb_epochs: int | None = None,
        val_check_interval: float = 1.0,
        val_every_nb_batches: int | None = None,
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
        keep_saves: str = "newest",
        certificate: bool = False,
        crash_bundle: bool = True,
        silence: Sequence[str] = (),
        **aliases: Any,
    ) -> None:
        options = {name: value for name, value in locals().items() if name in option_defaults()}
        before = set(vars(self))
        problems: list[Problem] = []
        options = resolve_aliases(aliases, options, option_defaults(), problems)
        self._use_options(options, problems)
        self.interrupted = False
        if slurm.is_batch_job(os.environ):
            signals.watch_early()
        self.module: LightningModule | None = None
        self._plan: FitResult | None = None
        self._nb_started = 0
        self._strategy: Strategy | None = None
        self._run: FitRun | None = None
        self._set_here = {"_set_here", *vars(self)} - before

    def _use_options(self, options: dict[str, Any], problems: Sequence[Problem] = ()) -> None:
        from pytorch_lightning.launchers.environment import read_environment

        options = {name: without_config(value) for name, value in options.items()}
        self.config = build_config(options, option_defaults()["default_save_path"], [*problems])
        self.options = options
        self._notices = Notices(self.config.silence)
        self._callbacks = all_callbacks(self.config)
        if (place := read_environment(os.environ)) is not None and place.rank > 0:
            from pytorch_lightning.run import files

            files.leave_to_the_first(self.config)

    @classmethod
    def from_args(cls, hparams: Namespace | Mapping[str, Any], **overrides: Any) -> Self:
        """A Trainer with the options that ``hparams`` (what ``parse_args`` gave, or a dict) holds, also by their other
        spellings; further entries are left alone. ``overrides`` win."""
        from pytorch_lightning.options.option_files import given_in

        options, values = options_in(hparams, option_defaults())
        trainer = cls(**{**options, **overrides})
        trainer._given = given_in(values)
        return trainer

    def fit(
        self,
        model: LightningModule = None,  # type: ignore[assignment]
        tng_dataloader: Any = None,
        val_dataloader: Any = None,
        **others: Any,
    ) -> int:
        """Train ``model``, on its own loaders or ``tng_dataloader`` and ``val_dataloader`` (also under Lightning 2's
        names). Returns 1 when training is complete and 0 when Ctrl-C ended it.

        SIGTERM, SIGUSR1 and SIGUSR2 end the program with exit code 75 once the state was saved; under SLURM the job
        is then queued again. May be called again: a fresh run, unless ``resume`` is set. Raises
        ``MisconfigurationException`` for what can be seen before the first batch, ``FitError`` for what a batch showed.
        """
        if not isinstance(self, Trainer):
            raise MisconfigurationException("fit was called on the class Trainer. Write Trainer().fit(model).")
        refuse_at_import()
        loaders = loaders_of_fit(tng_dataloader, val_dataloader, others)
        if is_running(self):
            raise MisconfigurationException(
                f"this Trainer is in the middle of a fit of {type(self.module).__name__}, and fit was called again."
                " Make another Trainer for the inner one."
            )
        with given_back(self, model), given_loaders(model, loaders):
            return self._fit(model)

    def _fit(self, model: LightningModule) -> int:
        from pytorch_lightning.launchers.environment import read_environment
        from pytorch_lightning.run.progress import INTERRUPTED
        from pytorch_lightning.run.run import FitRun
        from pytorch_lightning.strategies.devices import in_use
        from pytorch_lightning.trainer import basis, crash, fit_result, loop, placement, stages

        run = FitRun(module=model, notices=self._notices)
        self._begin(model, run)
        nb = placement.nb_to_start(self.config)
        if nb:
            return self._fit_remotely(model, run, nb)
        problems: list[Problem] = []
        strategy, callbacks = self._take_place(run, problems)
        # gradients: a fit may be started from another one's validation
        with (
            in_one_thread(),
            placement.watched(strategy.processes, self.config) as watching,
            in_use(strategy.device),
            preserved(),
            torch.enable_grad(),
            deterministic(self.config.deterministic, strategy.device),
            run.fitting(),
            signals.watching(run.note_signal, patient=read_environment(os.environ) is not None) as watch,
        ):
            request = basis.FitRequest(self.config, model, run, (*callbacks, *watching), self._notices, strategy)
            plan = self._plan = stages.plan(request, problems)
            stages.announce(plan, self.options, self._given)
            failed = True
            try:
                loop.run_fit(plan)
                failed = False
            except KeyboardInterrupt:  # the second Ctrl-C; the first asks for a stop at the next save point
                if strategy.processes.nb > 1:  # a user's own code raised it, and the others know nothing of it
                    raise
                run.progress.stop_reason = f"{INTERRUPTED}SIGINT"
            except signals.Stopped:  # in a validation, or by a fit in it: the state before it is the one to keep
                run.progress.stop_reason = run.wishes.stop
            except Exception as error:
                stages.note_place(error, run)
                crash.keep_failing_batch(plan, error, self.options)
                raise
            finally:
                stages.finish_fit(plan, failed)
            self.interrupted = run.interrupted
            if run.interrupted:
                stages.stop_program(plan, watch)
        if not run.interrupted:
            watch.deliver()
        return fit_result.Outcome.of(run)

    def _fit_remotely(self, model: LightningModule, run: "FitRun", nb: int) -> int:
        from pytorch_lightning.trainer import fit_result, remote
        from pytorch_lightning.trainer.afterwards import Afterwards

        self._nb_started = nb
        state = remote.run_remotely(self._maker(), self.options, "fit", model, (), nb)
        remote.take_state(state, self.config, model, run, self._callbacks)
        self._plan = Afterwards(self.config, model, run, self._notices, state)
        self.interrupted = run.interrupted
        if state["exit"] is not None:
            raise signals.Stopped(state["exit"])
        return fit_result.Outcome.of(run)

    def validate(
        self,
        model: LightningModule | None = None,
        dataloader: Any = None,
        ckpt: str | Path | None = None,
        weights: str | None = None,
        **others: Any,
    ) -> dict[str, float | int]:
        """Run the validation set, or ``dataloader``, through ``model`` (default: that of the last fit); returns the
        numbers of ``validation_end``. ``ckpt``: load that file before, or 'best'; ``weights='average'``: averaged."""
        dataloader, ckpt = loader_and_ckpt("Trainer.validate", dataloader, ckpt, weights, others)
        return self._evaluate("validate", model, ckpt, {"val_dataloader": dataloader})  # type: ignore[no-any-return]

    def test(
        self,
        model: LightningModule | None = None,
        dataloader: Any = None,
        ckpt: str | Path | None = None,
        weights: str | None = None,
        **others: Any,
    ) -> dict[str, float | int]:
        """The same with the test set, or ``dataloader``, by ``test_step`` and ``test_end``, or those of validation
        where they aren't defined. ``model``, ``ckpt`` and ``weights``: as for ``validate``. Returns their numbers."""
        dataloader, ckpt = loader_and_ckpt("Trainer.test", dataloader, ckpt, weights, others)
        return self._evaluate("test", model, ckpt, {"test_dataloader": dataloader})  # type: ignore[no-any-return]

    def predict(
        self,
        model: LightningModule | None = None,
        dataloader: Any = None,
        ckpt: str | Path | None = None,
        write_to: str | Path | None = None,
        overwrite: bool = False,
        weights: str | None = None,
        **others: Any,
    ) -> list[Any]:
        """``predict_step`` of every batch of ``dataloader`` (default: ``test_dataloader``), on the CPU, in its order.
        ``model``, ``ckpt``, ``weights``: as for ``validate``. ``write_to`` is a folder: output n goes to its file
        ``{n:08d}.pt``, none is returned; such files there are an error, unless ``overwrite`` has them removed."""
        dataloader, ckpt = loader_and_ckpt("Trainer.predict", dataloader, ckpt, weights, others)
        return self._evaluate("predict", model, ckpt, {}, dataloader, write_to, overwrite)  # type: ignore[no-any-return]

    def replay(self, step: int) -> Any:
        """Train a copy of the model of the last fit once more, from its newest rolling save before batch ``step`` (a
        ``global_step``) up to that batch; returns what ``training_step`` gives there, or raises what it raises. The
        model and the files of the run stay as they are. Before a fit: ``MisconfigurationException``."""
        if self.module is None or self._run is None:
            raise MisconfigurationException("there is nothing to replay before fit. Call fit(model) first.")
        from pytorch_lightning.run import files
        from pytorch_lightning.trainer.replaying import replay_step

        folder = (self._plan and self._plan.folder_of_saves) or files.folder_of_newest(self.config, self.module)
        return replay_step(type(self), self.options, self.module, folder, step)

    def _evaluate(self, name: str, model: Any, ckpt: Any, loaders: dict[str, Any], *of_prediction: Any) -> Any:
        module = self.module if model is None else model
        if module is None:
            raise MisconfigurationException(f"there is no model yet. Pass one: trainer.{name}(model).")
        with given_back(self, module), given_loaders(module, loaders):
            return self._evaluate_there(name, module, ckpt, *of_prediction)

    def _evaluate_there(
        self, name: str, module: Any, ckpt: Any, loader: Any = None, write_to: Any = None, overwrite: bool = False
    ) -> Any:
        from pytorch_lightning.run.run import FitRun
        from pytorch_lightning.strategies.devices import in_use
        from pytorch_lightning.trainer import placement, remote, stages

        run = self._run
        if run is None or run.module is not module:
            run = FitRun(module=module, notices=self._notices)
        self._begin(module, run)
        nb = placement.nb_to_start(self.config)
        if nb:
            self._nb_started = nb
            ckpt = stages.path_of(ckpt, self._callbacks)
            arguments = (loader, ckpt, write_to, overwrite) if name == "predict" else (None, ckpt)
            returned = remote.run_remotely(self._maker(), self.options, name, module, arguments, nb)["returned"]
            if name != "predict":
                stages.log_result(self._plan, run, returned)
            return returned
        problems: list[Problem] = []
        strategy, callbacks = self._take_place(run, problems)
        raise_together(problems)
        with (
            in_one_thread(),
            placement.watched(strategy.processes, self.config) as watching,
            in_use(strategy.device),
            preserved(),
            deterministic(self.config.deterministic, strategy.device),
        ):
            stage = "validation" if name == "validate" else name
            callbacks += watching
            return stages.run_stage(
                stage, self.config, run, callbacks, strategy, self._plan, ckpt, loader, write_to, overwrite
            )

    def _take_place(self, run: "FitRun", problems: list[Problem]) -> tuple["Strategy", tuple[Callback, ...]]:
        """The strategy, and the callbacks that this process has a use for."""
        from pytorch_lightning.run import files
        from pytorch_lightning.trainer.placement import choose_strategy

        strategy = self._strategy = choose_strategy(self.config, self._notices, problems)
        processes = strategy.processes
        run.wishes.alone, run.from_first = processes.nb == 1, processes.from_first
        files.agree_on_folders(self.config, processes)
        return strategy, tuple(c for c in self._callbacks if processes.is_first or not c.only_first)

    def _maker(self) -> Callable[[dict[str, Any]], "Trainer"]:
        """What makes this Trainer again in another process: of its class, with what a subclass keeps of its own."""
        own = {name: value for name, value in vars(self).items() if name not in self._set_here}
        return functools.partial(_made_again, type(self), own)

    def _remote_state(self) -> dict[str, Any]:
        """After a fit, what is sent to the process that started this one."""
        from pytorch_lightning.trainer.remote import state_of

        assert self._plan is not None
        return state_of(self._plan, self.config)

    def reconfigure_optimizers(self) -> None:
        """Call ``configure_optimizers`` again, in a hook: what it returns now trains from the next window on, with new
        schedules. A resumed fit calls it again too, with the module's attributes as they were. Raises
        ``MisconfigurationException`` outside of a fit and in the middle of a step."""
        self._optimization("reconfigure_optimizers()").reconfigure()

    def save_checkpoint(self, path: str | Path) -> None:
        """Write a checkpoint to ``path``: at the next save point during a fit, at once after one, in every process.
        Raises ``MisconfigurationException`` before a fit."""
        if self._plan is None or self._run is None:
            raise MisconfigurationException("there is nothing to save before fit. Call fit(model) first.")
        if self._run.running:
            self._run.save(path)
        else:
            self._plan.saver.save(path)

    def _begin(self, model: LightningModule, run: "FitRun") -> None:
        need_module(model)
        self.module, self._run, self._nb_started = model, run, 0
        run.min_nb_epochs, run.max_nb_epochs = self.config.min_nb_epochs, self.config.max_nb_epochs
        run.fast_dev_run, model.trainer = self.config.fast_dev_run, self


Trainer.__doc__ = f"{inspect.cleandoc(Trainer.__doc__ or '')}\n\n{described()}\n"


def _made_again(cls: type[Trainer], own: dict[str, Any], options: dict[str, Any]) -> Trainer:
    trainer = cls.__new__(cls)
    Trainer.__init__(trainer, **options)  # a subclass's own __init__ may take other arguments
    vars(trainer).update(own)
    return trainer


@functools.cache
def option_defaults() -> Mapping[str, Any]:
    """Every option of the Trainer and its default, in the order of the signature."""
    parameters = inspect.signature(Trainer.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "self" and p.kind != p.VAR_KEYWORD}
