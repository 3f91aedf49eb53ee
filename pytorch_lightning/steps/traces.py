"""What a process repeats, since the others run a batch and it has none, leaves nothing behind in the module."""

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from pytorch_lightning.errors import FitError
from pytorch_lightning.run.owners import Owner, attributes_of, delete_attribute, has_state, owners_of, set_attribute
from pytorch_lightning.steps.buffers import kept_buffers

MOST_BYTES = 2**28
"""A larger tensor isn't copied: it is an error where the step changes it."""
OTHERS = (Optimizer, LRScheduler, DataLoader, nn.Module, type)


class Attributes:
    """The attributes of a module, of what it is made of and of the objects that it holds: what they are, and what is
    in those that can be changed in place."""

    def __init__(self, module: nn.Module) -> None:
        self._inside: list[tuple[Any, Any]] = []
        self._large: list[tuple[Tensor, int]] = []
        self._seen: set[int] = set()
        self._owners = [(held, {**attributes_of(held)}) for _, held in owners_of([Owner("module", module)])]
        for _, there in self._owners:
            for value in there.values():
                self._note(value)

    def _note(self, value: Any) -> None:
        if id(value) in self._seen or isinstance(value, nn.Parameter):
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            if value.nbytes > MOST_BYTES:
                self._large.append((value, value._version))
            else:
                self._inside.append((value, value.detach().clone()))
        elif isinstance(value, np.ndarray):
            self._inside.append((value, value.copy()))
        elif isinstance(value, (list, tuple, set, deque, dict)):
            if not isinstance(value, tuple):
                self._inside.append((value, dict(value) if isinstance(value, dict) else [*value]))
            for item in value.values() if isinstance(value, dict) else value:
                self._note(item)
        elif has_state(value) and hasattr(value, "__dict__") and not isinstance(value, OTHERS):
            self._note(vars(value))

    @torch.no_grad()
    def put_back(self) -> None:
        """The same objects in the same places, with what was in them."""
        for value, before in self._inside:
            if isinstance(value, Tensor):
                value.detach().copy_(before)
            elif isinstance(value, np.ndarray):
                value[...] = before
            elif isinstance(value, list):
                value[:] = before
            else:
                value.clear()
                (value.extend if isinstance(value, deque) else value.update)(before)
        for held, there in self._owners:
            now = attributes_of(held)
            for name in now.keys() - there.keys():
                delete_attribute(held, name)
            for name, value in there.items():
                if now.get(name, self) is not value:
                    set_attribute(held, name, value)
        if any(tensor._version != version for tensor, version in self._large):
            raise FitError(
                "a process that has no batch repeats its last one, and the step changed a tensor of the module that is"
                f" too large to be put back (over {MOST_BYTES >> 20} MB). Keep it in a buffer."
            )


@contextlib.contextmanager
def without_trace(module: nn.Module) -> Iterator[None]:
    """A scope whose end puts buffers and attributes of ``module`` back as they were."""
    before = Attributes(module)
    with kept_buffers(module):
        try:
            yield
        finally:
            before.put_back()
