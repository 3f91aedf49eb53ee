"""From the Trainer's arguments to a checked ``Config``: other spellings, checks, and the one form of each value."""

import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytorch_lightning.callbacks.callback import Callback
from pytorch_lightning.errors import MisconfigurationException, Problem, attempt, describe, near, raise_together
from pytorch_lightning.lightning2 import advice
from pytorch_lightning.options import checks
from pytorch_lightning.options.config import AMP_LEVELS, OBJECT_OPTIONS, Config, flags
from pytorch_lightning.options.config import options as declared
from pytorch_lightning.options.words import boolean

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


def resolve_aliases(
    aliases: Mapping[str, Any], options: Mapping[str, Any], defaults: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """``options`` with what ``aliases`` mean. Adds to ``problems`` each unknown name, and an option that was given two
    values by two of its names."""
    resolved = dict(options)
    given = {name for name, value in options.items() if value != defaults[name]}
    for alias, value in aliases.items():
        name = ALIASES.get(alias)
        if name is None:
            hint = (
                advice("trainer_options", alias) or advice("habits", alias) or near(alias, [*defaults, *ALIASES], nb=2)
            )
            hint = hint or f" It has: {', '.join(defaults)}."
            problems.append(Problem(f"Trainer has no option {alias!r}", do=hint.strip().removesuffix(".")))
        elif name in given and resolved[name] != value:
            received = f"{name}={resolved[name]!r} and {alias}={value!r}"
            problems.append(Problem(f"{alias} is another name of {name}", received, "Pass one of them"))
        else:
            given.add(name)
            resolved[name] = value
    return resolved


def build_config(options: Mapping[str, Any], default_save_path: str, problems: list[Problem]) -> Config:
    """The config of the Trainer's arguments ``options``. Raises one ``MisconfigurationException`` for all of them and
    for ``problems``."""
    options = {name: _from_numpy(value) for name, value in options.items()}
    options.update({name: _from_text(options[name]) for name in (*flags(), "compile", "gather_validation")})
    if options["default_save_path"] is None:
        options["default_save_path"] = default_save_path
    each = ((check, name) for name, known in declared().items() for check in known.checks or ())
    problems += [p for check, name in each if (p := check(name, options)) is not None]
    problems += [p for name in flags() if (p := checks.flag(name, options)) is not None]
    precision = attempt(problems, lambda: _precision(options))
    accumulate = attempt(problems, lambda: _accumulate(options))
    milestones = attempt(problems, lambda: _milestones(options))
    early, checkpoint, callbacks = attempt(problems, lambda: _callbacks(options)) or (None, None, ())
    raise_together(problems)
    overfit = max(0.0, float(options["overfit_pct"]))
    percents = {
        k: overfit or float(options[k]) for k in ("train_percent_check", "val_percent_check", "test_percent_check")
    }
    dev = bool(options["fast_dev_run"])
    taken = dict(options)
    taken.update(
        percents,
        **{name: bool(options[name]) for name in flags()},
        gather_validation="rank0" if options["gather_validation"] == "rank0" else bool(options["gather_validation"]),
        callbacks=callbacks,
        early_stop_callback=early if options["enable_early_stop"] else None,
        checkpoint_callback=checkpoint,
        gradient_clip=max(0.0, float(options["gradient_clip"])),
        overfit_pct=overfit,
        accumulate_grad_batches=accumulate,
        max_nb_epochs=1 if dev else options["max_nb_epochs"],
        val_check_interval=1.0 if dev else float(options["val_check_interval"]),
        val_every_nb_batches=None if dev else options["val_every_nb_batches"],
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


def all_callbacks(config: Config) -> tuple[Callback, ...]:
    """The callbacks of a fit in the order in which they are called: the bar comes last, the checkpoint before it."""
    from pytorch_lightning.callbacks.profiler import Profiler
    from pytorch_lightning.callbacks.progress_bar import ProgressBar

    bar = [ProgressBar(config.process_position, config.current_gpu_name)] if config.progress_bar else []
    profiler = [Profiler()] if config.profile else []
    chosen = [config.early_stop_callback, *config.callbacks, config.checkpoint_callback, *profiler, *bar]
    return tuple(callback for callback in chosen if callback is not None)


def options_in(hparams: Any, names: Iterable[str]) -> tuple[dict[str, Any], Mapping[Any, Any]]:
    """The options ``names`` of the Trainer in ``hparams``, also by their other spellings, and all that there is."""
    values = hparams if isinstance(hparams, Mapping) else getattr(hparams, "__dict__", None)
    if values is None or isinstance(hparams, type):
        raise MisconfigurationException(
            f"hparams must be a Namespace or a dict; received {describe(hparams)}. Pass parser.parse_args()."
        )
    values = {**{meant: values[alias] for alias, meant in ALIASES.items() if alias in values}, **values}
    return {name: values[name] for name in names if name in values and name not in OBJECT_OPTIONS}, values


def without_config(value: Any) -> Any:
    """``value`` with a list or dict in the place of what is used like one, as OmegaConf's are. OmegaConf itself is
    asked where it is there, since it knows what entries refer to."""
    if type(value).__module__.startswith("omegaconf."):
        omegaconf: Any = sys.modules["omegaconf"]
        value = omegaconf.OmegaConf.to_container(value, resolve=True)
    if isinstance(value, (str, bytes, list, tuple, dict)):
        return value
    if isinstance(value, Mapping):
        return {key: without_config(item) for key, item in value.items()}
    return [without_config(item) for item in value] if isinstance(value, Sequence) else value


def _from_numpy(value: Any) -> Any:
    """A numpy number as python's: a search draws those."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value


def _from_text(value: Any) -> Any:
    """A flag that was given as text, as a plain ``argparse`` or a file gives it; other texts are refused later."""
    try:
        return boolean(value) if isinstance(value, str) else value
    except ArgumentTypeError:
        return value


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
    from pytorch_lightning.callbacks.accumulation import GradientAccumulationScheduler

    value = options["accumulate_grad_batches"]
    chosen = [value, *(options["callbacks"] if isinstance(options["callbacks"], (list, tuple)) else ())]
    schedules = [one.scheduling for one in chosen if isinstance(one, GradientAccumulationScheduler)]
    if len(schedules) > 1 or (schedules and not isinstance(value, GradientAccumulationScheduler) and value != 1):
        raise MisconfigurationException(
            "accumulate_grad_batches and a GradientAccumulationScheduler both say how many batches a step takes;"
            f" received {describe(value)} and {schedules[-1]}. Pass one of them."
        )
    value = schedules[0] if schedules else value
    if isinstance(value, str) and re.fullmatch(r"\d+|\d+:\d+(,\d+:\d+)*", value):  # '1:2,5:8', of a command line
        pairs = [pair.split(":") for pair in value.split(",")]
        value = {int(pair[0]): int(pair[-1]) for pair in pairs} if ":" in value else int(value)
    whole = [value] if not isinstance(value, dict) else [*value, *value.values()]
    if not whole or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in whole):
        raise MisconfigurationException(
            "accumulate_grad_batches must be a whole number of at least 1, or {epoch: number} with epochs counted from"
            f" 1; received {describe(value)}. Pass 4 for a step every 4 batches, 1 for every batch."
        )
    nb_samples = options["accumulate_nb_samples"]
    if nb_samples is not None and value != 1:
        raise MisconfigurationException(
            f"accumulate_nb_samples={nb_samples!r} and accumulate_grad_batches={value!r} both say when to step. Pass"
            " one of them."
        )
    return value  # type: ignore[no-any-return]


def _milestones(options: Mapping[str, Any]) -> tuple[int, ...]:
    value = options["lr_scheduler_milestones"]
    try:
        words = value.split(",") if isinstance(value, str) else (value or ())
        epochs = tuple(int(str(word)) for word in words if str(word).strip())  # by its text: 1.5 isn't one
        if all(epoch >= 1 for epoch in epochs):
            return epochs
    except (ValueError, TypeError):
        pass
    raise MisconfigurationException(
        "lr_scheduler_milestones must be a list of epochs, counted from 1, or a string like '100,200';"
        f" received {describe(value)}. Pass [100, 200], or None for no schedule."
    )


def _callbacks(options: Mapping[str, Any]) -> tuple[Callback | None, Callback | None, tuple[Callback, ...]]:
    """The early stopping and the checkpoint callback, told apart by type, and all others."""
    from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
    from pytorch_lightning.callbacks.keras_style import as_callback

    early, checkpoint = options["early_stop_callback"] or None, options["checkpoint_callback"] or None
    if isinstance(early, ModelCheckpoint) or isinstance(checkpoint, EarlyStopping):
        early, checkpoint = checkpoint, early
    others = () if options["callbacks"] is None else options["callbacks"]
    if not isinstance(others, (list, tuple)):
        raise MisconfigurationException(
            f"callbacks must be a list of callbacks; received {describe(others)}."
            f" Pass callbacks=[{type(others).__name__}(...)]."
        )

    def read(name: str, value: Any) -> Callback | None:
        callback = None if value is None or isinstance(value, type) else as_callback(value)
        if value is not None and callback is None:
            example = value.__name__ + "(...)" if isinstance(value, type) else EXAMPLES.get(name, "[MyCallback()]")
            raise MisconfigurationException(
                f"{name} must be a pytorch_lightning.callbacks.Callback, or have a method of Keras's callbacks;"
                f" received {describe(value)}. Pass {example}."
            )
        return callback

    chosen = (read("callbacks", value) for value in others)
    return (
        read("early_stop_callback", early),
        read("checkpoint_callback", checkpoint),
        tuple(callback for callback in chosen if callback is not None),
    )


EXAMPLES = {"early_stop_callback": "EarlyStopping('val_loss')", "checkpoint_callback": "ModelCheckpoint('folder')"}
