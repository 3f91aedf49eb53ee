"""A program that trains ``Images`` for the tests of this folder: ``python -m tests.gpu.program OPTIONS``, which are
JSON: those of a Trainer, and ``kill_at``, a ``global_step`` at which it kills itself."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.gpu.models import Images, trainer_in


def main() -> None:
    options: dict[str, Any] = json.loads(sys.argv[1])
    kill_at = options.pop("kill_at", None)

    def kill(global_step: int) -> None:
        if global_step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    model = Images(at=kill)
    trainer = trainer_in(Path.cwd(), **options)
    trainer.fit(model)
    print(f"trained on {next(model.parameters()).device.type}, from batch {model.global_step - len(model.losses)}")


if __name__ == "__main__":
    main()
