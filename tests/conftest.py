"""One thread, so that tests on a busy machine don't wait for each other; and nothing is fetched.

Where ``CI_NO_SKIPS`` names a marker (``root``, ``ray``), a test that has it and is skipped is a failure.
"""

import os
import signal
from collections.abc import Generator
from typing import Any

import pytest

# ignored in what a shell starts with &, and so in all that tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the programs that tests start

import torch

torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and any(item.get_closest_marker(name) for name in os.environ.get("CI_NO_SKIPS", "").split()):
        report.outcome, report.longrepr = "failed", f"may not be skipped here: {report.longrepr}"
    return report


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--kills",
        type=int,
        help="how many runs of small models tests/faults kills at random, and how often it kills the template of the"
        " examples at random times (default: 10 and 2)",
    )
    parser.addoption(
        "--kills-at-points",
        type=int,
        default=3,
        help="how often tests/faults kills the template of the examples at named points (default: 3)",
    )
