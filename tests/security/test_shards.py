"""What a sharded checkpoint can't do: run code, read or write files outside of its folder, or take much memory."""

import json
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.checkpoints.__main__ import main
from pytorch_lightning.checkpoints.run_store import newest_run
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.processes import ALONE
from tests.checkpoints.saving import checkpoint_at, sharded
from tests.security import hostile
from tests.security.hostile import Payload, called, number, pickle_of, row, storage, text, view, write_archive


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(40, 10))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.weight.sum() * data_batch.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> Any:
        return [torch.ones(1)]


def write_folder(path: Path, before: bool = False) -> Path:
    """A sharded checkpoint; ``before``: without the index, as they were once."""
    from pytorch_lightning.checkpoints.sharded import write_sharded

    data = checkpoint_at(7, 400)
    data["state_dict"]["weight"] = data["state_dict"]["weight"].view(40, 10)
    write_sharded(sharded(data), path, ALONE)
    if before:
        (path / "shards.json").unlink()
        note_anew(path)
    return path


def note_anew(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda manifest: None) -> None:
    """Make the manifest match the folder, as an attacker who changes a file would."""
    manifest = torch.load(folder / "manifest.ckpt", weights_only=True)
    names = [p.name for p in sorted(folder.iterdir()) if p.name != "manifest.ckpt" and p.is_file()]
    manifest["sharded"]["files"] = [
        {"name": n, "size": (folder / n).stat().st_size, "crc": zlib.crc32((folder / n).read_bytes())} for n in names
    ]
    change(manifest)
    torch.save(manifest, folder / "manifest.ckpt")


def check_refused(
    folder: Path, words: str = "is damaged|missing or damaged|isn't a checkpoint|more than plain"
) -> None:
    """Everything that reads a sharded checkpoint refuses this one, in one line, at once, and without memory."""
    readers: list[Callable[[], Any]] = [
        lambda: read_any(folder),
        lambda: Model.load_from_checkpoint(folder),
        lambda: Trainer(False, resume=folder, progress_bar=False).fit(Model()),
    ]
    for reader in readers:
        with hostile.measured() as took, pytest.raises(CheckpointError, match=words) as caught:
            reader()
        hostile.check_one_line(caught.value)
        assert took.seconds < hostile.MOST_SECONDS
        assert took.peak < hostile.ROOM + 2 * hostile.size_of(folder)
    assert main(["consolidate", str(folder)]) == 1


@pytest.mark.parametrize("before", [False, True])
def test_an_honest_one_is_read(tmp_path: Path, before: bool) -> None:
    folder = write_folder(tmp_path / "step-000000000007.ckpt", before)
    assert read_any(folder)["state_dict"]["weight"].tolist() == [[7.0] * 10] * 40


def test_one_that_an_early_python_wrote_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3.11.0 to 3.11.3 write members of enums by name."""
    monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", lambda member, _: (getattr, (type(member), member.name)))
    folder = write_folder(tmp_path / "step-000000000007.ckpt", True)
    assert b"getattr" in (folder / ".metadata").read_bytes()
    assert read_any(folder)["state_dict"]["weight"].tolist() == [[7.0] * 10] * 40


# ---------------------------------------------------------------------------------------------- code
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "shards.json"])
def test_code_in_any_of_its_files_is_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    """As a bare pickle, as a file of torch, and as one of an old torch."""
    before = name == ".metadata"
    data = {"x": Payload(tmp_path / "ran", Payload.WAYS[protocol])}
    for i, bad in enumerate(
        [
            pickle.dumps(data, protocol),
            hostile.saved(data, pickle_protocol=protocol),
            hostile.saved(data, pickle_protocol=protocol, _use_new_zipfile_serialization=False),
        ]
    ):
        folder = write_folder(tmp_path / f"step-{i:012d}.ckpt", before)
        (folder / name).write_bytes(bad)
        if name == "__0_0.distcp" and not before:
            index = json.loads((folder / "shards.json").read_text())
            index["tensors"]["state_dict.weight"]["shards"][0]["length"] = len(bad)
            (folder / "shards.json").write_text(json.dumps(index))
        note_anew(folder)
        check_refused(folder)
        assert not (tmp_path / "ran").exists()


def test_an_entry_of_bytes_is_not_unpickled(tmp_path: Path) -> None:
    """torch's reader would load it with pickle, whatever it holds."""
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

    folder = write_folder(tmp_path / "step-000000000007.ckpt", before=True)
    torch.save(Payload(tmp_path / "ran"), folder / "__0_0.distcp")
    size = (folder / "__0_0.distcp").stat().st_size
    metadata = Metadata(
        state_dict_metadata={"state_dict.weight": BytesStorageMetadata()},
        storage_data={MetadataIndex("state_dict.weight"): _StorageInfo("__0_0.distcp", 0, size)},
    )
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    note_anew(folder)
    check_refused(folder)
    assert not (tmp_path / "ran").exists()


