"""Sharded checkpoints. What several processes write is in tests/conformance."""

import json
import shutil
import signal
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.checkpoints.__main__ import main
from pytorch_lightning.checkpoints.consolidation import consolidate, find_sharded
from pytorch_lightning.checkpoints.run_store import RunStore
from pytorch_lightning.checkpoints.sharded import is_sharded, read_any, read_sharded, shard_checksums
from pytorch_lightning.checkpoints.sharded import write_sharded as write
from pytorch_lightning.checkpoints.snapshot import changed_tensors, nb_bytes
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from pytorch_lightning.processes import ALONE, Processes
from tests.checkpoints.saving import is_whole, save_sharded, sharded
from tests.faults import warm

WRITTEN_BEFORE = Path(__file__).parent / "written_before" / "sharded"


def checkpoint(step: int = 7) -> dict[str, Any]:
    weights = OrderedDict(weight=torch.randn(4, 3), count=torch.tensor(3), empty=torch.zeros(0, 2))
    weights._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    return {
        "global_step": step,
        "epoch": 1,
        "state_dict": weights,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(4, 3, dtype=torch.bfloat16)}}}],
        "hparams": {"name": "x", "sizes": (1, 2)},
        "parts": {},
    }


def write_sharded(data: dict[str, Any], path: Path) -> Path:
    """Tensors of two dimensions as shards."""
    write(sharded(data), path, ALONE)
    return path


def test_what_is_written_sharded_is_read_whole(tmp_path: Path) -> None:
    written = checkpoint()
    read = read_sharded(write_sharded(written, tmp_path / "step-000000000007.ckpt"))
    assert list(read) == list(written)
    assert read["hparams"] == written["hparams"]
    assert read["state_dict"]._metadata == written["state_dict"]._metadata
    for name, value in written["state_dict"].items():
        assert torch.equal(read["state_dict"][name], value)
    moment = read["optimizer_states"][0]["state"][0]["exp_avg"]
    assert moment.dtype == torch.bfloat16
    assert torch.equal(moment, torch.ones(4, 3, dtype=torch.bfloat16))


def test_keys_that_look_alike_stay_apart(tmp_path: Path) -> None:
    data = {**checkpoint(), "a.b": torch.full((2, 2), 1.0), "a": {"b": torch.full((2, 2), 2.0)}}
    read = read_sharded(write_sharded(data, tmp_path / "step-1"))
    assert (read["a.b"][0, 0], read["a"]["b"][0, 0]) == (1.0, 2.0)


@pytest.mark.parametrize("name", ["__0_0.distcp", "manifest.ckpt", "shards.json", ".metadata"])
def test_a_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    folder = write_sharded({**checkpoint(), "more": torch.ones(10, 100)}, tmp_path / "step-1")
    content = bytearray((folder / name).read_bytes())
    place = content.find(b"state_dict") if name == "manifest.ckpt" else len(content) // 2  # the rest is padding
    content[place] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is .*damaged"):
        read_sharded(folder)


def test_a_shard_of_another_save_is_found(tmp_path: Path) -> None:
    one, other = (write_sharded(checkpoint(), tmp_path / name) for name in ("step-1", "step-2"))
    (one / "__0_0.distcp").write_bytes((other / "__0_0.distcp").read_bytes())
    with pytest.raises(CheckpointError, match=r"__0_0.distcp is missing or damaged"):
        read_sharded(one)


def test_a_shard_that_is_gone_is_found(tmp_path: Path) -> None:
    folder = write_sharded(checkpoint(), tmp_path / "step-1")
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"__0_0.distcp is missing or damaged"):
        read_any(folder)


