"""``python -m tests.conformance.worker FOLDER``: run every case, in 1, 2 and 4 processes, and write what came of it.

One program, so that what is slow to import is imported once; the processes of each group are its forks.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, multiprocessing

from pytorch_lightning.launchers.environment import leave
from tests.conformance.cases import CASES, ELASTIC, FITS, SHARED, Place, fit
from tests.launchers.grouped import enter_group

dist: Any = distributed
mp: Any = multiprocessing

GROUPS = ((1, False), (4, False), (3, False), (2, False), (1, True))
"""The groups of processes, and whether they only go on from what those before them wrote."""

Jobs = dict[tuple[str, str, int], Callable[[], Any]]


def jobs_of(nb: int, folder: str, after: bool) -> Jobs:
    """The cases of a group of ``nb`` processes, by (case, strategy, virtual ranks). ``after``: only those that go on
    from what other groups wrote."""
    jobs: Jobs = {}
    names = [None, *SHARED] if nb == 1 else SHARED
    for backend in names:
        if nb > 2:
            place = Place(backend, nb, nb, folder, str(backend))
            jobs["small_sets", str(backend), 2] = lambda p=place: CASES["small_sets"](p)
        if nb == 3:
            continue
        if nb < 4:
            place = Place(backend, nb, 2, folder, str(backend))
            for name, (kind, options) in FITS.items():
                # in one process every strategy is the single one: a few fits are enough
                if backend is None or nb > 1 or name in ("plain", "accumulated", "16"):
                    jobs[name, str(backend), 2] = lambda p=place, k=kind, o=options: fit(p, k, **o)
            for name, function in CASES.items():
                if name == "pieces" and nb == 1 and not after:
                    continue
                jobs[name, str(backend), 2] = lambda p=place, f=function: f(p)
        if after:
            going_on = ("resumed", "pieces", "waiting")
            jobs = {key: job for key, job in jobs.items() if key[0] in going_on and key[1] == "None"}
            continue
        four = Place(backend, nb, 4, folder, str(backend))
        for name, (kind, options) in ELASTIC.items():
            if backend == "fsdp" and "exact" in name:
                continue  # refused
            jobs[name, str(backend), 4] = lambda p=four, k=kind, o=options: fit(p, k, **o)
        if nb == 4:
            jobs["pieces", str(backend), 4] = lambda p=four: CASES["pieces"](p)
    return jobs


def run_group(rank: int, nb: int, folder: str, port: int, after: bool) -> None:
    """What one process of a group of ``nb`` does."""
    torch.set_num_threads(1)
    if nb > 1:
        enter_group(rank, nb, port)
    results: dict[Any, Any] = {}
    only = os.environ.get("CASES", "")
    for key, job in jobs_of(nb, folder, after).items():
        if only and only not in str(key):
            continue
        start = time.monotonic()
        try:
            results[key] = job()
        except Exception:
            results[key] = traceback.format_exc()
        if os.environ.get("TIMES") and rank == 0:
            print(nb, key, f"{time.monotonic() - start:.2f}", flush=True)
    torch.save(results, os.path.join(folder, f"{nb}-{rank}{'-after' * after}.pt"))
    leave()


def main(folder: str) -> None:
    for nb, after in GROUPS:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        mp.start_processes(run_group, (nb, folder, store.port, after), nprocs=nb, start_method="fork")


if __name__ == "__main__":
    main(sys.argv[1])
