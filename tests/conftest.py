"""One thread, so that tests on a busy machine don't wait for each other; and nothing is fetched."""

import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also for the programs that tests start

import torch

torch.set_num_threads(1)


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--kills", type=int, default=10, help="how many runs tests/faults kills at random")
