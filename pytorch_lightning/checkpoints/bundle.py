"""The layout of a crash bundle: what a file must hold before a step is replayed from it.

A bundle names the model's class and nothing else of the program: the person who replays it chooses which code runs.
"""

from pathlib import Path
from typing import Any

from pytorch_lightning.checkpoints.layout import (
    SIMPLE,
    Fits,
    anything,
    is_a,
    is_tensor,
    known,
    named,
    number,
    or_none,
    record,
    row,
    texts,
    unfit,
)
from pytorch_lightning.checkpoints.store import read_checkpoint
from pytorch_lightning.errors import CheckpointError, describe

FORMAT = 3
"""The number of this layout."""

OPTIONS = (
    "precision", "max_nb_epochs", "min_nb_epochs", "accumulate_grad_batches", "stop_on_nan", "deterministic",
)  # fmt: skip
"""The options of the Trainer that a step may look at. No others are in a bundle: their values may be private."""

FIELDS: dict[str, Fits] = {
    "kind": lambda value: type(value) is str and value in ("step", "hook", "loader"),
    "module": is_a(str),
    "error": record(type=is_a(str), message=is_a(str)),
    "threads": number(1, 1024),
    "seed": number(-(2**63), 2**64),
    "epoch": number(),
    "batch_nb": number(),
    "global_step": number(),
    "virtual_rank": number(),
    "virtual_ranks": number(1),
    "optimizer_i": or_none(number(0, 1000)),
    "window": row(number(1), is_a(bool, type(None)), is_a(int, float)),
    "loader": lambda value: (
        record(batch_nb=number(), indices=anything, in_order=is_a(bool))(value) and known(order=number(1, 2))(value)
    ),
    "hparams": or_none(named(anything)),
    "hparams_is_dict": is_a(bool),
    "init_arguments": record(call=anything, hparams_argument=anything, hparams_kinds=anything),
    "options": named(SIMPLE),
    "precision": is_a(str),
    "scaler": named(anything),
}
"""What every bundle holds."""

STATE: dict[str, Fits] = {
    "state_dict": named(anything),
    "buffers": named(is_tensor),
    "buffers_kept": is_a(bool),
    "evaluated": texts,
    "frozen": texts,
    "gradients": named(is_tensor),
}
"""What is there beside where a batch was being trained on."""


def read_bundle(path: str | Path) -> dict[str, Any]:
    """The bundle at ``path``. No code runs. Raises ``CheckpointError`` for a file that is damaged, of another kind, or
    of another version."""
    bundle = read_checkpoint(path)
    if type(bundle.get("bundle")) is not int or bundle["bundle"] != FORMAT:
        held = describe(sorted(map(str, bundle)))
        raise CheckpointError(f"{path} isn't a crash bundle of this version; it holds {held}.")
    wanted = FIELDS if bundle.get("kind") == "loader" else {**FIELDS, **STATE}
    found = unfit(bundle, wanted)
    if found is not None:
        raise CheckpointError(f"{path} isn't a whole crash bundle: {found}. Use the file as the run wrote it.")
    return bundle