def test_what_calls_itself_metadata_is_not_made(tmp_path: Path) -> None:
    """The names are those of torch's metadata, and what they are called with isn't."""
    folder = write_folder(tmp_path / "step-000000000007.ckpt", before=True)
    deep = b"]" * 100_000 + b"a" * 99_999
    for value in (
        called("torch.distributed.checkpoint.metadata.Metadata", number(1)),
        called("torch.distributed.checkpoint.metadata._MEM_FORMAT_ENCODING", number(1)),
        called("pathlib.PosixPath", text("/etc/passwd")),
        called("pathlib.PosixPath.touch", called("pathlib.PosixPath", text(str(tmp_path / "ran")))),
        called("torch.distributed.checkpoint.metadata.os.system", text(f"touch {tmp_path / 'ran'}")),
        called("torch.distributed.checkpoint.filesystem.FileSystemReader", text("/etc")),
        called("torch.distributed.checkpoint.metadata.Metadata") + b"}" + text("state_dict_metadata") + deep + b"sb",
        called("torch.distributed.checkpoint.metadata.Metadata") + b"}" + text("state_dict_metadata") + b"]sb",
        b"N",
    ):
        for content in (pickle_of(value), b"\x80\4" + value + b"."):
            (folder / ".metadata").write_bytes(content)
            note_anew(folder)
            check_refused(folder)
            assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------------------------------- places
