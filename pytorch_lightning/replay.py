"""``python -m pytorch_lightning.replay BUNDLE --script train.py``: run the step of a crash bundle again, on the CPU.

The module is built from a class in ``train.py`` (``--module package.module`` imports one instead) and the arguments in
the bundle, gets the weights, the batch and the random numbers of the step, and runs ``on_batch_start``,
``training_step`` and the backward pass: so the exception is raised again. ``--pdb`` then opens the debugger where it
was raised. A bundle of a loader's error fetches that batch again, in this process.

A bundle never decides which code runs: it holds the name of a class, which must be a LightningModule that is defined in
the file or module that you name.
"""

import argparse
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from pytorch_lightning import seeding
from pytorch_lightning.checkpoints.bundle import OPTIONS, read_bundle
from pytorch_lightning.data.casting import place
from pytorch_lightning.data.combined import combine, is_several
from pytorch_lightning.data.loader import TORCHS
from pytorch_lightning.data.replayable import replayable
from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException, Notices, describe, one_line
from pytorch_lightning.precision import build_precision
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.root_module.loading import Call
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.root_module.tags import namespace_of
from pytorch_lightning.run.metrics import read_output
from pytorch_lightning.run.progress import Progress
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.weights import WindowWeights
from pytorch_lightning.trainer.nesting import without_fits
from pytorch_lightning.trainer.trainer import Trainer

__all__ = ["build_module", "find_model", "import_code", "main", "read_bundle", "replay"]

CPU = torch.device("cpu")


def main(arguments: list[str] | None = None, program: str = "python -m pytorch_lightning.replay") -> int:
    """The command line; returns the exit status, 1 for what can't be replayed, which is one line on stderr.

    ``arguments`` are its words, by default those of this process; ``program`` is the name that ``--help`` shows.
    """
    parser = argparse.ArgumentParser(program, description="Run a failing step again.")
    parser.add_argument("bundle", help="the file that the failing run wrote")
    code = parser.add_mutually_exclusive_group()
    code.add_argument("--script", help="the file that defines the model's class; it is run as if it were imported")
    code.add_argument("--module", help="the module that defines the model's class, package.module")
    parser.add_argument("--model", help="the name in it of another class, or of a function that returns the model")
    parser.add_argument("--pdb", action="store_true", help="open the debugger where the exception is raised")
    parser.add_argument("--refetch", action="store_true", help="fetch the batch from the model's own loader")
    given = parser.parse_args(arguments)
    try:
        bundle = read_bundle(given.bundle)
        say_what(bundle)
        make = find_model(import_code(given.script, given.module), bundle["module"], given.model)
        module = build_module(bundle, make)
        prepare(bundle, module)
    except (CheckpointError, MisconfigurationException) as error:
        print(error, file=sys.stderr)
        return 1
    run(bundle, module, refetch=given.refetch, debug=given.pdb)
    return 0


def say_what(bundle: dict[str, Any]) -> None:
    """Print which batch it was, and what was raised. Texts of the bundle are shown without what a terminal obeys."""
    kind, message = one_line(bundle["error"]["type"]), one_line(bundle["error"]["message"])
    place = f"epoch {bundle['epoch']}, batch_nb {bundle['batch_nb']}, global_step {bundle['global_step']}"
    print(f"{place}, samples {one_line(str(bundle['loader']['indices']))}: {kind}: {message}", flush=True)


def run(bundle: dict[str, Any], module: LightningModule, *, refetch: bool, debug: bool) -> None:
    """``replay``, with the debugger where it raises, if ``debug``."""
    torch.set_num_threads(bundle["threads"])  # sums depend on it
    torch.use_deterministic_algorithms(bool(bundle["options"].get("deterministic")))
    try:
        replay(bundle, module, refetch=refetch)
    except Exception as raised:
        if type(raised).__qualname__ != bundle["error"]["type"]:
            print(f"this isn't the {one_line(bundle['error']['type'])} of the bundle", file=sys.stderr)
        if not debug:
            raise
        import pdb
        import traceback

        traceback.print_exc()
        pdb.post_mortem(raised.__traceback__)
    else:
        print("no exception was raised", flush=True)


