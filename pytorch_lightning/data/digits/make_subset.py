"""Makes the shipped subset from the full files: ``python -m pytorch_lightning.data.digits.make_subset FULL OUT``.

``FULL`` is a folder with the four idx files of MNIST, uncompressed or gzipped. The subset holds the first 500
training and the first 100 test digits of each class, in their original order. The same input gives the same
digits, and with the same zlib the same bytes: the gzip header holds no time.
"""

import gzip
import math
import struct
import sys
from pathlib import Path

SUBSET = {"train": 500, "t10k": 100}
"""Digits of each class."""


def read(folder: Path, name: str, *sizes: int) -> bytes:
    """What follows the header in an idx file of bytes, gzipped or not, whose items have these sizes.

    Raises ``ValueError`` where the header isn't that of such a file, or the file isn't as long as it says.
    """
    plain = folder / name
    content = plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    nb = (len(content) - 8 - 4 * len(sizes)) // math.prod(sizes)
    header = header_of(nb, *sizes)
    if content[: len(header)] != header or len(content) != len(header) + nb * math.prod(sizes):
        raise ValueError(f"{folder / name} isn't a whole idx file of items of sizes {sizes}")
    return content[len(header) :]


def header_of(*sizes: int) -> bytes:
    """The header of an idx file of unsigned bytes with these dimensions.

    >>> header_of(60_000).hex(" ", 4)
    '00000801 0000ea60'
    """
    return struct.pack(f">I{len(sizes)}I", 0x800 + len(sizes), *sizes)


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
    """Write the four gzipped files, a little under 1 MB altogether; make ``out`` where it isn't there."""
    out.mkdir(parents=True, exist_ok=True)
    for part, nb in SUBSET.items():
        labels = read(full, f"{part}-labels-idx1-ubyte")
        images = read(full, f"{part}-images-idx3-ubyte", 28, 28)
        places = first_of_each(labels, nb)
        files = {
            "labels-idx1": header_of(len(places)) + bytes(labels[place] for place in places),
            "images-idx3": header_of(len(places), 28, 28)
            + b"".join(images[784 * place : 784 * (place + 1)] for place in places),
        }
        for kind, content in files.items():
            (out / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m pytorch_lightning.data.digits.make_subset FOLDER_OF_FULL_IDX OUT")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
