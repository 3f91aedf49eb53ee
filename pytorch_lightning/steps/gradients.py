"""Gradients: when they are cleared, which ones wait, and what happens between the backward pass and the step."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pytorch_lightning.errors import FitError
from pytorch_lightning.options.config import Config
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.printing import tell
from pytorch_lightning.processes import whole
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.hooks import Hooks
from pytorch_lightning.run.metrics import at
from pytorch_lightning.run.progress import Progress
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.optimizers import gradients_of, parameters_of


class Gradients:
    """The gradients of a fit's optimizers, and of the parameters that are in none: when they are cleared, which wait.

    They are cleared just before the first ``training_step`` of a window: whatever left some, a window starts without.
    So those of the last window are there until then, in ``on_batch_end`` say. Memory that is given back right after
    the step is fetched anew by each backward pass, which costs a larger network more than all else that a Trainer
    does. Before a validation and at the end of a fit they are cleared too: there, memory is worth more than time.
    """

    def __init__(self, module: LightningModule, optimizers: Sequence[Optimizer]) -> None:
        self._module, self._optimizers = module, optimizers
        self.waiting: dict[int, tuple[float, float]] = {}
        """The optimizers whose last turn the user's ``optimizer_step`` let pass: their gradients stay, added up in
        units of the first window's weight. That weight, and the sum of all."""
        self.aside = HeldGradients()
        """Gradients that wait, while those of a window are collected that are multiplied at its end."""
        self.turns: dict[int, dict[Any, Any]] = {}
        """Each optimizer's own gradients of parameters that others have too, while batches are accumulated."""
        self.references = [0.0 for _ in optimizers]
        """See ``round_table.RoundWeights``."""
        own = [getattr(type(optimizer), "zero_grad", Optimizer.zero_grad) for optimizer in optimizers]
        self.clears_itself = [zero_grad is not Optimizer.zero_grad for zero_grad in own]
        """For each optimizer whether it has a ``zero_grad`` of its own: that is called once for each step."""
        self._begun: set[int] = set()
        self._due: set[int] = set()
        self._others: list[Any] = []
        self._shared: list[Any] = []
        self.look_around()

    def begin_anew(self) -> None:
        """Other optimizers are in the list now."""
        self.waiting.clear()
        self.turns.clear()
        self._begun.clear()
        self._due.clear()
        self.references[:] = [0.0 for _ in self._optimizers]
        own = [getattr(type(optimizer), "zero_grad", Optimizer.zero_grad) for optimizer in self._optimizers]
        self.clears_itself[:] = [zero_grad is not Optimizer.zero_grad for zero_grad in own]
        self.look_around()

    def look_around(self) -> None:
        """Find the parameters of the module that are in no optimizer, and those that are in several: at the start of
        an epoch, since hooks may change them. The former get gradients too, which count in norms, and may be given to
        an optimizer later."""
        held = Counter(parameters_of(self._optimizers))
        self._others = [parameter for parameter in self._module.parameters() if parameter not in held]
        self._shared = [parameter for parameter, nb in held.items() if nb > 1]

    def clear(self) -> None:
        """Clear all gradients but those that wait."""
        if self.waiting:
            self._clear_others()
            return
        for i, clears_itself in enumerate(self.clears_itself):
            if clears_itself:
                self._let_clear(i)
                continue
            for group in self._optimizers[i].param_groups:  # what zero_grad does, without what torch spends around it
                for parameter in group["params"]:
                    parameter.grad = None
        for parameter in self._others:
            parameter.grad = None

    def free(self) -> None:
        """Clear what the next window would clear anyway: where memory is worth more than time."""
        if not self._module.automatic_optimization:  # their next step is the user's
            return
        kept = {i for i, clears_itself in enumerate(self.clears_itself) if clears_itself} | {*self.waiting}
        for parameter in parameters_of([o for i, o in enumerate(self._optimizers) if i not in kept]) + self._others:
            parameter.grad = None

    def _let_clear(self, i: int) -> None:
        """Call optimizer i's own ``zero_grad`` after a step of it. It may do something else than to clear."""
        if i not in self._begun:
            self._begun.add(i)
            for parameter in parameters_of([self._optimizers[i]]):
                parameter.grad = None
        if i in self._due:
            self._due.remove(i)
            self._optimizers[i].zero_grad()

    def noting_steps(self, i: int, step: Callable[..., Any]) -> Callable[..., Any]:
        """``step`` of an optimizer that clears itself."""

        def step_and_note(*arguments: Any) -> Any:
            self._due.add(i)
            return step(*arguments)

        return step_and_note

    def _clear_others(self) -> None:
        own = {i for i, clears_itself in enumerate(self.clears_itself) if clears_itself}
        waiting = set(parameters_of([self._optimizers[i] for i in self.waiting]))
        free = parameters_of([o for i, o in enumerate(self._optimizers) if i not in {*self.waiting, *own}])
        if not waiting.isdisjoint(free):
            raise FitError(
                "optimizer_step let one optimizer's turn pass and stepped another one, and they have a parameter in"
                " common, whose gradient can't both wait and be cleared. Step both, or neither."
            )
        for i in self._due.difference(self.waiting):
            self._let_clear(i)
        for parameter in [*free, *self._others]:
            parameter.grad = None
        self.set_aside()

    def scale(self, which: Sequence[int], factor: float) -> None:
        """Multiply the gradients of those optimizers by ``factor``; of one loss also those that are in none."""
        alone = len(which) < len(self._optimizers)
        others = [] if alone else [parameter for parameter in self._others if parameter.grad is not None]
        for parameter in [*gradients_of([self._optimizers[i] for i in which]), *others]:
            parameter.grad.mul_(factor)

    def set_aside(self) -> None:
        """Keep gradients that wait apart from those of the next window, which have a weight of their own."""
        self.aside.take([self._optimizers[i] for i in sorted(self.waiting)])

    def of_turn(self, i: int) -> list[Any]:
        """What a pass that is for optimizer ``i`` alone gives gradients to."""
        return [p for p in (*parameters_of([self._optimizers[i]]), *self._others) if p.requires_grad]

    @contextmanager
    def turn(self, i: int) -> Iterator[None]:
        """A scope for a pass that is for optimizer ``i`` alone, where it steps only at the end of the window."""
        own = self.turns.setdefault(i, {}) if self._shared else {}
        for parameter in self._shared:
            parameter.grad = own.get(parameter)
        yield
        for parameter in self._shared:
            own[parameter], parameter.grad = parameter.grad, None

    def take_turn(self, i: int) -> None:
        """Optimizer ``i`` is about to step: give the parameters that it has in common with others its own gradients."""
        if self.waiting:
            raise FitError(
                "optimizer_step let a turn pass, and the optimizers have parameters in common: with one turn per"
                " optimizer and accumulated batches such a gradient can't wait. Step in every window."
            )
        for parameter, gradient in self.turns.pop(i).items():
            parameter.grad = gradient


