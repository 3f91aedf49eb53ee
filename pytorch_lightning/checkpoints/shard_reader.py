"""A sharded checkpoint, read by one process or by several together: its tensors, and whether its files are whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pytorch_lightning.checkpoints.own_shards import Part, Reading, Summed, joined
from pytorch_lightning.checkpoints.shard_index import read_index
from pytorch_lightning.checkpoints.store import DamagedCheckpoint
from pytorch_lightning.errors import CheckpointError, one_line
from pytorch_lightning.processes import Processes

Notes = list[dict[str, Any]]
"""Name, size and checksum of each file."""


class Found(NamedTuple):
    """What a process has read."""

    manifest: dict[str, Any]
    notes: Notes
    parts: dict[str, Part]
    sums: list[Summed]


def read_parts(folder: Path, notes: Notes, shapes: Mapping[str, Tensor], processes: Processes) -> Any:
    """This process's part of each of ``shapes``, which are on 'meta', and the checksums of what it read."""
    files = {note["name"]: note["size"] for note in notes}
    for name, size in files.items():
        file = folder / name
        # the size first: what is no file of that size, a device say, isn't read
        if not file.is_file() or file.stat().st_size != size:
            raise DamagedCheckpoint(f"{file} is missing or damaged. Use an older checkpoint.")
    reading = Reading(folder, files, processes.rank, processes.nb)
    return reading.parts(read_index(folder, files, shapes)), reading.sums


def read_together(
    read: Callable[[], Found], verify: Callable[[Notes | None], object], folder: Path, processes: Processes
) -> Found:
    """What ``read`` gives in each process. Raises the same in all of them where one can't, or where the files aren't
    those that were written: ``DamagedCheckpoint``, or ``CheckpointError`` where process 0 finds them whole.

    ``verify`` compares those files, of some notes, that aren't read in parts; and all of them where something is wrong.
    """
    found, text, is_damaged = None, "", True
    try:
        found = read()
    except CheckpointError as error:
        text, is_damaged = str(error), isinstance(error, DamagedCheckpoint)
    except Exception as error:  # whatever a stranger's bytes make of the reader
        text = f"{folder} is damaged ({one_line(f'{type(error).__name__}: {error}')}). Use an older checkpoint."
    told = [(text, is_damaged, [] if found is None else [tuple(s) for s in found.sums])]
    if processes.nb > 1:
        processes.to_first(
            processes.encoded(told[0]), lambda rank, message: told.append(processes.decoded(message, rank))
        )
    is_damaged, text = processes.from_first(_judged(told, found, verify, folder) if processes.is_first else None)
    if text:
        raise DamagedCheckpoint(text) if is_damaged else CheckpointError(text)
    assert found is not None
    return found


def _judged(
    told: list[Any], found: Found | None, verify: Callable[[Notes | None], object], folder: Path
) -> tuple[bool, str]:
    """Whether the files are damaged, and what is wrong. ``told``: the problem of each process, whether that is damage,
    and its checksums."""
    texts = [text for text, _, _ in told]
    try:
        if found is not None and not any(texts):
            sums = [Summed(*each) for _, _, own in told for each in own]
            read = {each.file for each in sums}
            whole = [n for n in found.notes if n["name"] in read and joined(sums, n["name"], n["size"]) == n["crc"]]
            verify([note for note in found.notes if note not in whole])
            return False, ""
        verify(None)
    except DamagedCheckpoint as error:
        return True, str(error)
    except (CheckpointError, OSError) as error:
        return False, str(error)
    if texts[0]:
        return told[0][1], texts[0]
    rank = next(rank for rank, text in enumerate(texts) if text)
    return (
        False,
        f"process {rank} can't read {folder} as process 0 does: {texts[rank]} All processes must see the same.",
    )
