"""Where the tests of this folder run: on a GPU, or, for a trial, on what stands in for it.

Without a GPU they are skipped, unless ``GPU_CHECK=dry-run`` is set, as ``scripts/gpu_check --dry-run`` does. Then each
takes what its marker ``stands_in`` names: the ``stand_in`` device (the default), or the CPU.
"""

import os
from collections.abc import Iterator

import pytest
import torch

from tests.gpu import stand_in
from tests.gpu.noting import write
from tests.gpu.places import CPU, GPU, IS_DRY_RUN, Place, kind_of

BROKEN = 70
"""The exit code where no further test can use the GPU in this process."""

if IS_DRY_RUN:
    stand_in.install()


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


@pytest.fixture(autouse=True)
def a_gpu_that_still_answers(place: Place) -> Iterator[None]:
    """Some errors leave a GPU useless to the process: then another process has to run the tests that are left."""
    yield
    if place.is_gpu:
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except Exception as error:
            write(broken=f"after this test the GPU doesn't answer: {type(error).__name__}: {error}")
            os._exit(BROKEN)
