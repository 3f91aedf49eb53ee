"""The hooks, and who overrides them."""

import difflib
import dis
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from itertools import takewhile
from types import CodeType, FunctionType, MethodType
from typing import Any

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import Notices, Problem, describe
from pytorch_lightning.lightning2 import advice
from pytorch_lightning.root_module.root_module import GIVEN, REQUIRED, LightningModule

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

LOADERS = ("tng_dataloader", "val_dataloader", "test_dataloader")

CALLBACK_HOOKS = {
    name: len(inspect.signature(method).parameters) - 1
    for name, method in vars(Callback).items()
    if name.startswith("on_")
}
"""The hooks of a callback and how many arguments each is called with."""

OTHER_NAMES = {
    "train_step": "training_step",
    "train_dataloader": "tng_dataloader",
    "training_dataloader": "tng_dataloader",
    "valid_step": "validation_step",
    "valid_dataloader": "val_dataloader",
    "validation_epoch_end": "validation_end",
    "test_epoch_end": "test_end",
    "on_train_start": "on_fit_start",
    "on_train_end": "on_fit_end",
    "on_train_epoch_start": "on_epoch_start",
    "on_train_epoch_end": "on_epoch_end",
    "on_train_batch_start": "on_batch_start",
    "on_train_batch_end": "on_batch_end",
    "on_validation_start": "on_pre_performance_check",
    "on_validation_end": "on_post_performance_check",
    "on_validation_epoch_end": "validation_end",
}
"""What hooks of a module are called elsewhere, where the spelling alone doesn't tell."""


KERAS_HOOKS = {
    "on_train_begin": "on_fit_start",
    "on_epoch_begin": "on_epoch_start",
    "on_batch_begin": "on_batch_start",
    "on_train_batch_begin": "on_batch_start",
    "on_test_begin": "on_evaluation_start",
    "on_test_batch_begin": "on_evaluation_start",
    "on_predict_begin": "on_evaluation_start",
    "on_predict_batch_begin": "on_evaluation_start",
}
"""What hooks of Keras's callbacks are called here, as far as Lightning has none of that name."""


def is_overridden(module: Any, name: str) -> bool:
    """Whether ``module`` has a ``name`` of its own, by its class or by an attribute of the object, or a loader of that
    name was passed."""
    if name in LOADERS and name in vars(module).get(GIVEN, ()):
        return True
    mine = _static(module, name)
    return mine is not None and mine is not _static(LightningModule, name)


def hook_table(module: LightningModule, callbacks: Iterable[Callback], run: Any) -> Hooks:
    """For each hook the overridden methods: the module's first, then the callbacks', which get ``run``.

    A hook that nobody wrote is an empty tuple.
    """
    table: dict[str, list[Callable[..., Any]]] = {name: [] for name in [*PARAMETERS, *CALLBACK_HOOKS]}
    for name in PARAMETERS:
        if is_overridden(module, name):
            table[name].append(getattr(module, name))
    for callback in callbacks:
        for name in CALLBACK_HOOKS:
            if _static(callback, name) is not _static(Callback, name):
                table[name].append(partial(getattr(callback, name), run))
    return {name: tuple(methods) for name, methods in table.items()}


