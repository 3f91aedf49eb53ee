"""Handwritten digits: all of MNIST if available, and otherwise a subset that is included in the library."""

import contextlib
import gzip
import hashlib
import http.client
import math
import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pytorch_lightning.errors import MisconfigurationException

SECONDS_WITHOUT_A_BYTE = 10.0
"""A download is given up when nothing has arrived for so long: once, for all files and mirrors together."""

MOST_BYTES = 200_000_000
"""What a file may hold, unpacked; the largest of MNIST has 47 million. One that is downloaded: a tenth of that."""

FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Images and labels, of the training digits (True) and of the test digits (False)."""

SHIPPED = Path(__file__).parent
SIDE = 28

_said = threading.Event()
_given_up = threading.Event()


def mnist(
    root: str | Path,
    train: bool = True,
    transform: Callable[[Any], Any] | None = None,
    target_transform: Callable[[Any], Any] | None = None,
) -> "Digits":
    """The training digits, or with ``train=False`` the test digits, as ``torchvision.datasets.MNIST`` gives them.

    An item is (a PIL image of 28 x 28 greys, 0 for the paper and 255 for the ink, or what ``transform`` makes of it;
    the label as an int, or what ``target_transform`` makes of it). They come from the first of:

    1. The files under ``root``: torchvision's ``MNIST/raw``, or the four idx files, gzipped or not, in ``root``
       itself or in its ``raw``. 60,000 and 10,000 digits. The network isn't touched.
    2. The files and mirrors that torchvision names, downloaded into ``root/MNIST/raw``. This is given up after
       ``SECONDS_WITHOUT_A_BYTE``, leaves nothing of itself behind, and isn't tried again by this process.
    3. 5,000 and 1,000 digits that are shipped with the library, with one line on stderr that scores on these can't
       be compared with published ones.

    Raises ``MisconfigurationException`` for files under ``root`` that are damaged. Source: LeCun, Bottou, Bengio
    and Haffner, "Gradient-based learning applied to document recognition" (1998).

    >>> from importlib.resources import files
    >>> digits = mnist(files("pytorch_lightning.data.digits"))  # a folder with the four files
    >>> image, label = digits[0]
    >>> len(digits), image.size, label
    (5000, (28, 28), 5)
    """
    root = Path(root).expanduser()
    folder = _folder_of(root)
    if folder is None and _download(root):
        folder = _folder_of(root)
    if folder is None:
        folder = SHIPPED
        _say_shipped(root)
    return Digits(folder, train, transform, target_transform)


class Digits(Dataset[Any]):
    """The digits in the idx files of a ``folder``: what ``mnist`` returns, with its ``train``, ``transform`` and
    ``target_transform``.

    ``data`` is a uint8 tensor of shape (n, 28, 28), ``targets`` an int64 tensor of shape (n,), ``classes`` the ten
    names that torchvision gives. Raises ``MisconfigurationException`` for a file that is missing or damaged.

    >>> from importlib.resources import files
    >>> digits = Digits(files("pytorch_lightning.data.digits"), train=False)
    >>> digits.data.shape, digits.targets.shape
    (torch.Size([1000, 28, 28]), torch.Size([1000]))
    """

    data: Tensor
    targets: Tensor
    classes = [
        "0 - zero",
        "1 - one",
        "2 - two",
        "3 - three",
        "4 - four",
        "5 - five",
        "6 - six",
        "7 - seven",
        "8 - eight",
        "9 - nine",
    ]

    def __init__(
        self,
        folder: str | Path,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        images, labels = FILES[bool(train)]
        self.data = _read(Path(folder), images, (SIDE, SIDE))
        self.targets = _read(Path(folder), labels, ()).long()
        if len(self.data) != len(self.targets):
            raise MisconfigurationException(
                f"{folder} holds {len(self.data)} images and {len(self.targets)} labels ({images}, {labels})."
                " Remove both files and get them again."
            )
        self.train, self.transform, self.target_transform = bool(train), transform, target_transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from PIL import Image

        image: Any = Image.fromarray(self.data[index].numpy())
        target: Any = int(self.targets[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each name in ``classes``."""
        return {name: label for label, name in enumerate(self.classes)}


def _say_shipped(root: Path) -> None:
    """Say that the scores mean little: one line, once per process."""
    if not _said.is_set():
        _said.set()
        print(
            "WARNING: this is not all of MNIST but the subset of 5,000 training and 1,000 test digits that is shipped"
            " with the library: scores aren't comparable with published MNIST results. For all 70,000 digits put"
            f" {', '.join(name for names in FILES.values() for name in names)} (gzipped or not) in {root}",
            file=sys.stderr,
            flush=True,
        )


def _folder_of(root: Path) -> Path | None:
    """The folder at or under ``root`` that has the four files."""
    for folder in (root / "MNIST" / "raw", root / "raw", root):
        if all(_path_of(folder, name) is not None for names in FILES.values() for name in names):
            return folder
    return None


def _path_of(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if os.path.isfile(path)), None)


