"""The outputs of an evaluation for process 0 alone (``gather_validation='rank0'``): the others send them there while it
runs, and keep none; then process 0 makes the numbers by itself, and everybody gets those."""

from collections.abc import Callable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pytorch_lightning.errors import FitError, Notices
from pytorch_lightning.processes import Processes, Subject
from pytorch_lightning.resume.plain_values import Encoder, NotPlainError, TooLargeError, fingerprint
from pytorch_lightning.run.owners import Owner, attributes_of, owners_of

CHUNK = 2**22
"""Bytes of outputs, about, that a process has before it sends them."""
MOST_BATCHES = 4096
"""So many batches of the smallest outputs."""
MOST_MARKED = 2**26
"""Bytes of an attribute whose values are compared."""
COLLECTIVES = ("c10d", "_c10d_functional")
"""Where torch has the operations that need all processes."""

Numbered = list[tuple[int, Any]]
"""Outputs, each with the number of its batch."""


class ToFirst:
    """Takes the outputs of all processes to process 0, in chunks.

    Everybody comes to an exchange after the same number of batches, which grows until the largest outputs that anybody
    has make ``CHUNK`` bytes; who has no more batches sends empty chunks as long as anybody has some.
    """

    def __init__(self, processes: Processes, subject: Subject) -> None:
        self._processes, self._subject = processes, subject
        self._received: list[list[Numbered]] = []
        """Process 0's: by loader, then by process."""
        self._failure, self._nb = "", 1

    def along(self, batches: Iterator[tuple[int, Any]], by_loader: list[Numbered]) -> Iterator[tuple[int, Any]]:
        """``batches`` of one loader; the last of ``by_loader`` is where what becomes of them is put."""
        if len(by_loader) == 1:  # a pass begins
            self._received, self._failure, self._nb = [], "", 1
        self._received.append([[] for _ in range(self._processes.nb)])
        outputs, nb_waiting = by_loader[-1], 0
        for pair in batches:
            yield pair
            nb_waiting += 1
            if nb_waiting == self._nb:
                self._exchange(outputs, is_last=False)
                nb_waiting = 0
        while self._exchange(outputs, is_last=True):
            pass

    def _exchange(self, outputs: Numbered, is_last: bool) -> bool:
        """Send what is in ``outputs``, which is empty then; returns whether anybody has more batches."""
        processes = self._processes
        # process 0 sends nothing: so it learns of which types its outputs are, and what they take
        chunk = [*map(itemgetter(1), outputs), [*map(itemgetter(0), outputs)]]
        message = processes.encoded(chunk, self._subject)
        if processes.is_first:
            self._received[-1][0] += outputs
        told = torch.tensor([int(not is_last), message.numel() // max(1, len(outputs)), int(self._failure != "")])
        outputs.clear()
        dist.all_reduce(told, dist.ReduceOp.MAX, group=processes.group)
        goes_on, largest, has_failed = told.tolist()
        if has_failed:
            raise FitError(processes.from_first(self._failure))
        processes.to_first(message, self._take)
        self._nb = max(1, min(2 * self._nb, CHUNK // max(1, largest), MOST_BATCHES))
        return bool(goes_on)

    def _take(self, rank: int, message: Any) -> None:
        try:
            *outputs, numbers = self._processes.decoded(message, rank, self._subject)
            self._received[-1][rank] += zip(numbers, outputs, strict=True)
        except FitError as error:
            self._failure = self._failure or str(error)  # who sent it waits for the next exchange

    def build_end(
        self,
        summarize: Callable[[list[list[Any]]], Any],
        by_rank: bool,
        module: nn.Module,
        names: tuple[str, Notices] | None,
    ) -> Callable[[list[Numbered]], Any]:
        """What makes the result after the last batch; ``by_rank``: of the outputs of one process after the other.
        ``names``: of the hook that ``summarize`` calls; where it calls none, the others get an empty list."""
        make = summarize if names is None else _build_alone(summarize, module, *names)
        return lambda _: self._finish(make, by_rank, told=names is not None)

    def _finish(self, summarize: Callable[[list[list[Any]]], Any], by_rank: bool, told: bool) -> Any:
        """Where it raises in process 0, everybody does."""
        processes, result, error, text = self._processes, None, None, self._failure
        if processes.is_first and not text:
            try:
                result = summarize([_in_order(each, by_rank) for each in self._received])
            except Exception as raised:
                error = raised
                text = f"process 0, which makes the numbers alone, raised {type(raised).__name__}: {raised}"
        self._received = []
        text, numbers = processes.from_first((text, result if told else []))
        if error is not None:
            raise error
        if text:
            failure = FitError(text)
            failure.is_of_another = not processes.is_first
            raise failure
        return result if processes.is_first else numbers


def _in_order(by_process: list[Numbered], by_rank: bool) -> list[Any]:
    pairs = chain(*by_process) if by_rank else sorted(chain(*by_process), key=itemgetter(0))
    return [output for _, output in pairs]


def _build_alone(
    summarize: Callable[[list[list[Any]]], Any], module: nn.Module, name: str, notices: Notices
) -> Callable[[list[list[Any]]], Any]:
    """``summarize``, which calls the hook ``name``, as one process calls it: nothing in it can wait for the others, and
    a notice names what it changes."""

    def alone(outputs: list[list[Any]]) -> Any:
        before = _marks(module)
        with _Alone(name):
            result = summarize(outputs)
        now = _marks(module)
        changed = sorted(place for place in {*before, *now} if before.get(place) != now.get(place))
        if changed:
            shown = ", ".join(changed[:5]) + (", ..." if changed[5:] else "")
            notices.say(
                "changed-in-one-process",
                f"{name} changed {shown} in process 0 alone: with gather_validation='rank0' the others don't run it,"
                " and keep what they had. Return numbers, which every process gets: in on_validation_end(run, metrics)"
                " of a callback, say",
                key=name,
            )
        return result

    return alone


class _Alone(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A scope in which torch refuses what needs all processes: it would wait for them until a timeout."""

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in COLLECTIVES:
            raise FitError(
                f"{self._name} runs in process 0 alone, since gather_validation='rank0', and called"
                f" {func.__name__.partition('.')[0].strip('_')} of torch.distributed, which waits for all processes: by"
                " itself, through a metric that adds up over processes, or through a layer that distributed_backend="
                "'fsdp' shards. Call that in the step, or pass gather_validation=True."
            )
        return func(*args, **(kwargs or {}))


def _marks(module: nn.Module) -> dict[str, Any]:
    """What tells whether attributes, buffers and parameters of ``module`` and of what it holds are the same as before,
    by their names."""
    found: dict[str, Any] = {}
    for path, held in owners_of([Owner("", module)]):
        found |= {f"{path}.{name}".lstrip("."): _mark(value) for name, value in attributes_of(held).items()}
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {**found, **{name: (id(tensor), tensor._version) for name, tensor in tensors}}


def _mark(value: Any) -> Any:
    encoder = Encoder(MOST_MARKED)
    try:
        return fingerprint(encoder.nodes, encoder.add(value))
    except (NotPlainError, TooLargeError):
        return id(value), getattr(value, "_version", None), len(value) if hasattr(value, "__len__") else None
