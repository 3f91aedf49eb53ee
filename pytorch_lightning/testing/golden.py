"""The file that a training is compared with, and where the two part."""

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.testing.fingerprints import LENGTH, Fingerprint
from pytorch_lightning.testing.recorder import BEFORE, EACH, END, Record
from pytorch_lightning.version import __version__

FORMAT = 1
RANDOM = "the random numbers"
"""What a step may draw: alone no difference, since it may draw nothing."""
MOST_NAMED = 6
"""Further differences that are named."""


def circumstances(options: Mapping[str, Any]) -> dict[str, Any]:
    """What numbers may depend on beside the code and the data."""
    return {
        "library": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "options": {name: repr(value) for name, value in sorted(options.items())},
    }


@dataclass(frozen=True)
class Golden:
    """The records of a training, and what it was made with."""

    nb_batches: int
    made_with: Mapping[str, Any]
    records: Sequence[Record]

    def write(self, path: Path) -> None:
        """Write it, one line for each record: names once, then numbers."""
        names = {name: number for number, name in enumerate(dict.fromkeys(record.name for record in self.records))}
        head = {"format": FORMAT, "nb_batches": self.nb_batches, "made_with": self.made_with, "names": [*names]}
        lines = [f"{r.batch} {r.virtual_rank} {names[r.name]} {r.value}" for r in self.records]
        text = json.dumps(head, indent=1)[:-2] + ',\n "records": ' + json.dumps(lines, indent=0) + "\n}\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Golden":
        """Raises ``AssertionError`` for a file that ``write`` hasn't written."""
        try:
            head = json.loads(path.read_text())
            if head["format"] != FORMAT:
                raise ValueError(f"its format is {head['format']}, and {FORMAT} is known")
            records, names = [], head["names"]
            for line in head["records"]:
                batch, virtual_rank, name, value = line.split(" ", 3)
                records.append(Record(int(batch), 0, 0, int(virtual_rank), 0, names[int(name)], value))
            return cls(int(head["nb_batches"]), head["made_with"], records)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise AssertionError(f"{path} can't be read: {error}. Write it anew with --update.") from error

    def until(self, nb_batches: int) -> list[Record]:
        """The records of the first ``nb_batches``."""
        is_whole = nb_batches == self.nb_batches
        return [r for r in self.records if r.batch < nb_batches or (is_whole and r.batch == END)]


@dataclass(frozen=True)
class Difference:
    """Where a record isn't what it was."""

    was: Record
    now: Record
    text: str


def difference(was: Record, now: Record, tolerance: float) -> Difference | None:
    """None where ``now`` is what it was, up to ``tolerance`` times its norm."""
    if was.value == now.value:
        return None
    if was.value.startswith("crc") or now.value.startswith("crc"):
        return Difference(was, now, f"were {_told(was)}, and are {_told(now)}")
    if len(was.value) < LENGTH or len(now.value) < LENGTH:
        a, b = float.fromhex(was.value), float.fromhex(now.value)
        if a == b or abs(a - b) <= tolerance * max(abs(a), abs(b)):
            return None
        return Difference(was, now, f"was {a!r}, and is {b!r}")
    old, new = Fingerprint.from_text(was.value), Fingerprint.from_text(now.value)
    far, norm = old.far_from(new), max(old.norm, new.norm)
    if old.crc == new.crc or (tolerance and far <= tolerance * norm):
        return None
    return Difference(was, now, f"differs {_size(far, norm)}")


def _told(record: Record) -> str:
    _, _, shown = record.value.partition(" of ")
    return shown or "others"


def _size(far: float, norm: float) -> str:
    if not math.isfinite(far) or not math.isfinite(norm):
        return "and isn't finite"
    if far <= 1e-6 * norm:
        return f"by less than a millionth of its norm, {norm:.3g}"
    return f"by about {far:.2g}; its norm is {norm:.3g}"


def differences(was: Sequence[Record], now: Sequence[Record], tolerance: float) -> Iterator[Difference]:
    """What isn't as it was, in the order of the computation; up to where the two compute other things."""
    for old, new in zip(was, now, strict=False):
        if (old.batch, old.virtual_rank, old.name) != (new.batch, new.virtual_rank, new.name):
            yield Difference(old, new, f"is computed, and {old.name} of {place_of(old)} was")
            return
        found = difference(old, new, tolerance)
        if found is not None:
            yield found
    if len(was) != len(now):
        rest = (was if len(was) > len(now) else now)[min(len(was), len(now))]
        is_gone = len(was) > len(now)
        yield Difference(rest, rest, "isn't computed any more" if is_gone else "is computed, and wasn't")


def place_of(record: Record) -> str:
    """The batch of a record, in words."""
    if record.batch == BEFORE:
        return "what is there before the first batch"
    return "the end" if record.batch == END else f"batch {record.batch}"


def report(golden: Golden, records: Sequence[Record], path: Path, found: Sequence[Difference], now: Any) -> str:
    """What a person needs to know about the first difference."""
    first = next(d for d in found if d.now.name != RANDOM)
    batch, rank = first.now.batch, first.now.virtual_rank
    several = any(record.virtual_rank > 0 for record in records)
    where = place_of(first.now) + (f" of virtual rank {rank}" if several and rank != EACH else "")
    before = f"; batches 0 to {batch - 1} are as they were" if 0 < batch < END else ""
    lines = [f"training isn't what {path} says, from {where} on{before}:", f"  {first.now.name} {first.text}"]
    place = next(n for n, record in enumerate(records) if record is first.now)
    alike = [r for r in records[:place] if r.batch == batch and r.virtual_rank in (rank, EACH)]
    equal = [r.name for r in alike if r.name != RANDOM]
    if equal:
        lines.append(f"  as it was, before that: {', '.join(equal[-MOST_NAMED:])}")
    if any(d.now.name == RANDOM and d.now[0:1] + d.now[3:4] == (batch, rank) for d in found):
        lines.append("  the random numbers of this batch's step are others, too")
    others = [d for d in found if d is not first and d.now.name != RANDOM]
    after = [f"{d.now.name} {d.text}" for d in others if d.now.batch == batch][:MOST_NAMED]
    lines += [f"  then {text}" for text in after]
    if len(others) > len(after):
        lines.append(f"  and {len(others) - len(after)} more, up to the end")
    lines += [f"  {what}" for what in _changed(golden.made_with, now)]
    lines.append("If this is meant, write the file anew: pytest --update, or update=True.")
    return "\n".join(lines)


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which circumstances are others."""
    flat = [{**made, **made.get("options", {})} for made in (then, now)]
    names = [name for name in {**flat[0], **flat[1]} if name != "options"]
    values = [(name, flat[0].get(name, "not given"), flat[1].get(name, "not given")) for name in names]
    return [f"{name} was {old}, and is {new}" for name, old, new in values if old != new]
