"""Several devices of one process: torch's DataParallel."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import parallel_apply, replicate

from pytorch_lightning.data.casting import place
from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.processes import Processes
from pytorch_lightning.strategies.chunks import cut, join, join_training
from pytorch_lightning.strategies.step_as_forward import StepAsForward
from pytorch_lightning.strategies.strategy import Strategy


class DataParallel(Strategy):
    """Every batch is split into one chunk per device, and a replica of the module runs the step on each chunk.

    The outputs are combined as if the step had seen the whole batch (see ``chunks.join``); what it sets on ``self`` is
    lost. BatchNorm normalizes each chunk separately, and the running statistics of the first chunk are kept.

    ``places`` splits into that many chunks on one device, one after the other: a way to try on a CPU how a model
    behaves under 'dp'.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(distributed_backend=DataParallel(places=2))
    """

    name = "dp"
    several_devices = True

    def __init__(self, places: int | None = None) -> None:
        self._places = places
        self._devices: list[torch.device] = []
        self._dtype: torch.dtype | None = None

    def attach(self, device: torch.device, processes: Processes, devices: Sequence[torch.device] = ()) -> None:
        super().attach(device, processes, devices)
        self._devices = [device] * self._places if self._places else list(devices) or [device]

    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        place(module, self.device, dtype)
        self._dtype = dtype

    def shard(self, module: nn.Module) -> None:
        if len(self._devices) > 1:
            self.refuse_lazy(module)

    def transfer(self, dtype: torch.dtype | None) -> Callable[[Any], Any] | None:
        # a chunk goes to its own device, and not by way of the first
        return super().transfer(dtype) if len(self._devices) == 1 else None

    def manual_step_function(self, module: nn.Module) -> Callable[..., Any]:
        if len(self._devices) > 1:
            raise self.no_manual_steps()
        return super().manual_step_function(module)

    def step_function(self, module: nn.Module, name: str, *, takes_optimizer: bool = False) -> Callable[..., Any]:
        if len(self._devices) == 1:
            return getattr(module, name)  # type: ignore[no-any-return]
        step, devices, device = StepAsForward(module, name), self._devices, self.device
        moves = [build_transfer(device, self._dtype) or _as_it_is for device in devices]
        run_all = run_in_turn if self._places else run_on_devices
        put_together = join_training if name == "training_step" else join

        def run_step(batch: Any, *rest: Any) -> Any:
            chunks = cut(batch, len(devices))
            moved = [move(chunk) for move, (chunk, _) in zip(moves, chunks, strict=False)]
            outputs = run_all(step, [(chunk, *rest) for chunk in moved], devices)
            return put_together(outputs, [size for _, size in chunks], device)

        return run_step


def _as_it_is(value: Any) -> Any:
    return value


def run_on_devices(step: nn.Module, inputs: Sequence[tuple[Any, ...]], devices: Sequence[torch.device]) -> list[Any]:
    """``step`` of each of ``inputs``, in a replica and a thread per device."""
    used = list(devices[: len(inputs)])
    replicas: Any = replicate(step, used, detach=not torch.is_grad_enabled())
    kind = used[0].type
    # torch hands on to its threads whether autocast is on, but not to which type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    guarded: Any = [_InAutocast(replica, kind, autocast) for replica in replicas]
    return parallel_apply(guarded, inputs, devices=used)


class _InAutocast(nn.Module):
    def __init__(self, module: nn.Module, kind: str, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.module, self._kind, self._dtype = module, kind, dtype

    def forward(self, *arguments: Any) -> Any:
        scope: Any = nullcontext() if self._dtype is None else torch.autocast(self._kind, self._dtype)
        with scope:
            return self.module(*arguments)


def run_in_turn(step: nn.Module, inputs: Sequence[tuple[Any, ...]], devices: Sequence[torch.device]) -> list[Any]:
    """``step`` of each of ``inputs`` on the same parameters, with buffers as replicas have them: the first one's are
    the module's own, each of the others gets copies."""
    before = [(m, name, b.clone()) for m in step.modules() for name, b in m._buffers.items() if b is not None]
    outputs = [step(*inputs[0])]
    for given in inputs[1:]:
        with _with_buffers(before):
            outputs.append(step(*given))
    return outputs


@contextmanager
def _with_buffers(before: Sequence[tuple[nn.Module, str, torch.Tensor]]) -> Iterator[None]:
    own = [(module, name, module._buffers[name]) for module, name, _ in before]
    for module, name, value in before:
        module._buffers[name] = value.clone()
    try:
        yield
    finally:
        for module, name, buffer in own:
            module._buffers[name] = buffer
