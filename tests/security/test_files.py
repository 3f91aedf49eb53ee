"""What a checkpoint file can't do: run code, take much more memory than it has bytes, or hold a program up."""

import collections
import copy
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning.checkpoints.checkpoint import to_plain
from pytorch_lightning.checkpoints.run_store import RunStore, newest_run
from pytorch_lightning.checkpoints.store import peek_checkpoint, read_checkpoint, write_checkpoint
from pytorch_lightning.errors import CheckpointError
from tests.checkpoints.saving import checkpoint_at
from tests.security import hostile
from tests.security.hostile import (
    MB,
    Payload,
    called,
    named,
    number,
    pickle_of,
    row,
    storage,
    text,
    view,
    write_archive,
)

READERS: list[Callable[[Path], Any]] = [read_checkpoint, peek_checkpoint]


def check_refused(path: Path, words: str, readers: Any = READERS) -> None:
    """Every reader refuses the file in one line, at once, without taking memory."""
    for reader in readers:
        with hostile.measured() as took, pytest.raises(CheckpointError, match=words) as caught:
            reader(path)
        hostile.check_one_line(caught.value)
        assert took.seconds < hostile.MOST_SECONDS
        assert took.peak < hostile.ROOM + 2 * hostile.size_of(path)


# ---------------------------------------------------------------------------------------------- archives
def test_a_compressed_file_is_not_unpacked(tmp_path: Path) -> None:
    """64 MB of zeros in 64 kB: the more, the longer it would take."""
    zeros = bytes(64 * MB)
    for name, entries in {
        "pickle": {"data.pkl": pickle.dumps({"x": 1}, 2) + zeros},
        "storage": {"data.pkl": pickle_of(view(storage(nb=16 * MB), (16 * MB,), (1,))), "data/0": zeros},
        "note": {"data.pkl": pickle.dumps({"x": 1}, 2), ".data/note": zeros},
    }.items():
        path = write_archive(tmp_path / name, entries.pop("data.pkl"), entries, compressed=True)
        assert path.stat().st_size < 100_000
        check_refused(path, "is compressed")


def overlapping(path: Path) -> None:
    """A thousand names for the same bytes."""
    content = pickle_of(row(*(view(storage(str(i), 2**18), (2**18,), (1,)) for i in range(1_000))))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", bytes(MB))
        for i in range(1, 1_000):
            again = copy.copy(archive.filelist[1])
            again.filename = f"a/data/{i}"
            archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]


def in_comment(path: Path) -> None:
    """An archive in the comment of another: readers that look for an end in different places see different ones."""
    inner = hostile.saved({"x": 1})
    write_archive(path, pickle_of(b"K\1"))
    content = bytearray(path.read_bytes())
    content[-2:] = len(inner).to_bytes(2, "little")
    path.write_bytes(bytes(content) + inner)


def with_prefix(path: Path) -> None:
    """Bytes before an archive, whose directory says where everything is as if they weren't there."""
    content = path.read_bytes()
    path.write_bytes(content[:64] + content)


def two_names(first: str, second: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings(action="ignore"):
            for name in ("a/data.pkl", first, second):
                archive.writestr(name, pickle_of(b"K\1"))

    return write


ARCHIVES: dict[str, tuple[Any, str]] = {
    "overlapping": (overlapping, "is damaged"),
    "in a comment": (in_comment, "is damaged"),
    "prefix": (with_prefix, "is damaged|isn't a checkpoint"),
    "case": (two_names("a/data/x", "a/DATA/X"), "same name"),
    "twice": (two_names("a/data/x", "a/data/x"), "same name"),
    "two pickles": (two_names("a/data.pkl", "a/x"), "same name"),
    "two folders": (two_names("b/data.pkl", "b/x"), "is outside"),
    "above": (two_names("../data/x", "a/x"), "is outside"),
    "absolute": (two_names("/etc/x", "a/x"), "is outside"),
    "torchscript": (two_names("a/constants.pkl", "a/x"), "isn't a checkpoint"),
    "no pickle": (lambda p: edit(p, "data.pkl", None), "no data.pkl"),
    "empty pickle": (lambda p: edit(p, "data.pkl", b""), "isn't a whole pickle"),
    "no bytes": (lambda p: edit(p, "data/0", None), "no .* bytes called data/0"),
    "fewer bytes": (lambda p: edit(p, "data/0", bytes(10)), "no .* bytes called data/0"),
    "byte order": (lambda p: edit(p, "byteorder", b"x" * 1000), "isn't a checkpoint"),
    "alignment": (lambda p: edit(p, ".storage_alignment", b"9" * 10_000), "isn't a checkpoint"),
}


def edit(path: Path, name: str, content: bytes | None) -> None:
    def change(entries: dict[str, bytes]) -> dict[str, bytes]:
        found = next(full for full in entries if full.endswith(f"/{name}"))
        del entries[found]
        return {**entries, found: content} if content is not None else entries

    hostile.edit_archive(path, change)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_only_archives_as_torch_writes_them_are_read(tmp_path: Path, kind: str) -> None:
    path = write_checkpoint({"x": torch.arange(100.0)}, tmp_path / "x.ckpt")
    change, words = ARCHIVES[kind]
    change(path)
    check_refused(path, words)


# ---------------------------------------------------------------------------------------------- pickles
def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1)


