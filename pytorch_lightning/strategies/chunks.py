"""A batch split into chunks, and the outputs of a step for the chunks combined again."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pytorch_lightning.errors import FitError, describe


def nb_samples(batch: Any) -> int | None:
    """The length of the first tensor in ``batch`` that has one; None where none has.

    >>> nb_samples([torch.zeros(3, 2), torch.zeros(3)])
    3
    """
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else None
    found = (nb_samples(part) for part in _parts_of(batch))
    return next((nb for nb in found if nb is not None), None)


def cut(batch: Any, nb: int) -> list[tuple[Any, int]]:
    """``batch`` in at most ``nb`` chunks of whole samples, each with its size, as ``torch.chunk`` cuts them.

    Tensors as long as the batch are cut, and lists of words or numbers as long as it; other things go into every
    chunk as they are. A batch without a tensor is one chunk.
    """
    size = nb_samples(batch)
    if not size:
        return [(batch, 1)]
    step = -(-size // nb)
    return [(_slice(batch, size, start, start + step), min(step, size - start)) for start in range(0, size, step)]


def _parts_of(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return ()


def _slice(value: Any, size: int, start: int, end: int) -> Any:
    if isinstance(value, Tensor):
        return value[start:end] if value.dim() and len(value) == size else value
    parts = _parts_of(value)
    if isinstance(value, (list, tuple)) and len(value) == size and all(isinstance(p, (str, int, float)) for p in value):
        return value[start:end]
    if not parts:
        return value
    return _like(value, [_slice(part, size, start, end) for part in parts])


def _like(value: Any, parts: Sequence[Any]) -> Any:
    """``parts`` in a container like ``value``."""
    if isinstance(value, Mapping):
        pairs = dict(zip(value, parts, strict=True))
        try:
            return type(value)(pairs)  # type: ignore[call-arg]
        except TypeError:  # a mapping of the user's that is made from something else
            return pairs
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*parts)
    if isinstance(value, (list, tuple)):
        return type(value)(parts)
    names = [field.name for field in dataclasses.fields(value)]
    return dataclasses.replace(value, **dict(zip(names, parts, strict=True)))


def join_training(outputs: Sequence[Any], sizes: Sequence[int], device: torch.device) -> Any:
    """What training steps returned for chunks, as for the whole batch: ``loss`` is the mean weighted by
    ``loss_count`` if they have one (the counts are added), otherwise by the number of samples."""
    there = [(output, size) for output, size in zip(outputs, sizes, strict=True) if output is not None]
    if len(there) < len(outputs):  # a chunk for which the step returned None contributes nothing
        return join_training([o for o, _ in there], [size for _, size in there], device) if there else None
    first = outputs[0]
    losses: list[Any] = [output.get("loss") if isinstance(output, Mapping) else output for output in outputs]
    if not all(isinstance(loss, Tensor) and loss.numel() == 1 for loss in losses):
        return first  # whoever reads it says what is wrong
    losses = [loss.reshape(()) for loss in losses]
    if not isinstance(first, Mapping):
        return _mean(losses, sizes, device)
    counts = [output.get("loss_count") for output in outputs]
    counted = all(count is not None for count in counts)
    joined: dict[Any, Any] = {}
    for key in first:
        values = [output.get(key) for output in outputs]
        if key == "loss":
            weights = [float(count) for count in counts] if counted else sizes
            joined[key] = _mean(losses, weights, device)
        elif key == "loss_count" and counted:
            joined[key] = sum(float(count) for count in counts)
        else:
            if key in ("prog", "tqdm_metrics"):  # numbers, whatever their shape: with chunks of one sample too
                values = [_scalars(value) for value in values]
            joined[key] = join(values, sizes, device)
    return _like(first, list(joined.values()))


def _scalars(prog: Any) -> Any:
    if not isinstance(prog, Mapping):
        return prog
    return {k: v.reshape(()) if isinstance(v, Tensor) and v.numel() == 1 else v for k, v in prog.items()}


def join(outputs: Sequence[Any], sizes: Sequence[int], device: torch.device) -> Any:
    """What a step returned for chunks of ``sizes`` samples, as it would be for the whole batch, on ``device``.

    Tensors with one row per sample, and lists with one entry per sample, are put behind each other. Of other tensors
    of a floating type the mean is taken, weighted by the numbers of samples; those of whole numbers are counts, and
    added up. Containers are gone into. Floats are averaged, and of anything else the first is taken. Raises
    ``FitError`` for tensors that don't fit together.
    """
    first = outputs[0]
    if isinstance(first, Tensor):
        return _join_tensors(outputs, sizes, device)
    if isinstance(first, float):
        return sum(value * size for value, size in zip(outputs, sizes, strict=True)) / sum(sizes)
    if isinstance(first, (list, tuple)) and not hasattr(first, "_fields"):
        per_sample = [len(output) for output in outputs] == list(sizes)
        if per_sample and not any(isinstance(part, (Tensor, float)) for part in first):
            return type(first)(part for output in outputs for part in output)
    if not _parts_of(first):
        return first
    every = [_parts_of(output) for output in outputs]
    if isinstance(first, Mapping):
        every = [[output[key] for key in first] for output in outputs]
    return _like(first, [join(values, sizes, device) for values in zip(*every, strict=True)])


def _join_tensors(outputs: Sequence[Tensor], sizes: Sequence[int], device: torch.device) -> Tensor:
    if all(output.dim() and len(output) == size for output, size in zip(outputs, sizes, strict=True)):
        return torch.cat([output.to(device) for output in outputs])
    if len({output.shape for output in outputs}) > 1:
        raise FitError(
            "a step under 'dp' returned tensors that can't be combined:"
            f" {', '.join(describe(output) for output in outputs)} for chunks of {list(sizes)} samples."
            " Return one row per sample, a mean, or use distributed_backend='ddp'."
        )
    if not outputs[0].is_floating_point() and not outputs[0].is_complex():
        return torch.stack([output.to(device) for output in outputs]).sum(0).to(outputs[0].dtype)
    return _mean(outputs, sizes, device)


def _mean(values: Sequence[Tensor], weights: Sequence[float], device: torch.device) -> Tensor:
    total = sum(weights) or 1.0
    parts = [value.to(device) * (weight / total) for value, weight in zip(values, weights, strict=True)]
    return torch.stack(parts).sum(0)
