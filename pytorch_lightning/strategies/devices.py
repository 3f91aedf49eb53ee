"""Which devices there are, and which of them are meant."""

import contextlib
from collections.abc import Iterator

import torch

from pytorch_lightning.errors import MisconfigurationException


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


def choose_devices(gpus: int | str | list[int] | tuple[int, ...] | None) -> tuple[list[torch.device], str | None]:
    """The devices that ``gpus`` names, and a line to say where they aren't what was asked for.

    Raises ``MisconfigurationException`` where the GPUs that are named aren't there.
    """
    wanted = parse_gpus(gpus)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = torch.accelerator.device_count() if accelerator is not None else 0
    if wanted == -1:
        if not there:
            return [torch.device("cpu")], "gpus=-1 asks for all GPUs and there are none: running on the CPU"
        wanted = list(range(there))
    assert isinstance(wanted, list)
    if not wanted:
        return [torch.device("cpu")], None
    missing = [index for index in wanted if not 0 <= index < there]
    if missing:
        raise MisconfigurationException(
            f"gpus={gpus!r} names GPUs that aren't there: {missing} (this machine has {there})."
            " Pass gpus=None (--gpus none) for the CPU, or gpus=-1 for all that there are."
        )
    assert accelerator is not None
    return [torch.device(accelerator.type, index) for index in wanted], None


@contextlib.contextmanager
def in_use(device: torch.device) -> Iterator[None]:
    """A scope in which ``device``, where it is an accelerator, is torch's current one: "cuda" alone then means it, and
    so do streams and events that name no device. It is in use from the beginning, and so has generators."""
    if device.type == "cpu":
        yield
        return
    before = torch.accelerator.current_device_index()
    torch.accelerator.set_device_index(device.index or 0)
    torch.empty(0, device=device)
    try:
        yield
    finally:
        torch.accelerator.set_device_index(before)


def note_full_memory(error: BaseException) -> None:
    """Where ``error`` says that a device's memory is full, add to it what helps. Also makes room for what a save
    needs: torch keeps memory that is free for later."""
    if isinstance(error, torch.OutOfMemoryError) and FULL not in getattr(error, "__notes__", ()):
        error.add_note(FULL)
        accelerator = torch.accelerator.current_accelerator()
        module = None if accelerator is None else torch.get_device_module(accelerator)
        getattr(module, "empty_cache", bool)()


FULL = (
    "the device is out of memory: use smaller batches (accumulate_grad_batches=n makes n of them train like one that is"
    " n times as large), precision='bf16', or a smaller model"
)
