"""What the tests of this folder ask of the place where they run."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

IS_DRY_RUN = os.environ.get("GPU_CHECK") == "dry-run"
GPU, STAND_IN, CPU = "GPU", "stand-in", "CPU"

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """Where a test runs."""

    kind: str
    """``GPU``, ``STAND_IN`` or ``CPU``."""
    gpus: list[int] | None
    """What a Trainer gets as ``gpus``."""
    device: torch.device

    @property
    def is_gpu(self) -> bool:
        """Whether this is the real thing."""
        return self.kind == GPU

    @property
    def autocast(self) -> str:
        """What autocast and a gradient scaler call the device."""
        return self.device.type

    def wait(self) -> None:
        """Return when the device has done all that it was given."""
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()


def kind_of(item: Any) -> str:
    """Where the test ``item`` runs."""
    if not IS_DRY_RUN:
        return GPU
    marker = item.get_closest_marker("stands_in")
    return STAND_IN if marker is None else str(marker.args[0])


def run_program(
    folder: Path, module: str, *arguments: str, without_device: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module arguments`` in ``folder``. ``without_device``: as on a machine that has only a CPU."""
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    if without_device:
        environment.update(GPU_CHECK="", CUDA_VISIBLE_DEVICES="")
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
