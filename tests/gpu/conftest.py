"""Where the tests of this folder run: on a GPU, or, for a trial, on what stands in for it.

Without a GPU they are skipped, unless ``GPU_CHECK=dry-run`` is set, as ``scripts/gpu_check --dry-run`` does. Then each
takes what its marker ``stands_in`` names: the ``stand_in`` device (the default), or the CPU.

Where ``GPU_CHECK_LINES`` names a file, each test writes there when it begins and what became of it, a line of JSON for
each, so that a report can be made whenever and however the tests end.
"""

import inspect
import json
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu import stand_in
from tests.gpu.places import CPU, GPU, IS_DRY_RUN, STAND_IN, Place

LINES = os.environ.get("GPU_CHECK_LINES")
SHARE = 30.0
"""Seconds that a test may take, where it doesn't say."""
CHARACTERS = 3000
"""So much of an error's end is kept."""
BROKEN = 70
"""The exit code where no further test can use the GPU in this process."""

if IS_DRY_RUN:
    stand_in.install()


def kind_of(item: Any) -> str:
    """Where ``item`` runs."""
    if not IS_DRY_RUN:
        return GPU
    marker = item.get_closest_marker("stands_in")
    return STAND_IN if marker is None else str(marker.args[0])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if IS_DRY_RUN else ():
        # the CPU's mse_loss.out, which only a device without an own mse_loss comes by
        item.add_marker(pytest.mark.filterwarnings("ignore:An output with one or more elements was resized"))


@pytest.fixture(autouse=True)
def place(request: pytest.FixtureRequest) -> Place:
    """Where this test runs."""
    kind = kind_of(request.node)
    if kind == GPU:
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        return Place(GPU, [0], torch.device("cuda", 0))
    return Place(kind, None, torch.device("cpu")) if kind == CPU else Place(kind, [0], stand_in.DEVICE)


def write(**entry: Any) -> None:
    if LINES is not None:
        with Path(LINES).open("a") as file:
            file.write(json.dumps(entry) + "\n")


def title_of(item: Any) -> str:
    return str(item.nodeid).split("tests/gpu/")[-1]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    write(test=nodeid.split("tests/gpu/")[-1], began=time.time())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "call" or report.outcome != "passed":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
        shows = " ".join((inspect.getdoc(item.function) or "").split("\n\n")[0].split())  # type: ignore[attr-defined]
        write(
            test=title_of(item),
            shows=shows,
            where=kind_of(item),
            outcome=report.outcome,
            seconds=round(report.duration, 2),
            error=reason[-CHARACTERS:],
            figures=dict(item.user_properties),
        )
    return report


@pytest.fixture(autouse=True)
def a_gpu_that_still_answers(place: Place) -> Iterator[None]:
    """Some errors leave a GPU useless to the process: then another process has to run the tests that are left."""
    yield
    if place.kind == GPU:
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except Exception as error:
            write(broken=f"{type(error).__name__}: {error}")
            os._exit(BROKEN)
