"""The options of a Trainer, checked and given their meaning once."""

import datetime
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.callbacks.keras_style import as_callback
from pytorch_lightning.errors import MisconfigurationException, Problem, describe, raise_together
from pytorch_lightning.precision import NAMES as PRECISIONS
from pytorch_lightning.strategies import STRATEGIES, Strategy

ALIASES = {
    "logger": "experiment",
    "show_progress_bar": "progress_bar",
    "enable_tqdm": "progress_bar",
    "gradient_clip_val": "gradient_clip",
    "row_log_interval": "add_log_row_interval",
    "check_grad_nans": "print_nan_grads",
    "overfit": "overfit_pct",
    "nb_nodes": "nb_gpu_nodes",
}
"""Other spellings of 2019, and the option that each one means."""

LATER: dict[str, Any] = {
    "cluster": None,
    "save_every_minutes": 5.0,
    "save_every_nb_batches": None,
    "crash_bundle": True,
    "compile": False,
    "profile": False,
    "fused_optimizers": False,
}
"""Options that this version knows by name only, with the one value that they may have."""

OBJECT_OPTIONS = ("experiment", "early_stop_callback", "checkpoint_callback", "callbacks", "cluster")
"""Options whose values are objects: they can't be words of a command line."""

AMP_LEVELS = {"O0": "32", "O1": "16", "O2": "16", "O3": "16-true"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the plan reads. Field names are those of the Trainer's arguments, values have one form each."""

    experiment: Any
    callbacks: tuple[Callback, ...]
    early_stop_callback: Callback | None
    checkpoint_callback: Callback | None
    gradient_clip: float
    gradient_clip_algorithm: str
    process_position: int
    current_gpu_name: Any
    gpus: Any
    nb_gpu_nodes: int
    nb_processes: int
    distributed_backend: Any
    virtual_ranks: int | None
    exact_elastic: bool
    gather_validation: bool
    process_timeout_minutes: float
    progress_bar: bool
    overfit_pct: float
    track_grad_norm: float
    check_val_every_n_epoch: int
    fast_dev_run: bool
    accumulate_grad_batches: int | dict[int, int]
    max_nb_epochs: int
    min_nb_epochs: int
    max_nb_steps: int | None
    max_seconds: float | None
    train_percent_check: float
    val_percent_check: float
    test_percent_check: float
    val_check_interval: float
    log_save_interval: int
    add_log_row_interval: int
    lr_scheduler_milestones: tuple[int, ...]
    precision: str
    print_nan_grads: bool
    print_weights_summary: bool
    nb_sanity_val_steps: int
    seed: int | None
    deterministic: bool
    default_save_path: str
    default_save_path_given: bool
    resume: str | None
    resume_check: str
    stop_on_nan: bool
    silence: tuple[str, ...]


def resolve_aliases(aliases: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The options that ``aliases`` mean. Raises ``MisconfigurationException`` for names that nobody knows."""
    resolved = {}
    for name, value in aliases.items():
        if name not in ALIASES:
            near = difflib.get_close_matches(name, [*known, *ALIASES], n=1)
            raise MisconfigurationException(
                f"Trainer has no option {name!r}."
                + (f" Did you mean {near[0]!r}?" if near else f" It has: {', '.join(known)}.")
            )
        resolved[ALIASES[name]] = value
    return resolved


def build_config(options: Mapping[str, Any], default_save_path: str) -> Config:
    """The config of the Trainer's arguments ``options``. Raises one ``MisconfigurationException`` for all of them."""
    problems = list(_later(options)) + [p for check in CHECKS if (p := check(options)) is not None]
    precision = _read(problems, _precision, options)
    accumulate = _read(problems, _accumulate, options)
    milestones = _read(problems, _milestones, options)
    early, checkpoint, callbacks = _read(problems, _callbacks, options) or (None, None, ())
    raise_together(problems)
    overfit = max(0.0, float(options["overfit_pct"]))
    percents = {
        k: overfit or float(options[k]) for k in ("train_percent_check", "val_percent_check", "test_percent_check")
    }
    dev = bool(options["fast_dev_run"])
    taken = {name: options[name] for name in Config.__dataclass_fields__ if name in options}
    taken.update(
        percents,
        callbacks=callbacks,
        early_stop_callback=early if options["enable_early_stop"] else None,
        checkpoint_callback=checkpoint,
        gradient_clip=max(0.0, float(options["gradient_clip"])),
        overfit_pct=overfit,
        fast_dev_run=dev,
        accumulate_grad_batches=accumulate,
        max_nb_epochs=1 if dev else options["max_nb_epochs"],
        max_seconds=_seconds(options["max_time"]),
        val_check_interval=1.0 if dev else float(options["val_check_interval"]),
        check_val_every_n_epoch=1 if dev else options["check_val_every_n_epoch"],
        nb_sanity_val_steps=min(1, options["nb_sanity_val_steps"]) if dev else options["nb_sanity_val_steps"],
        lr_scheduler_milestones=milestones,
        precision=precision,
        default_save_path=str(options["default_save_path"]),
        default_save_path_given=options["default_save_path"] != default_save_path,
        resume=None if options["resume"] is None else str(options["resume"]),
        silence=tuple(options["silence"]),
    )
    return Config(**taken)


def _read(problems: list[Problem], reader: Callable[[Mapping[str, Any]], Any], options: Mapping[str, Any]) -> Any:
    """What ``reader`` makes of the options; where it can't, None and an entry in ``problems``."""
    try:
        return reader(options)
    except MisconfigurationException as error:
        problems.append(Problem(str(error).rstrip(".")))
        return None


def _later(options: Mapping[str, Any]) -> list[Problem]:
    problems = [
        Problem(f"{name}={options[name]!r} isn't available in this version", "", f"Leave it at {default!r}")
        for name, default in LATER.items()
        if options[name] != default
    ]
    if options["resume"] == "auto":
        problems.append(Problem("resume='auto' isn't available in this version", "", "Pass the path of a checkpoint"))
    return problems


Check = Callable[[Mapping[str, Any]], Problem | None]


def _number(name: str, least: float, *, whole: bool = False, none: bool = False) -> Check:
    kinds = (int,) if whole else (int, float)

    def check(options: Mapping[str, Any]) -> Problem | None:
        value = options[name]
        if none and value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, kinds) or not value >= least:
            kind = "a whole number" if whole else "a number"
            return Problem(f"{name} must be {kind} of at least {least:g}", describe(value))
        return None

    return check


def _choice(name: str, *choices: Any) -> Check:
    def check(options: Mapping[str, Any]) -> Problem | None:
        if options[name] not in choices:
            return Problem(f"{name} must be one of {', '.join(map(repr, choices))}", describe(options[name]))
        return None

    return check


def _interval(options: Mapping[str, Any]) -> Problem | None:
    value = options["val_check_interval"]
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or value <= 0
        or (value > 1 and value != int(value))
    ):
        return Problem(
            "val_check_interval must be a fraction of the epoch (at most 1.0) or a whole number of batches",
            describe(value),
        )
    return None


