"""Hostile files: how they are made, and what reading one took."""

import contextlib
import io
import json
import os
import struct
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

MB = 2**20
MOST_SECONDS = 2.0
ROOM = 128 * MB
"""What reading may take beside twice the size of the file."""


class Payload:
    """Runs a command when it is unpickled, in one of many ways."""

    WAYS = ("os.system", "posix.mkdir", "subprocess.call", "builtins.exec", "builtins.eval", "pathlib.touch")

    def __init__(self, mark: Path, way: str = "os.system") -> None:
        self.mark, self.way = str(mark), way

    def __reduce__(self) -> Any:
        import posix
        import subprocess

        python = f"open({self.mark!r}, 'w').close()"
        return {
            "os.system": (os.system, (f"touch {self.mark}",)),
            "posix.mkdir": (posix.mkdir, (self.mark,)),
            "subprocess.call": (subprocess.call, (["touch", self.mark],)),
            "builtins.exec": (exec, (python,)),
            "builtins.eval": (eval, (python,)),
            "pathlib.touch": (Path.touch, (Path(self.mark),)),
        }[self.way]


# ------------------------------------------------------------------------------------------ pickles, by hand
def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def row(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def called(name: str, *arguments: bytes) -> bytes:
    return named(name) + row(*arguments) + b"R"


def storage(key: str = "0", nb: int = 4, kind: str = "Float") -> bytes:
    return row(text("storage"), named(f"torch.{kind}Storage"), text(key), text("cpu"), number(nb)) + b"Q"


def view(of: bytes, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    numbers = [row(*map(number, values)) for values in (size, stride)]
    empty = called("collections.OrderedDict")
    return called("torch._utils._rebuild_tensor_v2", of, number(offset), *numbers, b"\x89", empty)


def pickle_of(value: bytes, key: str = "x") -> bytes:
    """The pickle of {key: value}."""
    return b"\x80\x02}" + text(key) + value + b"s."


# ------------------------------------------------------------------------------------------ archives
def write_archive(
    path: Path, data: bytes, entries: dict[str, bytes] | None = None, compressed: bool = False, top: str = "a"
) -> Path:
    """An archive as torch writes it, with that ``data.pkl`` and more entries."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in {"data.pkl": data, "version": b"3\n", **(entries or {})}.items():
            archive.writestr(f"{top}/{name}", content)
    return path


def edit_archive(path: Path, change: Any) -> None:
    """Write the archive at ``path`` anew, with the entries that ``change`` makes of those it has (name: content)."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in change(entries).items():
            archive.writestr(name, content)


# ------------------------------------------------------------------------------------------ what reading takes
class Took:
    """What a block took: see ``measured``."""

    seconds = 0.0
    peak = 0
    """Memory, in bytes, beyond what there was before."""


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


@contextlib.contextmanager
def measured() -> Iterator[Took]:
    """A scope whose time, and memory on Linux, are measured."""
    took, can = Took(), os.access("/proc/self/clear_refs", os.W_OK)
    if can:
        Path("/proc/self/clear_refs").write_text("5")
    before, start = _memory("VmRSS:") if can else 0, time.process_time()
    try:
        yield took
    finally:
        took.seconds = time.process_time() - start
        took.peak = _memory("VmHWM:") - before if can else 0


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def check_one_line(error: BaseException) -> None:
    """An error is one short line, in which a terminal finds nothing to obey."""
    said = str(error)
    assert said.isprintable(), repr(said[:1000])
    assert 10 < len(said) < 1200, said


def saved(data: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(data, buffer, **options)
    return buffer.getvalue()


def manifest(**values: Any) -> str:
    return json.dumps(values)
