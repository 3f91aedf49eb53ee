"""What a fit computes, noted as it goes: one record for each tensor on the way of a batch."""

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.data.sharing import IDLE
from pytorch_lightning.run.metrics import read_output
from pytorch_lightning.testing.fingerprints import Fingerprint, tensors_in

BEFORE = -1
"""The number of the batch of what is there before the first one."""
END = 2**62
"""The number of the batch of what is there after the last one."""
FORWARD, UPDATE = range(2)
EACH = -1
"""In the place of a virtual rank: what is the same for all of them."""


class Reached(Exception):
    """There are as many batches as were asked for."""


class Record(NamedTuple):
    """One number or tensor. Sorted, records are in the order in which they came to be."""

    batch: int
    """``global_step``, which counts training batches over all epochs."""
    block: int
    """How many optimizer steps there were in the batch before it."""
    phase: int
    virtual_rank: int
    number: int
    """Of the record, in its process and batch."""
    name: str
    value: str
    """The fingerprint of a tensor, a float's ``hex()``, or 'crc' and a number."""


def exact(number: float) -> str:
    """A float, with all its bits, as text."""
    return float(number).hex()


class Recorder(Callback):
    """Notes what batches compute, and ends the fit after ``until`` of them. Each process writes its own records into
    ``folder``. ``resumed``: another fit has made the beginning; ``continued``: another one makes the rest."""

    def __init__(self, folder: str, until: int, *, resumed: bool = False, continued: bool = False) -> None:
        self._folder, self._until, self._resumed, self._continued = folder, until, resumed, continued
        self._module: Any = None
        self._records: list[Record] = []
        self._batch, self._block, self._virtual_rank, self._is_running = BEFORE, 0, 0, False
        self._seen: set[int] = set()

    def before_optimizers(self, module: Any) -> None:
        """The weights are there, and nothing is built around the module yet."""
        if self._module is module:
            return
        self._module, training_step = module, module.training_step
        if self._writes and not self._resumed:
            self._note_state("before training", module.named_parameters(), module.named_buffers())
        vars(module)["training_step"] = self._watched(training_step)
        for name, submodule in module.named_modules():
            name = f"{name} ({type(submodule).__name__})" if name else type(submodule).__name__
            submodule.register_forward_hook(self._hook(f"the output of {name}"))

    def after_optimizers(self, module: Any, optimizers: Sequence[Any], schedulers: Sequence[Any]) -> None:
        """Watch each of them."""
        for optimizer in optimizers:
            if id(optimizer) not in self._seen:
                self._seen.add(id(optimizer))
                optimizer.register_step_pre_hook(self._before_step)
                optimizer.register_step_post_hook(self._after_step)

    def on_batch_start(self, run: Any, data_batch: Any) -> None:
        """End the fit: each process comes to this place, while a stop is agreed on later."""
        if self._continued:  # a save that falls due while another one is written would be left out
            self._module.trainer._plan.rolling.wait_for_newest()
        if run.progress.global_step >= self._until:
            raise Reached(f"{self._until} batches are recorded")

    def on_batch_end(self, run: Any) -> None:
        """Buffers, such as a BatchNorm's, are compared once, at the end."""
        if self._writes and run.progress.global_step + 1 == self._until and not self._continued:
            self._batch, batch = END, self._batch
            self._note_state("at the end", (), run.module.named_buffers())
            self._batch = batch

    def on_validation_end(self, run: Any, metrics: dict[str, float | int]) -> None:
        """Note the numbers of a validation."""
        self._batch = run.progress.global_step - 1
        if self._writes:
            for name, value in metrics.items():
                self._add(f"{name} of the validation after it", exact(value), UPDATE)

    def on_fit_end(self, run: Any) -> None:
        """Write the records, also after an error."""
        rank = run.module.trainer._strategy.processes.rank
        path = Path(self._folder, f"{int(self._resumed)}.{rank}.json")
        path.write_text(json.dumps(self._records))

    @property
    def _writes(self) -> bool:
        """Whether this process notes what is the same in all of them."""
        return bool(self._module.trainer._strategy.processes.is_first)

    def _add(self, name: str, value: str, phase: int = FORWARD) -> None:
        rank = self._virtual_rank if phase == FORWARD else EACH
        self._records.append(Record(self._batch, self._block, phase, rank, len(self._records), name, value))

    def _note_state(self, when: str, *named: Iterable[tuple[str, Any]]) -> None:
        for kind, items in zip(("the weight", "the buffer"), named, strict=True):
            for name, tensor in items:
                self._add(f"{kind} {name} {when}", Fingerprint.of(tensor).to_text(), UPDATE)

    def _watched(self, training_step: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(training_step)
        def watched(batch: Any, batch_nb: int, *rest: Any) -> Any:
            plan = self._module.trainer._plan
            if plan.current.arguments and plan.current.arguments[0] is IDLE:  # takes part in others' steps only
                return training_step(batch, batch_nb, *rest)
            if plan.progress.global_step != self._batch:
                self._batch, self._block = plan.progress.global_step, 0
            self._virtual_rank = plan.current.virtual_rank
            self._note_input(plan, batch, batch_nb, rest)
            self._is_running = True
            try:
                output = training_step(batch, batch_nb, *rest)
            finally:
                self._is_running = False
            if output is not None:
                loss, _, _ = read_output(output, "training_step", plan.progress)
                self._add("the loss", exact(loss.detach().item()))
            return output

        return watched

    def _note_input(self, plan: Any, batch: Any, batch_nb: int, rest: tuple[Any, ...]) -> None:
        share = plan.loader.share
        indices = plan.loader.indices_at(plan.progress.epoch, batch_nb * share.nb + self._virtual_rank)
        if indices is not None:
            self._add("the indices", f"crc {zlib.crc32(repr(indices).encode())} of {_few(indices)}")
        for name, tensor in tensors_in(batch, "the batch"):
            self._add(name, Fingerprint.of(tensor).to_text())
        self._add("the random numbers", f"crc {_random_state()}")

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            if self._is_running:
                for place, tensor in tensors_in(output, name):
                    self._add(place, Fingerprint.of(tensor).to_text())

        return hook

    def _named(self, optimizer: Any) -> Iterable[tuple[str, Any]]:
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return [(name, p) for name, p in self._module.named_parameters() if id(p) in own]

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        # the backward pass comes to the last layers first
        for name, parameter in reversed([*self._named(optimizer)]) if self._writes else ():
            if parameter.grad is not None:
                self._add(f"the gradient of {name}", Fingerprint.of(parameter.grad).to_text(), UPDATE)

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        for name, parameter in self._named(optimizer) if self._writes else ():
            self._add(f"the weight {name} after the step", Fingerprint.of(parameter).to_text(), UPDATE)
        self._block += 1


def _few(indices: Any, most: int = 8) -> str:
    """The first ones, as text."""
    if not isinstance(indices, (list, tuple)):
        return str(indices)
    return f"[{', '.join(map(str, indices[:most]))}{', ...' if len(indices) > most else ''}]"


def _random_state() -> int:
    """A CRC of what torch, numpy and python would draw next."""
    import random

    numpy_state: Any = np.random.get_state(legacy=False)
    crc = zlib.crc32(torch.get_rng_state().numpy().data)
    crc = zlib.crc32(numpy_state["state"]["key"].tobytes(), crc)
    return zlib.crc32(repr(random.getstate()[1][:8]).encode(), crc)


def read_records(folder: str) -> tuple[list[Record], int]:
    """The records of all processes, in the order in which they came to be, and the batch at which the second fit
    began, whose records count where both have some; ``END`` without one."""
    found: dict[str, list[Record]] = {"0": [], "1": []}
    for path in Path(folder).glob("?.*.json"):
        found[path.name[0]] += [Record(*values) for values in json.loads(path.read_text())]
    resumed_at = min((record.batch for record in found["1"]), default=END)
    first = [record for record in found["0"] if record.batch < resumed_at or resumed_at == END]
    return sorted(first + found["1"]), resumed_at