def in_index(change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A change of shards.json: of all of it, and of the first tensor's entry."""

    def write(folder: Path) -> None:
        index = json.loads((folder / "shards.json").read_text())
        change(index, index["tensors"]["state_dict.weight"])
        (folder / "shards.json").write_text(json.dumps(index))

    return write


def shard(**values: Any) -> Callable[[Path], None]:
    """A change of the first shard's place."""
    return in_index(lambda index, entry: entry["shards"][0].update(values))


def cut(*rows: tuple[int, int]) -> Callable[[Path], None]:
    """Shards of these rows: first, and how many."""

    def change(index: Any, entry: Any) -> None:
        one = entry["shards"][0]
        entry["shards"] = [{**one, "offset": [first, 0], "shape": [number, 10]} for first, number in rows]

    return in_index(change)


def content(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "shards.json").write_bytes(data)  # type: ignore[return-value]


def another_shard(value: Any) -> Callable[[Path], None]:
    """Another shard's bytes, with their length in the index."""

    def write(folder: Path) -> None:
        data = value if isinstance(value, bytes) else hostile.saved(value)
        (folder / "__0_0.distcp").write_bytes(data)
        shard(length=len(data))(folder)

    return write


def archived(value: bytes, entries: dict[str, bytes] | None = None, **options: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        archive = write_archive(folder / "x", b"\x80\2" + value + b".", entries or {"data/0": bytes(1600)}, **options)
        another_shard(archive.read_bytes())(folder)
        archive.unlink()

    return write


INDEXES: dict[str, Callable[[Path], Any]] = {
    "above": shard(file="../__0_0.distcp"),
    "absolute": shard(file="/etc/passwd"),
    "another": shard(file="manifest.ckpt"),
    "folder": shard(file="."),
    "no name": shard(file=""),
    "a number": shard(file=3),
    "cut off": shard(file="__0_0.distcp\0x"),
    "negative start": shard(start=-1),
    "start past the end": shard(start=10**9),
    "huge length": shard(length=2**62),
    "huge number": shard(length=10**400),
    "half": shard(length=0.5),
    "no length": shard(length=0),
    "wide": shard(shape=[40, 10**6]),
    "shifted": shard(offset=[1, 0]),
    "outside": shard(offset=[40, 0]),
    "one dimension": shard(shape=[400], offset=[0]),
    "missing rows": cut((0, 20), (21, 19)),
    "first rows": cut((0, 39)),
    "twice": cut((0, 20), (0, 20)),
    "overlapping": cut((0, 30), (10, 30)),
    "no rows": cut((0, 40), (40, 0)),
    "none": cut(),
    "another dtype": in_index(lambda index, entry: entry.update(dtype="torch.float64")),
    "no dtype": in_index(lambda index, entry: entry.update(dtype="torch.nn")),
    "another shape": in_index(lambda index, entry: entry.update(shape=[10, 40])),
    "huge shape": in_index(lambda index, entry: entry.update(shape=[2**40, 2**40])),
    "text as shape": in_index(lambda index, entry: entry.update(shape="40")),
    "unknown tensor": in_index(lambda index, entry: index["tensors"].update({"state_dict.other": entry})),
    "no tensor": in_index(lambda index, entry: index["tensors"].clear()),
    "a newer layout": in_index(lambda index, entry: index.update(format=2)),
    "a list": content(b"[]"),
    "no json": content(b"{"),
    "empty": content(b""),
    "nested": content(b"[" * 100_000 + b"]" * 100_000),
    "long number": content(b"1" * 500_000),
    "large": content(b'{"format": 1, "tensors": {}, "x": [' + b"[]," * 2_000_000 + b"[]]}"),
    "other bytes": another_shard(bytes(2000)),
    "a list as shard": another_shard([torch.zeros(40, 10)]),
    "a dict as shard": another_shard({"x": torch.zeros(40, 10)}),
    "another shard's shape": another_shard(torch.zeros(10, 40)),
    "another shard's dtype": another_shard(torch.zeros(40, 10, dtype=torch.float64)),
    "a huge shard": archived(view(storage(nb=400), (40, 10**9), (0, 0))),
    "a compressed shard": archived(view(storage(nb=400), (40, 10), (10, 1)), compressed=True),
    "a nested shard": archived(b"]" * 100_000 + b"a" * 99_999),
    "a called shard": archived(called("torch.FloatTensor", number(2**31 - 1))),
    "a meta shard": another_shard(torch.empty(40, 10, device="meta")),
    "a sparse shard": another_shard(torch.zeros(40, 10).to_sparse()),
    "a set shard": archived(called("builtins.set", b"]" + number(1) + b"a")),
    "a row as shard": archived(row(number(1))),
}


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.filterwarnings("ignore:.*[Ss]parse:UserWarning")
def test_an_index_that_is_not_that_of_its_files_is_refused(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "step-000000000007.ckpt")
    INDEXES[kind](folder)
    note_anew(folder)
    check_refused(folder)


def files(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: change(manifest["sharded"]["files"])


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "above": files(lambda each: each[1].update(name="../secret")),
    "absolute": files(lambda each: each[1].update(name="/etc/passwd")),
    "itself": files(lambda each: each.append({"name": ".", "size": 4096, "crc": 0})),
    "twice": files(lambda each: each.append(dict(each[0]))),
    "a number as name": files(lambda each: each[1].update(name=1)),
    "no name": files(lambda each: each[1].pop("name")),
    "a text as size": files(lambda each: each[1].update(size="1")),
    "a tensor as size": files(lambda each: each[1].update(size=torch.ones(3))),
    "no dicts": files(lambda each: each.__setitem__(0, 1)),
    "no files": files(lambda each: each.clear()),
    "no list": lambda manifest: manifest["sharded"].update(files="abc"),
    "no notes": lambda manifest: manifest.update(sharded=[]),
    "nothing": lambda manifest: manifest.pop("sharded"),
    "huge tensor": lambda m: m["state_dict"].update(weight=torch.empty(2**40, device="meta")),
    "another tensor": lambda m: m["state_dict"].update(other=torch.empty(2, 2, device="meta")),
    "many tensors": lambda m: m["state_dict"].update({str(i): torch.empty(40, 10, device="meta") for i in range(1000)}),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_is_not_that_of_its_folder_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    folder = write_folder(tmp_path / "step-000000000007.ckpt")
    note_anew(folder, MANIFESTS[kind])
    check_refused(folder)


def test_many_tensors_of_the_same_bytes_take_no_more_than_their_files(tmp_path: Path) -> None:
    """Each is there, and lies in its file; together they would take a thousand times what the file has."""
    folder = write_folder(tmp_path / "step-000000000007.ckpt")
    index = json.loads((folder / "shards.json").read_text())
    names = [f"copy {i}" for i in range(1_000)]
    entry = index["tensors"]["state_dict.weight"]
    index["tensors"].update({f"state_dict.{name}": entry for name in names})
    (folder / "shards.json").write_text(json.dumps(index))
    copies = {name: torch.empty(40, 10, device="meta") for name in names}
    note_anew(folder, lambda manifest: manifest["state_dict"].update(copies))
    check_refused(folder, "have 1,601,600 bytes, more than its files")


def test_something_else_than_a_file_is_not_opened(tmp_path: Path) -> None:
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path), os.mkdir):
        folder = write_folder(tmp_path / f"step-{make.__name__}.ckpt")
        (folder / "__0_0.distcp").unlink()
        make(folder / "__0_0.distcp")  # type: ignore[operator]
        check_refused(folder, "missing or damaged")


def test_a_look_at_a_run_reads_no_more_of_a_hostile_folder_than_its_manifest(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "Model" / "version_0" / "checkpoints" / "step-000000000007.ckpt")
    note_anew(folder, MANIFESTS["above"])
    found = newest_run(tmp_path, "Model")
    assert found is not None
    assert found.position is not None
    assert found.position.step == 7


@pytest.mark.parametrize("rows", [[(0, 20)], [(0, 20), (21, 19)], [(0, 20), (10, 30)], [(20, 20)], [(0, 20), (0, 20)]])
def test_a_tensor_that_its_shards_do_not_make_is_refused(tmp_path: Path, rows: list[tuple[int, int]]) -> None:
    """Each shard is what the index says; uninitialised memory would be in their gaps."""
    from pytorch_lightning.checkpoints.shard_files import Shard, finish, write_shards

    folder = write_folder(tmp_path / "step-000000000007.ckpt")
    written = []
    for i, (first, nb) in enumerate(rows):
        one = Shard(torch.Size([40, 10]), (first, 0), torch.ones(nb, 10))
        written.append(write_shards(folder / f"__{i}_0.distcp", {"state_dict.weight": one}))
    finish(folder, written)
    note_anew(folder)
    check_refused(folder, "don't make the whole tensor")
