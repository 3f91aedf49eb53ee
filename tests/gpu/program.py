"""A program that trains ``Images`` for the tests of this folder: ``python -m tests.gpu.program OPTIONS``, which are
JSON: those of a Trainer, ``kill_at`` (a ``global_step``: it kills itself there, the first time) and ``weights`` (the
file that gets them at the end)."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from tests.gpu.models import Images, bits_of, trainer_in


def main() -> None:
    options: dict[str, Any] = json.loads(sys.argv[1])
    kill_at, weights = options.pop("kill_at", None), options.pop("weights", None)
    mark = Path("killed")

    def kill(global_step: int) -> None:
        if global_step == kill_at and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    model = Images(at=kill)
    trainer = trainer_in(Path.cwd(), **options)
    trainer.fit(model)
    print(f"trained on {next(model.parameters()).device.type}, from batch {model.global_step - len(model.losses)}")
    if weights is not None:
        torch.save({"weights": bits_of(model), "losses": [float(loss) for loss in model.losses]}, weights)


if __name__ == "__main__":
    main()
