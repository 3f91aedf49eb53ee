"""A pass over a data set: what is run on it, and what becomes of the outputs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from itertools import chain
from math import isclose
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.data.loader import ReplayableLoader, length_of
from pytorch_lightning.data.replayable import shared_out
from pytorch_lightning.data.same_batches import sharding_problems, whole
from pytorch_lightning.data.seeded_view import LOADER_IDS
from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import FitError, MisconfigurationException, Notices, describe, raise_together
from pytorch_lightning.nested import map_tensors
from pytorch_lightning.options.config import Config
from pytorch_lightning.precision.precision import Precision
from pytorch_lightning.processes import Processes, Share, Subject
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run.hooks import Hooks, is_overridden, takes_one_more
from pytorch_lightning.run.metrics import numbers_of, to_number
from pytorch_lightning.run.progress import at_most, nb_checked
from pytorch_lightning.strategies.compiled import Compile, as_it_is
from pytorch_lightning.strategies.devices import note_full_memory
from pytorch_lightning.strategies.strategy import Strategy
from pytorch_lightning.trainer.checks import loader_problems
from pytorch_lightning.trainer.explaining import explain
from pytorch_lightning.trainer.to_first import ToFirst

LOADERS = {"sanity": "validation loader", "predict": "predict loader", "test": "test loader"}
"""The names of a stage's loaders; a stage that isn't listed uses validation's."""


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What ``run_evaluation`` reads."""

    stage: str
    module: LightningModule
    step: Callable[..., Any]
    end: Callable[[list[list[tuple[int, Any]]]], Any]
    """Makes the result of all outputs, each with the number of its batch."""
    keep: Callable[[Any, int], Any]
    """What becomes of one output before it is put aside; gets its number over all loaders too."""
    loaders: Sequence[tuple[ReplayableLoader, int | None, tuple[int | str, ...]]]
    """Each loader, how many of its batches, and what the step gets as further arguments: its number, or its name."""
    nb_batches: int | None
    to_device: Callable[[Any], Any] | None
    seed: int
    on_device: bool
    hooks: Hooks
    nb_of: Callable[[ReplayableLoader], int]
    """How many numbers a loader's batches took, those of other processes included."""
    share: Share
    """Which batches of each loader are this process's."""
    together: Processes | None
    """Where all processes must take part in each step: those."""
    to_first: ToFirst | None
    """What takes the outputs of all processes to the first one, where they go there alone."""
    around: Callable[[str], AbstractContextManager[Any]]
    """The scope of all steps and of ``end``, for a stage."""

    def call(self, name: str, *arguments: Any) -> None:
        """Call everybody who overrides the hook ``name``."""
        for hook in self.hooks[name]:
            hook(*arguments)

    def close(self) -> None:
        """End the workers of its loaders."""
        for loader, _, _ in self.loaders:
            loader.close()

    def note_place(self, error: Exception, loader_i: int, batch_nb: int | None) -> None:
        """Add to a user's exception where in this pass it was raised; None: after the last batch."""
        note_full_memory(error)
        place = "after the last batch" if batch_nb is None else f"batch_nb {batch_nb}"
        loader = f", loader {loader_i}" if len(self.loaders) > 1 and batch_nb is not None else ""
        stage = {"sanity": "sanity validation", "predict": "prediction"}.get(self.stage, self.stage)
        explain(error)
        error.add_note(f"raised in the {stage} of {type(self.module).__name__} ({place}{loader})")


