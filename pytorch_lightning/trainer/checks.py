"""What can be seen before the first batch."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch.optim import Optimizer

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.checkpoints.checkpoint import module_part
from pytorch_lightning.data.replay import length_of, shuffles
from pytorch_lightning.errors import CheckpointError, MisconfigurationException, Notices, Problem
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import Share
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.trainer.config import Config
from pytorch_lightning.trainer.hooks import is_overridden, missing, wrongly_signed
from pytorch_lightning.trainer.optimizers import needs_closure

T = TypeVar("T")


def attempt(problems: list[Problem], function: Callable[[], T]) -> T | None:
    """What ``function`` gives; None, and an entry in ``problems``, where it finds a mistake."""
    try:
        return function()
    except (MisconfigurationException, CheckpointError) as error:
        problems.append(Problem(str(error).rstrip(".")))
        return None


def hook_problems(module: LightningModule) -> list[Problem]:
    """Hooks that a fit needs and that are missing, or can't be called."""
    problems = missing(module, ["training_step", "configure_optimizers", "tng_dataloader"])
    validates = ["val_dataloader", "validation_step", "validation_end"]
    there = [name for name in validates if is_overridden(module, name)]
    # a test may use the steps of validation, so the loader decides where a test is all that is meant
    if there and ("val_dataloader" in there or not is_overridden(module, "test_dataloader")):
        problems += missing(module, validates)
    return problems + wrongly_signed(module)


def has_validation(module: LightningModule) -> bool:
    """Whether ``module`` says how it is validated."""
    return is_overridden(module, "val_dataloader")


def optimizer_problems(
    optimizers: Sequence[Optimizer], takes_optimizer: bool, precision: Precision, strategy: Strategy
) -> list[Problem]:
    """Optimizers that can't train anything, or not in this precision or by this strategy."""
    problems = []
    for optimizer in optimizers:
        name = type(optimizer).__name__
        if not any(p.requires_grad for group in optimizer.param_groups for p in group["params"]):
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
                    f"{name} evaluates the loss itself, so it can't share one loss with other optimizers",
                    do="Write def training_step(self, data_batch, batch_nb, optimizer_i)",
                )
            )
    return problems


def loader_problems(loader: Any, config: Config, share: Share) -> list[Problem]:
    """A training loader that can't be used with these options."""
    if not hasattr(loader, "__iter__"):
        return [Problem("tng_dataloader gave something without __iter__", repr(loader), "Return a DataLoader")]
    length = length_of(loader)
    if length == 0:
        return [Problem("the training loader is empty", do="Check its dataset, its batch size and drop_last")]
    if length is None and not config.fast_dev_run:
        shares = {"train_percent_check": config.train_percent_check, "val_check_interval": config.val_check_interval}
        return [
            Problem(
                f"the training loader has no length, so {name}={share} can't be taken of it",
                do="Give it a __len__" + (", or pass a number of batches" if name == "val_check_interval" else ""),
            )
            for name, share in shares.items()
            if share < 1.0
        ]
    length = None if length is None else share.nb_rounds(length)
    if length is not None and not config.fast_dev_run and config.val_check_interval > max(1, length):
        return [
            Problem(
                f"val_check_interval={config.val_check_interval:g} batches is more than an epoch's {length},"
                " so validation would never run",
                do="Lower it, or use check_val_every_n_epoch",
            )
        ]
    return []


def folder_problems(config: Config) -> list[Problem]:
    """Folders that the user named and that can't be written."""
    named = {}
    if config.default_save_path_given and config.experiment is None:
        named["default_save_path"] = config.default_save_path
    for callback in (config.checkpoint_callback, *config.callbacks):
        if isinstance(callback, ModelCheckpoint):
            named[f"filepath of {type(callback).__name__}"] = callback.filepath
    problems = []
    for name, path in {} if config.fast_dev_run else named.items():
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
            reason = None if os.access(path, os.W_OK) else "no permission to write there"
        except OSError as error:
            reason = error.strerror
        if reason:
            problems.append(Problem(f"{name} can't be written: {path!r}: {reason}", do="Choose another folder"))
    return problems


def saving_problems(module: LightningModule) -> list[Problem]:
    """A save dict that can't be written, or that ``load_model_specific`` couldn't read."""
    problems: list[Problem] = []
    saved = attempt(problems, lambda: module_part(module))
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


def say_probable_mistakes(
    module: LightningModule, loader: Any, optimizers: Sequence[Optimizer], config: Config, notices: Notices
) -> None:
    """One line each for what is probably a mistake but may be meant."""
    if not shuffles(loader) and not config.overfit_pct:
        notices.say(
            "not-shuffled", "the training data isn't shuffled; pass shuffle=True to the DataLoader if it should be"
        )
    if not has_validation(module):
        notices.say("no-validation", "there is no validation: val_dataloader isn't defined")
    held: dict[int, int] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                held[id(parameter)] = held.get(id(parameter), 0) + 1
    trained = [(name, held.get(id(p), 0)) for name, p in module.named_parameters() if p.requires_grad]
    for code, what, names in (
        ("unused-parameter", "in no optimizer, so they aren't trained", [n for n, nb in trained if nb == 0]),
        ("shared-parameter", "in more than one optimizer", [n for n, nb in trained if nb > 1]),
    ):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            notices.say(code, f"{len(names)} parameters are {what}: {shown}")