class Before(LightningModule):
    """The model whose save is kept in written_before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.last(self.norm(self.first(data_batch))).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.01)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(torch.arange(96.0).reshape(24, 4) / 96, batch_size=2, shuffle=True)


def test_what_was_written_before_there_was_an_index_is_read_and_resumed(tmp_path: Path) -> None:
    """Two processes wrote it, with torch's metadata alone. The oracle is the same training in one process."""
    options: Any = {
        "progress_bar": False,
        "print_weights_summary": False,
        "max_nb_epochs": 3,
        "silence": ["no-validation"],
    }
    torch.manual_seed(1)
    model = Before()
    trainer = Trainer(False, seed=1, virtual_ranks=2, max_nb_steps=4, **options)
    trainer.fit(model)
    read = read_any(WRITTEN_BEFORE)
    (adam,) = trainer.optimizers
    weights = model.state_dict()
    assert read["state_dict"].keys() == weights.keys()
    # Adam moves a bias before a norm by its rounding alone
    compared = [name for name in weights if name not in ("first.bias", "norm.running_mean")]
    for found, expected in zip(
        [*map(read["state_dict"].get, compared), *map(dict.values, read["optimizer_states"][0]["state"].values())],
        [*map(weights.get, compared), *map(dict.values, adam.state_dict()["state"].values())],
        strict=True,
    ):
        torch.testing.assert_close(*(([*v] if not isinstance(v, torch.Tensor) else v) for v in (found, expected)))
    again = Before()
    resumed = Trainer(False, resume=WRITTEN_BEFORE, **options)
    resumed.fit(again)
    assert resumed.global_step == 18
    assert main(["consolidate", str(WRITTEN_BEFORE), "--output", str(tmp_path / "one.ckpt")]) == 0
    assert str(torch.load(tmp_path / "one.ckpt", weights_only=True)) == str(read)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torchs_own_tools_read_the_shards(tmp_path: Path) -> None:
    from torch.distributed.checkpoint import load

    written = checkpoint()
    folder = write_sharded(written, tmp_path / "step-1")
    key = "optimizer_states.0.state.0.exp_avg"
    found = {"state_dict.weight": torch.zeros(4, 3), key: torch.zeros(4, 3, dtype=torch.bfloat16)}
    load(found, checkpoint_id=folder, no_dist=True)
    assert torch.equal(found["state_dict.weight"], written["state_dict"]["weight"])
    assert found[key].tolist() == [[1.0] * 3] * 4


def test_the_index_is_plain_text_and_no_file_names_a_folder_of_this_machine(tmp_path: Path) -> None:
    folder = write_sharded(checkpoint(), tmp_path / "step-1")
    index = json.loads((folder / "shards.json").read_text())
    shard = index["tensors"]["state_dict.weight"]["shards"][0]
    assert (shard["file"], shard["start"], shard["shape"]) == ("__0_0.distcp", 0, [4, 3])
    for file in folder.iterdir():
        assert tmp_path.name.encode() not in file.read_bytes()


def test_a_view_is_written_without_what_it_is_a_view_of_and_with_its_strides(tmp_path: Path) -> None:
    large = torch.arange(400_000.0).view(1000, 400)
    last = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    data = {**checkpoint(), "view": large[3:5], "turned": large[:6, :5].t(), "last": last}
    folder = write_sharded(data, tmp_path / "step-1")
    assert (folder / "__0_0.distcp").stat().st_size < 30_000
    read = read_sharded(folder)
    assert torch.equal(read["view"], large[3:5])
    assert torch.equal(read["turned"], large[:6, :5].t())


def test_checksums_of_shards_are_those_of_the_whole(tmp_path: Path) -> None:
    state = {"weight": torch.randn(4, 3), "count": torch.tensor(3)}
    saved = shard_checksums(sharded(state), ALONE)
    assert changed_tensors(saved, state) == []
    other = state["weight"].clone()
    other[3, 2] += 1
    assert changed_tensors(saved, {**state, "weight": other}) == ["weight"]
    assert changed_tensors(saved, {**state, "weight": torch.cat([state["weight"], other])}) == ["weight"]
    assert changed_tensors(saved, {"count": state["count"], "more": other}) == ["weight", "more"]


def test_a_store_keeps_two_sharded_saves(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        for step in (1, 2, 2, 3):
            store.write(sharded(checkpoint(step)), step)
        assert visible(tmp_path) == ["step-000000000002.1.ckpt", "step-000000000003.ckpt"]
        store.write(checkpoint(3), 3)  # one process alone
        assert visible(tmp_path) == ["step-000000000002.1.ckpt", "step-000000000003.1.ckpt"]
        store.write(sharded(checkpoint(4)), 4, finished=True)
        assert visible(tmp_path) == ["step-000000000004.ckpt"]


def test_folders_that_are_renamed_or_removed_are_never_half_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("step-000000000003.ckpt", "step-000000000003.ckpt.aside", "step-000000000001.ckpt"):
        write_sharded(checkpoint(3), tmp_path / name)
    with RunStore(tmp_path) as store:
        store.begin(2)  # another history is set aside, also where one was before
        assert visible(tmp_path) == ["step-000000000001.ckpt", "step-000000000003.ckpt.aside"]
        removed = shutil.rmtree
        monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)  # as if it were killed there
        store.write(sharded(checkpoint(4)), 4, finished=True)
        assert visible(tmp_path) == ["step-000000000003.ckpt.aside", "step-000000000004.ckpt"]
        monkeypatch.setattr(shutil, "rmtree", removed)
    with RunStore(tmp_path):
        assert not list(tmp_path.glob(".step-*")), "the next run tidies up"