def _read(folder: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """An idx file of bytes as a uint8 tensor of shape (n, *shape).

    torchvision's reader takes no gzipped file and checks with ``assert``, so the header is read here: 0, 0, 8 for
    bytes, the number of dimensions, and each dimension as a big-endian int of 4 bytes.
    """
    path = _path_of(folder, name)
    if path is None:
        raise MisconfigurationException(f"{folder} has no {name}, gzipped or not. Get the four files again.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            sizes = _sizes_of(path, file.read(4 * (2 + len(shape))), shape)
            content = file.read(math.prod(sizes) + 1)  # however much the file would take when unpacked
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, f"it can't be unpacked: {error}") from error
    except OSError as error:
        raise MisconfigurationException(f"{path} can't be read: {error}. Make it readable or move it away.") from error
    if len(content) != math.prod(sizes):
        length = f"{len(content):,}" if len(content) < math.prod(sizes) else "more"
        raise _damaged(path, f"after its header are {length} bytes, where that says {math.prod(sizes):,}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(sizes)


def _sizes_of(path: Path, header: bytes, shape: tuple[int, ...]) -> list[int]:
    """The dimensions that an idx file's header says: the number of images or labels, and ``shape``."""
    magic = bytes([0, 0, 8, 1 + len(shape)])
    if header[:4] != magic:
        raise _damaged(path, f"it must begin with the bytes {magic.hex(' ')}, not with {header[:4].hex(' ') or 'none'}")
    sizes = [int.from_bytes(header[at : at + 4], "big") for at in range(4, 4 * (2 + len(shape)), 4)]
    if tuple(sizes[1:]) != shape:
        raise _damaged(path, f"its images must be {SIDE} x {SIDE}, not {' x '.join(map(str, sizes[1:]))}")
    if not 0 < math.prod(sizes) <= MOST_BYTES:
        raise _damaged(path, f"its header says {sizes[0]:,} images or labels")
    return sizes


def _damaged(path: Path, why: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"{path} is damaged or isn't the file that its name says: {why}. Remove it and get it again."
    )


def _download(root: Path) -> bool:
    """Put the four files in ``root/MNIST/raw``, or nothing. Whether they are there."""
    if _given_up.is_set():
        return False
    raw = root / "MNIST" / "raw"
    made = [folder for folder in (raw, *raw.parents) if not os.path.lexists(folder)]
    scratch = None
    whole = False
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".mnist-", dir=root))
        whole = _fill(scratch, raw)
    except OSError:  # a root that can't be written: another one may do; a full disk: it won't be less full next time
        if scratch is not None:
            _given_up.set()
    finally:  # also after Ctrl-C
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        for folder in made if not whole else []:
            with contextlib.suppress(OSError):
                folder.rmdir()
    return whole


def _fill(scratch: Path, raw: Path) -> bool:
    """Fetch all files, unpack them in ``scratch``, then move them to ``raw``. Whether they came."""
    fetch = _Fetch()
    try:
        fetch.start()
        while fetch.is_alive() and not fetch.is_silent():
            fetch.join(min(0.05, SECONDS_WITHOUT_A_BYTE / 4))
    finally:
        fetch.stopped.set()
    if not fetch.whole:
        _given_up.set()
        return False
    for name, content in fetch.files.items():
        (scratch / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    raw.mkdir(parents=True, exist_ok=True)
    for path in scratch.iterdir():
        path.replace(raw / path.name)
    return True


class _Fetch(threading.Thread):
    """The gzipped files that torchvision names, from its mirrors into memory.

    torchvision's own download waits for ever for a server that has stopped sending. This one is a thread, so that
    it can be left alone with a slow name server too, and it writes no file, so that it leaves none when it is.
    """

    def __init__(self) -> None:
        from torchvision.datasets import MNIST

        super().__init__(name="mnist-download", daemon=True)
        self.sources, self.mirrors = list(MNIST.resources), list(MNIST.mirrors)
        self.files: dict[str, bytes] = {}
        self.whole = False
        self.stopped = threading.Event()
        self.latest = time.monotonic()

    def is_silent(self) -> bool:
        """Whether the last byte came too long ago."""
        return time.monotonic() - self.latest >= SECONDS_WITHOUT_A_BYTE

    def run(self) -> None:
        for name, md5 in self.sources:
            if not any(self._got(mirror, name, md5) for mirror in self.mirrors):
                return
        self.whole = True

    def _got(self, mirror: str, name: str, md5: str) -> bool:
        """Whether a file was to be had from this mirror, and is what it should be."""
        if self.stopped.is_set() or self.is_silent():
            return False
        try:
            content = self._load(mirror + name)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                self.latest = time.monotonic()
                error.close()
            return False
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            return False
        self.files[name] = content
        return True

    def _load(self, url: str) -> bytes:
        request = urllib.request.Request(url, headers={"User-Agent": "pytorch/vision"})
        content = bytearray()
        with urllib.request.urlopen(request, timeout=SECONDS_WITHOUT_A_BYTE) as response:
            self.latest = time.monotonic()
            while (piece := response.read1(1 << 16)) and not self.stopped.is_set():
                self.latest = time.monotonic()
                content += piece
                if len(content) > MOST_BYTES // 10:
                    raise ValueError(f"{url} is larger than a file of MNIST")
        return bytes(content)
