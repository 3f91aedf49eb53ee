"""What is seen of a GPU while a fit runs: how often it was waited for, and what ran at the same time."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pytorch_lightning.callbacks import Callback
from tests.gpu import stand_in
from tests.gpu.places import GPU, Place

WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
"""Calls that return when the GPU has done something."""


class Watched(Callback):
    """Looks at the batches from ``first`` to ``last``: ``waits`` are the calls that waited for the GPU in them, and
    ``trace`` is a trace of them in the format of chrome://tracing (on a GPU)."""

    def __init__(self, place: Place, folder: Path, first: int = 12, last: int = 50) -> None:
        # batches 10 and 60 are those whose phases are timed
        self.place, self.folder, self.first, self.last = place, folder, first, last
        self.nb_batches = last - first
        self.waits: list[str] = []
        self._profile: Any = None
        self._scope: Any = None
        self._nb_before = 0

    def on_batch_end(self, run: Any) -> None:
        step = run.progress.global_step
        if self.place.kind != GPU:
            if step == self.first:
                self._nb_before = len(stand_in.WAITS)
            elif step == self.last:
                self.waits = stand_in.WAITS[self._nb_before :]
            return
        if step == self.first - 2:
            kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
            self._profile = torch.profiler.profile(activities=kinds)
            self._profile.start()
        elif step == self.first:
            self._scope = torch.profiler.record_function("these batches")
            self._scope.__enter__()
        elif step == self.last:
            self._scope.__exit__(None, None, None)
            torch.cuda.synchronize()
            self._profile.stop()
            self._profile.export_chrome_trace(str(self.path))
            self.waits = [event["name"] for event in calls_in("these batches", self.events)]

    @property
    def path(self) -> Path:
        """The file of the trace."""
        return self.folder / "seen.json"

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the trace holds."""
        return list(json.loads(self.path.read_text())["traceEvents"])


def calls_in(scope: str, events: Sequence[Mapping[str, Any]], names: Iterable[str] = WAITING) -> list[Any]:
    """The events called one of ``names`` that begin inside the scope."""
    (inside,) = [e for e in events if e.get("name") == scope and e.get("cat") == "user_annotation"]
    begin, end = inside["ts"], inside["ts"] + inside["dur"]
    return [e for e in events if e.get("name") in tuple(names) and begin <= e["ts"] <= end]


class Span(NamedTuple):
    """A time in which a stream of the GPU was busy."""

    begin: float
    end: float
    stream: int


def copies_and_kernels(events: Sequence[Mapping[str, Any]]) -> tuple[list[Span], list[Span], list[str]]:
    """The copies to the GPU and the kernels of a trace, and what kinds of copies there are."""
    copies, kernels, kinds = [], [], []
    for event in events:
        if event.get("cat") not in ("gpu_memcpy", "kernel"):
            continue
        span = Span(event["ts"], event["ts"] + event["dur"], int(event["args"]["stream"]))
        if event["cat"] == "kernel":
            kernels.append(span)
        elif "HtoD" in event["name"]:
            copies.append(span)
            kinds.append(event["name"])
    return copies, kernels, kinds


def nb_beside(copies: Sequence[Span], kernels: Sequence[Span]) -> int:
    """How many of ``copies`` took place while a kernel ran on another stream."""
    return sum(
        any(k.stream != copy.stream and k.begin < copy.end and copy.begin < k.end for k in kernels) for copy in copies
    )
