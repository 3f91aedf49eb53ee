"""Which hooks there are, and who overrides them."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import Notices, Problem
from pytorch_lightning.root_module.root_module import REQUIRED, LightningModule

Hooks = dict[str, tuple[Callable[..., Any], ...]]

PARAMETERS: dict[str, int] = {
    "training_step": 2,
    "validation_step": 2,
    "validation_end": 1,
    "test_step": 2,
    "test_end": 1,
    "predict_step": 2,
    "configure_optimizers": 0,
    "get_save_dict": 0,
    "load_model_specific": 1,
    "update_tng_log_metrics": 1,
    "on_tng_metrics": 1,
    "on_fit_start": 0,
    "on_fit_end": 0,
    "on_sanity_check_start": 0,
    "on_epoch_start": 0,
    "on_epoch_end": 0,
    "on_batch_start": 1,
    "on_batch_end": 0,
    "on_after_backward": 0,
    "on_before_zero_grad": 1,
    "optimizer_step": 4,
    "on_pre_performance_check": 0,
    "on_post_performance_check": 0,
    "on_save_checkpoint": 1,
    "on_load_checkpoint": 1,
}
"""The hooks of a module and how many arguments each is called with, ``self`` aside."""

TAKES_ONE_MORE = {
    "training_step": "optimizer_i",
    "validation_step": "dataloader_i",
    "test_step": "dataloader_i",
    "predict_step": "dataloader_i",
}
"""Steps that may take a third argument."""

CALLBACK_HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def is_overridden(module: Any, name: str) -> bool:
    """Whether ``module`` has a ``name`` of its own, by its class or by an attribute of the object."""
    mine = inspect.getattr_static(module, name, None)
    return mine is not None and mine is not inspect.getattr_static(LightningModule, name, None)


def hook_table(module: LightningModule, callbacks: Iterable[Callback], run: Any) -> Hooks:
    """For each hook the methods that somebody wrote: the module's first, then the callbacks', which get ``run``.

    A hook that nobody wrote is an empty tuple.
    """
    table: dict[str, list[Callable[..., Any]]] = {name: [] for name in [*PARAMETERS, *CALLBACK_HOOKS]}
    for name in PARAMETERS:
        if is_overridden(module, name):
            table[name].append(getattr(module, name))
    for callback in callbacks:
        for name in CALLBACK_HOOKS:
            if inspect.getattr_static(callback, name) is not inspect.getattr_static(Callback, name):
                table[name].append(partial(getattr(callback, name), run))
    return {name: tuple(methods) for name, methods in table.items()}


def nb_arguments(method: Callable[..., Any]) -> int:
    """How many positional arguments ``method`` takes at most; those behind ``*`` don't count."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in inspect.signature(method).parameters.values())


def takes_one_more(module: LightningModule, name: str) -> bool:
    """Whether the step ``name`` has the third argument that it may have."""
    return nb_arguments(getattr(module, name)) >= 3


def missing(module: LightningModule, names: Iterable[str]) -> list[Problem]:
    """A problem for each of ``names`` that ``module`` doesn't define."""
    return [
        Problem(
            f"{type(module).__name__} doesn't define {name}, and it is needed here",
            do=f"Write:\n       {REQUIRED[name].replace(chr(10), chr(10) + '       ')}",
        )
        for name in names
        if not is_overridden(module, name)
    ]


def wrongly_signed(module: LightningModule) -> list[Problem]:
    """A problem for each overridden hook that can't be called with its arguments."""
    problems = []
    for name, nb in PARAMETERS.items():
        if not is_overridden(module, name):
            continue
        method = getattr(module, name)
        if not callable(method):
            problems.append(Problem(f"{type(module).__name__}.{name} must be a method", repr(method)))
            continue
        signature = inspect.signature(method)
        allowed = [nb, nb + 1] if name in TAKES_ONE_MORE else [nb]
        if not any(_fits(signature, n) for n in allowed):
            expected = inspect.signature(getattr(LightningModule, name)).parameters
            problems.append(
                Problem(
                    f"{type(module).__name__}.{name} can't be called as it should be",
                    f"def {name}{_with_self(signature)}",
                    f"Write def {name}({', '.join(expected)})",
                )
            )
    return problems


def wrongly_signed_callbacks(callbacks: Iterable[Callback]) -> list[Problem]:
    """A problem for each hook of a callback that can't be called with its arguments."""
    problems = []
    for callback in callbacks:
        for name in CALLBACK_HOOKS:
            expected, signature = inspect.signature(getattr(Callback, name)), inspect.signature(getattr(callback, name))
            if not _fits(signature, len(expected.parameters) - 1):
                what = f"{type(callback).__name__}.{name} can't be called as it should be"
                problems.append(Problem(what, f"def {name}{_with_self(signature)}", f"Write def {name}{expected}"))
    return problems


def _fits(signature: inspect.Signature, nb: int) -> bool:
    try:
        signature.bind(*[None] * nb)
    except TypeError:
        return False
    return True


def _with_self(signature: inspect.Signature) -> str:
    names = [str(p) for p in signature.parameters.values()]
    return f"({', '.join(['self', *names])})"


def say_near_misses(module: LightningModule, notices: Notices) -> None:
    """One line for each method whose name nearly is a hook's."""
    known = [*PARAMETERS, "tng_dataloader", "val_dataloader", "test_dataloader", "add_model_specific_args"]
    for cls in type(module).__mro__:
        if cls is LightningModule:
            return
        for name, value in vars(cls).items():
            if (
                name.startswith("_")
                or not (callable(value) or isinstance(value, property))
                or hasattr(LightningModule, name)
            ):
                continue
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if near:
                notices.say(f"near-hook-{name}", f"{cls.__name__}.{name} is never called; did you mean {near[0]}?")
