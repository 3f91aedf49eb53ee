"""Mutations of files and of what is in them: bits, lengths, pickles that run code, sizes, names, types and shapes.

Each takes a ``random.Random`` and can be made again from its seed. Those of data are made by whoever writes the file
anew, checksums and all, as somebody would on purpose.
"""

import collections
import copy
import io
import json
import math
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.security.hostile import Payload

Random = random.Random


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD_NAMES = (
    "", ".", "..", "../../x", "/etc/passwd", "a\0b", "a/b", "..\\x", "x" * 5000, "__class__", "__dict__", "self",
    "two\nlines", "\x1b[2Jx", "\ud800", "os.system", "_parameters", "forward", "training_step", "load_state_dict",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2, 7, 10**6, 2**31 - 1, 2**31, 2**32, 2**62, 2**63, 2**64, 2**200, -(2**63), 0.5, -0.5, 1e300,
    math.nan, math.inf, -math.inf,
)  # fmt: skip
VALUES: tuple[Callable[[], Any], ...] = (
    lambda: None, lambda: True, lambda: 3 + 4j, lambda: b"x", lambda: "x", list, dict, tuple,
    lambda: [1], lambda: ["x"], lambda: [None], lambda: {"x": 1}, lambda: {1: 2}, lambda: {None: {}},
    lambda: (1,), lambda: ("node", 0), lambda: ("node", 10**9), lambda: nested(100), lambda: [[]] * 1000,
    lambda: torch.zeros(0), lambda: torch.zeros(3), lambda: torch.zeros(2, 3), lambda: torch.tensor(1),
    lambda: torch.tensor(math.nan), lambda: torch.zeros(3, dtype=torch.float64), lambda: torch.tensor(True),
    lambda: torch.zeros(3, dtype=torch.complex64), lambda: torch.zeros(624, dtype=torch.int64),
    lambda: torch.empty(10**6, 10**6, device="meta"), lambda: torch.eye(3).to_sparse(),
    lambda: torch.ones(1).expand(99),
    lambda: torch.nn.Parameter(torch.zeros(2)), lambda: torch.float32, lambda: torch.Size([1]),
    lambda: torch.device("cpu"), collections.OrderedDict,
)  # fmt: skip


def any_value(r: Random) -> Any:
    return r.choice([lambda: r.choice(NUMBERS), lambda: r.choice(BAD_NAMES[:-1]), r.choice(VALUES)])()


# ------------------------------------------------------------------------------------------ plain data
Place = tuple[Any, Any]
"""A container, and a key or index in it."""


def places(data: Any, most: int = 3000) -> list[Place]:
    """Everywhere in nested data where a value is. Of long lists only the beginning."""
    found: list[Place] = []
    waiting = [data]
    while waiting and len(found) < most:
        held = waiting.pop()
        keys = list(held) if isinstance(held, dict) else range(min(len(held), 8))
        for key in keys:
            found.append((held, key))
            if isinstance(held[key], (dict, list, tuple)):
                if isinstance(held[key], tuple) and not isinstance(held, tuple):
                    held[key] = list(held[key])  # so that something in it can be changed; ``frozen`` undoes it
                    held[key].append(MADE_LIST)
                waiting.append(held[key])
    return found


