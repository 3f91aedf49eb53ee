"""Where the shards of a checkpoint's tensors lie in its files.

``shards.json`` says it, as plain data. Folders that were written before that was have only the ``.metadata`` of
``torch.distributed.checkpoint``, which is a pickle: it is parsed, and nothing in it is constructed or called.
"""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pytorch_lightning.checkpoints.outline import outline
from pytorch_lightning.checkpoints.pickled import Made

INDEX, METADATA = "shards.json", ".metadata"
FORMAT = 1
"""The number of ``shards.json``'s layout."""

KINDS = "torch.distributed.checkpoint.metadata."
CLASSES = {
    *(KINDS + name for name in ("Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata")),
    *(KINDS + name for name in ("MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    "builtins.getattr",  # Python 3.11.0 to 3.11.3 write a member of an enum so
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    *("pathlib." + name for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *("pathlib._local." + name for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
}
"""What torch's metadata of tensors is made of."""


class Place(NamedTuple):
    """One shard of a tensor."""

    file: str
    start: int
    """Its first byte in the file."""
    length: int
    """Its bytes: a file in the file, which ``torch.save`` wrote."""
    offset: tuple[int, ...]
    """Its first index in each dimension of the whole tensor."""
    shape: tuple[int, ...]


class Entry(NamedTuple):
    """A tensor of which processes wrote a shard each."""

    dtype: str
    shape: tuple[int, ...]
    places: list[Place]


def write_index(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write ``shards.json``."""
    tensors = {
        key: {"dtype": e.dtype, "shape": e.shape, "shards": [place._asdict() for place in e.places]}
        for key, e in entries.items()
    }
    (folder / INDEX).write_text(json.dumps({"format": FORMAT, "tensors": tensors}, indent=1))


def read_index(folder: Path, files: Mapping[str, int], tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    """Where the shards of ``tensors``, which are on 'meta', lie in ``files``, whose sizes are given.

    Raises ``ValueError`` where that isn't said of each tensor, for all of it and once, or isn't in these files.
    """
    own = INDEX in files
    most = 2**20 + 1000 * len(tensors) * len(files)
    if files.get(INDEX if own else METADATA, most + 1) > most:
        raise ValueError("what says where its tensors lie is too large")
    found = _from_json(folder / INDEX) if own else _from_metadata(folder / METADATA)
    if set(found) != set(tensors):
        raise ValueError(f"it has shards of other tensors: {sorted(set(found) ^ set(tensors))[:3]}")
    for key, entry in found.items():
        if (entry.dtype, entry.shape) != (str(tensors[key].dtype), tuple(tensors[key].shape)):
            raise ValueError(f"{key[:60]} is {entry.shape} {entry.dtype} in one file and another in the next")
        for place in entry.places:
            if place.file not in files or min(place.start, place.length) < 0:
                raise ValueError(f"a shard of {key[:60]} lies outside of its files")
            if place.start + place.length > files[place.file]:
                raise ValueError(f"a shard of {key[:60]} is longer than its file")
        if not _is_whole(entry):
            raise ValueError(f"the shards of {key[:60]} don't make the whole tensor")
    size = sum(math.prod(t.shape) * t.dtype.itemsize for t in tensors.values())
    if size > sum(files.values()):
        raise ValueError(f"its tensors have {size:,} bytes, more than its files")
    return found


def _is_whole(entry: Entry) -> bool:
    """Whether the shards lie one after the other in one dimension, from the tensor's beginning to its end."""
    shape, places = entry.shape, sorted(entry.places, key=lambda place: place.offset)
    if any(len(p.offset) != len(shape) or len(p.shape) != len(shape) for p in places) or not places:
        return False
    cut = next((d for d in range(len(shape)) if places[0].shape[d] != shape[d]), None)
    end = 0
    for place in places:
        for d in range(len(shape)):
            if d != cut and (place.offset[d], place.shape[d]) != (0, shape[d]):
                return False
        if cut is not None:
            if place.offset[cut] != end or place.shape[cut] <= 0:
                return False
            end += place.shape[cut]
    return len(places) == 1 if cut is None else end == shape[cut]


def _from_json(path: Path) -> dict[str, Entry]:
    data = json.loads(path.read_bytes())
    if type(data) is not dict or data.get("format") != FORMAT or type(data.get("tensors")) is not dict:
        raise ValueError(f"{INDEX} isn't of this version")
    return {key: _entry_of(value) for key, value in data["tensors"].items()}


def _entry_of(value: Any) -> Entry:
    if type(value) is not dict or type(value.get("dtype")) is not str or type(value.get("shards")) is not list:
        raise ValueError(f"{INDEX} doesn't say what a tensor is")
    return Entry(value["dtype"], _numbers(value.get("shape")), list(map(_place_of, value["shards"])))


def _place_of(value: dict[str, Any]) -> Place:
    start, length = _numbers([value["start"], value["length"]])
    return Place(_text(value["file"]), start, length, _numbers(value["offset"]), _numbers(value["shape"]))


def _numbers(value: Any) -> tuple[int, ...]:
    if type(value) not in (list, tuple) or any(type(n) is not int or not 0 <= n < 2**62 for n in value):
        raise ValueError("a shard's place isn't a row of numbers")
    return tuple(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("a shard's file has no name")
    return value


# ---------------------------------------------------------------------------------------------- torch's metadata
def _from_metadata(path: Path) -> dict[str, Entry]:
    content = path.read_bytes()
    data = _fields(outline(io.BytesIO(content), len(content), CLASSES, newer=True).root, "metadata.Metadata")
    entries, places = {}, {}
    for key, value in _pairs(data["state_dict_metadata"]):
        tensor = _fields(value, "metadata.TensorStorageMetadata")
        dtype = tensor["properties"].state.items[0].name
        entries[_text(key)] = Entry(dtype, _sizes(tensor["size"]), [])
        for chunk in tensor["chunks"].items:
            part = _fields(chunk, "metadata.ChunkStorageMetadata")
            places[key, _sizes(part["offsets"])] = _sizes(part["sizes"])
    for index, value in _pairs(data["storage_data"]):
        where, info = _fields(index, "metadata.MetadataIndex"), _fields(value, "filesystem._StorageInfo")
        key, offset = _text(where["fqn"]), _sizes(where["offset"])
        start, length = _numbers([info["offset"], info["length"]])
        if info.get("transform_descriptors") is not None:
            raise ValueError("its shards are compressed")
        entries[key].places.append(
            Place(_text(info["relative_path"]), start, length, offset, places.pop((key, offset)))
        )
    return entries


def _fields(value: Any, name: str) -> dict[str, Any]:
    """The attributes of an object of the class ``name``."""
    if type(value) is not Made or not value.name.endswith(f".{name}"):
        raise ValueError(f"it has something else than a {name.rpartition('.')[2]}")
    return {_text(key): item for key, item in _pairs(value.state)}


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if type(value) is not Made or not value.is_a("dict"):
        raise ValueError("it has something else than a dict")
    return list(zip(value.items[::2], value.items[1::2], strict=True))


def _sizes(value: Any) -> tuple[int, ...]:
    if type(value) is not Made or value.name != "torch.Size":
        raise ValueError("it has something else than a shape")
    return _numbers(list(value.arguments[0].items))
