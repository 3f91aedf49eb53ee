"""A run that is a fork: what it has otherwise than its parent is a part of each of its saves, and stays so."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.checkpoints.checkpoint import Part
from pytorch_lightning.errors import Notices, Problem
from pytorch_lightning.options.config import Config
from pytorch_lightning.resume.parts import Kept
from pytorch_lightning.resume.resuming import ResumedSave
from pytorch_lightning.resume.settings import COMPARED
from pytorch_lightning.root_module.arguments import arguments_part

PART = "fork"
ADVICE = "Pass it again, or resume the fork by its own command with --resume"


def part_of(resumed: ResumedSave | None, notices: Notices) -> dict[str, Part]:
    """The part of a fit that resumes a fork, which a notice says; empty for others."""
    state = None if resumed is None else resumed.checkpoint["parts"].get(PART)
    if resumed is None or state is None:
        return {}
    skipped = "".join(f", {without(*each)}" for each in state["skip"])
    notices.say("resumed-fork", f"{resumed.path} is of a fork of {state['of']}, and is resumed as that{skipped}")
    return {PART: Kept(state)}


def without(first: int, end: int) -> str:
    """Batches that are left out, in words.

    >>> without(5, 7), without(5, 6)
    ('without the batches 5 to 6', 'without batch 5')
    """
    return f"without batch {first}" if end == first + 1 else f"without the batches {first} to {end - 1}"


def ranges_of(parts: Mapping[str, Part]) -> Sequence[Sequence[int]]:
    """The batches that a fit with these parts leaves out, (first, end) each."""
    return parts[PART].state_dict()["skip"] if PART in parts else ()


def problems(saved: Mapping[str, Any] | None, config: Config, module: Any) -> list[Problem]:
    """The edits of a fork that a start of it lacks: options that numbers depend on, and hyperparameters."""
    fork = {} if saved is None else saved["parts"].get(PART, {})
    now = {name: getattr(config, name) for name in fork.get("options", {}) if name in COMPARED}
    found = [(f"the option {name}", fork["options"][name], value) for name, value in now.items()]
    if fork.get("hparams"):
        given = hyperparameters(module)
        found += [(f"the hyperparameter {name}", v, given.get(name)) for name, v in fork["hparams"].items()]
    return [
        Problem(f"this run is a fork, and {what} of it is {kept!r}", f"{received!r}", ADVICE)
        for what, kept, received in found
        if kept != received
    ]


def hyperparameters(module: Any) -> dict[str, Any]:
    """The hparams of ``module``, and the arguments of its constructor, by name, as a checkpoint has them."""
    from pytorch_lightning.checkpoints.checkpoint import plain_hparams

    call = arguments_part(module)["call"] or {}
    return {**call.get("arguments", {}), **plain_hparams(module.hparams)}
