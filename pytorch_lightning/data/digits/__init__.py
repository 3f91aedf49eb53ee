"""Handwritten digits: all of MNIST where it can be had, and otherwise a subset that is shipped with the library."""

import contextlib
import gzip
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from pytorch_lightning.errors import MisconfigurationException

SECONDS_WITHOUT_A_BYTE = 10.0
"""A download is given up when nothing has arrived for so long: once, for all files and mirrors together."""

FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SHIPPED = Path(__file__).parent

_said = threading.Event()
_given_up = threading.Event()


def mnist(
    root: str | Path,
    train: bool = True,
    transform: Callable[[Any], Any] | None = None,
    target_transform: Callable[[Any], Any] | None = None,
) -> Dataset[Any]:
    """The training or the test digits, as ``torchvision.datasets.MNIST`` gives them.

    An item is (a PIL image of 28 x 28 greys or what ``transform`` makes of it, the label as an int). In this order:

    1. The files under ``root``: torchvision's ``MNIST/raw``, or the four idx files, gzipped or not, in ``root``
       itself or in its ``raw``. 60,000 and 10,000 digits. The network isn't touched.
    2. torchvision's download into ``root``, given up after 10 s without a byte.
    3. 5,000 and 1,000 digits that are shipped with the library, with a line on stderr that scores on these can't
       be compared with published ones.

    Raises ``MisconfigurationException`` for files under ``root`` that are damaged. Source: LeCun, Bottou, Bengio
    and Haffner, "Gradient-based learning applied to document recognition" (1998).
    """
    folder = _folder_of(Path(root))
    if folder is None and _download(Path(root)):
        folder = _folder_of(Path(root))
    if folder is None:
        folder = SHIPPED
        if not _said.is_set():
            _said.set()
            print(
                "NOTE: these are the 5,000 training and 1,000 test digits shipped with the library, not all of MNIST:"
                f" scores aren't comparable with published ones. For all 70,000 put the four idx files in {root}.",
                file=sys.stderr,
                flush=True,
            )
    return Digits(folder, train, transform, target_transform)


class Digits(Dataset[Any]):
    """The digits in the idx files of a folder.

    ``data`` is a uint8 tensor of shape (n, 28, 28), ``targets`` an int64 tensor of shape (n,).
    """

    classes = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    def __init__(
        self,
        folder: str | Path,
        train: bool,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        images, labels = (_read(Path(folder), name) for name in FILES[train])
        if len(images) != len(labels):
            raise MisconfigurationException(
                f"{folder} holds {len(images)} images and {len(labels)} labels. Remove these files and get them again."
            )
        self.data, self.targets = images, labels.long()
        self.train, self.transform, self.target_transform = train, transform, target_transform

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


def _folder_of(root: Path) -> Path | None:
    """The folder at or under ``root`` that has the four files."""
    for folder in (root / "MNIST" / "raw", root / "raw", root):
        if all(_path_of(folder, name) is not None for names in FILES.values() for name in names):
            return folder
    return None


def _path_of(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, name: str) -> Any:
    """An idx file as a uint8 tensor."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    path = _path_of(folder, name)
    assert path is not None
    read = read_image_file if "images" in name else read_label_file
    try:
        if path.suffix != ".gz":
            return read(str(path))
        with tempfile.TemporaryDirectory() as scratch:
            plain = Path(scratch) / name
            plain.write_bytes(gzip.decompress(path.read_bytes()))
            return read(str(plain))
    except (AssertionError, ValueError, RuntimeError, OSError, EOFError, KeyError, IndexError, TypeError) as error:
        raise MisconfigurationException(
            f"{path} is damaged or isn't the idx file that its name says ({type(error).__name__}: {error})."
            " Remove it and get it again."
        ) from error


def _download(root: Path) -> bool:
    """torchvision's download, into a folder of its own until it is whole. Whether it came to its end.

    torchvision waits for ever for a server that has stopped sending, so it runs beside a watch for new bytes.
    """
    if _given_up.is_set():
        return False
    was_there = root.is_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".mnist-", dir=root))
    except OSError:
        return False
    outcome: list[bool] = []
    thread = threading.Thread(target=_fetch, args=(scratch, outcome), daemon=True)
    thread.start()
    arrived, since = -1, time.monotonic()
    while thread.is_alive() and time.monotonic() - since < SECONDS_WITHOUT_A_BYTE:
        thread.join(min(0.1, SECONDS_WITHOUT_A_BYTE / 4))
        now = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
        if now != arrived:
            arrived, since = now, time.monotonic()
    whole = bool(outcome and outcome[0])
    if whole:
        (root / "MNIST").mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            (scratch / "MNIST" / "raw").rename(root / "MNIST" / "raw")
    else:
        _given_up.set()
    shutil.rmtree(scratch, ignore_errors=True)
    if not whole and not was_there:
        root.rmdir()
    return whole


def _fetch(scratch: Path, outcome: list[bool]) -> None:
    from torchvision.datasets import MNIST

    try:
        MNIST(str(scratch), download=True)
        outcome.append(True)
    except Exception:  # no network, a full disk, a server that sends something else: the shipped digits will do
        outcome.append(False)
