"""Steps compiled by ``torch.compile``, whatever the strategy."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from pytorch_lightning.errors import Notices

Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


def as_it_is(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step``."""
    return step


def build_compiler(options: bool | Mapping[str, Any], device: torch.device, notices: Notices) -> Compile:
    """A function that compiles a step; ``as_it_is`` if ``options`` is False or nothing can be compiled here.

    The module itself isn't wrapped, so the names in its state don't change. Every shape is compiled separately
    (``dynamic=False``, unless ``options`` say otherwise): kernels for dynamic shapes depend on which shapes came
    before, and a resumed run would round differently.
    """
    if options is False:
        return as_it_is
    chosen = {"dynamic": False, **({} if isinstance(options, bool) else options)}
    try:
        torch.compile(_probe, **chosen)(torch.ones(8, device=device))
    except Exception as error:  # whatever is missing, training continues without it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        notices.say(
            "not-compiled", f"compile is on but nothing can be compiled here, so the steps run uncompiled: {reason}"
        )
        return as_it_is
    return partial(torch.compile, **chosen)


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).relu()
