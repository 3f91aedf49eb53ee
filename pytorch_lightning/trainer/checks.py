"""Checks before the first batch."""

from collections.abc import Callable, Mapping, Sequence
from itertools import islice, product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Subset

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.checkpoint import module_part
from pytorch_lightning.checkpoints.folders import is_remote
from pytorch_lightning.data.casting import COMPLEX, tensors_of
from pytorch_lightning.data.combined import is_several, named, parts_of
from pytorch_lightning.data.loader import length_of
from pytorch_lightning.data.replayable import shuffles
from pytorch_lightning.errors import Notices, Problem, attempt, describe, noting
from pytorch_lightning.options.config import Config
from pytorch_lightning.precision.full import DTYPES
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import ALONE, Processes, Share
from pytorch_lightning.root_module.elsewhere import BeforeInit
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.hooks import (
    is_overridden,
    missing,
    returns_nothing,
    takes_one_more,
    wrongly_signed,
    wrongly_signed_callbacks,
)
from pytorch_lightning.steps.optimizers import needs_closure, parameters_of
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.trainer.explaining import helping

T = TypeVar("T")

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
SHARES = ("train_percent_check", "val_percent_check", "test_percent_check")


def reading(module: LightningModule, name: str, function: Callable[[], T], processes: Processes = ALONE) -> T:
    """What ``function`` gives, which runs the hook ``name``, first in the first of ``processes`` on each machine; a
    user's exception gets a note of where that was."""
    with noting(f"raised by {name} of {type(module).__name__}, before the first batch"), helping():
        with processes.first_here_first():
            return function()


def hook_problems(module: LightningModule, callbacks: Sequence[Callback]) -> list[Problem]:
    """Hooks that a fit needs and that are missing, or can't be called."""
    problems = missing(module, ["training_step", "configure_optimizers", "tng_dataloader"])
    validates = ["val_dataloader", "validation_step"]
    there = [name for name in (*validates, "validation_end") if is_overridden(module, name)]
    # a test may use the steps of validation, so the loader decides where a test is all that is meant
    if there and ("val_dataloader" in there or not is_overridden(module, "test_dataloader")):
        problems += missing(module, validates)
    step = module.training_step if is_overridden(module, "training_step") else None
    if module.automatic_optimization and returns_nothing(step):
        what = f"{type(module).__name__}.training_step returns nothing, so there is no loss to train on"
        problems.append(Problem(what, do="Return {'loss': loss}"))
    return problems + wrongly_signed(module) + wrongly_signed_callbacks(callbacks)


def needs_init(module: LightningModule) -> bool:
    """Whether ``LightningModule.__init__`` wasn't called."""
    parts = module.__dict__.get("_parameters")
    return parts is None or isinstance(parts, BeforeInit) or not hasattr(module, "hparams")


def has_validation(module: LightningModule) -> bool:
    """Whether ``module`` says how it is validated."""
    return is_overridden(module, "val_dataloader")


def optimizer_problems(
    module: LightningModule,
    optimizers: Sequence[Optimizer],
    takes_optimizer: bool,
    precision: Precision,
    strategy: Strategy,
) -> list[Problem]:
    """Optimizers that can't train anything of ``module``, or not in this precision or by this strategy."""
    problems = []
    for optimizer in optimizers:
        name = type(optimizer).__name__
        if not any(p.requires_grad for p in parameters_of([optimizer])):
            problems.append(
                Problem(f"{name} has no parameter that requires gradients", do="Unfreeze some, or give it others")
            )
        refusal = precision.refusal(optimizer)
        if refusal is not None:
            problems.append(Problem(f"{name} doesn't work with precision={precision.name!r}: {refusal}"))
        refusal = strategy.refusal(optimizer)
        if refusal is not None:
            problems.append(Problem(f"{name} doesn't work with distributed_backend={strategy.name!r}: {refusal}"))
        if needs_closure(optimizer) and len(optimizers) > 1 and not takes_optimizer:
            problems.append(
                Problem(
                    f"{name} evaluates the loss several times, so it can't share one loss with other optimizers",
                    do="Write def training_step(self, data_batch, batch_nb, optimizer_i)",
                )
            )
    own = {id(p) for p in module.parameters() if p.requires_grad}
    # layers in a plain list are trained all the same: a line says what is lost
    if not problems and own and not own & {id(p) for p in parameters_of(optimizers)} and not unregistered(module):
        name = type(module).__name__
        received = f"{len(parameters_of(optimizers))} parameters of something else"
        advice = "Write torch.optim.Adam(self.parameters())"
        problems.append(
            Problem(f"configure_optimizers doesn't give any parameter of {name} to an optimizer", received, advice)
        )
    return problems


