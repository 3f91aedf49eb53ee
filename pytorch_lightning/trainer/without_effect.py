"""Options that were given and change nothing in a fit, and why."""

from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.options.config import Config
from pytorch_lightning.options.meaning import all_callbacks
from pytorch_lightning.run.progress import NEVER
from pytorch_lightning.trainer.explanation import Explanation

Rule = tuple[str, str, Callable[[Explanation, Config], bool]]

VALIDATION = (
    "val_check_interval", "val_every_nb_batches", "check_val_every_n_epoch", "val_percent_check", "max_nb_val_batches",
    "nb_sanity_val_steps", "gather_validation",
)  # fmt: skip
OVERFIT = ("train_percent_check", "val_percent_check", "test_percent_check")
DEV = (
    "max_nb_epochs", "train_percent_check", "max_nb_tng_batches", "val_percent_check", "max_nb_val_batches",
    "val_check_interval", "val_every_nb_batches", "check_val_every_n_epoch", "save_every_nb_batches",
)  # fmt: skip


def _nb_epochs(e: Explanation) -> int:
    """Epochs until training ends; a huge number where that isn't known."""
    return e.epochs[-1]["epoch"] + 1 if e.stop_reason and e.epochs else NEVER


def _accumulates_later(e: Explanation, c: Config) -> bool:
    windows = c.accumulate_grad_batches
    return isinstance(windows, dict) and min(windows) > _nb_epochs(e)


def _nb_batches(e: Explanation) -> int:
    return NEVER if e.nb_batches is None else e.start["global_step"] + e.nb_batches


RULES: tuple[Rule, ...] = (
    *((name, "the module has no validation", lambda e, c: e.nb_val_batches == 0) for name in VALIDATION),
    *((name, "overfit_pct is taken instead", lambda e, c: c.overfit_pct > 0) for name in OVERFIT),
    *((name, "fast_dev_run runs one batch, and keeps nothing", lambda e, c: c.fast_dev_run) for name in DEV),
    ("gradient_clip", "training_step makes its own steps: clip before each of them",
        lambda e, c: c.gradient_clip > 0 and not e.where["automatic_optimization"]),
    ("gradient_clip_algorithm", "gradient_clip is off", lambda e, c: c.gradient_clip <= 0),
    ("gradient_clip_norm_type", "gradient_clip is off, or clips values",
        lambda e, c: c.gradient_clip <= 0 or c.gradient_clip_algorithm == "value"),
    ("amp_level", "use_amp is off", lambda e, c: not c.use_amp),
    ("accumulate_grad_batches", "training ends before its first epoch", _accumulates_later),
    ("early_stop_callback", "enable_early_stop is false", lambda e, c: not c.enable_early_stop),
    ("min_nb_epochs", "there is no EarlyStopping",
        lambda e, c: not any(isinstance(callback, EarlyStopping) for callback in all_callbacks(c))),
    ("max_nb_epochs", "max_nb_steps is reached before", lambda e, c: (e.stop_reason or "").startswith("max_nb_steps")),
    ("max_nb_steps", "max_nb_epochs is reached before",
        lambda e, c: e.where["automatic_optimization"] and (e.stop_reason or "").startswith("max_nb_epochs")),
    ("check_val_every_n_epoch", "training ends before that epoch does",
        lambda e, c: _nb_epochs(e) < c.check_val_every_n_epoch),
    ("lr_scheduler_milestones", "training ends before the first one",
        lambda e, c: _nb_epochs(e) <= min(c.lr_scheduler_milestones, default=NEVER)),
    ("save_every_nb_batches", "training ends before", lambda e, c: _nb_batches(e) < (c.save_every_nb_batches or 0)),
    ("process_position", "progress_bar is off", lambda e, c: not c.progress_bar),
    ("current_gpu_name", "progress_bar is off", lambda e, c: not c.progress_bar),
    ("log_save_interval", "experiment is False: nothing is logged", lambda e, c: c.experiment is False),
    ("track_grad_norm", "experiment is False: nothing is logged", lambda e, c: c.experiment is False),
    ("resume_check", "nothing is resumed", lambda e, c: c.resume is None),
    ("exact_elastic", "there is one virtual rank", lambda e, c: e.where["virtual_ranks"] == 1),
    ("uneven_batches", "there is one virtual rank", lambda e, c: e.where["virtual_ranks"] == 1),
    ("gather_validation", "there is one process", lambda e, c: e.where["nb_processes"] == 1),
    ("process_timeout_minutes", "there is one process", lambda e, c: e.where["nb_processes"] == 1),
    ("default_save_path", "the experiment has a folder of its own",
        lambda e, c: getattr(c.experiment, "save_dir", None) is not None),
)  # fmt: skip
"""An option, why it has no effect, and where that is so. The first rule of an option that holds is told."""


def differs(value: Any, default: Any) -> bool:
    """Whether an option was given another value than its default."""
    return value is not default and (type(value) is not type(default) or bool(value != default))


def without_effect(explanation: Explanation, config: Config, given: Sequence[str]) -> dict[str, str]:
    """Those of the options ``given`` that change nothing: each with the reason."""
    found: dict[str, str] = {}
    for name, why, holds in RULES:
        if name in given and name not in found and holds(explanation, config):
            found[name] = why
    return found