class Mark:
    """Is one also where it was copied."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mark)


MADE_LIST = Mark()
"""The last item of a list that was a tuple."""


def frozen(data: Any) -> Any:
    """``data`` with tuples where there were tuples."""
    if isinstance(data, dict):
        for key in list(data):
            data[key] = frozen(data[key])
    elif isinstance(data, list):
        items = [frozen(item) for item in data if not isinstance(item, Mark)]
        return tuple(items) if len(items) < len(data) else items
    return data


def mutate_value(r: Random, value: Any) -> Any:
    """Another value in the place of ``value``, of its kind or of any other."""
    if isinstance(value, torch.Tensor) and r.random() < 0.6:
        changes = [
            lambda: value.double(), lambda: value.reshape(-1), lambda: value.reshape(-1)[:0],
            lambda: value.unsqueeze(0),
            lambda: value.reshape(-1)[: max(1, value.numel() // 2)].clone(), lambda: value.to(torch.int8),
            lambda: torch.cat([value.reshape(-1), value.reshape(-1)]), lambda: value.to("meta"),
            lambda: value.bool(), lambda: (value.t() if value.dim() == 2 else value[None, None]),
        ]  # fmt: skip
        return r.choice(changes)()
    if type(value) in (int, float) and r.random() < 0.6:
        return r.choice([value + 1, value - 1, -value, value * 2**40, str(value), r.choice(NUMBERS)])
    if type(value) is str and r.random() < 0.6:
        return r.choice([value + "x", value[:-1], value.upper(), value * 100, r.choice(BAD_NAMES[:-1])])
    return any_value(r)


def change(r: Random, data: Any, value: Callable[[Any], Any] | None = None) -> None:
    """Change, remove, rename or add something in nested ``data``. ``value``: put what it gives there instead."""
    there = places(data)
    if not there:
        return
    held, key = r.choice(there)
    action = r.choice("vvvvvrkaxs") if value is None else "p"
    if action in "vp" or (isinstance(held, list) and isinstance(held[key], Mark)):
        held[key] = mutate_value(r, held[key]) if value is None else value(held[key])
    elif action == "r":
        del held[key]
    elif action == "k" and isinstance(held, dict):
        held[r.choice([1, None, (1, 2), 0.5, True, *BAD_NAMES[:-1]])] = held.pop(key)
    elif action == "a" and isinstance(held, dict):
        held[r.choice(BAD_NAMES[:-1])] = any_value(r)
    elif action == "x" and isinstance(held, list):
        held.insert(key, any_value(r))
    else:
        other, its = r.choice(there)
        held[key] = copy.deepcopy(other[its])


def rename(r: Random, data: Any) -> None:
    """Another name where there is one."""
    texts = [(held, key) for held, key in places(data) if type(held[key]) is str]
    keys = [(held, key) for held, key in places(data) if isinstance(held, dict) and type(key) is str]
    if texts and r.random() < 0.6:
        held, key = r.choice(texts)
        held[key] = r.choice(BAD_NAMES[:-1])
    elif keys:
        held, key = r.choice(keys)
        held[r.choice(BAD_NAMES[:-1])] = held.pop(key)


def in_data(r: Random, data: Any, kind: str, mark: Path) -> Any:
    """``data``, changed as ``kind`` says: 'types', 'names', 'code'."""
    box = [data]  # so that all of it can be replaced
    if kind == "code":
        change(r, box, lambda value: Payload(mark, r.choice(Payload.WAYS)))
    elif kind == "names":
        rename(r, box)
    else:
        for _ in range(r.choice([1, 1, 1, 2, 5])):
            change(r, box)
    return frozen(box)[0] if box else None


# ------------------------------------------------------------------------------------------ bytes
def bits(r: Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(r.choice([1, 1, 2, 8, 64]) if data else 0):
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    return bytes(data)


def lengths(r: Random, content: bytes) -> bytes:
    """Cut off, empty, longer, with a hole, or with a piece twice."""
    a, b = sorted((r.randrange(len(content) + 1), r.randrange(len(content) + 1)))
    return r.choice(
        [content[:a], content[a:], b"", content + content[:b], content + bytes(1000), content[:a] + content[b:]]
        + [content[:b] + content[a:], content[:a] + bytes(b - a) + content[b:]]
    )


def sizes(r: Random, content: bytes) -> bytes:
    """A large number in the place of one that is small, wherever it may be a size: in the records of a zip archive, and
    in the instructions of a pickle."""
    places = [i for mark in (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"X", b"J", b"K", b"M", b"r", b"q",
              b"\x8a", b"ustride", b"shape") for i in found(content, mark)]  # fmt: skip
    if not places:
        return bits(r, content)
    place = r.choice(places)
    place += r.randrange(4, 46) if content[place : place + 2] == b"PK" else 1
    large = r.choice([2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 10**9, 0])
    return content[:place] + struct.pack("<I", large)[: r.choice([1, 2, 4])].ljust(1) + content[place + 4 :]


def found(content: bytes, mark: bytes) -> list[int]:
    place, each = -1, []
    while (place := content.find(mark, place + 1)) >= 0 and len(each) < 500:
        each.append(place)
    return each


# ------------------------------------------------------------------------------------------ files
def saved(r: Random, data: Any, code: bool) -> bytes:
    """``data`` as one of the files that ``torch.load`` has ever read."""
    buffer = io.BytesIO()
    protocol = r.randrange(pickle.HIGHEST_PROTOCOL + 1) if code else 2 if r.random() < 0.95 else r.choice([3, 4, 5])
    try:
        torch.save(data, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=r.random() < 0.8)
    except (pickle.PicklingError, AttributeError, TypeError, OverflowError, NotImplementedError, RuntimeError):
        return pickle.dumps(data if code else {"x": 1}, protocol)
    if code and r.random() < 0.1:
        return pickle.dumps(data, protocol)
    return buffer.getvalue()


def archive(r: Random, content: bytes, kind: str) -> bytes:
    """One entry of the archive ``content`` changed, with its checksum; 'names': with another name."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            entries = {info.filename: old.read(info) for info in old.infolist()}
    except Exception:
        return bits(r, content)
    name = next(n for n in entries if n.endswith("/data.pkl")) if r.random() < 0.6 else r.choice(list(entries))
    top = name.partition("/")[0]
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if r.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as new:
        for each, data in entries.items():
            if each == name and kind == "names":
                other = r.choice([r.choice(list(entries)), f"{top}/../x", "/x", "../../x", f"{top}/data/\0x", top])
                new.filelist = [info for info in new.filelist if info.filename != other]
                new.NameToInfo.pop(other, None)
                new.writestr(other, data)
            else:
                new.writestr(each, BYTES[kind](r, data) if each == name else data)
    return buffer.getvalue()


