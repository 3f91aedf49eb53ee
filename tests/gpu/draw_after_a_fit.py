"""Fits on so many batches, then draws a number on the GPU: ``python -m tests.gpu.draw_after_a_fit NB``."""

import sys
from pathlib import Path

import torch

from tests.gpu.models import Plain, trainer_in
from tests.gpu.places import IS_DRY_RUN


def main() -> None:
    nb_batches = int(sys.argv[1])
    model = Plain(nb_batches=nb_batches or 1)
    torch.manual_seed(5)
    if nb_batches:
        trainer_in(Path.cwd(), gpus=[0]).fit(model)
    device = "standin" if IS_DRY_RUN else "cuda"
    print(f"drew {float(torch.rand((), device=device)):.6f}")


if __name__ == "__main__":
    main()