class HeldGradients:
    """Gradients that are put aside while others are collected, or exchanged."""

    def __init__(self, zeros: bool = False) -> None:
        self.held: dict[Any, Tensor] = {}
        """Each parameter's, while it is put aside."""
        self._zeros = zeros

    def take(self, optimizers: Sequence[Optimizer]) -> None:
        """Put aside what is there."""
        for parameter in gradients_of(optimizers):
            if parameter not in self.held:
                self.held[parameter] = parameter.grad
                parameter.grad = torch.zeros_like(parameter.grad) if self._zeros else None

    def put_back(self, optimizers: Sequence[Optimizer]) -> None:
        """Add what was put aside."""
        for parameter in parameters_of(optimizers) if self.held else ():
            held = self.held.pop(parameter, None)
            if held is not None:
                parameter.grad = held if parameter.grad is None else held.add_(parameter.grad)


def before_update(
    config: Config,
    module: LightningModule,
    run: FitRun,
    hooks: Hooks,
    precision: Precision,
    optimizers: Sequence[Optimizer],
) -> tuple[Callable[[Sequence[Optimizer]], None], ...]:
    """What runs between the backward pass and the step of some of the ``optimizers``, in this order. Often nothing."""
    functions: list[Callable[[Sequence[Optimizer]], None]] = []
    for hook in hooks["on_after_backward"]:
        functions.append(lambda _, hook=hook: hook())  # type: ignore[misc]
    if config.print_nan_grads:
        functions.append(lambda _: _print_nan_gradients(module, run.progress))
    if config.track_grad_norm > 0:
        functions.append(build_note_norms(config.track_grad_norm, module, run, optimizers))
    if config.gradient_clip > 0:
        functions.append(build_clip(config))
    # what optimizers share would be unscaled once for each of them
    if precision.scales and (functions or len(optimizers) > 1):
        functions.insert(0, precision.unscale)
    return tuple(functions)


def build_note_norms(
    norm_type: float, module: LightningModule, run: FitRun, optimizers: Sequence[Optimizer]
) -> Callable[[Sequence[Optimizer]], None]:
    """``note(chosen)``: keep the gradient norms of a window. Optimizers that step one after the other each add their
    own, and the total is that of all so far."""
    norms, total, place = run.metrics.grad_norms, f"grad_{norm_type:g}_norm_total", -1

    def note(chosen: Sequence[Optimizer]) -> None:
        nonlocal place
        found = module.grad_norm(norm_type)
        if place != run.progress.global_step:
            place = run.progress.global_step
            norms.clear()
        if len(chosen) < len(optimizers):
            # what the others step is cleared, clipped or not yet complete now
            elsewhere = set(parameters_of(optimizers)).difference(parameters_of(chosen))
            for i, parameter in enumerate(module.parameters()):
                if parameter in elsewhere:
                    found.pop(f"grad_{norm_type:g}_norm_{i}", None)
            each = {**norms, **found, total: 0.0}
            found[total] = float(torch.linalg.vector_norm(torch.tensor([*each.values()]), norm_type))
        norms.update(found)

    return note


def build_clip(config: Config) -> Callable[[Sequence[Optimizer]], None]:
    """``clip(optimizers)``: their gradients together, by torch's own functions."""
    limit, norm_type = config.gradient_clip, config.gradient_clip_norm_type
    by_norm = config.gradient_clip_algorithm == "norm"

    def clip(optimizers: Sequence[Optimizer]) -> None:
        found: dict[Any, None] = {}  # each once; without a call, which would be one more a step
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        found[parameter] = None
        if by_norm:
            nn.utils.clip_grad_norm_(found, limit, norm_type)
        else:
            clip_values(found, limit)

    return clip


def clip_values(parameters: Iterable[Any], limit: float) -> None:
    """Clip each entry of the gradients; of a sparse one the sum of what an index has got."""
    dense = []
    for parameter in parameters:
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            parameter.grad.values().clamp_(-limit, limit)
        else:
            dense.append(parameter)
    if dense:
        nn.utils.clip_grad_value_(dense, limit)


def _print_nan_gradients(module: LightningModule, progress: Progress) -> None:
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        if gradient is not None and gradient.is_sparse:
            gradient = gradient.coalesce().values()
        if gradient is not None and not bool(whole(torch.isfinite(gradient).all())):
            tell(f"the gradient of {name} isn't finite {at(progress)}")
