"""Where a module runs, and how a step gets there: the interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.processes import ALONE, Processes


class Strategy(ABC):
    """Places a module on its device, provides its step methods as callables, and sums gradients over processes.

    A user may create one with its own options and pass it as ``distributed_backend``. ``attach`` is called first.

    >>> from pytorch_lightning import Trainer
    >>> from pytorch_lightning.strategies import SingleDevice
    >>> class ChannelsLast(SingleDevice):
    ...     name = "channels_last"
    ...     def place(self, module, dtype):
    ...         super().place(module, dtype)
    ...         module.to(memory_format=torch.channels_last)
    >>> trainer = Trainer(distributed_backend=ChannelsLast())
    """

    name: str
    device: torch.device
    processes: Processes = ALONE
    several_processes = False
    """Whether each device, or each of ``nb_processes``, has a process of its own."""
    several_devices = False
    """Whether one process uses several devices."""
    runs_together = False
    """Whether every process must take part in each forward pass, in evaluation too."""
    saves_together = False
    """Whether every process must take part in making a checkpoint."""
    saves_shards = False
    """Whether every process then writes its own shard, if all processes see the same folder."""

    reads_shards = False
    """Whether every process may read its own part of such a save, which ``shard_of`` takes."""

    def attach(self, device: torch.device, processes: Processes, devices: Sequence[torch.device] = ()) -> None:
        """Note where this process runs: on ``device``, one of the machine's ``devices`` that the run uses."""
        self.device, self.processes = device, processes

    @abstractmethod
    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        """Move ``module`` to where it runs, converted to ``dtype`` (None: as it is). Changes it in place."""

    def shard(self, module: nn.Module) -> None:
        """Shard the weights of ``module``, if this strategy does. Their values are loaded already, and optimizers are
        created afterwards. Raises ``MisconfigurationException`` for a module that can't be used here."""

    def refuse_lazy(self, module: nn.Module) -> None:
        """Raise ``MisconfigurationException`` for layers whose sizes aren't known before their first batch."""
        lazy = [name for name, tensor in [*module.named_parameters(), *module.named_buffers()] if is_lazy(tensor)]
        if lazy:
            raise MisconfigurationException(
                f"lazy layers of {type(module).__name__} don't know their sizes yet"
                f" ({', '.join(lazy[:3])}{', ...' if lazy[3:] else ''}), and a run in several processes, on several"
                " devices or with several virtual ranks needs them. Run the model once on a batch before fit:"
                " with torch.no_grad(): model(batch)."
            )

    def unshard(self, module: nn.Module) -> None:
        """Undo ``shard``: the module is whole, and its parameters are the same objects as before. All processes call
        it."""

    def whole(self, data: Any) -> Any:
        """``data``, nested plain data, with sharded tensors gathered on the CPU. All processes call it; only the first
        one gets their values."""
        return data

    def refusal(self, optimizer: Optimizer) -> str | None:
        """Why ``optimizer`` can't be used here, and what to do; None if it can."""
        return None

    def shard_optimizer_state(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """The ``state_dict`` of an optimizer of whole parameters as ``optimizer`` takes it."""
        return state

    def shard_tensor(self, tensor: Tensor, dim: int) -> Tensor:
        """This process's shard of ``tensor``, shared out along ``dim``; the tensor where weights aren't sharded."""
        return tensor

    def shard_of(self, own: Tensor, dim: int, shape: torch.Size) -> Tensor:
        """The tensor of that ``shape`` of which this process has read its ``own`` part, shared out along ``dim``."""
        return own

    @property
    def resumes_otherwise(self) -> str:
        """Why a resumed run may have other last bits than an undisturbed one; nothing where it has the same."""
        return ""

    @abstractmethod
    def step_function(self, module: nn.Module, name: str, *, takes_optimizer: bool = False) -> Callable[..., Any]:
        """The method ``name`` of ``module`` as it is to be called. ``takes_optimizer``: a training step that is
        called once per optimizer, so that some parameters get no gradient in it."""

    def manual_step_function(self, module: nn.Module) -> Callable[..., Any]:
        """``training_step`` of ``module``, where it makes its own steps: what exchanges gradients does so outside of
        it. Raises ``MisconfigurationException`` where that can't be."""
        if self.processes.nb > 1:
            raise self.no_manual_steps()
        return self.step_function(module, "training_step")

    def no_manual_steps(self) -> MisconfigurationException:
        """What is raised where a ``training_step`` can't make its own steps."""
        return MisconfigurationException(
            f"automatic_optimization = False doesn't work with distributed_backend={self.name!r}, whose gradients are"
            " there only after training_step. Use one process, or 'ddp'."
        )

    def transfer(self, dtype: torch.dtype | None) -> Callable[[Any], Any] | None:
        """A function that moves a batch to the device; None if it is there already."""
        return build_transfer(self.device, dtype)

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        """A scope for one forward and backward pass. Gradients are averaged over processes in the ``last`` one of
        a window only."""
        return nullcontext()

    def run_idle(self, before_backward: Callable[[], None] = lambda: None) -> None:
        """Take part in an exchange of gradients, inside ``exchanging``, without a batch. ``before_backward`` is called
        between the passes."""
        before_backward()

    def add_up(self, table: Tensor) -> Tensor:
        """The sum of everybody's ``table``, which may be changed."""
        if self.processes.nb > 1:
            dist.all_reduce(table)
        return table

    def begin_add_up(self, table: Tensor) -> Callable[[], Tensor]:
        """The same while something else is done: call what is returned for the sum."""
        work = dist.all_reduce(table, async_op=True)

        def finish() -> Tensor:
            work.wait()
            return table

        return finish

    @torch.no_grad()
    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the buffers of rank 0."""
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for buffer in module.buffers() if self.processes.nb > 1 else ():
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
        for buffers in by_dtype.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(flat, src=0)
            for buffer, piece in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
                buffer.copy_(piece.view_as(buffer))

    def changed(self, optimizers: Sequence[Optimizer]) -> list[str]:
        """The parameters whose gradients must be exchanged from now on and weren't, or the other way round. Raises
        ``FitError`` where that can't be."""
        return []

    def follow(self, optimizers: Sequence[Optimizer]) -> None:
        """Exchange the gradients of the parameters that require them now. All processes call it."""

    def not_exchanged(self) -> tuple[list[str], list[str]]:
        """Parameters that got no gradient in an exchange that waits for theirs, and those whose gradient wasn't
        exchanged."""
        return [], []

    def first_difference(self, module: nn.Module) -> str | None:
        """The first parameter that isn't the same in every process, and whose; None where all are, or where no two
        processes have the same. All processes call it."""
        return None