def sharing_problems(
    module: LightningModule, optimizers: Sequence[Optimizer], config: Config, share: Share
) -> list[Problem]:
    """Optimizers with parameters in common, where each one's gradients can't be kept apart."""
    parameters = parameters_of(optimizers)
    if (
        share.nb == 1
        or (config.accumulate_grad_batches == 1 and config.accumulate_nb_samples is None)
        or len({*map(id, parameters)}) == len(parameters)
        or not takes_one_more(module, "training_step", len(optimizers) > 1)
    ):
        return []
    return [
        Problem(
            "the optimizers of a training_step of three arguments have parameters in common, whose gradients can't be"
            " kept apart where several virtual ranks accumulate batches",
            f"{share.nb} virtual ranks",
            "Pass accumulate_grad_batches=1, without accumulate_nb_samples, or give each parameter to one optimizer",
        )
    ]


def loader_problems(loader: Any, name: str) -> list[Problem]:
    """What can be seen of the one loader that the hook ``name`` gave."""
    if isinstance(loader, Tensor) or type(loader).__name__ == "ndarray":
        advice = "Give DataLoader(TensorDataset(x, y), batch_size=32)"
        return [Problem(f"{name} isn't a loader, but data itself", describe(loader), advice)]
    if isinstance(loader, (str, bytes, Mapping)) or not hasattr(loader, "__iter__"):
        advice = "Return a DataLoader, or a list of batches"
        if hasattr(loader, "__getitem__") and hasattr(loader, "__len__") and not isinstance(loader, (str, bytes)):
            advice = "Return DataLoader(dataset, batch_size=32)"
        return [Problem(f"{name} returned something that isn't a loader", describe(loader), advice)]
    if length_of(loader) == 0:
        return [
            Problem(f"{name} returned an empty loader", "no batch", "Check its dataset, its batch size and drop_last")
        ]
    return []


def iterator_problems(loader: Any) -> list[Problem]:
    """An iterator where there are several passes."""
    each = loader.values() if isinstance(loader, Mapping) else [loader]
    if not any(hasattr(one, "__next__") for one in each):
        return []
    what = "val_dataloader returned an iterator, which yields its batches only once, and there are several validations"
    return [Problem(what, describe(loader), "Return the iterable it was made from")]


def training_loader_problems(loader: Any, config: Config, validates: bool, share: Share) -> list[Problem]:
    """A training loader that can't be used with these options. ``validates``: whether there is a validation."""
    if config.fast_dev_run:
        return []
    length = length_of(loader)
    if length is None:
        validates = validates and config.max_nb_tng_batches is None  # an epoch has a length then
        shares = {"train_percent_check": config.train_percent_check, "val_check_interval": config.val_check_interval}
        return [
            Problem(
                f"the training loader has no length, so {name}={share} can't be taken of it",
                do="Give it a __len__" + (", or pass a number of batches" if name == "val_check_interval" else ""),
            )
            for name, share in shares.items()
            if (share < 1.0 and validates) or (share != 1.0 and name == "train_percent_check")
        ]
    length = share.nb_rounds(length)
    if length == 0:
        received = f"{length_of(loader)} batches for {share.nb} processes"
        return [Problem("uneven_batches='drop' leaves no round of training batches", received, "Make batches smaller")]
    length = min(length, config.max_nb_tng_batches or length)
    if validates and config.val_check_interval > max(1, length):
        return [
            Problem(
                f"val_check_interval={config.val_check_interval:g} batches is more than an epoch's {length},"
                " so validation would never run",
                do="Lower it, or use check_val_every_n_epoch",
            )
        ]
    return []


def problems_of_several(module: LightningModule, config: Config, strategy: Strategy) -> list[Problem]:
    """What can't be done on several processes or devices, or there in this way."""
    problems = _uneven_problems(module, config, strategy)
    place, is_other = config.default_save_path, strategy.saves_together or strategy.several_devices
    if config.certificate and (is_other or is_remote(place)):
        received = f"distributed_backend={strategy.name!r}" if is_other else f"default_save_path={place!r}"
        advice = "Train with 'ddp' or in one process, and save to a folder of a file system"
        problems.append(Problem("certificate=True needs saves in files, which one device can repeat", received, advice))
    return problems


