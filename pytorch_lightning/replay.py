"""``python -m pytorch_lightning.replay BUNDLE``: run the step of a crash bundle again, on the CPU.

The module is built from its class and the ``hparams`` in the bundle, gets the weights, the batch and the random
numbers of the step, and runs ``on_batch_start``, ``training_step`` and the backward pass: so the exception is raised
again. ``--pdb`` then opens the debugger where it was raised. A bundle of a loader's error fetches that batch again, in
this process.
"""

import argparse
import importlib
import importlib.util
import inspect
import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning import seeding
from pytorch_lightning.checkpoints.store import read_checkpoint
from pytorch_lightning.data.replayable import replayable
from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException, Notices, noting
from pytorch_lightning.precision import build_precision
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.metrics import check_loss, read_output
from pytorch_lightning.run.progress import Progress
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.step_inputs import WindowWeights
from pytorch_lightning.trainer.trainer import Trainer

SHOWN = ("precision", "max_nb_epochs", "min_nb_epochs", "accumulate_grad_batches", "stop_on_nan")
"""Options that a step may look at, through ``self.trainer``."""

CPU = torch.device("cpu")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m pytorch_lightning.replay", description="Run a failing step again.")
    parser.add_argument("bundle", help="the file that the failing run wrote")
    parser.add_argument("--pdb", action="store_true", help="open the debugger where the exception is raised")
    parser.add_argument("--model", help="module:Class, or module:function that returns the model")
    parser.add_argument("--refetch", action="store_true", help="fetch the batch from the model's own loader")
    given = parser.parse_args(arguments)
    bundle = read_bundle(given.bundle)
    torch.set_num_threads(bundle["threads"])  # sums depend on it
    torch.use_deterministic_algorithms(bool(bundle["options"].get("deterministic")))
    error, loader = bundle["error"], bundle["loader"]
    print(
        f"epoch {bundle['epoch']}, batch_nb {bundle['batch_nb']}, global_step {bundle['global_step']}, samples"
        f" {loader['indices']}: {error['type']}: {error['message']}",
        flush=True,
    )
    try:
        replay(bundle, build_module(bundle, given.model), refetch=given.refetch)
    except Exception as raised:
        if type(raised).__qualname__ != error["type"]:
            print(f"this isn't the {error['type']} of the bundle", file=sys.stderr)
        if not given.pdb:
            raise
        import pdb
        import traceback

        traceback.print_exc()
        pdb.post_mortem(raised.__traceback__)
    else:
        print("no exception was raised", flush=True)


def read_bundle(path: str | Path) -> dict[str, Any]:
    """The bundle at ``path``. Raises ``CheckpointError`` for another kind of file."""
    bundle = read_checkpoint(path)
    if bundle.get("bundle") != 1:
        raise CheckpointError(f"{path} isn't a crash bundle of this version; it holds {sorted(map(str, bundle))[:8]}.")
    return bundle


def replay(bundle: dict[str, Any], module: LightningModule, *, refetch: bool = False) -> None:
    """Run the step of ``bundle`` in ``module``, whose weights become the step's. ``refetch``: with the batch that the
    module's own loader gives, where the step has changed its batch before it failed."""
    progress = Progress(epoch=bundle["epoch"], batch_nb=bundle["batch_nb"], global_step=bundle["global_step"])
    shown = {name: value for name, value in bundle["options"].items() if name in SHOWN}
    trainer = Trainer(False, progress_bar=False, **shown)
    trainer._begin(module, FitRun(module=module, notices=Notices(), progress=progress))
    with seeding.preserved(), torch.enable_grad():
        if refetch or "batch" not in bundle:
            batch = fetch(bundle, module)
        else:
            batch = bundle["batch"]
        if bundle["kind"] != "loader":
            run_step(bundle, module, batch, progress)


def fetch(bundle: dict[str, Any], module: LightningModule) -> Any:
    """The batch, from the module's own ``tng_dataloader``, in this process."""
    place, epoch = bundle["loader"], bundle["epoch"]
    number = place["batch_nb"]
    loader = replayable(module.tng_dataloader, bundle["seed"], 0, in_order=place["in_order"], here=True)
    if place["indices"] is not None and loader.indices_at(epoch, number) != place["indices"]:
        raise FitError(
            f"the training loader gives other samples than in the run: {loader.indices_at(epoch, number)} as batch"
            f" {number} of epoch {epoch}, and then they were {place['indices']}. Use the data of that run."
        )
    return next(iter(loader.batches(epoch, number, number + 1)))