def scopes(callbacks: Iterable[Callback], name: str, run: Any) -> Callable[..., AbstractContextManager[Any]]:
    """``scope(*arguments)``: within the scopes that ``callbacks`` give by their method ``name``, one in the other."""
    chosen = [getattr(c, name) for c in callbacks if _static(c, name) is not _static(Callback, name)]
    if not chosen:
        return lambda *_: nullcontext()

    @contextmanager
    def scope(*arguments: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for method in chosen:
                stack.enter_context(method(run, *arguments))
            yield

    return scope


def takes_one_more(module: LightningModule, name: str, several: bool) -> bool:
    """Whether the step ``name`` gets a third argument. One that has a default, or is behind ``*``, is filled only where
    there are ``several`` optimizers or loaders."""
    signature = inspect.signature(getattr(module, name))
    return not _fits(signature, 2) or (several and _fits(signature, 3))


def missing(module: LightningModule, names: Iterable[str]) -> list[Problem]:
    """A problem for each of ``names`` that ``module`` doesn't define: what to write, or what to rename."""
    written = {meant: name for name, meant in near_misses(module).items()}
    stubs = {
        name: f"Rename {written[name]} to {name}" if name in written else f"Write:\n{REQUIRED[name]}" for name in names
    }
    return [
        Problem(f"{type(module).__name__} doesn't define {name}, which is required here", do=stub)
        for name, stub in stubs.items()
        if not is_overridden(module, name)
    ]


def wrongly_signed(module: LightningModule) -> list[Problem]:
    """A problem for each overridden hook that can't be called with its arguments, and for a loader without
    ``@property``."""
    problems = []
    for name in filter(partial(is_overridden, module), PARAMETERS):
        allowed = [PARAMETERS[name], PARAMETERS[name] + (name in TAKES_ONE_MORE)]
        problems += _signature_problems(module, name, allowed, LightningModule)
    for name in LOADERS:
        if inspect.isroutine(_static(module, name)):
            problems.append(
                Problem(
                    f"{type(module).__name__}.{name} must be a property",
                    "a method",
                    f"Write @property above def {name}(self), or @pytorch_lightning.data_loader to make it once",
                )
            )
    return problems


def wrongly_signed_callbacks(callbacks: Iterable[Callback]) -> list[Problem]:
    """The same for the hooks of ``callbacks``."""
    return [
        problem
        for callback in callbacks
        for name, nb in CALLBACK_HOOKS.items()
        if _static(callback, name) is not _static(Callback, name)
        for problem in _signature_problems(callback, name, [nb], Callback) or _keras_problems(callback, name)
    ]


def _keras_problems(callback: Callback, name: str) -> list[Problem]:
    """A hook with Keras's parameters, which would be given ``run`` as the epoch."""
    parameters = inspect.signature(getattr(callback, name)).parameters
    if "logs" not in parameters:
        return []
    return [
        Problem(
            f"{type(callback).__name__}.{name} has the wrong signature",
            f"def {name}(self, {', '.join(parameters)}), as in Keras",
            f"Write def {name}{_named(Callback, name)}, or leave the base class Callback out: then Keras's are called",
        )
    ]


def can_be_called(module: LightningModule, *names: str) -> bool:
    """Whether all of ``names`` are there, as they should be."""
    wrong = {problem.what for problem in wrongly_signed(module)}
    marks = [f"{type(module).__name__}.{name} " for name in names]
    return all(is_overridden(module, name) for name in names) and not any(
        what.startswith(mark) for what in wrong for mark in marks
    )


def _static(owner: Any, name: str) -> Any:
    return inspect.getattr_static(owner, name, None)


def _signature_problems(owner: Any, name: str, allowed: Iterable[int], base: type) -> list[Problem]:
    method, where = getattr(owner, name), f"{type(owner).__name__}.{name}"
    if not callable(method):
        return [Problem(f"{where} must be a method", describe(method), f"Write def {name}{_named(base, name)}")]
    signature = inspect.signature(method)
    if any(_fits(signature, nb) for nb in allowed):
        return []
    received = f"def {name}({', '.join(['self', *map(str, signature.parameters.values())])})"
    return [Problem(f"{where} has the wrong signature", received, f"Write def {name}{_named(base, name)}")]


def _fits(signature: inspect.Signature, nb: int) -> bool:
    try:
        signature.bind(*[None] * nb)
    except TypeError:
        return False
    return True


def _named(base: type, name: str) -> str:
    """The parameters of a hook as a user writes them, in brackets and without types."""
    parameters = inspect.signature(getattr(base, name)).parameters.values()
    return f"({', '.join(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))})"


def near_misses(owner: Any) -> dict[str, str]:
    """The methods of ``owner`` (a module or a callback) whose name nearly is a hook's, each with that hook."""
    base: type = LightningModule if isinstance(owner, LightningModule) else Callback
    known = [*PARAMETERS, *LOADERS, "add_model_specific_args"] if base is LightningModule else list(CALLBACK_HOOKS)
    others = OTHER_NAMES if base is LightningModule else KERAS_HOOKS
    found: dict[str, str] = {}
    for name in _own_methods(owner, base):
        if name in others:
            close = [others[name]]
        elif advice(_kind_of_hooks(base), name) is not None:
            close = []
        else:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        found.update((name, hook) for hook in close)
    return found


def _own_methods(owner: Any, base: type) -> list[str]:
    """The public methods and properties that ``owner``'s classes below ``base`` define, and ``base`` doesn't."""
    classes = takewhile(lambda cls: cls is not base, type(owner).__mro__)
    return [
        name
        for cls in classes
        for name, value in vars(cls).items()
        if not name.startswith("_") and not hasattr(base, name) and (callable(value) or isinstance(value, property))
    ]


def _kind_of_hooks(base: type) -> str:
    return "module_hooks" if base is LightningModule else "callback_hooks"


def modern_hooks(owner: Any) -> dict[str, str]:
    """The methods of ``owner`` that are hooks of Lightning 2 and not of this library, each with what to write."""
    base: type = LightningModule if isinstance(owner, LightningModule) else Callback
    near = near_misses(owner)
    found = {name: advice(_kind_of_hooks(base), name) for name in _own_methods(owner, base) if name not in near}
    return {name: text for name, text in found.items() if text is not None}


def names_in(method: Any) -> set[str]:
    """The names that the code of a method, property or wrapper mentions, as a word or as a text."""
    kinds = (FunctionType, MethodType, CodeType, property, staticmethod, classmethod, partial)
    names: set[str] = set()
    waiting, seen = [method], set[int]()
    while waiting:
        part = waiting.pop()
        if not isinstance(part, kinds) or id(part) in seen:
            continue
        seen.add(id(part))
        waiting += [getattr(part, name, None) for name in ("__code__", "__func__", "fget", "fset", "func")]
        for cell in getattr(part, "__closure__", None) or ():
            with suppress(ValueError):  # one that is empty yet
                waiting.append(cell.cell_contents)
        if isinstance(part, CodeType):
            names.update(part.co_names, (value for value in part.co_consts if isinstance(value, str)))
            waiting += part.co_consts
    return names


def returns_nothing(method: Any) -> bool:
    """Whether a method returns, and only ever None, as far as its code shows."""
    code = getattr(getattr(method, "__func__", method), "__code__", None)
    if code is None or code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
        return False
    returned, before = [], None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "RETURN_CONST":
            returned.append(instruction.argval is None)
        elif instruction.opname == "RETURN_VALUE":
            returned.append(before is not None and before.opname == "LOAD_CONST" and before.argval is None)
        before = instruction
    return bool(returned) and all(returned)


def say_near_misses(owners: Sequence[Any], notices: Notices) -> None:
    """One line for each method of modules and callbacks whose name nearly is a hook's or is one of Lightning 2's, and
    that none of them calls."""
    classes = {
        c for o in owners for c in type(o).__mro__ if not c.__module__.startswith(("torch.", "pytorch_lightning."))
    }
    called = {used for c in classes for name, method in vars(c).items() for used in names_in(method) if used != name}
    for owner in owners:
        lines = {name: f"; did you mean {hook}?" for name, hook in near_misses(owner).items()}
        lines.update((name, f". {text}") for name, text in modern_hooks(owner).items())
        for name, line in lines.items():
            if name not in called:
                notices.say(f"near-hook-{name}", f"{type(owner).__name__}.{name} is never called{line}")