BYTES = {"bits": bits, "lengths": lengths, "sizes": sizes}
KINDS = ("bits", "lengths", "sizes", "names", "types", "types", "types", "code")


def mutate_checkpoint(r: Random, path: Path, kind: str, mark: Path) -> None:
    """A file of ``torch.save``."""
    content = path.read_bytes()
    if kind in ("types", "code") or (kind == "names" and r.random() < 0.7):
        data = torch.load(io.BytesIO(content), weights_only=True)
        content = saved(r, in_data(r, data, kind, mark), kind == "code")
    elif kind == "names" or r.random() < 0.5:
        content = archive(r, content, kind)
    else:
        content = BYTES[kind](r, content)
    path.write_bytes(content)


def mutate_json(r: Random, path: Path, kind: str, mark: Path) -> None:
    content = path.read_bytes()
    if kind in ("types", "names"):
        data = in_data(r, json.loads(content), kind, mark)
        content = json.dumps(data, default=lambda value: str(type(value)), skipkeys=True).encode(
            "utf-8", "surrogatepass"
        )
    elif kind == "code":
        content = pickle.dumps(Payload(mark, r.choice(Payload.WAYS)), r.randrange(pickle.HIGHEST_PROTOCOL + 1))
    elif kind == "sizes":
        numbers = [i for i, c in enumerate(content) if chr(c).isdigit()]
        place = r.choice(numbers) if numbers else 0
        large = r.choice([b"9" * 15, b"9" * 400, b"9" * 10_000, b"1e400", b"-1", b"NaN", b"[" * 20_000])
        content = content[:place] + large + content[place + 1 :]
    else:
        content = BYTES[kind](r, content)
    path.write_bytes(content)


def mutate_table(r: Random, path: Path, kind: str, mark: Path) -> None:
    """A meta_tags.csv."""
    rows = [line.split(",", 1) for line in path.read_text().splitlines()]
    if kind == "types":
        row = r.choice(rows)
        row[r.randrange(2)] = str(any_value(r))[:10_000]
    elif kind == "names":
        r.choice(rows)[0] = r.choice(BAD_NAMES)
    elif kind == "code":
        r.choice(rows)[1] = f"__import__('os').system('touch {mark}')"
    elif kind == "sizes":
        rows += r.choice([rows * 5_000, [["x", "9" * 200_000]], [["x", '"' + "y\n" * 10_000]], [["x", "1e999"]]])
    content = "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
    path.write_bytes(BYTES[kind](r, content) if kind in ("bits", "lengths") else content)