def _uneven_problems(module: LightningModule, config: Config, strategy: Strategy) -> list[Problem]:
    """Layers that exchange something in each step, where a process may have no batch."""
    waits = config.uneven_batches == "wait" and strategy.processes.nb > 1 and not strategy.runs_together
    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.SyncBatchNorm)] if waits else []
    if not names:
        return []
    return [
        Problem(
            "SyncBatchNorm waits for all processes in each step, and in the last round of an epoch some may have no"
            " batch, so they would wait forever",
            f"uneven_batches='wait' and {', '.join(names[:3])}",
            "Pass uneven_batches='drop', which leaves that round out, or 'repeat'",
        )
    ]


def saving_problems(module: LightningModule) -> list[Problem]:
    """A save dict that can't be written, or that ``load_model_specific`` couldn't read."""
    problems: list[Problem] = []
    saved = attempt(problems, lambda: reading(module, "get_save_dict", lambda: module_part(module)))
    saves, loads = is_overridden(module, "get_save_dict"), is_overridden(module, "load_model_specific")
    if saved is None or saves == loads:
        return problems
    name = type(module).__name__
    if saves and set(saved) != {"state_dict"}:
        problems.append(
            Problem(
                f"{name}.get_save_dict returns the keys {sorted(saved)}, and the default load_model_specific restores"
                " 'state_dict' alone",
                do="Override load_model_specific too",
            )
        )
    if loads:
        try:
            module.load_model_specific({**saved})
        except (KeyError, TypeError) as error:
            problems.append(
                Problem(
                    f"{name}.load_model_specific can't read the default get_save_dict's {{'state_dict': ...}}:"
                    f" {type(error).__name__}: {error}",
                    do="Override get_save_dict too",
                )
            )
    return problems


def _say_idle_dropout(module: nn.Module, optimizers: Sequence[Optimizer], notices: Notices) -> None:
    """A notice of the outermost submodules in eval mode that have dropout, and weights in an optimizer."""
    trained = set(parameters_of(optimizers))
    found = list[str]()
    for name, submodule in module.named_modules():
        if submodule.training or any(name.startswith(f"{outer}.") for outer in found):
            continue
        drops = any(isinstance(layer, DROPOUT) and layer.p > 0 for layer in submodule.modules())
        if drops and any(p.requires_grad and p in trained for p in submodule.parameters()):
            found.append(name)
    if found:
        notices.say(
            "eval-mode",
            f"in eval mode, as pretrained models are given, and so trained without dropout: {', '.join(found[:5])}."
            " Call train() on it in __init__ if that isn't intended",
        )


def say_shared_samples(tng_loader: Any, val_loaders: Any, notices: Notices) -> None:
    """A notice where two ``Subset``s of one dataset, for training and for validation, have samples in common."""
    held_out = named(val_loaders).values() if is_several(val_loaders) else [val_loaders]
    for tng_part, loader in product(parts_of(tng_loader).values(), held_out):
        trained, held = getattr(tng_part, "dataset", None), getattr(loader, "dataset", None)
        if not (isinstance(trained, Subset) and isinstance(held, Subset)) or held.dataset is not trained.dataset:
            continue
        nb = len({*map(int, trained.indices)} & {*map(int, held.indices)})
        if nb and nb < len(held):
            notices.say(
                "shared-samples",
                f"{nb} of the {len(held)} samples for validation are also for training: split the dataset once, in"
                " __init__, and not each time that a loader is made",
            )
            return


