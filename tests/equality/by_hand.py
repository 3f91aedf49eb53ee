"""The loop that one would write by hand, for all that is drawn in ``test_draws``: torch alone."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.equality.models import windows

DTYPES = {"64": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}
AUTOCAST = {"bf16": torch.bfloat16, "16": torch.float16}


class NothingToLearn(Exception):
    """No batch of a window counts anything."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained."""

    precision: str = "32"
    nb_epochs: int = 2
    accumulate: int = 1
    virtual_ranks: int = 1
    clip: float = 0.0
    norm_type: float | None = 2.0
    """None: by value."""
    per_optimizer: bool = False
    """Whether ``training_step`` runs once for each optimizer."""


def train_by_hand(model: Any, recipe: Recipe) -> list[float]:
    """Train ``model`` in place. Returns the loss of each batch, or the mean loss of each round of batches."""
    cast(model, recipe.precision)
    optimizers, schedules = optimizers_of(model.configure_optimizers())
    scaler = torch.amp.GradScaler("cpu", enabled=recipe.precision == "16")
    losses: list[float] = []
    for _ in range(recipe.nb_epochs):
        stepped = [False for _ in optimizers]
        rounds = enumerate(windows(model.tng_dataloader, recipe.virtual_ranks))
        for window in windows(rounds, recipe.accumulate):
            if recipe.per_optimizer:
                now = step_in_turns(model, optimizers, scaler, window, recipe, losses)
            elif isinstance(optimizers[0], torch.optim.LBFGS):
                now = [step_lbfgs(model, optimizers[0], window, recipe, losses)]
            else:
                clear(model)
                now = [False for _ in optimizers]
                if add_gradients(model, scaler, window, recipe, losses):
                    now = step_all(optimizers, scaler, recipe)
                    scaler.update()
            stepped = [before or by_now for before, by_now in zip(stepped, now, strict=True)]
            advance("step", schedules, optimizers, now, losses)
        advance("epoch", schedules, optimizers, stepped, losses)
    return losses


def cast(model: nn.Module, precision: str) -> None:
    """Floats to the float type, and complex numbers to the complex type of that width where there is one."""
    dtype = DTYPES.get(precision)
    if dtype is not None:
        wide = {torch.float64: torch.complex128}.get(dtype, torch.complex64)
        kinds = {True: wide, False: dtype}
        model._apply(lambda t: t.to(kinds[t.is_complex()]) if t.is_complex() or t.is_floating_point() else t)  # type: ignore[no-untyped-call]


def optimizers_of(configured: Any) -> tuple[list[Any], list[Any]]:
    """The optimizers, and (interval, monitor, scheduler) of each schedule."""
    optimizers, schedules = configured if isinstance(configured, tuple) else (configured, [])
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    return optimizers, [(s["interval"], s.get("monitor"), s["scheduler"]) for s in schedules]


