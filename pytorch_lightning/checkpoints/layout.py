"""What lies where in a file, and of which kind: looked at when it is read, so that nothing else need expect another."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.errors import describe

Fits = Callable[[Any], bool]


def number(least: int = 0, most: int = 2**62) -> Fits:
    return lambda value: type(value) is int and least <= value <= most


def is_a(*kinds: type) -> Fits:
    return lambda value: type(value) in kinds


def or_none(fits: Fits) -> Fits:
    return lambda value: value is None or fits(value)


def named(fits: Fits) -> Fits:
    """A dict of text to what ``fits``."""
    return lambda value: isinstance(value, dict) and all(type(k) is str and fits(v) for k, v in value.items())


def record(**fields: Fits) -> Fits:
    return lambda value: isinstance(value, dict) and unfit(value, fields) is None


def known(**fields: Fits) -> Fits:
    """A dict in which each of ``fields`` fits or is absent: an older version had fewer."""
    return lambda value: isinstance(value, dict) and all(f(value[k]) for k, f in fields.items() if k in value)


def having(name: str, fits: Fits) -> Fits:
    """A dict that fits and has ``name``."""
    return lambda value: fits(value) and name in value


def either(one: Fits, other: Fits) -> Fits:
    return lambda value: one(value) or other(value)


def row(*fields: Fits) -> Fits:
    return lambda value: (
        type(value) in (tuple, list)
        and len(value) == len(fields)
        and all(f(v) for f, v in zip(fields, value, strict=True))
    )


def each(fits: Fits) -> Fits:
    return lambda value: type(value) in (tuple, list) and all(map(fits, value))


def tensor(dtype: torch.dtype, *shape: int) -> Fits:
    return lambda value: isinstance(value, Tensor) and (value.dtype, value.shape) == (dtype, shape)


def texts(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def anything(value: Any) -> bool:
    return True


def unfit(values: Mapping[str, Any], wanted: Mapping[str, Fits]) -> str | None:
    """The first of ``wanted`` that ``values`` lack or hold otherwise, in words; None where all fit."""
    for name, fits in wanted.items():
        if name not in values:
            return f"it is without {name}"
        if not fits(values[name]):
            held = values[name]  # what a large one holds isn't written out
            return f"{name} is {describe(type(held) if isinstance(held, (dict, list, tuple)) else held)}"
    return None


SIMPLE = is_a(str, int, float, bool, type(None))
REAL, BOOL, TEXT = is_a(int, float), is_a(bool), is_a(str)
MODES = record(frozen=texts, eval=texts)
SEED = number(-(2**63), 2**64 - 1)
ATTRIBUTES = record(first=TEXT, nodes=is_a(list), values=named(named(is_a(list))))
SHARD = row(each(number()), each(number()), number())
OF_LOADER: dict[str, Fits] = {
    "workers": or_none(number()), "finished": or_none(row(number(), number(), number())),
    "sizes": named(or_none(number())), "indices_crc": or_none(number()), "sampler": anything, "loader": anything,
    "place": row(number(), number(), number()),
}  # fmt: skip


def of_processes(attributes: dict[str, Any]) -> bool:
    """Whether what several processes had of them fits."""
    fits = known(nb=number(1), differ=each(row(TEXT, TEXT, TEXT)), others=each(ATTRIBUTES))(attributes)
    return fits and len(attributes.get("others", ())) in (0, attributes.get("nb", 1) - 1)


def of_ranks(sums: Any) -> bool:
    """Whether they are sums of an epoch by virtual rank."""
    fits = row(REAL, REAL)
    return isinstance(sums, dict) and all(type(rank) is int and fits(entry) for rank, entry in sums.items())


PARTS: dict[str, Fits] = {
    "run": known(id=TEXT, finished=BOOL, job=or_none(TEXT)),
    "progress": known(
        epoch=number(), batch_nb=number(), global_step=number(), nb_optimizer_steps=number(), nb_validations=number(),
        validated_batch=number(), validated_step=number(), epoch_started=BOOL, epoch_over=BOOL, stop_reason=TEXT,
        seconds=REAL,
    ),
    "data": having(
        "seed",
        known(
            seed=number(-(2**63), 2**64), length=or_none(number()), virtual_ranks=number(1), order=number(1, 2),
            by_rank=each(known(**OF_LOADER)), **OF_LOADER,
        ),
    ),
    "metrics": lambda value: (
        record(losses=each(REAL), prog=named(REAL), validation=named(REAL), nb_nonfinite=number())(value)
        and known(epoch=row(REAL, REAL, REAL), extremes=named(row(REAL, REAL)), last_epoch=named(REAL))(value)
        and known(of_epoch=record(sums=named(of_ranks), paths=named(TEXT)))(value)
    ),
    "epoch_schedules": lambda value: (
        record(stepped=each(number()), validated=BOOL)(value) and known(nb_steps=each(number()))(value)
    ),
    "gradients": known(references=each(REAL), waiting=each(is_a(dict)), by_hand=each(is_a(dict))),
    "random": record(
        python=either(SEED, row(number(), each(number()), or_none(REAL))), torch=either(SEED, is_tensor),
        numpy=either(number(0, 2**32 - 1), row(TEXT, tensor(torch.int64, 624), number(0, 624), number(0, 1), REAL)),
    ),
    "groups": record(made=number(), optimizers=each(record(kind=TEXT, groups=each(each(or_none(TEXT)))))),
    "modes": record(first=MODES, now=MODES),
    "attributes": lambda value: ATTRIBUTES(value) and of_processes(value),
    "reloading": record(attributes=ATTRIBUTES),
    "checksums": named(either(number(), each(SHARD))),
    "precision": named(SIMPLE),
    "versions": named(SIMPLE),
    "callbacks": named(anything),
    "sharded": each(row(each(is_a(str, int, float, bool, type(None))), number(0, 64))),
    "loggers": named(named(anything)),
    "rewound": record(skip=each(row(number(), number()))),
    "fork": record(options=named(anything), hparams=named(anything), skip=each(row(number(), number())), of=TEXT),
}  # fmt: skip
"""The parts of a checkpoint that this library's own code reads."""

POSITION: dict[str, Fits] = {
    "epoch": number(),
    "global_step": number(),
    "parts": known(run=PARTS["run"], progress=PARTS["progress"]),
}
"""What is looked at of a save that isn't read."""

RESUMABLE: dict[str, Fits] = {
    **POSITION,
    "parts": known(**PARTS),
    "format": number(),
    "optimizer_states": each(is_a(dict)),
    "lr_schedulers": each(is_a(dict)),
}
"""What a resume needs."""