def say_probable_mistakes(
    module: LightningModule, loader: Any, optimizers: Sequence[Optimizer], config: Config, notices: Notices
) -> None:
    """A notice for everything that is probably a mistake but may be intended."""
    if not any(map(shuffles, parts_of(loader).values())) and not config.overfit_pct and length_of(loader) != 1:
        notices.say(
            "not-shuffled", "the training data isn't shuffled; pass shuffle=True to the DataLoader if it should be"
        )
    if hasattr(loader, "__next__") and config.max_nb_epochs > 1 and config.max_nb_tng_batches is None:
        notices.say(
            "one-pass",
            "tng_dataloader returned an iterator, which has no second epoch; return the iterable it was made from, or"
            " pass max_nb_epochs=1",
        )
    say_idle_accelerator(config, notices)
    _say_idle_dropout(module, optimizers, notices)
    if not has_validation(module):
        notices.say("no-validation", "there is no validation: val_dataloader isn't defined")
    elif config.val_every_nb_batches is None and config.check_val_every_n_epoch > config.max_nb_epochs:
        notices.say(
            "never-validated",
            f"validation never runs: check_val_every_n_epoch={config.check_val_every_n_epoch} is more than"
            f" max_nb_epochs={config.max_nb_epochs}; lower it",
        )
    if config.gradient_clip_algorithm != "norm" and not config.gradient_clip:
        notices.say(
            "no-clipping",
            f"gradient_clip_algorithm={config.gradient_clip_algorithm!r} has no effect without gradient_clip; pass"
            " gradient_clip=1.0, say",
        )
    for name in ("overfit_pct",) if config.overfit_pct else SHARES:
        share = getattr(config, name)
        if share > 1.0:
            notices.say(
                f"share-{name}", f"{name}={share:g} is more than the whole data set; 1.0 is all of it, 0.1 a tenth"
            )
    dtype = DTYPES.get(config.precision)
    if dtype is not None and dtype not in COMPLEX and any(tensor.is_complex() for tensor in tensors_of(module)):
        notices.say(
            "complex-tensors",
            f"{type(module).__name__} has complex parameters or buffers, which precision={config.precision!r} leaves as"
            f" they are: torch computes little with complex numbers of {dtype.itemsize * 8} bits",
        )
    say_odd_parameters(module, optimizers, notices)


def say_idle_accelerator(config: Config, notices: Notices) -> None:
    """Without ``gpus`` a fit runs on the CPU, whatever else the machine has; ``gpus=0`` says that this is meant."""
    if config.gpus is None and torch.accelerator.is_available():
        there = f"{torch.accelerator.device_count()} x {torch.accelerator.current_accelerator()}"
        notices.say(
            "idle-accelerator",
            f"training runs on the CPU, though this machine has an accelerator ({there}); pass gpus=1 (--gpus 0) to use"
            " it, or gpus=0 if the CPU is meant",
        )


def say_odd_parameters(module: LightningModule, optimizers: Sequence[Optimizer], notices: Notices) -> None:
    """One line each for parameters in no optimizer, in two, of something else, and in a plain list."""
    held: dict[int, int] = {}
    for parameter in parameters_of(optimizers):
        held[id(parameter)] = held.get(id(parameter), 0) + 1
    trained = [(name, held.get(id(p), 0)) for name, p in module.named_parameters() if p.requires_grad]
    hidden = unregistered(module)
    for code, what, names in (
        ("unused-parameter", "in no optimizer, so they aren't trained", [n for n, nb in trained if nb == 0]),
        ("shared-parameter", "in more than one optimizer", [n for n, nb in trained if nb > 1]),
    ):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            notices.say(code, f"{len(names)} parameters are {what}: {shown}")
    if hidden:
        notices.say(
            "unregistered",
            f"{', '.join(hidden)} of {type(module).__name__} holds layers or parameters that torch doesn't see: they"
            " aren't moved, saved or given to an optimizer; use nn.ModuleList, nn.ModuleDict or nn.Parameter",
        )


def no_parameters(module: LightningModule) -> Problem:
    """For a module whose layers all sit where torch doesn't see them."""
    return Problem(
        f"{type(module).__name__} has no parameters: torch doesn't see layers in a plain list or dict",
        f"layers in {', '.join(unregistered(module))}",
        "Use nn.ModuleList or nn.ModuleDict",
    )


def unregistered(module: nn.Module) -> list[str]:
    """The attributes of ``module`` and of its layers that hold layers or trained tensors in plain containers."""
    known = {id(m) for m in module.modules()} | {id(p) for p in module.parameters()}
    found = []
    for prefix, layer in module.named_modules():
        for name, value in vars(layer).items():
            items: Any = value if isinstance(value, (list, tuple)) else [value]
            items = value.values() if isinstance(value, dict) else items
            if any(_is_trained(item) and id(item) not in known for item in islice(items, 256)):
                found.append(f"{prefix}.{name}".lstrip("."))
    return found


def _is_trained(value: Any) -> bool:
    if isinstance(value, nn.Module):
        return any(p.requires_grad for p in value.parameters())
    return isinstance(value, Tensor) and value.requires_grad and value.is_leaf
