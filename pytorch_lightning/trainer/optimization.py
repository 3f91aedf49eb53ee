"""The optimizers of a fit and the functions that run its windows; both may be made again while training runs."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch.optim import Optimizer

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import MisconfigurationException, Problem, attempt, raise_together
from pytorch_lightning.options.config import Config
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import ALONE, Share
from pytorch_lightning.resume.groups import GroupsPart
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.hooks import can_be_called, is_overridden, takes_one_more
from pytorch_lightning.run.metrics import at
from pytorch_lightning.run.progress import NEVER
from pytorch_lightning.run.rows import Rows
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.buffers import BufferUndo
from pytorch_lightning.steps.current_step import OUTSIDE, STEPPED, CurrentStep
from pytorch_lightning.steps.exact_sum import adds_in_order
from pytorch_lightning.steps.gradients import before_update
from pytorch_lightning.steps.optimizers import Schedule, read_optimizers, use_fused
from pytorch_lightning.steps.rounds import build_round_window
from pytorch_lightning.steps.schedules import EpochSchedules, build_step_schedule
from pytorch_lightning.steps.step_inputs import StepInputs, TrainWindow, with_timers
from pytorch_lightning.steps.window import build_train_window
from pytorch_lightning.trainer import checks
from pytorch_lightning.trainer.basis import Basis, FitRequest


def plan_optimizers(
    request: FitRequest, precision: Precision, share: Share, problems: list[Problem]
) -> tuple[list[Optimizer], list[Schedule]]:
    module = request.module
    if not can_be_called(module, "configure_optimizers", "training_step"):
        return [], []
    if not any(True for _ in module.parameters()) and checks.unregistered(module):
        problems.append(checks.no_parameters(module))
        return [], []
    # it may read a loader; where weights are sharded all must take part in what it computes with them
    processes = ALONE if request.strategy.runs_together else request.strategy.processes
    if processes.nb > 1 and processes.local_rank:
        # torch's first optimizer imports this for a second or two: meanwhile the first process does too
        importlib.import_module("torch._dynamo")
    returned = checks.reading(module, "configure_optimizers", module.configure_optimizers, processes)
    found = attempt(problems, lambda: read_optimizers(returned, request.config.lr_scheduler_milestones))
    if found is None or attempt(problems, lambda: tell_callbacks(request.callbacks, module, *found)) is None:
        return [], []
    takes_optimizer = takes_one_more(module, "training_step", len(found[0]) > 1)
    problems += checks.optimizer_problems(module, found[0], takes_optimizer, precision, request.strategy)
    problems += checks.sharing_problems(module, found[0], request.config, share)
    if request.config.accumulate_nb_samples:
        from pytorch_lightning.steps.counted import counting_problems

        problems += counting_problems(module, found[0], request.config, request.strategy)
    if share.nb > 1:
        attempt(problems, lambda: request.strategy.refuse_lazy(module))
    fuse(request.config, found[0])
    return found


def tell_callbacks(
    callbacks: Sequence[Callback], module: LightningModule, optimizers: Sequence[Optimizer], schedules: Sequence[Any]
) -> bool:
    """``configure_optimizers`` gave these."""
    for callback in callbacks:
        callback.after_optimizers(module, optimizers, [schedule.scheduler for schedule in schedules])
    return True


def fuse(config: Config, optimizers: Sequence[Optimizer]) -> None:
    for optimizer in optimizers if config.fused_optimizers else ():
        use_fused(optimizer)


@dataclass(slots=True)
class Windows:
    """The window function, and the same with its phases timed."""

    train: TrainWindow
    sampled: TrainWindow


@dataclass(kw_only=True)
class Optimization:
    """The optimizers, schedules and windows of a fit. Others may take their place: the next window is theirs."""

    request: FitRequest
    basis: Basis
    groups: GroupsPart
    epoch_schedules: EpochSchedules
    inputs: StepInputs | None = None
    manual: Any = None
    """The steps that ``training_step`` makes itself; None where the trainer makes them."""
    windows: Windows = field(init=False)

    def build(self, rows: Rows, current: CurrentStep, undo: BufferUndo | None) -> None:
        """Make the windows."""
        run = self.request.run
        nb_before = run.progress.nb_optimizer_steps
        run.timings.begin(self.basis.strategy.device, lambda: run.progress.nb_optimizer_steps - nb_before)
        self.inputs = _step_inputs(self.request, self.basis, rows, self.epoch_schedules, current, undo)
        self.windows = Windows(*self._built(self.inputs))

    def _built(self, inputs: StepInputs) -> tuple[TrainWindow, TrainWindow]:
        config, run, basis = self.request.config, self.request.run, self.basis
        if not self.request.module.automatic_optimization:
            from pytorch_lightning.trainer.manual import build_manual_windows

            self.manual, train, sampled = build_manual_windows(inputs, self.request, basis, self.manual)
            return train, sampled
        build: Callable[[StepInputs], TrainWindow] = build_train_window
        if basis.share.nb > 1:
            strategy, share, module = basis.strategy, basis.share, self.request.module
            nb, accumulate = strategy.processes.nb, config.accumulate_grad_batches
            accumulate = NEVER if config.accumulate_nb_samples else accumulate
            in_order = adds_in_order(config.exact_elastic, share, nb, accumulate, module)
            build = partial(build_round_window, strategy=strategy, share=share, module=module, in_order=in_order)
            build = partial(build, keeps=config.crash_bundle)
        return build(inputs), run.timings.sampling(build(with_timers(inputs, run.timings)))

    def reconfigure(self) -> None:
        """Call ``configure_optimizers`` again; what it gives trains from the next window on."""
        self._check_place("reconfigure_optimizers()")
        problems: list[Problem] = []
        found = plan_optimizers(self.request, self.basis.precision, self.basis.share, problems)
        raise_together(problems)
        self._use(*found, by_the_hook=True)

    def replace(self, optimizers: Iterable[Any]) -> None:
        """Let ``optimizers`` train from the next window on, with the schedules that there are."""
        self._check_place("another value of trainer.optimizers")
        chosen = read_optimizers(list(optimizers), ())[0]
        without = [s for s in self.basis.schedules if not any(s.scheduler.optimizer is o for o in chosen)]
        if without:
            raise MisconfigurationException(
                f"a {type(without[0].scheduler).__name__} sets the rates of an optimizer that isn't among"
                " trainer.optimizers any more. Let configure_optimizers return the new optimizers with their"
                " schedules, and call self.trainer.reconfigure_optimizers()."
            )
        module, basis = self.request.module, self.basis
        takes_optimizer = takes_one_more(module, "training_step", len(chosen) > 1)
        raise_together(checks.optimizer_problems(module, chosen, takes_optimizer, basis.precision, basis.strategy))
        places = {id(o): i for i, o in enumerate(chosen)}
        schedules = [replace(s, optimizer_i=places[id(s.scheduler.optimizer)]) for s in basis.schedules]
        tell_callbacks(self.request.callbacks, module, chosen, schedules)
        fuse(self.request.config, chosen)
        self._use(chosen, schedules, by_the_hook=False)

    def _use(self, optimizers: Sequence[Optimizer], schedules: Sequence[Schedule], by_the_hook: bool) -> None:
        # in place: rows, checkpoints and gradients that wait look at these lists
        self.basis.optimizers[:], self.basis.schedules[:] = optimizers, schedules
        self.epoch_schedules.use(self.basis.schedules)
        self.basis.gradients.begin_anew()
        self.groups.note_new(by_the_hook)
        if self.inputs is not None:
            steps = build_step_schedules(self.request, self.basis, self.epoch_schedules)
            takes = takes_one_more(self.request.module, "training_step", len(optimizers) > 1)
            self.inputs = replace(self.inputs, optimizers=list(optimizers), schedules=steps, takes_optimizer=takes)
            self.windows.train, self.windows.sampled = self._built(self.inputs)

    def _check_place(self, what: str) -> None:
        if self.inputs is not None and self.inputs.current.phase not in (OUTSIDE, STEPPED):
            raise MisconfigurationException(
                f"{what} came in the middle of a step {at(self.request.run.progress)}: gradients are there that the old"
                " optimizers must use. Do it in on_epoch_start, on_batch_end or on_epoch_end."
            )


def build_step_schedules(
    request: FitRequest, basis: Basis, epoch_schedules: EpochSchedules
) -> list[Callable[[Sequence[bool]], None]]:
    count, hooks = epoch_schedules.count_step, basis.hooks["on_optimizer_step"]
    schedules = [build_step_schedule(s, request.run.metrics, count) for s in basis.schedules if s.interval == "step"]
    if epoch_schedules.waits_for_steps:
        schedules.append(partial(epoch_schedules.note_steps, list(basis.optimizers)))
    return [*schedules, partial(_call_after_step, hooks)] if hooks else schedules


def _call_after_step(hooks: Sequence[Callable[[], Any]], stepped: Sequence[bool]) -> None:
    for hook in hooks if any(stepped) else ():
        hook()


def _step_inputs(
    request: FitRequest,
    basis: Basis,
    rows: Rows,
    epoch_schedules: EpochSchedules,
    current: CurrentStep,
    undo: BufferUndo | None,
) -> StepInputs:
    config, module, run = request.config, request.module, request.run
    strategy, precision, hooks = basis.strategy, basis.precision, basis.hooks
    last = [_build_clock(run, config.max_seconds)] if config.max_seconds else []
    several = config.crash_bundle and (config.accumulate_grad_batches != 1 or bool(config.accumulate_nb_samples))
    takes_optimizer = takes_one_more(module, "training_step", len(basis.optimizers) > 1)
    if module.automatic_optimization:
        step = strategy.step_function(module, "training_step", takes_optimizer=takes_optimizer)
        step = precision.forward(basis.compiled(step))
    else:
        step = precision.forward(strategy.manual_step_function(module), cached=False)
    name = f"training_step of {type(module).__name__}"
    return StepInputs(
        name=name,
        step=_counting(config, step, name, run.has_several_loaders),
        nb_samples=config.accumulate_nb_samples,
        takes_optimizer=takes_optimizer,
        optimizers=list(basis.optimizers),
        precision=precision,
        to_device=strategy.transfer(precision.dtype),
        progress=run.progress,
        current=current,
        metrics=run.metrics,
        gradients=basis.gradients,
        seed=basis.seed,
        on_device=strategy.device.type != "cpu",
        before_batch=(*([undo] if several and undo is not None else []), *hooks["on_batch_start"]),
        before_update=before_update(config, module, run, hooks, precision, basis.optimizers),
        nb_after_backward=len(hooks["on_after_backward"]),
        before_clear=hooks["on_before_zero_grad"],
        after_batch=(rows.after_batch, *hooks["on_batch_end"], *last),
        schedules=build_step_schedules(request, basis, epoch_schedules),
        generators=basis.generators,
        repeats=config.uneven_batches == "repeat" and strategy.processes.nb > 1,
        fuses=config.fused_optimizers,
        optimizer_step=module.optimizer_step if is_overridden(module, "optimizer_step") else None,
        nonfinite=rows.nonfinite,
    )


def _build_clock(run: FitRun, max_seconds: float) -> Callable[[], None]:
    def watch_clock() -> None:
        if run.tick() >= max_seconds:
            run.stop(f"max_time reached ({max_seconds / 60:g} minutes)")

    return watch_clock


def _counting(config: Config, step: Any, name: str, several: bool) -> Any:
    if not config.accumulate_nb_samples:
        return step
    from pytorch_lightning.steps.counted import counting_samples

    return counting_samples(step, name, several)
