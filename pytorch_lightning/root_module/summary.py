"""The summary of a module."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy


def shape_of(value: Any) -> str:
    """The shape of a tensor, or of each tensor in a list or tuple; '?' for anything else."""
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(map(shape_of, value)) + ")"
    return str(list(value.shape)) if hasattr(value, "shape") else "?"


def number(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers are in ``parameters``; those of layers that are still lazy aren't counted."""
    return sum(p.numel() for p in parameters if not is_lazy(p))


def shown_number(parameters: Iterable[nn.Parameter]) -> str:
    """``number`` for the table: '?' where some aren't known yet."""
    each = list(parameters)
    return "?" if any(map(is_lazy, each)) else f"{number(each):,}"


def summarize(module: nn.Module, example: Any = None) -> str:
    """A table of the direct children of ``module``: name, type, parameters, and, where an ``example`` batch for
    ``forward`` is given, the shapes that go in and come out.

    Runs ``forward`` once on ``example`` in eval mode, without gradients; modes are put back.
    """
    children = list(module.named_children()) or [("(itself)", module)]
    sizes = _sizes(module, dict(children), example) if example is not None else {}
    header = ["Name", "Type", "Params"] + (["In", "Out"] if sizes else [])
    rows = [
        [name, type(child).__name__, shown_number(child.parameters()), *sizes.get(name, ())] for name, child in children
    ]
    own = list(module.parameters(recurse=False))
    if own and children[0][0] != "(itself)":
        rows.append(["(itself)", "Parameter", shown_number(own)])
    rows = [row + [""] * (len(header) - len(row)) for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    total = number(module.parameters())
    trainable = number(p for p in module.parameters() if p.requires_grad)
    later = " ('?': lazy layers, whose size the first batch decides)" if any(map(is_lazy, module.parameters())) else ""
    lines.append(f"{total:,} parameters, {trainable:,} trainable{later}")
    return "\n".join(lines)


def _beside(value: Any, parameter: nn.Parameter) -> Any:
    """``value`` on the device, and with the floating type, of ``parameter``."""
    if isinstance(value, (list, tuple)):
        return type(value)(_beside(entry, parameter) for entry in value)
    if not hasattr(value, "to"):
        return value
    floating = getattr(value, "is_floating_point", lambda: False)()
    return value.to(parameter.device, parameter.dtype) if floating else value.to(parameter.device)


def _sizes(module: nn.Module, children: dict[str, nn.Module], example: Any) -> dict[str, tuple[str, str]]:
    import torch

    sizes: dict[str, tuple[str, str]] = {}
    modes = [(m, m.training) for m in module.modules()]

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            sizes[name] = (shape_of(inputs[0] if len(inputs) == 1 else inputs), shape_of(output))

        return hook

    handles = [child.register_forward_hook(watch(name)) for name, child in children.items()]
    try:
        module.eval()
        parameter = next((p for p in module.parameters() if p.is_floating_point()), None)
        if parameter is not None:
            example = _beside(example, parameter)
        with torch.no_grad():
            module(*example) if isinstance(example, (list, tuple)) else module(example)
    finally:
        for handle in handles:
            handle.remove()
        for submodule, training in modes:
            submodule.training = training
    return sizes