def laughs(depth: int = 60) -> bytes:
    """A list of two references to a list of two references to ...: short, but a copy of it would have no end."""
    lists = [b"]q\0"]
    for i in range(1, depth):
        before = b"h" + bytes([i - 1])
        lists.append(b"](" + before + before + b"eq" + bytes([i]))
    return row(*lists)


def keys(values: list[bytes]) -> bytes:
    return b"}(" + b"".join(value + b"N" for value in values) + b"u"


def a_complex(real: float, imaginary: float) -> bytes:
    return called("builtins.complex", b"G" + struct.pack(">d", real), b"G" + struct.pack(">d", imaginary))


PRIME = 2**61 - 1  # numbers that differ by a multiple of it have the same hash
ORDERED, TYPED = "collections.OrderedDict", "torch._tensor._rebuild_from_type_v2"
EMPTY = called(ORDERED)
BOMBS: dict[str, tuple[bytes, str]] = {
    "nested lists": (nested(200_000), "lie in each other"),
    "nested tuples": (b"N" + b"\x85" * 200_000, "lie in each other"),
    "nested dicts": ((b"}" + text("k")) * 100_000 + b"N" + b"s" * 100_000, "lie in each other"),
    "nested a little more": (nested(121), "lie in each other"),
    "laughs": (laughs(), "as often as they are referred to"),
    "itself": (b"]q\0h\0a", "referred to already"),
    "itself in a tuple": (b"]q\0(h\0ta", "referred to already"),
    "filled again": (row(b"]q\0", b"]h\0a", b"h\0K\1a"), "referred to already"),
    "empty lists": (b"(" + b"]" * MB + b"t", "would take more than"),
    "empty dicts": (b"(" + b"}" * MB + b"t", "would take more than"),
    "bytearray": (called("builtins.bytearray", number(2**33)), "makes bytes from something else"),
    "slow bytes": (called("_codecs.encode", text("é" * 200_000), text("idna")), "makes bytes from something else"),
    "unpacked": (called("_codecs.encode", text("x"), text("zlib")), "makes bytes from something else"),
    "tensor without file": (called("torch.FloatTensor", number(2**31 - 1)), "more than plain data"),
    "storage without file": (called("torch.storage.UntypedStorage", number(2**33)), "more than plain data"),
    "typed call": (
        called(TYPED, named("builtins.bytearray"), named("torch.Tensor"), row(number(2**33)), b"}"),
        "makes bytes from something else",
    ),
    "large view": (view(storage(), (10**9,), (1,)), "larger than its bytes"),
    "large stride": (view(storage(), (2,), (10**9,)), "larger than its bytes"),
    "large offset": (view(storage(), (1,), (1,), 2**40), "larger than its bytes"),
    "negative stride": (view(storage(), (2,), (-1,)), "impossible shape"),
    "negative size": (view(storage(), (-2,), (1,)), "impossible shape"),
    "two strides": (view(storage(), (2,), (1, 1)), "impossible shape"),
    "much storage": (view(storage(nb=2**40), (4,), (1,)), "no .* bytes called data/0"),
    "no storage": (view(storage("7"), (4,), (1,)), "no .* bytes called data/7"),
    "storage above": (view(storage("../version", 0), (0,), (1,)), "no .* bytes called"),
    "storage, cut off": (view(storage("0\0x"), (4,), (1,)), "no .* bytes called"),
    "storage, other case": (view(storage("a"), (4,), (1,)), "no .* bytes called"),
    "unknown storage": (view(storage(kind="Huge"), (4,), (1,)), "unknown kind"),
    "a number as storage": (
        row(text("storage"), named("torch.FloatStorage"), b"K\0", text("cpu"), b"K\4") + b"Q", "refers to",
    ),
    "a module as storage": (row(text("module"), b"K\0", text("os"), text("x")) + b"Q", "refers to"),
    "colliding numbers": (keys([number(PRIME * i) for i in range(1, 20_000)]), "the same hash"),
    "colliding rows": (keys([row(number(PRIME * i), b"K\1") for i in range(1, 20_000)]), "the same hash"),
    "colliding sizes": (keys([called("torch.Size", row(number(PRIME * i))) for i in range(1, 5_000)]), "the same hash"),
    "colliding complex numbers": (keys([a_complex(-1000003.0 * i, i) for i in range(1, 5_000)]), "the same hash"),
    "colliding members": (
        called("builtins.set", b"](" + b"".join(number(PRIME * i) for i in range(1, 20_000)) + b"e"), "the same hash",
    ),
    "colliding pairs": (
        called(ORDERED, b"](" + b"".join(row(number(PRIME * i), b"N") for i in range(1, 20_000)) + b"e"),
        "the same hash",
    ),
    "counted": (called("collections.Counter", number(2**31 - 1)), "makes a collection"),
    "other methods": (EMPTY + b"}" + text("items") + b"K\1sb", "changes the state"),
    "other versions": (EMPTY + b"}" + text("_metadata") + b"K\1sb", "changes the state"),
    "state of a tensor": (
        view(storage(), (4,), (1,)) + row(storage(), b"K\0", row(number(10**9)), row(b"K\1")) + b"b", "changes",
    ),
    "called twice": (called("torch.Size", row(b"K\1")) + b")R", "calls what it has made"),
    "text as function": (text("os.system") + b")R", "calls what it has made"),
    "a mark too few": (b"u", "isn't a whole pickle"),
    "nothing below": (b"0", "no checkpoint has"),
    "duplicated": (b"K\x012", "no checkpoint has"),
    "extension": (b"\x82\1", "no checkpoint has|isn't a whole pickle"),
    "old number": (b"I" + b"9" * 100_000 + b"\n", "no checkpoint has|isn't a whole pickle"),
    "long number": (b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6, "no checkpoint has"),
    "long text": (b"X\xff\xff\xff\xffabc", "isn't a whole pickle"),
    "no text": (b"X\1\0\0\0\xff", "isn't a whole pickle"),
    "a class of a kind": (named("torch.Size") + b"}" + text("x") + b"K\1sb", "changes what isn't"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_pickle_that_would_take_much_is_refused_before(tmp_path: Path, kind: str) -> None:
    value, words = BOMBS[kind]
    path = write_archive(tmp_path / "x.ckpt", pickle_of(value), {"data/0": bytes(16), "data/A": bytes(16)})
    check_refused(path, words)


CODE = [(way, protocol) for way in Payload.WAYS for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]


@pytest.mark.parametrize(("way", "protocol"), CODE)
def test_code_is_not_run_whatever_the_protocol(tmp_path: Path, way: str, protocol: int) -> None:
    data = {"x": [Payload(tmp_path / "ran", way)]}
    pickle.loads(pickle.dumps(data, protocol))
    mark = tmp_path / "ran"
    mark.rmdir() if mark.is_dir() else mark.unlink()  # it would be
    files = {
        "archive": write_archive(tmp_path / "archive", pickle.dumps(data, protocol)),
        "own": tmp_path / "own",
        "old": tmp_path / "old",
        "bare": tmp_path / "bare",
    }
    torch.save(data, files["own"], pickle_protocol=protocol)
    torch.save(data, files["old"], pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    files["bare"].write_bytes(pickle.dumps(data, protocol))
    for path in files.values():
        check_refused(path, "more than plain data|isn't a checkpoint|is damaged")
    assert not mark.exists()


# ---------------------------------------------------------------------------------------------- old files
def old_file(value: bytes, keys: list[str], contents: list[bytes]) -> bytes:
    begin = b"".join(pickle.dumps(v, 2) for v in (torch.serialization.MAGIC_NUMBER, 1001, {}))
    stored = b"".join(struct.pack("<q", len(content) // 4) + content for content in contents)
    return begin + pickle_of(value) + pickle.dumps(keys, 2) + stored


def old_storage(key: str = "0", nb: int = 4) -> bytes:
    return row(text("storage"), named("torch.FloatStorage"), text(key), text("cpu"), number(nb), b"N") + b"Q"


def test_an_old_file_is_read_and_refused_as_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    torch.save({"x": torch.arange(5.0), "y": [1, "a"]}, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path)["x"].tolist() == [0, 1, 2, 3, 4]
    path.write_bytes(old_file(view(old_storage(), (4,), (1,)), ["0"], [bytes(16)]))
    assert read_checkpoint(path)["x"].tolist() == [0] * 4
    for content, words in {
        old_file(view(old_storage(nb=2**33), (4,), (1,)), ["0"], [bytes(16)]): "hasn't the bytes",
        old_file(view(old_storage(), (10**9,), (1,)), ["0"], [bytes(16)]): "larger than its bytes",
        old_file(view(old_storage(), (4,), (1,)), ["0", "1"], [bytes(16)]): "hasn't the bytes",
        old_file(view(old_storage(), (4,), (1,)), ["0"] * 1000, [bytes(16)]): "hasn't the bytes",
        old_file(view(old_storage(), (4,), (1,)), [], []): "hasn't the bytes",
        old_file(nested(100_000), [], []): "lie in each other",
        pickle.dumps({"x": 1}, 2): "isn't a file that torch.save wrote",
        b"\x80\x02" + nested(100_000) + b".": "lie in each other",
        b"hello": "no checkpoint has|isn't a whole pickle",
        b"": "isn't a whole pickle",
    }.items():
        path.write_bytes(content)
        check_refused(path, words, [read_checkpoint])


# ---------------------------------------------------------------------------------------------- honest files
def everything() -> dict[str, Any]:
    """All that a checkpoint may hold."""
    base = torch.arange(24.0)
    weights = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).state_dict()
    deep: Any = 1
    for _ in range(90):
        deep = [deep]
    return {
        "tensors": {
            str(dtype): torch.zeros(3, 2, dtype=dtype)
            for dtype in vars(torch).values()
            if isinstance(dtype, torch.dtype) and not re.search(r"qu?int|bits|u?int[1-7]$|float4|complex32", str(dtype))
        },
        "views": [base, base[3:7], base.view(4, 6).t(), base[::5], base.view(2, 12)[:, 3:5], base[5], base[:0]],
        "expanded": torch.ones(1).expand(1_000),
        "channels last": torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": [torch.ones(3, dtype=d) for d in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn)],
        "parameter": torch.nn.Parameter(base[:4].clone()),
        "requires": base.clone().requires_grad_(),
        "conj": torch.ones(2, dtype=torch.complex64).conj(),
        "neg": torch.ones(2, dtype=torch.complex64).conj().imag,
        "sparse": torch.eye(3).to_sparse(),
        "rows": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(10**6, 10**6, device="meta"),
        "weights": weights,
        "numbers": [0, -1, 255, 256, 65536, -(2**31), 2**31, 2**63, 2**2000, 0.5, float("inf"), True, None, 3 + 4j],
        "texts": ["", "é\n", "x" * 100_000, b"abc", b"\xff" * 1_000],
        "kinds": [
            torch.float32,
            torch.device("cpu"),
            torch.Size([1, 2]),
        ],
        "keys": {1: 1, "a": 2, (1, "b"): 3, 0.5: 4, None: 5},
        "many keys": {**{i: i for i in range(3_000)}, **{(i, j): 0 for i in range(60) for j in range(60)}},
        "many": [*range(50_000)] + [i / 7 for i in range(50_000)] + [(i, i + 1) for i in range(20_000)],
        "many lists": [[i, -i] for i in range(300_000)],
        "vocabulary": {f"word {i}": i for i in range(50_000)},
        "empty": [[] for _ in range(1_000)] + [{} for _ in range(1_000)],
        "shared": [weights, weights, base],
        "deep": deep,
        "optimizer": torch.optim.Adam([torch.nn.Parameter(base)]).state_dict(),
    }


@pytest.mark.filterwarnings("ignore:.*[Ss]parse:UserWarning")
def test_everything_that_can_be_written_is_read(tmp_path: Path) -> None:
    data = everything()
    write_checkpoint(to_plain({**data, "no bytes": [b""]}), tmp_path / "x.ckpt")
    for read in READERS:
        assert_same(read(tmp_path / "x.ckpt"), {**to_plain(data), "no bytes": [b""]})


@pytest.mark.filterwarnings("ignore:.*[Ss]parse:UserWarning")
def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    data = {
        **everything(),
        "further": [bytearray(b"x"), bytearray(), torch.strided, {1, 2}, collections.Counter("aab")],
    }
    torch.save(data, tmp_path / "x.ckpt")
    for read in READERS:
        assert_same(read(tmp_path / "x.ckpt"), data)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (found.shape, found.dtype, found.layout) == (expected.shape, expected.dtype, expected.layout)
        if expected.layout == torch.strided and expected.device.type != "meta":
            assert found.stride() == expected.stride()
            assert found.view(-1).tolist() == expected.view(-1).tolist() if expected.is_contiguous() else True
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


def test_what_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(CheckpointError, match=r"x\[1\] can't be saved: .*2,040 bits"):
        to_plain([1, 2**2040], "x")
    with pytest.raises(CheckpointError, match="lies in more than 100 others"):
        to_plain(nested_list(200), "x")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(CheckpointError, match="lies in more than 100 others"):
        to_plain(loop, "x")


def nested_list(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class Colour:
    """A class that a program has told torch to be safe."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)


def test_a_class_that_the_program_calls_safe_is_read(tmp_path: Path) -> None:
    torch.save({"x": Colour("red")}, tmp_path / "x.ckpt")
    check_refused(tmp_path / "x.ckpt", r"more than plain data \(tests.security.test_files.Colour\)")
    with torch.serialization.safe_globals([Colour]):
        assert read_checkpoint(tmp_path / "x.ckpt")["x"] == Colour("red")
    with torch.serialization.safe_globals([(Colour, "elsewhere.Paint")]):
        made = named("elsewhere.Paint") + b")\x81}" + text("name") + text("red") + b"sb"
        write_archive(tmp_path / "y.ckpt", pickle_of(made))
        assert read_checkpoint(tmp_path / "y.ckpt")["x"] == Colour("red")


def test_classes_that_parts_of_torch_call_safe_are_not_called(tmp_path: Path) -> None:
    import torch.distributed.tensor

    names = {f"{c.__module__}.{c.__qualname__}" for c in torch.serialization.get_safe_globals() if isinstance(c, type)}
    assert "torch.distributed.tensor.DTensor" in names
    for name in names:
        path = write_archive(tmp_path / "x.ckpt", pickle_of(called(name, text("cpu"), row(b"K\0"))))
        check_refused(path, "more than plain data")


def test_a_file_of_more_than_65_535_entries_is_read(tmp_path: Path) -> None:
    """Its directory is of another kind."""
    path = tmp_path / "x.ckpt"
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.write_record("data.pkl", pickle_of(b"K\1"), len(pickle_of(b"K\1")))
    for i in range(66_000):
        writer.write_record(f"n/{i}", b"", 0)
    writer.write_end_of_file()
    assert read_checkpoint(path) == {"x": 1}
    content = bytearray(path.read_bytes())
    place = content.rfind(b"PK\6\7")
    assert place > 0
    content[place + 8] ^= 1  # where its first end lies
    path.write_bytes(content)
    check_refused(path, "is damaged")


# ---------------------------------------------------------------------------------------------- a run's folder
def test_a_hostile_save_in_a_runs_folder_is_named_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / "Net" / "version_0" / "checkpoints"
    with RunStore(folder) as store:
        store.write(checkpoint_at(3), 3)
    for kind, (value, _) in BOMBS.items():
        if len(value) > 10_000:
            continue
        path = write_archive(folder / "step-000000000004.ckpt", pickle_of(value), {"data/0": bytes(16)})
        with hostile.measured() as took:
            found = newest_run(tmp_path, "Net")
            assert found is not None
            assert found.position is not None
            assert found.position.step == 3, kind
            with RunStore(folder) as store, pytest.raises(CheckpointError) as caught:
                store.newest()
        hostile.check_one_line(caught.value)
        assert took.seconds < 2 * hostile.MOST_SECONDS
        assert path.exists()


def test_something_else_than_a_file_is_not_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "step-000000000004.ckpt")
    check_refused(tmp_path / "step-000000000004.ckpt", "there is no checkpoint at")
    check_refused(Path("/dev/zero"), "there is no checkpoint at")
    run = tmp_path / "Net" / "version_0" / "checkpoints"
    run.mkdir(parents=True)
    os.mkfifo(run / "step-000000000004.ckpt")
    found = newest_run(tmp_path, "Net")
    assert found is not None
    assert found.position is None
