"""Sixteen processes: rounds, tables, a save, and a resume on sixteen and on eight."""

import json
from pathlib import Path
from typing import Any

import torch

from tests.launchers.ranks import in_ranks
from tests.launchers.sixteen import RANKS, SAVED, STEPS, by_hand


def run(folder: Path, what: str, nb: int) -> list[dict[str, Any]]:
    program = f"from tests.launchers.sixteen import main\nmain({str(folder)!r}, {what!r})\n"
    ran = in_ranks(folder, program, nb)
    assert ran.returncode == 0, ran.stderr
    return [json.loads((folder / f"{what}_{rank}.json").read_text()) for rank in range(nb)]


def test_sixteen_processes_train_as_one_and_resume_on_sixteen_and_eight(tmp_path: Path) -> None:
    whole = run(tmp_path, "whole", RANKS)
    assert all(each == whole[0] for each in whole)
    assert whole[0]["tables"] == [5 * RANKS] * STEPS
    assert whole[0]["steps"] == STEPS
    torch.testing.assert_close(flat(whole[0]), flat({"weights": by_hand(STEPS)}), rtol=1e-5, atol=1e-6)
    run(tmp_path, "cut", RANKS)
    for nb in (RANKS, RANKS // 2):
        for each in run(tmp_path, f"resumed on {nb}", nb):
            assert each["weights"] == whole[0]["weights"], "bit for bit"
            assert each["tables"] == [5 * RANKS] * (STEPS - SAVED)


def flat(told: dict[str, Any]) -> Any:
    return torch.cat([torch.tensor(values).reshape(-1) for values in told["weights"]])
