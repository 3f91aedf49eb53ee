"""``python -m pytorch_lightning samples RUN BATCH --script train.py``: the dataset indices of any batch of a run.

The order of the data is a function of (seed, epoch, batch number), and a save holds the seed: so the samples of any
batch of the run can be told later, whatever was logged. The model is built from a class in ``train.py`` (``--module
package.module`` imports one instead) and the arguments in the newest save, and nothing is trained or written.
``--loss`` trains a copy from the nearest save before that batch up to it, and runs ``training_step`` of each of its
samples alone.

A run never decides which code runs: the class must be defined in the file or module that you name.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pytorch_lightning.checkpoints.checkpoint import upgrade
from pytorch_lightning.checkpoints.folders import open_folder
from pytorch_lightning.checkpoints.run_store import saves_in
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.errors import CheckpointError, FitError, LightningError, MisconfigurationException, one_line
from pytorch_lightning.options.config import OBJECT_OPTIONS
from pytorch_lightning.options.option_files import NAME, read_values
from pytorch_lightning.replay import build_module, find_model, import_code, own_models
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.trainer.locating import Locate, Located, note_losses
from pytorch_lightning.trainer.replaying import HARMLESS, Reached, options_of_replay, save_before
from pytorch_lightning.trainer.trainer import Trainer, option_defaults

HERE = {"compile": False, "gpus": None, "nb_gpu_nodes": 1, "fast_dev_run": False}
"""Options that are others than in the run: everything is done in one process, on the CPU."""
SILENT = ("absent-callbacks", "no-validation", "never-validated", "not-shuffled")


def main(words: list[str] | None = None) -> int:
    """The command line; returns the exit status. What can't be told exactly is one line on stderr."""
    parser = argparse.ArgumentParser(
        "python -m pytorch_lightning samples", description="Print the dataset indices of a batch of a run."
    )
    parser.add_argument("run", help="the folder of the run, such as .../version_0, or a save of it")
    parser.add_argument("batch", type=int, help="its global_step: the number of batches before it, over all epochs")
    code = parser.add_mutually_exclusive_group(required=True)
    code.add_argument("--script", help="the file that defines the model's class; it is run as if it were imported")
    code.add_argument("--module", help="the module that defines the model's class, package.module")
    parser.add_argument("--model", help="the name in it of another class, or of a function that returns the model")
    parser.add_argument("--loss", action="store_true", help="also the loss of each sample, computed anew")
    given = parser.parse_args(words)
    try:
        path = newest_save(given.run)
        saved = upgrade(read_any(path), path)
        options, folder = options_of(path, parser)
        make = model_of(import_code(given.script, given.module), os.path.basename(os.path.dirname(folder)), given.model)

        def build() -> LightningModule:
            return build_module({"hparams_is_dict": False, **saved}, make)

        found = where(build(), options, path, saved, given.batch)
        losses = losses_at(build(), options, given.run, path, given.batch, found) if given.loss else None
    except LightningError as error:
        print(error, file=sys.stderr)
        return 1
    show(given.batch, found, losses)
    if given.batch >= saved["global_step"]:
        print(f"{path} is from before that batch: it is what a resumed run trains on", file=sys.stderr)
    return 0


def newest_save(run: str) -> str:
    """The path of the newest save of ``run``, a folder; or ``run`` itself, a save. Raises ``CheckpointError`` without
    one."""
    names = saves_in(open_folder(f"{run}/checkpoints").names())
    if not names and os.path.isdir(run) and not saves_in([os.path.basename(os.path.normpath(run))]):
        raise CheckpointError(
            f"{run} holds no rolling save, whose seed and place are needed. Pass the folder of a run that has saves, or"
            " a whole checkpoint of the run; train with save_every_nb_batches."
        )
    return f"{run}/checkpoints/{names[0]}" if names else run


