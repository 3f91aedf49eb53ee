"""Checkpoints in pieces. What several processes write is in tests/conformance."""

import signal
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning import Trainer
from pytorch_lightning.checkpoints.__main__ import main
from pytorch_lightning.checkpoints.sharded import (
    consolidate,
    find_sharded,
    is_sharded,
    read_any,
    read_sharded,
    write_sharded,
)
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from pytorch_lightning.processes import ALONE
from tests.checkpoints.saving import is_whole, save_in_pieces
from tests.faults import warm


def checkpoint(step: int = 7) -> dict[str, Any]:
    weights = OrderedDict(weight=torch.randn(4, 3), count=torch.tensor(3), empty=torch.zeros(0, 2))
    weights._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    return {
        "global_step": step,
        "state_dict": weights,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(4, 3, dtype=torch.bfloat16)}}}],
        "hparams": {"name": "x", "sizes": (1, 2)},
    }


def test_what_is_written_in_pieces_is_read_whole(tmp_path: Path) -> None:
    written = checkpoint()
    read = read_sharded(write_sharded(written, tmp_path / "step-000000000007", ALONE))
    assert list(read) == list(written)
    assert read["hparams"] == written["hparams"]
    assert read["state_dict"]._metadata == written["state_dict"]._metadata
    for name, value in written["state_dict"].items():
        assert torch.equal(read["state_dict"][name], value)
    moment = read["optimizer_states"][0]["state"][0]["exp_avg"]
    assert moment.dtype == torch.bfloat16
    assert torch.equal(moment, torch.ones(4, 3, dtype=torch.bfloat16))


def test_a_save_of_the_same_step_replaces_the_one_before(tmp_path: Path) -> None:
    write_sharded(checkpoint(), tmp_path / "step-1", ALONE)
    write_sharded({**checkpoint(), "hparams": {"name": "new"}}, tmp_path / "step-1", ALONE)
    assert read_sharded(tmp_path / "step-1")["hparams"] == {"name": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize("name", ["piece-00000.ckpt", "manifest.ckpt"])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    folder = write_sharded({**checkpoint(), "more": torch.ones(1000)}, tmp_path / "step-1", ALONE)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is .*damaged"):
        read_sharded(folder)


def test_a_piece_of_another_save_is_found(tmp_path: Path) -> None:
    one, other = (write_sharded(checkpoint(), tmp_path / name, ALONE) for name in ("step-1", "step-2"))
    (one / "piece-00000.ckpt").write_bytes((other / "piece-00000.ckpt").read_bytes())
    with pytest.raises(CheckpointError, match=r"piece-00000.ckpt is missing or damaged"):
        read_sharded(one)


def test_a_piece_that_is_gone_is_found(tmp_path: Path) -> None:
    folder = write_sharded(checkpoint(), tmp_path / "step-1", ALONE)
    (folder / "piece-00000.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"piece-00000.ckpt is missing or damaged"):
        read_any(folder)


def test_a_manifest_that_lists_too_few_pieces_is_refused(tmp_path: Path) -> None:
    folder = write_sharded(checkpoint(), tmp_path / "step-1", ALONE)
    manifest = torch.load(folder / "manifest.ckpt", weights_only=True)
    torch.save({**manifest, "sharded": []}, folder / "manifest.ckpt")
    with pytest.raises(CheckpointError, match="lacks pieces of 3 tensors"):
        read_sharded(folder)


def test_a_save_that_was_cut_off_is_not_one(tmp_path: Path) -> None:
    whole = write_sharded(checkpoint(), tmp_path / "step-000000000001", ALONE)
    cut_off = tmp_path / ".step-000000000002.tmp"
    whole.rename(cut_off)  # a kill before the last rename leaves this
    with pytest.raises(CheckpointError, match="holds no checkpoint in pieces"):
        consolidate(tmp_path)
    (cut_off / "manifest.ckpt").unlink()
    assert not is_sharded(cut_off)
    write_sharded(checkpoint(2), tmp_path / "step-000000000002", ALONE)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000000002"]


@pytest.mark.parametrize(
    ("point", "newest"),
    [
        ("write.begin:3", 1),
        ("write.written:3", 1),
        ("write.durable:3", 1),
        ("write.begin:4", 1),
        ("write.renamed:4", 1),
        ("pieces.complete:2", 1),
        ("pieces.renamed:2", 2),
    ],
)
def test_a_kill_at_any_point_leaves_the_newest_whole(tmp_path: Path, point: str, newest: int) -> None:
    ended = warm.run(save_in_pieces, str(tmp_path / "run"), fault=point, output=tmp_path / "said")
    assert ended.code == -signal.SIGKILL, ended.said
    found = find_sharded(tmp_path / "run")
    assert found.name == f"step-{newest:012d}"
    assert is_whole(read_sharded(found), newest)
    ended = warm.run(save_in_pieces, str(tmp_path / "run"), output=tmp_path / "said")
    assert ended.code == 0, ended.said
    assert is_whole(read_sharded(find_sharded(tmp_path / "run")), 2)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["step-000000000001", "step-000000000002"]


def test_the_command_makes_one_file_of_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (9, 10):
        write_sharded(checkpoint(step), tmp_path / "checkpoints" / f"step-{step:012d}", ALONE)
    assert main(["consolidate", str(tmp_path)]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "checkpoints" / "step-000000000010.whole.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 10
    chosen = tmp_path / "chosen.ckpt"
    assert main(["consolidate", str(tmp_path / "checkpoints" / "step-000000000009"), "--output", str(chosen)]) == 0
    assert torch.load(chosen, weights_only=True)["global_step"] == 9


def test_the_command_says_what_it_can_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consolidate", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no checkpoint in pieces" in capsys.readouterr().err


def test_exact_elastic_is_refused_with_pieces() -> None:
    with pytest.raises(MisconfigurationException, match=r"exact_elastic=True doesn't work with .*'fsdp'"):
        Trainer(distributed_backend="fsdp", exact_elastic=True)
