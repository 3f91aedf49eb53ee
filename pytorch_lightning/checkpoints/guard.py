"""What a file holds, found out before ``torch.load`` reads it: nothing is unpacked, made or run."""

import io
from typing import Any, BinaryIO

import torch

from pytorch_lightning.checkpoints.archive import Archive, BadArchive
from pytorch_lightning.checkpoints.outline import Outline, outline
from pytorch_lightning.checkpoints.pickled import Made, Refused, Storage

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""What the first pickle of an old file is: one from before ``torch.save`` wrote archives."""


def is_archive(file: BinaryIO) -> bool:
    """Whether the file is what ``torch.load`` takes for an archive; ``zipfile.is_zipfile`` raises for some damage."""
    file.seek(0)
    return file.read(4) == b"PK\3\4"


def look_at(file: BinaryIO, contents: bool = False) -> Made:
    """What ``torch.load`` would make of ``file``. ``contents``: compare checksums too.

    Raises ``Refused`` or ``BadArchive`` where it would take much more memory or time than ``file`` has bytes, or where
    it isn't plain data.
    """
    found = _look_at_archive(file, contents) if is_archive(file) else _look_at_old(file)
    return found if isinstance(found, Made) else Made(type(found).__name__)


def _look_at_archive(file: BinaryIO, contents: bool) -> Any:
    archive = Archive(file)
    if "data.pkl" not in archive.sizes:
        raise BadArchive("it holds no data.pkl")
    if contents:
        archive.verify()
    data = archive.read("data.pkl")
    found = outline(io.BytesIO(data), len(data), known_callables())
    for storage in found.storages:
        if archive.sizes.get(f"data/{storage.key}", -1) < storage.size:
            raise Refused(f"it has no {storage.size:,} bytes called data/{storage.key[:20]}")
    return found.root


def _look_at_old(file: BinaryIO) -> Any:
    """The file of a torch before 1.6: five pickles, then the bytes of the storages."""
    size = file.seek(0, 2)
    file.seek(0)
    if outline(file, size).root != MAGIC_NUMBER:
        raise Refused("it isn't a file that torch.save wrote")
    _, _, found, keys = (outline(file, size, known_callables()) for _ in range(4))
    _check_old_storages(found, keys, size - file.tell())
    return found.root


def _check_old_storages(found: Outline, keys: Outline, rest: int) -> None:
    largest: dict[str, int] = {}
    for storage in found.storages:
        largest[storage.key] = max(storage.size, largest.get(storage.key, 0))
    named = keys.root.items if type(keys.root) is Made and keys.root.kind == "list" else []
    if set(named) != set(largest) or len(named) != len(largest) or sum(largest.values()) + 8 * len(largest) > rest:
        raise Refused("it hasn't the bytes of its tensors")


NOT_THE_PROGRAMS = ("torch.distributed.", "torch.nested.", "torch._", "builtins.", "traceback.")
"""How the names begin that parts of torch add when they are imported."""


def known_callables() -> set[str]:
    """The names of what this program has told torch that it may be called: ``torch.serialization.add_safe_globals``.

    Not what parts of torch add to that when they are imported.
    """
    each = torch.serialization.get_safe_globals()
    names = {e[1] if isinstance(e, tuple) else f"{e.__module__}.{e.__qualname__}" for e in each}
    return {name for name in names if not name.startswith(NOT_THE_PROGRAMS)}


__all__ = ["BadArchive", "Refused", "Storage", "is_archive", "look_at"]