def _epochs(options: Mapping[str, Any]) -> Problem | None:
    least, most = options["min_nb_epochs"], options["max_nb_epochs"]
    if isinstance(least, int) and isinstance(most, int) and least > most >= 1 and not options["fast_dev_run"]:
        return Problem(f"min_nb_epochs={least} is more than max_nb_epochs={most}", "", "Raise max_nb_epochs")
    return None


def _max_time(options: Mapping[str, Any]) -> Problem | None:
    value = options["max_time"]
    if value is None or isinstance(value, datetime.timedelta) or (isinstance(value, (int, float)) and value > 0):
        return None
    return Problem("max_time must be a number of minutes or a timedelta", describe(value))


def _backend(options: Mapping[str, Any]) -> Problem | None:
    backend, exact = options["distributed_backend"], options["exact_elastic"]
    name = backend.name if isinstance(backend, Strategy) else backend
    if name not in (*STRATEGIES, "single"):
        known = ", ".join(repr(known) for known in STRATEGIES)
        return Problem(f"distributed_backend must be one of {known}, or a strategy object", describe(backend))
    if name == "dp" and options["nb_processes"] not in (1, None):
        return Problem(
            f"distributed_backend='dp' is one process, and nb_processes={options['nb_processes']}", do="Use 'ddp'"
        )
    if exact and name not in (None, "single", "ddp"):
        return Problem(f"exact_elastic=True doesn't work with distributed_backend={name!r}", do="Use 'ddp'")
    return None