def plan_evaluation(
    stage: str,
    module: LightningModule,
    loaders: Any,
    *,
    strategy: Strategy,
    precision: Precision,
    seed: int,
    hooks: Hooks,
    around: Callable[[str], AbstractContextManager[Any]],
    limit: int | None = None,
    most: int | None = None,
    percent: float = 1.0,
    outputs_to: Callable[[Any, int], None] | None = None,
    to_cpu: bool = False,
    gather: bool | str = True,
    compiled: Compile = as_it_is,
    own: bool = False,
    repeats: bool = False,
    notices: Notices,
) -> EvaluationPlan:
    """A plan for one pass over ``loaders`` (one, a list of several, or a dict of them by name).

    ``limit`` is the number of batches of each loader and process, ``most`` that of each loader over all processes,
    ``percent`` the share of them. ``to_cpu`` brings the outputs to the CPU; ``outputs_to`` takes each instead of a
    list. ``gather``: where there are several processes, give every one all outputs, or ('rank0') the first one.
    ``own``: the loaders are this process's own share. ``repeats``: who has no batch runs along with those who have.
    Raises ``MisconfigurationException`` for loaders that don't fit.
    """
    step_name, end_name = names_of(module, stage)
    hook = {"test": "test_dataloader", "predict": "predict"}.get(stage, "val_dataloader")
    keys, each = _each_of(loaders, hook, module, step_name)
    several = is_several(loaders, takes_loader(module, step_name))
    takes_number = takes_one_more(module, step_name, len(each) > 1 or keys is not None)
    if len(each) > 1 and not takes_number and keys is None:
        raise MisconfigurationException(
            f"{stage} has {len(each)} loaders, so {type(module).__name__}.{step_name} gets a third argument."
            f" Write def {step_name}(self, data_batch, batch_nb, dataloader_i)."
        )
    processes = strategy.processes
    share = Share(processes.nb, range(processes.rank, processes.rank + 1), own)
    places: Sequence[Any] = range(len(each)) if keys is None else keys
    names = [hook] if len(each) == 1 else [f"{hook}[{place!r}]" for place in places]
    if not own:
        each = [whole(loader, notices) for loader in each]
        raise_together(problem for pair in zip(each, names, strict=True) for problem in sharding_problems(*pair))
    raise_together(problem for pair in zip(each, names, strict=True) for problem in loader_problems(*pair))
    planned = []
    for i, (place, loader) in enumerate(zip(places, each, strict=True)):
        nb = _nb_of(loader, stage, percent, at_most(limit if own or limit is None else limit * processes.nb, most))
        loader_id = LOADER_IDS[LOADERS.get(stage, "validation loader")] + i
        planned.append((shared_out(loader, seed, loader_id, share, processes), nb, (place,) if takes_number else ()))
    counts = [nb for _, nb, _ in planned]
    summarize = _build_summary(module, end_name, several and takes_number, keys)
    gathered = _outputs_of(module, step_name) if gather and outputs_to is None else None
    calls = (end_name, notices) if end_name is not None else None
    end, to_first = build_end(summarize, processes, gathered, own, calls), None
    if gathered is not None and gather == "rank0" and processes.nb > 1:
        to_first = ToFirst(processes, gathered)
        end = to_first.build_end(summarize, own, module, calls)
    return EvaluationPlan(
        stage=stage,
        module=module,
        step=precision.forward(compiled(strategy.step_function(module, step_name))),
        end=end,
        to_first=to_first,
        keep=_to_cpu(outputs_to) if to_cpu or (processes.nb > 1 and gather) else keep_detached,
        loaders=planned,
        nb_batches=None if None in counts else sum(nb for nb in counts if nb is not None),
        to_device=strategy.transfer(precision.dtype),
        seed=seed,
        on_device=strategy.device.type != "cpu",
        hooks=hooks,
        around=around,
        nb_of=partial(_nb_in_all, processes) if own else attrgetter("nb_drawn"),
        share=share,
        together=processes if strategy.runs_together or (repeats and processes.nb > 1) else None,
    )


def names_of(module: LightningModule, stage: str) -> tuple[str, str | None]:
    """The step and the end that ``stage`` runs: a test without ``test_step`` and ``test_end`` is a validation."""
    if stage == "predict":
        return "predict_step", None
    if stage != "test":
        return "validation_step", "validation_end"
    return (
        "test_step" if is_overridden(module, "test_step") else "validation_step",
        "test_end" if is_overridden(module, "test_end") else "validation_end",
    )


def is_several(loaders: Any, takes_loader: bool) -> bool:
    """Whether ``loaders`` is a list of loaders, not one loader that is a list of batches.

    A list of things that know their ``dataset`` is; of a list of other things the step decides, by its third
    argument.
    """
    if not isinstance(loaders, (list, tuple)) or not loaders:
        return False
    return all(hasattr(loader, "dataset") for loader in loaders) or (
        takes_loader and all(hasattr(loader, "__iter__") and not isinstance(loader, Tensor) for loader in loaders)
    )


