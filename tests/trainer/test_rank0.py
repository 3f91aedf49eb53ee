"""With ``gather_validation='rank0'`` outputs go to process 0 alone, which makes the numbers for all: as a plain loop
makes them, in memory that doesn't grow in the others, and without waiting for each other for ever."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning import Trainer
from pytorch_lightning.errors import MisconfigurationException
from tests.launchers.ranks import in_ranks
from tests.trainer.rank0 import SIZES, Net, summary


def told(folder: Path, what: str, nb: int = 2) -> tuple[list[Any], str]:
    """What each process saw, and what was said."""
    program = f"from tests.trainer.rank0 import main\nmain({str(folder)!r}, {what!r})\n"
    ran = in_ranks(folder, program, nb)
    assert ran.returncode == 0, ran.stderr
    return [json.loads((folder / f"{what}_{rank}.json").read_text()) for rank in range(nb)], ran.stderr


@torch.no_grad()
def outputs_by_hand(net: Net, several: bool) -> list[Any]:
    loaders = net.val_dataloader if several else [net.val_dataloader]
    each = [enumerate(loader) for loader in loaders]
    return [{"nb": nb, "y": net(x), "loader": i} for i, pairs in enumerate(each) for nb, x in pairs]


def test_everybody_has_the_numbers_that_process_0_makes_of_all_outputs(tmp_path: Path) -> None:
    (first, *others), said = told(tmp_path, "good", 3)
    for nb in SIZES:
        for several in (False, True):
            expected: Any = summary(outputs_by_hand(Net(nb, several), several))
            for uneven in ("wait", "repeat"):
                key = f"{nb} {several} {uneven}"
                assert first[f"validate {key}"] == pytest.approx(expected)
                assert first[f"test {key}"] == pytest.approx({"tested": expected["val_loss"]})
    predicted = torch.cat([o["y"] for o in outputs_by_hand(Net(5), False)])
    torch.testing.assert_close(torch.tensor(first["predict"]).reshape(-1, 1), predicted)
    assert [other.pop("predict") for other in others] == [[], []]
    del first["predict"]
    assert first["fit ddp"].pop("nb_ends") == first["fit fsdp"].pop("nb_ends") > 4
    assert [other[kind].pop("nb_ends") for other in others for kind in ("fit ddp", "fit fsdp")] == [0] * 4
    assert others == [first, first], "numbers, stops, rates, the best checkpoint, weights"
    for kind in ("fit ddp", "fit fsdp"):
        fit = first[kind]
        losses = [metrics["val_loss"] for metrics in fit["metrics"]]
        assert {(m["nb"], m["order"]) for m in fit["metrics"]} == {(5, 30)}
        assert 3 < len(losses) < 30, "it was stopped early"
        assert fit["lr"] < 0.1
        assert fit["best"] == f"_ckpt_epoch_{1 + losses.index(min(losses))}.ckpt"
    assert "changed-in-one-process" not in said


def test_what_goes_wrong_in_process_0_ends_all_and_nobody_waits(tmp_path: Path) -> None:
    (first, second), said = told(tmp_path, "bad")
    for stage in ("", " in fit"):
        assert first[f"boom{stage}"] == "ZeroDivisionError: of the user's own"
        assert second[f"boom{stage}"].endswith("makes the numbers alone, raised ZeroDivisionError: of the user's own")
        assert "called allreduce of torch.distributed, which waits for all" in first[f"collective{stage}"]
        assert first[f"secretive{stage}"] == second[f"secretive{stage}"]
        assert "process 1 can't send outputs of validation_step" in first[f"secretive{stage}"]
    assert "called allgather" in first["block"]
    assert "distributed_backend='fsdp' shards" in first["whole"]
    for mishap in first.keys() - {"boom", "boom in fit", "best"}:
        assert first[mishap].partition(": ")[2] in second[mishap], mishap
    assert first["best"] == second["best"] == "no error"
    assert "validation_end changed best in process 0 alone" in said
    assert "head.bias of process 1 isn't that of process 0" in first["train"]


@pytest.mark.parametrize("how", ["rank0", "everybody"])
def test_only_the_first_process_needs_memory_for_the_set(tmp_path: Path, how: str) -> None:
    (first, second), _ = told(tmp_path, f"memory {how}")
    set_grew = (900 - 150) * 256  # kB
    assert first[1] - first[0] > 0.7 * set_grew
    grew = second[1] - second[0]
    assert grew < 0.15 * set_grew if how == "rank0" else grew > 0.7 * set_grew


def test_another_word_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="gather_validation must be True, False or 'rank0'"):
        Trainer(gather_validation="rank1")