CHECKS: tuple[Check, ...] = (
    _number("gradient_clip", float("-inf")),
    _choice("gradient_clip_algorithm", "norm", "value"),
    _number("process_position", 0, whole=True),
    _number("overfit_pct", float("-inf")),
    _number("track_grad_norm", float("-inf")),
    _number("check_val_every_n_epoch", 1, whole=True),
    _number("max_nb_epochs", 1, whole=True),
    _number("min_nb_epochs", 0, whole=True),
    _number("max_nb_steps", 1, whole=True, none=True),
    _number("train_percent_check", 0),
    _number("val_percent_check", 0),
    _number("test_percent_check", 0),
    _number("log_save_interval", 1, whole=True),
    _number("add_log_row_interval", 1, whole=True),
    _number("nb_sanity_val_steps", 0, whole=True),
    _number("seed", 0, whole=True, none=True),
    _choice("resume_check", "error", "warn"),
    _number("nb_gpu_nodes", 1, whole=True),
    _number("nb_processes", 1, whole=True),
    _number("virtual_ranks", 1, whole=True, none=True),
    _number("process_timeout_minutes", 0.01),
    _backend,
    _choice("amp_level", *AMP_LEVELS),
    _choice("precision", None, *PRECISIONS, 16, 32, 64),
    _interval,
    _epochs,
    _max_time,
)


def _precision(options: Mapping[str, Any]) -> str:
    precision, use_amp, level = options["precision"], options["use_amp"], options["amp_level"]
    if not use_amp:
        return "32" if precision is None else str(precision)
    meant = AMP_LEVELS.get(level, "16")
    if precision is not None and str(precision) != meant:
        raise MisconfigurationException(
            f"use_amp=True with amp_level={level!r} means precision={meant!r}, and precision={precision!r} was passed"
            " too. Pass one of them."
        )
    return meant


def _accumulate(options: Mapping[str, Any]) -> int | dict[int, int]:
    value = options["accumulate_grad_batches"]
    if isinstance(value, str) and value.replace(":", "").replace(",", "").isdigit():  # '1:2,5:8', of a command line
        pairs = [pair.split(":") for pair in value.split(",")]
        value = {int(pair[0]): int(pair[-1]) for pair in pairs} if ":" in value else int(value)
    whole = [value] if not isinstance(value, dict) else [*value, *value.values()]
    if not whole or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in whole):
        raise MisconfigurationException(
            "accumulate_grad_batches must be a whole number of at least 1, or {epoch: number} with epochs counted from"
            f" 1; received {describe(value)}."
        )
    return value  # type: ignore[no-any-return]


def _milestones(options: Mapping[str, Any]) -> tuple[int, ...]:
    value = options["lr_scheduler_milestones"]
    try:
        words = value.split(",") if isinstance(value, str) else (value or ())
        return tuple(int(word) for word in words if str(word).strip())
    except (ValueError, TypeError):
        raise MisconfigurationException(
            f"lr_scheduler_milestones must be a list of epochs or a string like '100,200'; received {describe(value)}."
        ) from None


def _callbacks(options: Mapping[str, Any]) -> tuple[Callback | None, Callback | None, tuple[Callback, ...]]:
    """The early stopping and the checkpoint callback, told apart by type, and all others."""
    early, checkpoint = options["early_stop_callback"] or None, options["checkpoint_callback"] or None
    if isinstance(early, ModelCheckpoint) or isinstance(checkpoint, EarlyStopping):
        early, checkpoint = checkpoint, early
    others = tuple(options["callbacks"])

    def read(name: str, value: Any) -> Callback | None:
        callback = None if value is None else as_callback(value)
        if value is not None and callback is None:
            raise MisconfigurationException(
                f"{name} must be a pytorch_lightning.callbacks.Callback, or have a method of Keras's callbacks;"
                f" received {describe(value)}."
            )
        return callback

    chosen = (read("callbacks", value) for value in others)
    return (
        read("early_stop_callback", early),
        read("checkpoint_callback", checkpoint),
        tuple(callback for callback in chosen if callback is not None),
    )


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    return value.total_seconds() if isinstance(value, datetime.timedelta) else float(value) * 60