def _each_of(
    loaders: Any, hook: str, module: LightningModule, step_name: str
) -> tuple[tuple[str, ...] | None, list[Any]]:
    """The names of ``loaders`` where they have some, and each of them."""
    if not isinstance(loaders, Mapping):
        return None, list(loaders) if is_several(loaders, takes_loader(module, step_name)) else [loaders]
    for key, loader in loaders.items():
        nested = isinstance(loader, Mapping) or is_several(loader, False)
        if not isinstance(key, str) or nested:
            what = "a name that isn't text" if not nested else f"loaders inside of loaders, under {key!r}"
            raise MisconfigurationException(
                f"{hook} returned a dict with {what}; received {describe(loader if nested else key)}. Return one loader"
                " for each name: {'clean': loader, 'noisy': another}."
            )
    if not loaders:
        raise MisconfigurationException(f"{hook} returned a dict without loaders. Return {{'clean': loader}}.")
    return tuple(loaders), [*loaders.values()]


def _nb_of(loader: Any, stage: str, percent: float, limit: int | None) -> int | None:
    length = length_of(loader)
    if length is None and percent != 1.0 and limit is None:
        what = f"a fraction ({percent})" if percent < 1 else f"{percent:g} times as much"
        raise MisconfigurationException(
            f"the {stage} loader has no length, so {what} of it can't be used. Give it a __len__."
        )
    nb = nb_checked(length, percent)
    return nb if limit is None else (limit if nb is None else min(nb, limit))


def nb_in_all(loaders: Any, module: LightningModule, config: Config, limit: int | None) -> int | None:
    """The batches of a validation on ``loaders``; None where one of them has no length."""
    _, each = _each_of(loaders, "val_dataloader", module, "validation_step")
    limit = at_most(limit, config.max_nb_val_batches)
    counts = [_nb_of(loader, "validation", config.val_percent_check, limit) for loader in each]
    return None if None in counts else sum(nb for nb in counts if nb is not None)


def takes_loader(module: LightningModule, step_name: str) -> bool:
    """Whether a step gets the number of its loader, even if there is one loader alone."""
    named = any("loader" in name for name in signature(getattr(module, step_name)).parameters)
    return named or takes_one_more(module, step_name, several=False)


def _nb_in_all(processes: Processes, loader: ReplayableLoader) -> int:
    return processes.nb * int(max(processes.gather(loader.nb_drawn)))


def build_end(
    summarize: Callable[[list[list[Any]]], Any],
    processes: Processes,
    gathered: Subject | None,
    by_rank: bool = False,
    names: tuple[str, Notices] | None = None,
) -> Callable[[list[list[tuple[int, Any]]]], Any]:
    """``end(outputs)``: ``summarize`` of the outputs of all processes, in the order of the loader, or those of one
    process after the other.

    Where they aren't ``gathered`` each process makes its own summary, and the numbers are averaged by how many batches
    each had.
    """

    def end(outputs: list[list[tuple[int, Any]]]) -> Any:
        own = [[output for _, output in each] for each in outputs]
        if processes.nb == 1:
            return summarize(own)
        if gathered is not None:
            numbers = [[0 if by_rank else number for number, _ in each] for each in outputs]
            result = summarize(_in_order(processes.gather(numbers), processes.gather(own, gathered)))
            return result if names is None else _of_first(processes.gather(result), *names)
        nb_own = sum(map(len, own))
        told = processes.gather((nb_own, summarize(own) if nb_own else None))
        if not isinstance(told[0][1], dict):
            return told[processes.rank][1]
        total = sum(nb for nb, _ in told)
        return {key: sum(nb * own[key] for nb, own in told if nb) / total for key in told[0][1]}

    return end