def replay(bundle: dict[str, Any], module: LightningModule, *, refetch: bool = False) -> None:
    """Run the step of ``bundle`` in ``module``, whose weights become the step's. ``refetch``: with the batch that the
    module's own loader gives, where the step has changed its batch before it failed. Raises ``CheckpointError`` where
    the bundle's state isn't this module's, and otherwise what the step raises."""
    progress = Progress(epoch=bundle["epoch"], batch_nb=bundle["batch_nb"], global_step=bundle["global_step"])
    trainer, precision = prepare(bundle, module)
    trainer._begin(module, FitRun(module=module, notices=Notices(), progress=progress))
    with seeding.preserved(), torch.enable_grad():
        if refetch or "batch" not in bundle:
            batch = fetch(bundle, module)
        else:
            batch = bundle["batch"]
        if bundle["kind"] != "loader":
            run_step(bundle, module, batch, progress, precision)


def fetch(bundle: dict[str, Any], module: LightningModule) -> Any:
    """The batch, from the module's own ``tng_dataloader``, in this process."""
    place, epoch = bundle["loader"], bundle["epoch"]
    number = place["batch_nb"]
    found, in_order = module.tng_dataloader, place["in_order"]
    if is_several(found):
        found = combine(found, module.tng_loaders_mode, in_order=in_order)
    loader = replayable(found, bundle["seed"], 0, in_order=in_order, here=True)
    loader.use_order(place.get("order", TORCHS))
    if place["indices"] is not None and loader.indices_at(epoch, number) != place["indices"]:
        raise FitError(
            f"the training loader gives other samples than in the run: {loader.indices_at(epoch, number)} as batch"
            f" {number} of epoch {epoch}, and then they were {place['indices']}. Use the data of that run."
        )
    return next(iter(loader.batches(epoch, number, number + 1)))


def prepare(bundle: dict[str, Any], module: LightningModule) -> tuple[Trainer, Precision]:
    """A trainer with the options of the run, and its precision, with ``module`` as the step found it.

    Raises ``CheckpointError`` where the bundle's state isn't this module's, and ``MisconfigurationException`` for
    options that no run could have had.
    """
    options = {name: value for name, value in bundle["options"].items() if name in OPTIONS and name != "deterministic"}
    trainer = Trainer(False, progress_bar=False, **{**options, "precision": bundle["precision"]})
    precision = build_precision(bundle["precision"], CPU)
    try:
        precision.load_state_dict(bundle["scaler"])
        place(module, CPU, precision.dtype)
        if bundle["kind"] != "loader":
            restore(bundle, module)
            inspect.signature(module.training_step).bind(*range(2 if bundle["optimizer_i"] is None else 3))
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"the state in the bundle isn't that of {type(module).__name__}: {one_line(str(error))}. Replay with the"
            " model that the run had; --model names another one."
        ) from error
    return trainer, precision


def run_step(
    bundle: dict[str, Any], module: LightningModule, batch: Any, progress: Progress, precision: Precision
) -> None:
    """``on_batch_start``, ``training_step`` and the backward pass, as the run did them."""
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
    value = loss.item()
    if count != 0 and not math.isfinite(value) and bundle["options"].get("stop_on_nan", True):
        said = bundle["error"]["message"]
        raise FitError(said if said.startswith("the loss isn't finite") else f"the loss isn't finite ({value})")
    size, counted, reference = bundle["window"]
    window = WindowWeights(size=size, counted=counted, reference=reference)
    if count != 0:
        precision.backward(window.weigh(loss, count))
    if bundle["kind"] == "hook":
        for parameter_name, parameter in module.named_parameters():
            parameter.grad = bundle["gradients"].get(parameter_name)
        module.on_after_backward()


def restore(bundle: dict[str, Any], module: LightningModule) -> None:
    """Weights, buffers, modes, and which parameters require gradients."""
    module.load_state_dict(bundle["state_dict"])
    for name, buffer in module.named_buffers():
        if name in bundle["buffers"]:
            buffer.data = bundle["buffers"][name].clone()
    for name, submodule in module.named_modules():
        submodule.training = name not in bundle["evaluated"]
    for name, parameter in module.named_parameters():
        parameter.requires_grad = name not in bundle["frozen"]


