"""Measures the workloads on a device, round by round, until the time is over."""

import time
from collections.abc import Callable
from typing import Any

from benchmarks import peers, report
from benchmarks.__main__ import Worker, sizes_of

WORKLOADS = ("W1", "W1list", "W2", "W3", "W3large", "W4")
CONTESTANTS = ("lean", "ours", "lightning")
ROUNDS = 5
LONGEST = 60.0
"""Seconds that one measurement may take."""
SIZES = {"W3": (300, 300), "W3large": (300, 300)}
"""A GPU needs so many batches for steps of a few milliseconds; the others are as on the CPU."""


class Measuring:
    """``measured`` holds what is known by workload and contestant, at any time."""

    def __init__(self, deadline: float, device: str, *, on_change: Callable[[], object] = bool, trial: bool) -> None:
        self._deadline, self._device, self._on_change, self._trial = deadline, device, on_change, trial
        self.measured: report.Measured = {workload: {} for workload in WORKLOADS}
        self.wanted = 1 if trial else ROUNDS
        """Rounds."""
        self.nb_rounds = 0
        """How many rounds are complete."""

    def run(self) -> None:
        """Measure, in ``ROUNDS`` rounds or as many as there is time for."""
        pythons = {name: peers.python_of(name) for name in CONTESTANTS if not (self._trial and name == "lightning")}
        workers = {n: Worker(n, python, self._device) for n, python in pythons.items() if python is not None}
        try:
            for n in range(self.wanted):
                names = list(workers)[n % len(workers) :] + list(workers)[: n % len(workers)]
                for workload in WORKLOADS:
                    for name in names:
                        if time.time() >= self._deadline:
                            return
                        answer = self._measure(workers[name], workload)
                        self.measured[workload].setdefault(name, []).append(answer)
                        self._on_change()
                self.nb_rounds = n + 1
        finally:
            for worker in workers.values():
                worker.end()

    def _measure(self, worker: Worker, workload: str) -> dict[str, Any]:
        sizes = sizes_of(workload, 100) if self._trial else SIZES.get(workload, sizes_of(workload))
        seconds = max(1.0, min(LONGEST, self._deadline - time.time()))
        return worker.measure(workload, *sizes, seconds=seconds)


def summary_of(measured: report.Measured) -> dict[str, dict[str, dict[str, float]]]:
    """By workload and contestant: the microseconds of a step by the clock on the wall, ``median``, ``low`` and
    ``high``, the ``ratio`` to the lean loop (the median of each round's), and the number of ``rounds``; or why it was
    ``skipped``."""
    found: dict[str, dict[str, Any]] = {}
    for workload, contestants in report.summarize(measured).items():
        for name, entry in contestants.items():
            nb = len([r for r in measured[workload][name] if "skipped" not in r])
            key = next((key for key in ("value", "wall") if key in entry), None)
            if key is None:
                found.setdefault(workload, {})[name] = {"skipped": entry.get("skipped", "")}
                continue
            ratio = entry.get(f"{key}_ratio", {}).get("median")
            found.setdefault(workload, {})[name] = {**entry[key], "ratio": ratio, "rounds": nb}
    return found
