"""Makes the shipped subset from the full files: ``python -m pytorch_lightning.data.digits.make_subset FULL OUT``.

``FULL`` is a folder with the four idx files of MNIST, uncompressed or gzipped. The subset holds the first 500
training and the first 100 test digits of each class, in their original order. Same input, same bytes.
"""

import gzip
import struct
import sys
from pathlib import Path

SUBSET = {"train": 500, "t10k": 100}
"""Digits of each class."""


def read(folder: Path, name: str) -> bytes:
    """The content of an idx file, gzipped or not."""
    plain = folder / name
    return plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())


def first_of_each(labels: bytes, nb: int) -> list[int]:
    """The places of the first ``nb`` digits of each class, ascending.

    >>> first_of_each(bytes([1, 1, 0, 1, 0, 0]), 2)
    [0, 1, 2, 4]
    """
    seen: dict[int, int] = {}
    places = []
    for place, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= nb:
            places.append(place)
    return places


def main(full: Path, out: Path) -> None:
    """Write the four gzipped files."""
    for part, nb in SUBSET.items():
        labels = read(full, f"{part}-labels-idx1-ubyte")[8:]
        images = read(full, f"{part}-images-idx3-ubyte")[16:]
        places = first_of_each(labels, nb)
        chosen = b"".join(images[784 * place : 784 * (place + 1)] for place in places)
        files = {
            f"{part}-labels-idx1-ubyte": struct.pack(">II", 2049, len(places)) + bytes(labels[i] for i in places),
            f"{part}-images-idx3-ubyte": struct.pack(">IIII", 2051, len(places), 28, 28) + chosen,
        }
        for name, content in files.items():
            (out / f"{name}.gz").write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
