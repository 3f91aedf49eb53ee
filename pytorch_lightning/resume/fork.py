"""What a run has otherwise than the one that it came from is a part of each of its saves, and stays so: the edits of a
fork, and the batches that are left out where training went back."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning.checkpoints.checkpoint import Part
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.errors import Notices, Problem
from pytorch_lightning.options.config import Config
from pytorch_lightning.resume.parts import Kept
from pytorch_lightning.resume.resuming import ResumedSave
from pytorch_lightning.resume.settings import COMPARED
from pytorch_lightning.root_module.arguments import arguments_part

PART, REWOUND = "fork", "rewound"
ADVICE = "Pass it again, or resume the fork by its own command with --resume"


def part_of(resumed: ResumedSave | None, notices: Notices) -> dict[str, Part]:
    """The parts of a fit that resumes a fork, which a notice says, or a run that went back; empty for others."""
    saved = {} if resumed is None else resumed.checkpoint["parts"]
    parts: dict[str, Part] = {name: Kept(saved[name]) for name in (PART, REWOUND) if name in saved}
    if resumed is None or PART not in parts:
        return parts
    state = saved[PART]
    skipped = "".join(f", {without(*each)}" for each in state["skip"])
    notices.say("resumed-fork", f"{resumed.path} is of a fork of {state['of']}, and is resumed as that{skipped}")
    return parts


def without(first: int, end: int) -> str:
    """Batches that are left out, in words.

    >>> without(5, 7), without(5, 6)
    ('without the batches 5 to 6', 'without batch 5')
    """
    return f"without batch {first}" if end == first + 1 else f"without the batches {first} to {end - 1}"


def ranges_of(parts: Mapping[str, Part]) -> Sequence[Sequence[int]]:
    """The batches that a fit with these parts leaves out, (first, end) each."""
    return [each for name in (PART, REWOUND) if name in parts for each in parts[name].state_dict()["skip"]]


def rewound(path: str, left_out: tuple[int, int], callback: str, state: dict[str, Any]) -> dict[str, Any]:
    """The save at ``path`` without the batches ``left_out``, and with the ``state`` of ``callback``, a name."""
    saved = read_any(path)
    skipped = saved["parts"].get(REWOUND, {"skip": []})["skip"]
    saved["parts"][REWOUND] = {"skip": [*skipped, list(left_out)]}
    saved["parts"]["callbacks"][callback] = state
    return saved


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