def test_a_disk_that_is_too_small_for_all_shards_is_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Two(Processes):
        """Another process that has as much."""

        def gather(self, value: Any) -> list[Any]:
            return [value, value]

    size = nb_bytes(sharded(checkpoint()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, int(1.5 * size)))  # type: ignore[attr-defined]
    with RunStore(tmp_path) as store, pytest.raises(CheckpointError, match="disk is full"):
        store.write(sharded(checkpoint()), 1, processes=Two())
    assert visible(tmp_path) == []


def test_a_save_that_fails_gives_the_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytorch_lightning.checkpoints.sharded._noted", lambda path: (tmp_path / "none").stat())
    with pytest.raises(CheckpointError, match=r"step-1 can't be written: .*No such file"):
        write_sharded(checkpoint(), tmp_path / "step-1")
    assert list(tmp_path.iterdir()) == []


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_truncated_save_is_not_one(tmp_path: Path) -> None:
    whole = write_sharded(checkpoint(), tmp_path / "step-000000000001.ckpt")
    cut_off = tmp_path / ".step-000000000002.ckpt.tmp"
    whole.rename(cut_off)  # a kill before the last rename leaves this
    with pytest.raises(CheckpointError, match="contains no sharded checkpoint"):
        consolidate(tmp_path)
    (cut_off / "manifest.ckpt").unlink()
    assert not is_sharded(cut_off)
    write_sharded(checkpoint(2), tmp_path / "step-000000000002.ckpt")
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000000002.ckpt"]


@pytest.mark.parametrize(
    ("point", "newest"),
    [
        ("pieces.begin:2", 1),
        ("pieces.written:2", 1),
        ("pieces.noted:2", 1),
        ("write.begin:2", 1),
        ("write.written:2", 1),
        ("write.durable:2", 1),
        ("pieces.complete:2", 1),
        ("pieces.renamed:2", 2),
    ],
)
def test_a_kill_at_any_point_leaves_the_newest_whole(tmp_path: Path, point: str, newest: int) -> None:
    ended = warm.run(save_sharded, str(tmp_path / "run"), fault=point, output=tmp_path / "said")
    assert ended.code == -signal.SIGKILL, ended.said
    found = find_sharded(tmp_path / "run")
    assert found.name == f"step-{newest:012d}.ckpt"
    assert is_whole(read_sharded(found), newest)
    ended = warm.run(save_sharded, str(tmp_path / "run"), output=tmp_path / "said")
    assert ended.code == 0, ended.said
    assert is_whole(read_sharded(find_sharded(tmp_path / "run")), 2)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        ".lock",
        "step-000000000001.ckpt",
        "step-000000000002.ckpt",
    ]


def test_the_command_makes_one_file_of_the_newest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (9, 10):
        write_sharded(checkpoint(step), tmp_path / "checkpoints" / f"step-{step:012d}.ckpt")
    assert main(["consolidate", str(tmp_path)]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == tmp_path / "checkpoints" / "step-000000000010.whole.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 10
    chosen = tmp_path / "chosen.ckpt"
    assert main(["consolidate", str(tmp_path / "checkpoints" / "step-000000000009.ckpt"), "--output", str(chosen)]) == 0
    assert torch.load(chosen, weights_only=True)["global_step"] == 9


def test_the_command_says_what_it_can_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["consolidate", str(tmp_path)]) == 1
    assert f"{tmp_path} contains no sharded checkpoint" in capsys.readouterr().err


def test_exact_elastic_is_refused_with_shards() -> None:
    with pytest.raises(MisconfigurationException, match=r"exact_elastic=True doesn't work with .*'fsdp'"):
        Trainer(distributed_backend="fsdp", exact_elastic=True)
