"""One thread, so that tests on a busy machine don't wait for each other; and nothing is fetched.

Where ``CI_NO_SKIPS`` is set, a test that needs root or Ray and is skipped is a failure: there it has to run.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the programs that tests start

import torch

torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    report = yield
    needed = item.get_closest_marker("root") or item.get_closest_marker("ray")
    if report.skipped and os.environ.get("CI_NO_SKIPS") and needed:
        report.outcome, report.longrepr = "failed", f"may not be skipped here: {report.longrepr}"
    return report


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--kills", type=int, default=10, help="how many runs tests/faults kills at random")
