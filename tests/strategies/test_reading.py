"""To resume from shards a process reads its own part of each, whatever the number of processes, and no other byte
twice: verified all the same."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launchers.ranks import in_ranks
from tests.strategies.reading import Net, sums

RANKS = 12
"""Virtual ranks: so many batches make a step."""


def run(folder: Path, what: str, nb: int, whole: bool = False) -> list[dict[str, Any]]:
    """What each process writes down, or the error that all of them end with."""
    program = f"from tests.strategies.reading import main\nmain({str(folder)!r}, {what!r}, {whole})\n"
    ran = in_ranks(folder, program, nb)
    assert ran.returncode == 0, ran.stderr
    return [json.loads((folder / f"{what}_{rank}.json").read_text()) for rank in range(nb if what != "train" else 0)]


def by_hand() -> dict[str, Any]:
    net = Net()
    optimizer, batches = net.configure_optimizers(), list(net.tng_dataloader)
    for step in range(4):
        optimizer.zero_grad()
        start = step * RANKS % len(batches)
        for batch in batches[start : start + RANKS]:
            (net(batch).pow(2).mean() / RANKS).backward()
        optimizer.step()
    return sums(net)


@pytest.mark.parametrize(("nb", "then"), [(2, (2, 4, 1)), (3, (2,)), (4, (2,))], ids=str)
def test_a_process_reads_its_own_shards_and_trains_on(tmp_path: Path, nb: int, then: tuple[int, ...]) -> None:
    run(tmp_path, "train", nb)
    expected = by_hand()
    for other in then:
        each = run(tmp_path, f"on {other}", other)
        for found in each:
            assert 0.95 * found["own"] < found["read"] < 1.2 * found["own"], found["read"] / found["own"]
            weights = {name: torch.tensor(value).double() for name, value in found["weights"].items()}
            torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-7)


def test_hooks_that_look_at_the_checkpoint_see_whole_tensors(tmp_path: Path) -> None:
    run(tmp_path, "train", 2)
    found = run(tmp_path, "whole", 2, whole=True)[1]
    assert found["read"] > 1.9 * found["own"]
    torch.testing.assert_close(torch.tensor(found["weights"]["odd.bias"]).double(), by_hand()["odd.bias"])


@pytest.mark.parametrize("place", ["in a weight", "between"])
def test_what_one_process_reads_is_verified_for_all(tmp_path: Path, place: str) -> None:
    run(tmp_path, "train", 2)
    (file,) = tmp_path.glob("Net/**/__1_0.distcp")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if place == "in a weight" else -30] ^= 1
    file.write_bytes(content)
    with pytest.raises(AssertionError) as failed:
        run(tmp_path, "on 4", 4)
    assert str(failed.value).count("__1_0.distcp is missing or damaged. Use an older checkpoint.") >= 4


def test_where_the_newest_save_is_damaged_all_take_the_one_before_it(tmp_path: Path) -> None:
    run(tmp_path, "again", 2)
    newest = max(tmp_path.glob("Net/**/step-*.ckpt"))
    content = bytearray((newest / "__1_0.distcp").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "__1_0.distcp").write_bytes(content)
    for found in run(tmp_path, "again on 4", 4):
        assert found["steps"] == 4
        torch.testing.assert_close(torch.tensor(found["weights"]["odd.bias"]).double(), by_hand()["odd.bias"])
    assert not newest.exists() or (newest / "__1_0.distcp").read_bytes() != content, "it was put aside, then removed"