def clear(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None


def step_all(optimizers: Sequence[Any], scaler: Any, recipe: Recipe) -> list[bool]:
    """Clip the gradients of all ``optimizers`` together, and step each. Returns which ones stepped."""
    clip(optimizers, scaler, recipe)
    return [steps(optimizer, scaler) for optimizer in optimizers]


def clip(optimizers: Sequence[Any], scaler: Any, recipe: Recipe) -> None:
    if recipe.clip:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        parameters = {p: None for o in optimizers for group in o.param_groups for p in group["params"]}  # each once
        if recipe.norm_type is None:
            nn.utils.clip_grad_value_(parameters, recipe.clip)
        else:
            nn.utils.clip_grad_norm_(parameters, recipe.clip, recipe.norm_type)


def steps(optimizer: Any, scaler: Any) -> bool:
    """Step, unless a gradient isn't finite in 16 bits. Returns whether it did."""
    called: list[bool] = []
    # a fused one is always called, and told by the scaler whether a gradient isn't finite
    handle = optimizer.register_step_post_hook(lambda o, *_: called.append(not getattr(o, "found_inf", 0)))
    scaler.step(optimizer)
    handle.remove()
    return any(called)


def step_in_turns(
    model: Any, optimizers: Sequence[Any], scaler: Any, window: Any, recipe: Recipe, losses: list[float]
) -> list[bool]:
    """A pass per optimizer; where batches are accumulated, all step at the end of the window."""
    own: list[list[nn.Parameter]] = [[p for group in o.param_groups for p in group["params"]] for o in optimizers]
    turns, now = [], [False for _ in optimizers]
    for i, optimizer in enumerate(optimizers):
        others = [p for of_one in own for p in of_one if p.requires_grad and not any(p is q for q in own[i])]
        clear(model)
        for parameter in others:
            parameter.requires_grad = False
        has_any = add_gradients(model, scaler, window, recipe, losses, i)
        for parameter in others:
            parameter.requires_grad = True
        if recipe.accumulate == 1 and has_any:
            now[i] = step_all([optimizer], scaler, recipe)[0]
        turns.append([p.grad for p in own[i]] if has_any else None)
    for i, gradients in enumerate(turns if recipe.accumulate > 1 else ()):
        if gradients is not None:
            for parameter, gradient in zip(own[i], gradients, strict=True):
                parameter.grad = gradient
            now[i] = step_all([optimizers[i]], scaler, recipe)[0]
    if any(turn is not None for turn in turns):
        scaler.update()
    return now


def step_lbfgs(model: Any, optimizer: Any, window: Any, recipe: Recipe, losses: list[float]) -> bool:
    """A closure over all batches of the window. The losses of its first evaluation count."""
    scaler, evaluations = torch.amp.GradScaler("cpu", enabled=False), [losses]
    buffers = Buffers(model)

    def evaluate() -> Tensor:
        clear(model)
        kept = evaluations.pop() if evaluations else []
        total = add_gradients(model, scaler, window, recipe, kept, buffers=buffers)
        if total is None:
            raise NothingToLearn
        clip([optimizer], scaler, recipe)
        return total

    with contextlib.suppress(NothingToLearn):
        optimizer.step(evaluate)
        return True
    return False


def add_gradients(
    model: Any,
    scaler: Any,
    window: Any,
    recipe: Recipe,
    losses: list[float],
    *optimizer_i: int,
    buffers: "Buffers | None" = None,
) -> Tensor | None:
    """Backward passes whose gradients are those of the window's mean loss; None where no batch counts anything.

    Batches of several virtual ranks are those of as many processes: each has buffers of its own, and of two the sum of
    gradients is made first.
    """
    weights = [1 if model.count(batch) is None else model.count(batch) for _, batches in window for batch in batches]
    total, divisor = sum(weights), 1.0
    while recipe.virtual_ranks > 1 and divisor < recipe.accumulate * recipe.virtual_ranks:
        divisor *= 2.0  # what is exact, first: so nothing is too large for 16 bits
    buffers = buffers or Buffers(model)
    of_rank: dict[int, dict[Any, Tensor]] = {}
    apart, result = recipe.virtual_ranks == 2, torch.zeros(())
    for round_nb, batches in window:
        seen = []
        for rank, batch in enumerate(batches):
            buffers.show(rank)
            with gradients_of_rank(model, of_rank.setdefault(rank, {}) if apart else None):
                loss = loss_of(model, batch, round_nb, recipe, *optimizer_i)
                weight = weights.pop(0)
                if weight:
                    seen.append(loss.item())
                    if model.count(batch) is not None:
                        weighed = loss * (weight / total)
                    elif recipe.virtual_ranks > 1:
                        weighed = loss / divisor
                    else:
                        weighed = loss / total if total > 1 else loss
                    scaler.scale(weighed).backward()
                    result = result + weighed.detach()
        if seen:
            losses.append(sum(seen) / len(seen))
    buffers.show(0)
    if not total:
        return None
    if apart:
        add_up(model, [of_rank[rank] for rank in sorted(of_rank)])
    if recipe.virtual_ranks > 1 and model.count(window[0][1][0]) is None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(divisor / total)
        result = result * (divisor / total)
    return result


def loss_of(model: Any, batch: Any, batch_nb: int, recipe: Recipe, *optimizer_i: int) -> Tensor:
    kind, dtype = AUTOCAST.get(recipe.precision), DTYPES.get(recipe.precision)
    if dtype is not None:
        batch = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in batch.items()}
    with torch.autocast("cpu", kind, enabled=kind is not None):
        return model.training_step(batch, batch_nb, *optimizer_i)["loss"]  # type: ignore[no-any-return]


def advance(interval: str, schedules: Any, optimizers: Sequence[Any], stepped: Sequence[bool], losses: Any) -> None:
    """Step the schedules of this interval whose optimizer did."""
    for own, monitor, scheduler in schedules:
        did = [now for optimizer, now in zip(optimizers, stepped, strict=True) if optimizer is scheduler.optimizer]
        if own == interval and any(did):
            scheduler.step(*([sum(losses[-100:]) / len(losses[-100:])] if monitor else []))


class Buffers:
    """Those of each virtual rank: all begin a window with the same."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._shown = model, 0
        self._start = [buffer.clone() for buffer in model.buffers()]
        self._kept: dict[int, list[Tensor]] = {}

    def show(self, rank: int) -> None:
        """Let the model have those of ``rank``."""
        buffers = list(self._model.buffers())
        self._kept[self._shown], self._shown = [buffer.clone() for buffer in buffers], rank
        for buffer, value in zip(buffers, self._kept.get(rank, self._start), strict=True):
            buffer.copy_(value)


@contextlib.contextmanager
def gradients_of_rank(model: nn.Module, kept: dict[Any, Tensor] | None) -> Iterator[None]:
    """A scope in which gradients are added to those of one rank; None: to those of all."""
    if kept is None:
        yield
        return
    for parameter in model.parameters():
        parameter.grad = kept.get(parameter)
    yield
    for parameter in model.parameters():
        if parameter.grad is not None:
            kept[parameter], parameter.grad = parameter.grad, None


def add_up(model: nn.Module, ranks: Sequence[dict[Any, Tensor]]) -> None:
    for parameter in model.parameters():
        for kept in ranks:
            if parameter in kept:
                there, own = parameter.grad, kept[parameter]
                own = own.coalesce() if own.is_sparse else own
                parameter.grad = own if there is None else there + own
