"""``Trainer.replay``: training once more, from a rolling save up to a batch."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor

from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.checkpoints.folders import open_folder
from pytorch_lightning.checkpoints.run_store import saves_in, step_of
from pytorch_lightning.errors import CheckpointError, FitError
from pytorch_lightning.root_module.root_module import LightningModule

HARMLESS = ("EarlyStopping", "ModelCheckpoint", "ProgressBar")
"""Callbacks whose absence changes no weight."""


class Reached(Exception):
    """The batch that was asked for is trained on."""


class Stop(Callback):
    """Ends a replay after batch ``step``."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step >= self._step:
            raise Reached


def save_before(folder: str, step: int) -> str:
    """The path of the newest save in ``folder`` from before batch ``step``. Raises ``CheckpointError`` without one."""
    names = saves_in(open_folder(folder).names())
    found = next((name for name in names if step_of(name) <= step), None)
    if found is None:
        there = f"it holds {', '.join(names)}" if names else "it holds no save"
        raise CheckpointError(
            f"batch {step} can't be replayed from {folder}: {there}, and a replay begins with one from before that"
            " batch. Train with save_every_nb_batches and keep_saves='spaced'."
        )
    return f"{folder}/{found}"


def options_of_replay(options: Mapping[str, Any], path: str, step: int, scratch: str) -> dict[str, Any]:
    """The options of a fit that resumes from the save at ``path`` to batch ``step``, and writes to ``scratch`` only."""

    def own(value: Any) -> Any:
        # one that writes leaves its place empty: the states in a save are positional
        return Callback() if isinstance(value, ModelCheckpoint) else deepcopy(value)

    return {
        **options,
        "experiment": False,
        "early_stop_callback": own(options["early_stop_callback"]),
        "checkpoint_callback": None,
        "callbacks": [*map(own, options["callbacks"]), Stop(step)],
        "progress_bar": False,
        "print_weights_summary": False,
        "profile": False,
        "resume": path,
        "default_save_path": scratch,
        "save_every_minutes": 0,
        "save_every_nb_batches": None,
        "max_time": None,
        "nb_processes": 1,
        "distributed_backend": None,
        "crash_bundle": False,
    }


def twin_of(module: LightningModule, *others: Any) -> tuple[Any, ...]:
    """A copy of ``module`` and of ``others``, which share what those share."""
    # a result that the module keeps has a graph, and can't be copied with it
    kept = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return deepcopy((module, *others), {id(value): value.detach().clone() for value in kept if not value.is_leaf})


def recorded(module: LightningModule, step: int) -> tuple[LightningModule, list[Any]]:
    """A copy of ``module``, and the list that will hold what its ``training_step`` returns for batch ``step``."""
    (twin,), outputs = twin_of(module), list[Any]()
    training_step = twin.training_step

    @functools.wraps(training_step)
    def record(*arguments: Any) -> Any:
        output = training_step(*arguments)
        if twin.global_step == step:
            outputs.append(output)
        return output

    twin.__dict__["training_step"] = record
    return twin, outputs


def replay_step(
    make_trainer: Callable[..., Any], options: Mapping[str, Any], module: LightningModule, folder: str, step: int
) -> Any:
    """See ``Trainer.replay``; ``make_trainer`` is the class. Raises ``FitError`` if training ends before ``step``."""
    path = save_before(folder, step)
    twin, outputs = recorded(module, step)
    with tempfile.TemporaryDirectory(prefix="replay_") as scratch, contextlib.suppress(Reached):
        make_trainer(**options_of_replay(options, path, step, scratch)).fit(twin)
    if not outputs:
        raise FitError(f"training ended before batch {step}. Pass a global_step that the run came to.")
    return outputs[0] if len(outputs) == 1 else outputs
