"""The programs of ``steering`` in two processes: ``python -m tests.faults.steering_together FOLDER FIRST NB``."""

import random
import sys
from typing import Any

from tests.faults import steering
from tests.faults.changing_together import import_all, run_all

NB_PROCESSES = 2


def made_of(seed: int) -> dict[str, Any]:
    """A program of ``steering``, and how it is shared out."""
    made, lot = steering.draw(seed), random.Random(f"{seed}, steered together")
    made |= {
        "nb": NB_PROCESSES,
        "strategy": lot.choice(("ddp", "ddp", "fsdp")),
        "norm": made["norm"] and not made["by_hand"],  # each process has its own statistics
        "cuts": [(*cut, lot.choice((None, 0, 1))) for cut in made["cuts"]],
    }
    if made["manual"] or made["unfreezes"] or made["skips"] or isinstance(made["window"], str):
        made["strategy"] = "ddp"
    return made


def train(rank: int, folder: str, made: dict[str, Any], cut: Any) -> None:
    options = {"distributed_backend": made["strategy"], "process_timeout_minutes": 0.5}
    options["uneven_batches"] = "drop" if made["manual"] else "wait"  # own steps need a batch in each process
    steering.train(folder, made, cut, NB_PROCESSES, rank, **options)


def main(folder: str, first: str, nb: str) -> None:
    import_all()
    run_all(folder, range(int(first), int(first) + int(nb)), made_of, train)


if __name__ == "__main__":
    main(*sys.argv[1:])
