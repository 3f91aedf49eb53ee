"""One process, one device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytorch_lightning.data.transfer import build_transfer
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.strategies.strategy import Strategy


class SingleDevice(Strategy):
    """The module on one device; its steps are its own methods."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        module.to(self.device, dtype)

    def step_function(self, module: nn.Module, name: str) -> Callable[..., Any]:
        return getattr(module, name)  # type: ignore[no-any-return]

    def transfer(self, dtype: torch.dtype | None) -> Callable[[Any], Any] | None:
        return build_transfer(self.device, dtype)


def parse_gpus(gpus: int | str | list[int] | tuple[int, ...] | None) -> list[int] | int:
    """``gpus`` as a list of indices, or as the number -1 for all there are.

    >>> parse_gpus("0;1"), parse_gpus(2), parse_gpus(-1), parse_gpus(None)
    ([0, 1], [0, 1], -1, [])
    """
    if isinstance(gpus, str):
        words = gpus.replace(";", ",").split(",")
        try:
            gpus = [int(word) for word in words if word.strip()]
        except ValueError:
            raise MisconfigurationException(
                f"gpus={gpus!r} can't be read. Pass a number of GPUs, a list like [0, 1], or a string like '0,1'."
            ) from None
        if gpus == [-1]:
            return -1
    if gpus is None or gpus is False:
        return []
    if isinstance(gpus, int):
        return -1 if gpus == -1 else list(range(gpus))
    return list(gpus)


def choose_device(gpus: int | str | list[int] | tuple[int, ...] | None) -> tuple[torch.device, str | None]:
    """The device that ``gpus`` names, and a line to say where it isn't what was asked for.

    Raises ``MisconfigurationException`` where the GPUs that are named aren't there.
    """
    wanted = parse_gpus(gpus)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = torch.accelerator.device_count() if accelerator is not None else 0
    if wanted == -1:
        if not there:
            return torch.device("cpu"), "gpus=-1 asks for all GPUs and there are none: running on the CPU"
        wanted = list(range(there))
    assert isinstance(wanted, list)
    if not wanted:
        return torch.device("cpu"), None
    missing = [index for index in wanted if not 0 <= index < there]
    if missing:
        raise MisconfigurationException(
            f"gpus={gpus!r} names GPUs that aren't there: {missing} (this machine has {there})."
            " Pass gpus=None (--gpus none) for the CPU, or gpus=-1 for all that there are."
        )
    if len(wanted) > 1:
        raise MisconfigurationException(
            f"gpus={gpus!r} names {len(wanted)} GPUs; this version trains on one device. Pass gpus=[{wanted[0]}]."
        )
    assert accelerator is not None
    return torch.device(accelerator.type, wanted[0]), None
