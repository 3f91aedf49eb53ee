"""What the numbers of a run follow from, beside its weights: code, data, options and versions, as plain data."""

import hashlib
import platform
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pytorch_lightning.data.combined import is_several, named, parts_of
from pytorch_lightning.data.loader import length_of
from pytorch_lightning.errors import one_line
from pytorch_lightning.options.config import Config
from pytorch_lightning.resume.settings import COMPARED
from pytorch_lightning.run.owners import Owner, owners_of
from pytorch_lightning.version import __version__

CHANGING = (
    *COMPARED,
    "data_is_sharded",
    "lr_scheduler_milestones",
    "reload_dataloaders_every_nb_epochs",
)
"""The options that numbers depend on."""
OF_LOADER = ("dataset", "sampler", "batch_sampler", "collate_fn", "worker_init_fn")
ABSENT = "absent"
_STDLIB = sysconfig.get_path("stdlib")
_OTHERS = ("torch", "numpy", "pytorch_lightning")


def code_of(module: nn.Module, loader: Any) -> dict[str, str | None]:
    """sha256 of the files that define the classes of the module, of its layers and of the training data, what they
    inherit from, and the functions that make batches, by file name; None where a class lies in no file. Files of
    Python, torch, numpy and this library aren't among them: their versions are."""
    files: dict[str, set[str | None]] = {}
    for kind in _kinds_of(module, loader):
        place = str(getattr(kind, "__module__", ""))
        file = getattr(sys.modules.get(place), "__file__", None)
        is_known = place.partition(".")[0] in (*_OTHERS, "builtins") or (
            file is not None and file.startswith(_STDLIB) and "site-packages" not in file
        )
        if not is_known:
            name = f"{kind.__qualname__}, in no file" if file is None else Path(file).name
            files.setdefault(name, set()).add(None if file is None else _hash_of(file))
    return {name: _together(found) for name, found in sorted(files.items())}


def _kinds_of(module: nn.Module, loader: Any) -> Iterator[Any]:
    """Classes and functions."""
    owners = [Owner("", module)]
    for each in named(loader).values() if is_several(loader) else parts_of(loader).values():
        yield from type(each).__mro__
        owners += [Owner("", part) for name in OF_LOADER if (part := getattr(each, name, None)) is not None]
    for _, held in owners_of(owners):
        yield from type(held).__mro__
        inner = getattr(held, "dataset", None)  # of a Subset, say
        while inner is not None:
            yield from type(inner).__mro__
            inner = getattr(inner, "dataset", None)
        if callable(held) and hasattr(held, "__qualname__"):
            yield held


def _hash_of(file: str) -> str | None:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


def _together(hashes: set[str | None]) -> str | None:
    known = sorted(filter(None, hashes))
    return None if len(known) < len(hashes) else known[0] if len(known) == 1 else digest_of(known)


def digest_of(words: list[str]) -> str:
    """One hash for several."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()


def data_of(loader: Any) -> dict[str, int | None]:
    """The number of samples of each dataset, and of batches of the loader; None where it isn't known."""
    found: dict[str, int | None] = {}
    for name, each in (named(loader) if is_several(loader) else parts_of(loader)).items():
        of = "" if name is None else f" of {name}"
        found |= {f"samples{of}": length_of(getattr(each, "dataset", None)), f"batches{of}": length_of(each)}
    return found


def options_of(config: Config) -> dict[str, str]:
    """The options that numbers depend on. The seed and the virtual ranks are those that the run began with."""
    return {name: repr(getattr(config, name)) for name in CHANGING}


def versions_of(device: torch.device) -> dict[str, Any]:
    """The versions, and the kind of machine: processor, what torch uses of it, threads, and the accelerator."""
    return {
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "library": __version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": device.type if device.type == "cpu" else f"{device.type} {_name_of(device)}",
        "threads": torch.get_num_threads(),
    }


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What isn't the same, for people.

    >>> changes({"a": 1, "b": "2" * 64}, {"a": 2, "b": "3" * 64})
    ['a (was 1, is 2)', 'b (was 22222222..., is 33333333...)']
    """
    pairs = {name: (before.get(name, ABSENT), now.get(name, ABSENT)) for name in [*before, *now]}
    return [
        f"{one_line(name, 80)} (was {_short(old)}, is {_short(new)})"
        for name, (old, new) in pairs.items()
        if old != new
    ]


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}..." if len(text) == 64 else one_line(text, 80)