def build_module(bundle: dict[str, Any], make: Callable[..., Any]) -> LightningModule:
    """What ``make``, a class or a function, returns for the arguments and hparams in ``bundle``; a function gets none.

    Raises ``CheckpointError`` where an argument isn't in the bundle, and ``MisconfigurationException`` where ``make``
    needs others than it ever got, or gives something else than a model.
    """
    if inspect.isclass(make) and (bundle.get("init_arguments") or {}).get("call") is not None:
        advice = "Pass --model NAME, the name of a function beside it that returns the model."
        module: Any = Call(make, "the bundle", bundle, advice).construct()
    else:
        module = make(*hparams_for(bundle, make))
    if not isinstance(module, LightningModule):
        raise MisconfigurationException(f"{make.__name__} gives {describe(module)}, and a LightningModule is needed.")
    return module


def hparams_for(bundle: dict[str, Any], make: Callable[..., Any]) -> tuple[Any, ...]:
    """The arguments of ``make`` where nothing is known of its last call: a class gets the hparams, if it takes any."""
    hparams = bundle["hparams"]
    if hparams is not None and not bundle["hparams_is_dict"]:
        hparams = namespace_of(hparams, "the bundle")
    signature = inspect.signature(make)
    arguments = (hparams,) if hparams is not None and signature.parameters and inspect.isclass(make) else ()
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise MisconfigurationException(
            f"{make.__name__}{signature} can't be built from the hparams in the bundle: {error}. Pass"
            " --model NAME, the name of a function beside it that returns the model."
        ) from error
    return arguments


def find_model(code: ModuleType, name: str, model: str | None = None) -> Callable[..., Any]:
    """The class called ``name`` in ``code``, or what ``model`` names: what the person who replays names may also be
    imported there, or a function.

    ``name`` comes out of a file. So it must be that of a LightningModule that ``code`` itself defines; nothing is
    called to find that out. Raises ``MisconfigurationException`` for anything else.
    """
    found: Any = code
    for part in (name if model is None else model).split("."):
        found = vars(found).get(part) if issubclass(type(found), (ModuleType, type)) else None
    is_model = issubclass(type(found), type) and issubclass(found, LightningModule)
    if model is None:
        is_model = is_model and (found.__module__, found.__qualname__) == (code.__name__, name)
    elif callable(found) and not isinstance(found, type):
        return found  # type: ignore[no-any-return]
    if is_model:
        return found  # type: ignore[no-any-return]
    own = own_models(code)
    what = repr(model) if model is not None else f"'{one_line(name)}', which the bundle names,"
    raise MisconfigurationException(
        f"{what} isn't a LightningModule defined in {getattr(code, '__file__', code.__name__)}, which defines"
        f" {', '.join(own) or 'none'}. Pass the --script or --module that defines it, or another name with --model."
    )


def own_models(code: ModuleType) -> list[str]:
    """The names of the LightningModules that ``code`` itself defines."""
    return [
        n for n, c in vars(code).items()
        if isinstance(c, type) and issubclass(c, LightningModule) and c.__module__ == code.__name__
    ]  # fmt: skip


def import_code(script: str | None = None, module: str | None = None) -> ModuleType:
    """The file ``script``, run as if it were imported, or the ``module`` of that name.

    Raises ``MisconfigurationException`` where it can't be imported, or starts a fit meanwhile.
    """
    if script is None and module is None:
        raise MisconfigurationException(
            "which code is it? A bundle names a class only. Pass --script FILE or --module package.module, which"
            " defines that class; the run printed one of them."
        )
    try:
        with without_fits(script or module):
            if script is None:
                return importlib.import_module(str(module))
            sys.path.insert(0, str(Path(script).absolute().parent))
            spec: Any = importlib.util.spec_from_file_location("replayed_script", script)
            if spec is None:
                raise ImportError("it isn't a python file")
            code = sys.modules["replayed_script"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(code)
            return code
    except (ImportError, OSError) as error:
        raise MisconfigurationException(
            f"{script or module} can't be imported: {error}. Pass --script FILE, or --module package.module with the"
            " folder of that package in PYTHONPATH."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