def options_of(
    path: str, parser: argparse.ArgumentParser, here: Mapping[str, Any] = HERE
) -> tuple[dict[str, Any], str]:
    """The Trainer's options of the run that the save at ``path`` is of, but for those that are others ``here``, and its
    folder. Objects aren't among them."""
    parent = os.path.dirname(os.path.abspath(path))
    folder = next((each for each in (parent, os.path.dirname(parent)) if os.path.isfile(f"{each}/{NAME}")), None)
    if folder is None:
        raise MisconfigurationException(
            f"neither the folder of {path} nor the one above it has an {NAME}, with the options of the run. Pass a save"
            " that lies in the run's folder."
        )
    known = [name for name in option_defaults() if name not in OBJECT_OPTIONS]
    return {**option_defaults(), **read_values(parser, f"{folder}/{NAME}", known), **here, "silence": SILENT}, folder


def model_of(code: ModuleType, name: str, model: str | None) -> Any:
    """What makes the module: ``model`` in ``code``, or the class there that is called ``name``, as the run is, or its
    only one."""
    own = own_models(code)
    if model is None and name not in own and len(own) > 1:
        raise MisconfigurationException(f"of which class is the run: {', '.join(own)}? Pass --model NAME.")
    return find_model(code, name if name in own or not own else own[0], model)


def where(module: LightningModule, options: dict[str, Any], path: str, saved: dict[str, Any], step: int) -> Located:
    """Batch ``step`` of the run. Raises ``FitError`` where that isn't known for sure."""
    if step < 0:
        raise FitError(f"there is no batch {step}. Pass a global_step, from 0 on.")
    if "parts" not in saved:
        raise CheckpointError(f"{path} holds weights only, and nothing of the data. Pass a whole checkpoint.")
    finder = Locate(saved, step)
    with tempfile.TemporaryDirectory(prefix="samples_") as scratch, contextlib.suppress(Reached):
        Trainer(**{**options_of_replay(options, path, step, scratch), "callbacks": [finder]}).fit(module)
    return finder.found


def losses_at(
    module: LightningModule, options: dict[str, Any], run: str, path: str, step: int, found: Located
) -> dict[int, list[tuple[Any, float | None]]]:
    """The loss of each sample of batch ``step``, which is ``found``, by virtual rank: see ``locating.losses_of``."""
    path = path if path == run else save_before(os.path.dirname(path), step)
    saved = upgrade(read_any(path), path)
    states = saved["parts"]["callbacks"]
    unknown = sorted({name.rpartition(" ")[0] for name in states if states[name]} - {*HARMLESS})
    problem = None
    if saved["global_step"] > step:
        problem = f"{path} is from after that batch. Pass the folder of the run, or an earlier save"
    elif saved["global_step"] < step and unknown:
        problem = f"the run had callbacks that may change what is trained: {', '.join(unknown)}"
    elif not module.automatic_optimization:
        problem = "training_step makes its own steps"
    elif len(saved["optimizer_states"]) > 1:
        problem = "there are several optimizers"
    if problem is not None:
        raise FitError(f"the losses of batch {step} can't be computed again: {problem}.")
    losses = note_losses(module, step, sum(indices is not None for indices in found.indices))
    with tempfile.TemporaryDirectory(prefix="samples_") as scratch, contextlib.suppress(Reached):
        Trainer(**options_of_replay(options, path, step, scratch)).fit(module)
    if not losses:
        raise FitError(f"training ended before batch {step}. Pass a global_step that the run came to.")
    return losses


def show(step: int, found: Located, losses: dict[int, list[tuple[Any, float | None]]] | None) -> None:
    """Print a line for each virtual rank, or for each sample with its loss."""
    print(f"global_step {step}: epoch {found.epoch}, batch_nb {found.batch_nb}")
    for rank, indices in enumerate(found.indices):
        of_rank = f"virtual rank {rank}: " if len(found.indices) > 1 else ""
        if losses is None or indices is None:
            print(of_rank + line_of(indices))
        for index, loss in losses.get(rank, ()) if losses is not None else ():
            print(f"{of_rank}{one_line(str(index))} {'none' if loss is None else f'{loss:.9g}'}")


def line_of(indices: Any) -> str:
    """What a sampler gave, in one line.

    >>> line_of([3, 1, 2]), line_of(5), line_of(None), line_of([[1, 2], [3]])
    ('3 1 2', '5', 'no batch', '[1, 2] [3]')
    """
    if indices is None:
        return "no batch"
    each = indices if isinstance(indices, (list, tuple)) else [indices]
    return " ".join(str(index) for index in each)


if __name__ == "__main__":
    sys.exit(main())
