"""Options that can't mean anything: each check gives a ``Problem`` or None."""

import datetime
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.errors import Problem, describe

Check = Callable[[str, Mapping[str, Any]], Problem | None]
"""``check(name, options)``: what is wrong with the option of that name; None where nothing is."""


def number(least: float = -math.inf, most: float = math.inf, *, whole: bool = False, none: bool = False) -> Check:
    """The option is a number from ``least`` to ``most``; with ``none`` it may be None too."""
    kinds = (int,) if whole else (int, float)
    kind = "a whole number" if whole else "a number"
    limits = (f" of at least {least:g}" if least > -math.inf else "") + (
        f" and at most {most:g}" if most < math.inf else ""
    )

    def check(name: str, options: Mapping[str, Any]) -> Problem | None:
        value = options[name]
        if none and value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            return Problem(f"{name} must be {kind}{limits}", describe(value), f"Pass {name}={_example(least)}")
        return None

    return check


def _example(least: float) -> str:
    return f"{max(1.0, least):g}"


def choice(*choices: Any, elsewhere: Mapping[Any, str] | None = None) -> Check:
    """The option is one of ``choices``; ``elsewhere`` are their names in other libraries."""

    def check(name: str, options: Mapping[str, Any]) -> Problem | None:
        value = options[name]
        if not any(value is c or (type(value) is type(c) and value == c) for c in choices):
            named = ", ".join(repr(c) for c in choices if isinstance(c, str))
            meant = elsewhere.get(value) if elsewhere and isinstance(value, (str, int)) else None
            return Problem(
                f"{name} must be one of {named}",
                describe(value),
                "Pass one of these" if meant is None else f"Write {name}={meant!r}",
            )
        return None

    return check


def flag(name: str, options: Mapping[str, Any]) -> Problem | None:
    """The option is true or false."""
    value = options[name]
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return None
    return Problem(f"{name} must be True or False", describe(value), f"Pass {name}=True or {name}=False")


def gathering(name: str, options: Mapping[str, Any]) -> Problem | None:
    """The option is true, false or 'rank0'."""
    if options[name] == "rank0" or flag(name, options) is None:
        return None
    return Problem(f"{name} must be True, False or 'rank0'", describe(options[name]), f"Pass {name}='rank0'")


def val_check_interval(name: str, options: Mapping[str, Any]) -> Problem | None:
    """A fraction of the epoch, or a number of batches."""
    value = options["val_check_interval"]
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if number and (0 < value <= 1 or (value > 1 and value == int(value))):
        return None
    return Problem(
        "val_check_interval must be a fraction of the epoch (at most 1.0) or a whole number of batches",
        describe(value),
        "Pass 0.5 for twice an epoch, 100 for every 100 batches",
    )


def val_every(name: str, options: Mapping[str, Any]) -> Problem | None:
    """``val_every_nb_batches`` alone says when."""
    others = [k for k in ("val_check_interval", "check_val_every_n_epoch") if options[k] != 1]
    if options[name] is None or not others or options["fast_dev_run"]:
        return None
    received = f"{name}={options[name]!r} and {others[0]}={options[others[0]]!r}"
    return Problem(f"{name} and {others[0]} both say when to validate", received, "Pass one of them")


def epochs(name: str, options: Mapping[str, Any]) -> Problem | None:
    """``min_nb_epochs`` and ``max_nb_epochs`` together."""
    least, most = options["min_nb_epochs"], options["max_nb_epochs"]
    if isinstance(least, int) and isinstance(most, int) and least > most >= 1 and not options["fast_dev_run"]:
        return Problem(f"min_nb_epochs={least} is more than max_nb_epochs={most}", "", "Raise max_nb_epochs")
    return None


def max_time(name: str, options: Mapping[str, Any]) -> Problem | None:
    """Minutes or a timedelta."""
    value = options["max_time"]
    minutes = value.total_seconds() / 60 if isinstance(value, datetime.timedelta) else value
    if value is None or (isinstance(minutes, (int, float)) and not isinstance(value, bool) and 0 < minutes < math.inf):
        return None
    return Problem(
        "max_time must be a positive number of minutes or a positive timedelta",
        describe(value),
        "Pass None for no limit",
    )


