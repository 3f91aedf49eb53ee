"""What happens to gradients between the backward pass and the step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pytorch_lightning.options.config import Config
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.printing import tell
from pytorch_lightning.processes import whole
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.hooks import Hooks
from pytorch_lightning.run.metrics import at
from pytorch_lightning.run.progress import Progress
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.optimizers import gradients_of


def before_update(
    config: Config, module: LightningModule, run: FitRun, hooks: Hooks, precision: Precision
) -> tuple[Callable[[Sequence[Optimizer]], None], ...]:
    """What runs between the backward pass and the step, in this order. Often nothing."""
    functions: list[Callable[[Sequence[Optimizer]], None]] = []
    for hook in hooks["on_after_backward"]:
        functions.append(lambda _, hook=hook: hook())  # type: ignore[misc]
    if config.print_nan_grads:
        functions.append(lambda _: _print_nan_gradients(module, run.progress))
    if config.track_grad_norm > 0:
        functions.append(lambda _: run.metrics.grad_norms.update(module.grad_norm(config.track_grad_norm)))
    if config.gradient_clip > 0:
        clip: Any = nn.utils.clip_grad_norm_ if config.gradient_clip_algorithm == "norm" else nn.utils.clip_grad_value_
        functions.append(lambda optimizers: clip(gradients_of(optimizers), config.gradient_clip))
    if functions and precision.scales:

        def unscale(optimizers: Sequence[Optimizer]) -> None:
            for optimizer in optimizers:
                precision.unscale(optimizer)

        functions.insert(0, unscale)
    return tuple(functions)


def _print_nan_gradients(module: LightningModule, progress: Progress) -> None:
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not bool(whole(torch.isfinite(parameter.grad).all())):
            tell(f"the gradient of {name} isn't finite {at(progress)}")
