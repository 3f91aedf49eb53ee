"""Multiplies matrices on the GPU, then fits with ``deterministic=True``: ``python -m tests.gpu.too_late``."""

import os
from pathlib import Path

import torch

from tests.gpu.models import Plain, trainer_in


def main() -> None:
    if not os.environ.get("CUBLAS_WORKSPACE_CONFIG"):
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    matrix = torch.ones(4, 4, device="cuda")
    torch.mm(matrix, matrix)
    trainer_in(Path.cwd(), gpus=[0], deterministic=True).fit(Plain())


if __name__ == "__main__":
    main()
