"""What is true of several processes of which one was cut, as ``changing_together`` runs them."""

import json
import signal
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.faults.killing import result_of


def ends(folder: Path, nb: int) -> list[Any]:
    """What each process ended with."""
    return [json.loads((folder / f"end{f'-{rank}' if rank else ''}.json").read_text()) for rank in range(nb)]


def said(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("said-*")))


def check_cut(folder: Path, made: dict[str, Any]) -> dict[str, Tensor]:
    """The cut run ended as the one that nothing cut, on every process; gives its weights."""
    told, nb = torch.load(folder / "codes.pt"), made["nb"]
    whole, *cut, again = told["codes"]
    assert whole == [0] * nb, f"{json.dumps(made)}\n{said(folder / 'whole')}"
    for (how, _, rank), codes in zip(made["cuts"], cut, strict=True):
        here = codes[rank or 0]
        assert None not in codes, f"hung: {json.dumps(made)}\n{told['said']}"
        assert here in ({"kill": -signal.SIGKILL, "term": 75, "raise": 1}[how], 0), (
            f"{json.dumps(made)}\n{told['said']}"
        )
        assert how != "term" or codes == [here] * nb, told["said"]
        assert 0 not in codes or codes == [0] * nb, f"{json.dumps(made)}\n{told['said']}"
    assert again == [0] * nb, f"{json.dumps(made)}\n{said(folder / 'cut')}"
    undisturbed, resumed = result_of(folder / "whole"), result_of(folder / "cut")
    assert resumed.position == undisturbed.position, json.dumps(made)
    assert resumed.rows == undisturbed.rows, json.dumps(made)
    assert ends(folder / "cut", nb) == ends(folder / "whole", nb), json.dumps(made)
    weights = [torch.load(folder / "whole" / f"weights{f'-{rank}' if rank else ''}.pt") for rank in range(nb)]
    for name, value in weights[0].items():
        assert all(value.equal(of_rank[name]) for of_rank in weights), f"{name}: {json.dumps(made)}"
    found: dict[str, Tensor] = weights[0]
    return found