def run_step(bundle: dict[str, Any], module: LightningModule, batch: Any, progress: Progress) -> None:
    """``on_batch_start``, ``training_step`` and the backward pass, as the run did them."""
    precision = build_precision(bundle["precision"], CPU)
    precision.load_state_dict(bundle["scaler"])
    module.to(CPU, precision.dtype)
    restore(bundle, module)
    step, name = precision.forward(module.training_step), f"training_step of {type(module).__name__}"
    optimizer_i, alone = bundle["optimizer_i"], bundle["virtual_ranks"] == 1
    key = (bundle["seed"], seeding.MODEL, progress.global_step, bundle["virtual_rank"])
    seeding.seed_streams(*key)
    module.on_batch_start(batch)
    transfer = build_transfer(CPU, precision.dtype)
    batch = batch if transfer is None else transfer(batch)
    if not alone:
        seeding.seed_streams(*key, optimizer_i or 0)
    for earlier in range(optimizer_i or 0) if alone else ():  # they draw from the same streams first
        step(batch, progress.batch_nb, earlier)
        restore(bundle, module)
    output = step(batch, progress.batch_nb, *(() if optimizer_i is None else (optimizer_i,)))
    loss, _, count = read_output(output, name, progress)
    if not loss.requires_grad or loss.numel() != 1:
        check_loss(loss, name, progress)
    value = loss.item()
    if not math.isfinite(value) and bundle["options"].get("stop_on_nan", True):
        said = bundle["error"]["message"]
        raise FitError(said if said.startswith("the loss isn't finite") else f"the loss isn't finite ({value})")
    size, counted, reference = bundle["window"]
    window = WindowWeights(size=size, counted=counted, reference=reference)
    precision.backward(loss if size == 1 else window.weigh(loss, count))
    if bundle["kind"] == "hook":
        for parameter_name, parameter in module.named_parameters():
            parameter.grad = bundle["gradients"].get(parameter_name)
        module.on_after_backward()


def restore(bundle: dict[str, Any], module: LightningModule) -> None:
    """Weights, buffers, modes, and which parameters require gradients."""
    with noting("the weights in the bundle aren't this model's: pass --model with the one that the run had"):
        module.load_state_dict(bundle["state_dict"])
    for name, buffer in module.named_buffers():
        if name in bundle["buffers"]:
            buffer.data = bundle["buffers"][name].clone()
    for name, submodule in module.named_modules():
        submodule.training = name not in bundle["evaluated"]
    for name, parameter in module.named_parameters():
        parameter.requires_grad = name not in bundle["frozen"]


def build_module(bundle: dict[str, Any], model: str | None = None) -> LightningModule:
    """A module of the class in ``bundle``, or of ``model`` ('module:Class', or a function that returns it).

    Raises ``MisconfigurationException`` where it can't be imported, or needs arguments that hparams don't hold.
    """
    make, hparams = load_class(bundle["module"], model), bundle["hparams"]
    if hparams is not None and not bundle["hparams_is_dict"]:
        hparams = Namespace(**hparams)
    signature = inspect.signature(make)
    arguments = (hparams,) if hparams is not None and signature.parameters and inspect.isclass(make) else ()
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise MisconfigurationException(
            f"{make.__name__}{signature} can't be built from the hparams in the bundle: {error}. Pass"
            " --model module:function, a function that returns the model."
        ) from error
    return make(*arguments)  # type: ignore[no-any-return]


def load_class(place: dict[str, Any], model: str | None) -> Any:
    """The class at ``place``, or what ``model`` names."""
    module_name, _, name = model.partition(":") if model else (place["module"], "", place["name"])
    file = place["file"]
    try:
        with _importing(file, module_name):
            found: Any
            if module_name in ("__main__", "__mp_main__"):
                spec: Any = importlib.util.spec_from_file_location("replayed_script", file or "it was a notebook's")
                found = sys.modules["replayed_script"] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(found)
            else:
                found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
        return found
    except (ImportError, AttributeError, OSError) as error:
        raise MisconfigurationException(
            f"{name} of {file or module_name} can't be imported: {error}. Pass --model module:Class, or"
            " --model module:function, with the folder of that module in PYTHONPATH."
        ) from error


@contextmanager
def _importing(file: str | None, module_name: str) -> Iterator[None]:
    """A scope in which the folder of ``module_name`` is on the path, and a fit at the top level of a script is an
    error."""
    if file is not None:
        sys.path.append(str(Path(file).parents[module_name.count(".")]))
    fit: Any = Trainer.fit

    def refuse(*_: Any) -> int:
        raise MisconfigurationException(
            f"{file} starts a fit when it is imported. Put those lines under `if __name__ == '__main__':`, or pass"
            " --model module:Class with another file."
        )

    Trainer.fit = refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Trainer.fit = fit  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