def gpus(name: str, options: Mapping[str, Any]) -> Problem | None:
    """None, a number, a list of numbers, or a string of them; whether they are there is seen in the plan."""
    value = options["gpus"]
    if value is None or value is False or isinstance(value, str):
        return None
    several = isinstance(value, (list, tuple))
    each = list(value) if several else [value]
    least = 0 if several else -1
    if all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in each) and len(set(each)) == len(each):
        return None
    return Problem(
        "gpus must be None, a number of GPUs, a list of different ones, a string like '0,1', or -1 for all",
        describe(value),
        "Pass gpus=1 for one GPU, gpus=None for the CPU",
    )


def silence(name: str, options: Mapping[str, Any]) -> Problem | None:
    """Codes of notices."""
    value = options["silence"]
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(code, str) for code in value):
        return None
    wanted = (value,) if isinstance(value, str) else ("not-shuffled",)
    return Problem("silence must be a list of the codes of notices", describe(value), f"Pass silence={wanted!r}")


def save_path(name: str, options: Mapping[str, Any]) -> Problem | None:
    """The path of a folder."""
    folder = options[name]
    if isinstance(folder, (str, os.PathLike)) and str(folder):
        return None
    return Problem(f"{name} must be the path of a folder", describe(folder), "Pass '.' for the current one")


def resume(name: str, options: Mapping[str, Any]) -> Problem | None:
    """None, 'auto' or the path of a checkpoint."""
    path = options[name]
    if path is None or (isinstance(path, (str, os.PathLike)) and str(path)):
        return None
    return Problem(f"{name} must be the path of a checkpoint, or None", describe(path), "Pass resume='run/a.ckpt'")


def experiment(name: str, options: Mapping[str, Any]) -> Problem | None:
    """What rows are written to."""
    from pytorch_lightning.loggers.logger import Logger
    from pytorch_lightning.loggers.test_tube_logger import is_experiment

    value = options["experiment"]
    each = value if isinstance(value, (list, tuple)) else [value]
    if value is None or value is False or all(isinstance(one, Logger) or is_experiment(one) for one in each):
        return None
    wrong = next(one for one in each if not (isinstance(one, Logger) or is_experiment(one)))
    fits = callable(getattr(wrong, "training_step", None))
    return Problem(
        "experiment must be a test-tube Experiment, a Logger, a list of them, None or False",
        describe(wrong),
        "Pass the model to fit: Trainer().fit(model)" if fits else "Pass None for a folder of the run's own",
    )


def cluster(name: str, options: Mapping[str, Any]) -> Problem | None:
    """test-tube's cluster, which starts the jobs; signals and requeues are the trainer's."""
    value = options["cluster"]
    if value is None or hasattr(value, "optimize_parallel_cluster_gpu"):
        return None
    return Problem(
        "cluster must be a test-tube SlurmCluster, or None", describe(value), "Pass what your function is given"
    )


def backend(name: str, options: Mapping[str, Any]) -> Problem | None:
    """``distributed_backend`` is one of the known strategies by name, or a strategy object."""
    from pytorch_lightning.strategies import STRATEGIES, SingleDevice, Strategy

    value, exact = options["distributed_backend"], options["exact_elastic"]
    name = value.name if isinstance(value, Strategy) else value
    if not isinstance(value, Strategy) and name not in (*STRATEGIES, SingleDevice.name):
        names = ", ".join(map(repr, STRATEGIES))
        return Problem(f"distributed_backend must be one of {names}, or a strategy", describe(value), "Pass 'ddp'")
    strategy = value if isinstance(value, Strategy) else STRATEGIES.get(value, SingleDevice)
    if strategy.several_devices and options["nb_processes"] != 1:
        received = f"nb_processes={options['nb_processes']}"
        return Problem(f"distributed_backend={name!r} is one process", received, "Use 'ddp'")
    if exact and name not in (None, SingleDevice.name, "ddp"):
        return Problem(f"exact_elastic=True doesn't work with distributed_backend={name!r}", do="Use 'ddp'")
    return None


def compile(name: str, options: Mapping[str, Any]) -> Problem | None:
    """``compile`` is a bool or options."""
    if isinstance(options["compile"], (bool, dict)):
        return None
    text = "compile must be True, False or a dict of torch.compile's options"
    return Problem(text, describe(options["compile"]), "Pass compile=True")
