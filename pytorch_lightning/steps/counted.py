"""Windows of a number of samples or tokens: how many batches one has is known when it is full."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pytorch_lightning.errors import FitError, Problem
from pytorch_lightning.nested import map_tensors
from pytorch_lightning.options.config import Config
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.progress import Progress
from pytorch_lightning.steps.optimizers import needs_closure
from pytorch_lightning.steps.weights import WindowWeights, mixed_counts, power_above
from pytorch_lightning.strategies import Strategy


@dataclass(slots=True)
class CountedWeights(WindowWeights):
    """The weights of a window that closes at ``nb``: what a loss is divided by is a power of two above that, whatever
    number of batches comes."""

    nb: int = 1

    def open(self, size: int, accumulate: int) -> None:
        # explicit, since a dataclass with slots is another class than the one that super() knows
        WindowWeights.open(self, 2, accumulate)
        self.reference = power_above(self.nb) / 2


def until_full(
    train_window: Callable[[Iterator[Any], int, int], None], first: WindowWeights, progress: Progress, nb: int
) -> Callable[[Iterator[Any], int, int], None]:
    """``train_window`` with as many batches as reach ``nb``, where the epoch has them."""

    def counted_window(batches: Iterator[Any], size: int, accumulate: int) -> None:
        is_full = False

        def taken() -> Iterator[Any]:
            nonlocal is_full
            for batch in batches:
                yield batch
                if first.total >= nb:
                    is_full = True
                    return

        train_window(taken(), size, accumulate)
        if is_full:  # it ended since it is full, and the epoch goes on
            progress.epoch_over = False

    return counted_window


def counting_samples(step: Callable[..., Any], name: str, several: bool) -> Callable[..., Any]:
    """``step``, whose output has the number of samples as its ``loss_count``, unless it gives one itself. ``several``:
    a batch is made of those of several loaders. Raises ``FitError`` for a batch whose samples can't be counted, and
    where only some outputs have a ``loss_count``."""
    gives: bool | None = None

    def counting(batch: Any, *others: Any) -> Any:
        nonlocal gives
        output = step(batch, *others)
        if not isinstance(output, (Mapping, Tensor)):
            return output  # an error says so
        has_count = isinstance(output, Mapping) and output.get("loss_count") is not None
        if gives not in (None, has_count):
            raise mixed_counts()
        gives = has_count
        if has_count:
            return output
        named = {"loss": output} if isinstance(output, Tensor) else output
        parts = [batch] if not several else batch.values() if isinstance(batch, Mapping) else batch
        return {**named, "loss_count": sum(nb_samples(part, name) for part in parts)}

    return counting


def nb_samples(batch: Any, name: str) -> int:
    """The first dimension of the first tensor in ``batch`` that has one; of packed sequences their number.

    >>> import torch
    >>> nb_samples({"id": torch.tensor(3), "x": torch.zeros(5, 2)}, "training_step")
    5
    """
    if hasattr(batch, "batch_sizes"):  # a PackedSequence holds the steps of all
        return int(batch.batch_sizes[0])
    sizes: list[int] = []
    map_tensors(batch, lambda tensor: sizes.extend(tensor.shape[:1]))
    if sizes:
        return sizes[0]
    raise FitError(
        f"{name} got a batch without a tensor, so accumulate_nb_samples can't count its samples. Return their number:"
        " {'loss': loss, 'loss_count': n}."
    )


def counting_problems(
    module: LightningModule, optimizers: Sequence[Optimizer], config: Config, strategy: Strategy
) -> list[Problem]:
    """What doesn't work where samples say how long a window is."""
    wrong = {f"distributed_backend={strategy.name!r}": strategy.runs_together}
    wrong["uneven_batches='repeat'"] = config.uneven_batches == "repeat" and strategy.processes.nb > 1
    wrong |= {"automatic_optimization=False": not module.automatic_optimization}
    wrong |= {type(o).__name__: needs_closure(o) for o in optimizers}
    name = "accumulate_nb_samples"
    return [
        Problem(f"{name} doesn't work with {k}", do="Pass accumulate_grad_batches")
        for k, is_so in wrong.items()
        if is_so
    ]