def _of_first(results: list[dict[str, float]], name: str, notices: Notices) -> dict[str, float]:
    """The numbers of process 0, and a notice where others have others though the outputs were the same."""
    first = results[0]
    for rank, other in enumerate(results):
        names = [k for k in {**first, **other} if not _is_close(first.get(k), other.get(k))]
        if names:
            shown = ", ".join(f"{k} {first.get(k)} and {other.get(k)}" for k in names[:3])
            notices.say(
                "ranks-differ",
                f"{name} gives other numbers in process {rank} than in process 0 ({shown}); those of process 0 are"
                " used. Make them from its outputs alone, which are the same everywhere, or add up with"
                " torch.distributed what each process counted",
                key=name,
            )
            break
    return first


def _is_close(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and (one != one or isclose(one, other, rel_tol=1e-5)))


def _in_order(numbers: list[list[list[int]]], outputs: list[list[list[Any]]]) -> list[list[Any]]:
    """Of each loader everybody's outputs, in the order of the batches: ``numbers`` has that of each output. Both are by
    process, then by loader."""
    ordered = []
    for of_each, parts in zip(zip(*numbers, strict=True), zip(*outputs, strict=True), strict=True):
        pairs = sorted(zip(chain(*of_each), chain(*parts), strict=True), key=itemgetter(0))
        ordered.append([output for _, output in pairs])
    return ordered


def _outputs_of(module: LightningModule, step: str) -> Subject:
    """What processes send each other: any plain data, of types that the code of ``module`` names."""
    other = "pass write_to='a folder'" if step == "predict_step" else "pass gather_validation=False"
    return Subject(f"outputs of {step}", f"Return plain data from {step}, or {other}.", module=module)


def _build_summary(
    module: LightningModule, name: str | None, nested: bool, keys: Sequence[str] | None
) -> Callable[[list[list[Any]]], Any]:
    def by_name(outputs: list[list[Any]]) -> Any:
        return outputs if keys is None else dict(zip(keys, outputs, strict=True))

    if name is None:
        return lambda outputs: by_name(outputs) if nested or keys is not None else outputs[0]
    is_own, end = is_overridden(module, name), getattr(module, name)
    where = f"{name} of {type(module).__name__}"

    def summarize(outputs: list[list[Any]]) -> dict[str, float | int]:
        if not is_own:
            return (
                mean_by_batch(outputs)
                if keys is None
                else _flat({k: mean_by_batch([o]) for k, o in by_name(outputs).items()})
            )
        result = end(by_name(outputs) if nested or keys is not None else outputs[0])
        if result is None:
            return {}
        if not isinstance(result, Mapping):
            raise FitError(
                f"{where} returned {describe(result)}; expected a dict of numbers, or nothing."
                " Return {'val_loss': mean}."
            )
        return numbers_of(result if keys is None else _flat(result), where)

    return summarize


def _flat(by_loader: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers by name, those of a loader after its name.

    >>> _flat({"clean": {"val_loss": 0.5}, "mean": 0.25})
    {'clean/val_loss': 0.5, 'mean': 0.25}
    """
    found: dict[str, Any] = {}
    for key, value in by_loader.items():
        found |= {f"{key}/{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return found


def mean_by_batch(outputs: list[list[Any]]) -> dict[str, float]:
    """What an end gives that nobody wrote: the mean of each number by name, over the batches that returned it."""
    numbers: dict[str, list[float]] = {}
    for output in chain(*outputs):
        for key, value in output.items() if isinstance(output, Mapping) else ():
            if (number := to_number(value)) is not None:
                numbers.setdefault(str(key), []).append(number)
    return {key: sum(values) / len(values) for key, values in numbers.items()}


def keep_detached(output: Any, number: int) -> Any:
    """``detached``, for outputs that stay where they are."""
    return detached(output)


def detached(value: Any) -> Any:
    """``value`` with every tensor in it detached; only copied where one has a graph."""
    return map_tensors(value, lambda tensor: tensor.detach() if tensor.requires_grad else tensor)


def _to_cpu(outputs_to: Callable[[Any, int], None] | None) -> Callable[[Any, int], Any]:
    transfer = build_transfer(torch.device("cpu"), None, from_device=True)

    def keep(output: Any, number: int) -> Any:
        output = detached(output) if transfer is None else transfer(detached(output))
        return output if outputs_to is None else outputs_to(output, number)

    return keep
