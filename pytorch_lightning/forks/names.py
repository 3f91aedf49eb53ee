"""What the names of a fork's ``--set`` mean: options of the Trainer, hyperparameters, settings of parameter groups."""

import ast
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytorch_lightning.command_line import kind_of
from pytorch_lightning.errors import MisconfigurationException, near
from pytorch_lightning.options.meaning import ALIASES
from pytorch_lightning.options.words import boolean
from pytorch_lightning.trainer.trainer import option_defaults

CHANGED = (
    "gradient_clip", "gradient_clip_algorithm", "gradient_clip_norm_type", "accumulate_grad_batches",
    "max_nb_epochs", "min_nb_epochs", "max_nb_steps", "max_time", "val_check_interval", "val_every_nb_batches",
    "check_val_every_n_epoch", "val_percent_check", "max_nb_val_batches", "add_log_row_interval", "log_save_interval",
    "track_grad_norm", "print_nan_grads", "stop_on_nan", "crash_bundle", "progress_bar", "process_position",
    "print_weights_summary", "profile", "save_every_minutes", "save_every_nb_batches", "keep_saves", "silence",
)  # fmt: skip
"""The options that a fork may have otherwise than its parent."""

ORDER = "the order of the data, and all random numbers, depend on it"
LENGTH = "the length of an epoch, and so the place in it, depends on it"
STATE = "the state in the save is made for what it was"
WHY = {
    "seed": ORDER, "virtual_ranks": ORDER, "overfit_pct": LENGTH, "train_percent_check": LENGTH,
    "max_nb_tng_batches": LENGTH, "precision": STATE, "use_amp": STATE, "amp_level": STATE, "compile": STATE,
    "fused_optimizers": STATE, "lr_scheduler_milestones": "its schedule begins with the run",
    "default_save_path": "the option --default_save_path says where the fork goes",
}  # fmt: skip
OF_GROUPS = ("lr", "weight_decay", "momentum")
"""Hyperparameters that are meant for the optimizer; another one may have the name of a setting by chance."""
OF_SPEED = ("params", "param_names", "fused", "foreach", "capturable", "differentiable")


@dataclass
class Edits:
    """What is other in the fork."""

    options: dict[str, Any] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """Of parameter groups."""
    either: dict[str, Any] = field(default_factory=dict)
    """Settings that are hyperparameters by their names: set where ``configure_optimizers`` makes nothing of these."""


def edits_of(texts: Mapping[str, str], hparams: Mapping[str, Any], saved: Mapping[str, Any]) -> Edits:
    """The edits that ``texts`` mean. A name is an option of the Trainer, or else one of ``hparams``, or else a setting
    of parameter groups in the save. Raises ``MisconfigurationException`` for what can't be changed, or isn't there."""
    groups = [group for state in saved["optimizer_states"] for group in state.get("param_groups", ())]
    settings = {name: group[name] for group in reversed(groups) for name in group if name not in OF_SPEED}
    edits, defaults = Edits(), option_defaults()
    for given, text in texts.items():
        name = given if given in hparams else ALIASES.get(given, given)
        if name in defaults:
            edits.options[name] = option_of(name, text, defaults[name])
            if name in hparams:
                edits.hparams[name] = edits.options[name]
        elif name in hparams:
            edits.hparams[name] = value_like(name, text, hparams[name])
            if name in settings and name in OF_GROUPS:
                edits.either[name] = setting_of(name, text, settings[name])
        elif name in settings:
            edits.settings[name] = setting_of(name, text, settings[name])
        else:
            known = [*CHANGED, *hparams, *settings]
            raise MisconfigurationException(
                f"--set {given}: the Trainer has no such option, the run no such hyperparameter, and no parameter group"
                f" such a setting.{near(given, known)}"
            )
    return edits


def option_of(name: str, text: str, default: Any) -> Any:
    """The value of an option, read as the command line reads it."""
    if name not in CHANGED:
        why = WHY.get(name, "it is fixed where a run starts")
        raise MisconfigurationException(f"{name} can't be changed at a fork exactly: {why}. Start a new run for that.")
    try:
        return kind_of(name, default)(text)
    except (ArgumentTypeError, ValueError) as error:
        raise MisconfigurationException(f"--set {name}={text}: {error}.") from error


def value_like(name: str, text: str, old: Any) -> Any:
    """``text`` as a value of the kind of ``old``.

    >>> value_like("p", "1", 0.5), value_like("name", "7", "x"), value_like("wide", "off", True)
    (1.0, '7', False)
    """
    if isinstance(old, str):
        return text
    try:
        value: Any = (
            boolean(text) if isinstance(old, bool) else None if text.lower() == "none" else ast.literal_eval(text)
        )
    except (ArgumentTypeError, ValueError, SyntaxError):
        value = text
    if isinstance(old, float) and type(value) in (int, float):
        return float(value)
    numbers = type(value) in (int, float) and type(old) is int
    if old is None or value is None or type(value) is type(old) or numbers:
        return value
    raise MisconfigurationException(f"--set {name}={text}: {name} was {old!r}; pass a value of that kind.")


def setting_of(name: str, text: str, old: Any) -> Any:
    """The value of a setting of parameter groups: a number, or some of them, as ``old`` is."""
    old = old.item() if hasattr(old, "item") else old
    value = value_like(name, text, float(old) if type(old) is int and name in ("lr", "initial_lr") else old)
    rate = name in ("lr", "initial_lr")
    is_sound = not rate or (isinstance(value, float) and 0 <= value < float("inf"))
    if is_sound and not (isinstance(old, (tuple, list)) and len(old) != len(value)):
        return value
    raise MisconfigurationException(f"--set {name}={text}: {name} was {old!r}; pass a value of that kind.")
