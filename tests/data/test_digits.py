"""Where the digits come from: files, a download, or the shipped subset."""

import gzip
import hashlib
import http.server
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from pytorch_lightning.data import digits
from pytorch_lightning.errors import MisconfigurationException


def write_idx(folder: Path, nb: int = 6, zipped: bool = False) -> None:
    """Four small idx files: digit n is a grey square of value n, its label n % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        images = struct.pack(">IIII", 2051, nb, 28, 28) + b"".join(bytes([n]) * 784 for n in range(nb))
        labels = struct.pack(">II", 2049, nb) + bytes(n % 10 for n in range(nb))
        for name, content in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_said", threading.Event())
    monkeypatch.setattr(digits, "_given_up", threading.Event())
    monkeypatch.setattr(digits, "SECONDS_WITHOUT_A_BYTE", 0.4)
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server on the folder ``tmp_path / 'web'``: its address, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "web"), **options)

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/", asked
        running.shutdown()


@pytest.fixture
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that takes connections and never sends a byte: its address, and the connections."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)

        def accept() -> None:
            try:
                while True:
                    taken.append(listening.accept()[0])
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", taken
    for connection in taken:
        connection.close()


@pytest.mark.parametrize("where", ["MNIST/raw", "raw", "."])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
def test_files_that_are_there_are_used(
    tmp_path: Path, where: str, zipped: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_idx(tmp_path / where, zipped=zipped)
    monkeypatch.setattr(digits, "_fetch", lambda *_: pytest.fail("the network was asked"))
    data = digits.mnist(tmp_path, train=True, transform=ToTensor())
    image, label = data[5]
    assert (len(data), label, image.shape) == (6, 5, (1, 28, 28))
    assert torch.allclose(image, torch.tensor(5 / 255))
    assert capsys.readouterr().err == ""


def test_items_are_those_of_torchvision(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    ours, theirs = digits.mnist(tmp_path, train=False), MNIST(str(tmp_path), train=False)
    for (image, label), (their_image, their_label) in zip(ours, theirs, strict=True):
        assert (image.tobytes(), image.mode, label) == (their_image.tobytes(), their_image.mode, their_label)


def test_a_download_lands_whole_under_the_root(
    tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, asked = server
    write_idx(tmp_path / "web", zipped=True)
    files = sorted((tmp_path / "web").iterdir())
    monkeypatch.setattr(MNIST, "mirrors", [address])
    monkeypatch.setattr(MNIST, "resources", [(p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in files])
    root = tmp_path / "data"
    assert len(digits.mnist(root)) == 6
    nb_asked = len(asked)
    assert len(set(asked)) == 4
    assert len(digits.mnist(root, train=False)) == 6
    assert len(asked) == nb_asked, "files that are there are loaded again"
    assert [p.name for p in root.iterdir()] == ["MNIST"]


def test_a_silent_server_is_given_up_once_for_all_files_and_mirrors(
    tmp_path: Path, silent_server: tuple[str, list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, taken = silent_server
    monkeypatch.setattr(MNIST, "mirrors", [address, address])
    began = time.monotonic()
    assert len(digits.mnist(tmp_path / "data", train=True)) == 5_000
    first = time.monotonic() - began
    assert 0.4 <= first < 2.0
    assert len(taken) == 1
    began = time.monotonic()
    assert len(digits.mnist(tmp_path / "data", train=False)) == 1_000
    assert time.monotonic() - began < 0.4, "the second call waits again"
    assert not (tmp_path / "data").exists()


def test_a_refused_connection_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert len(digits.mnist(tmp_path / "data")) == 5_000
    assert list((tmp_path / "data").iterdir()) == []


def test_the_subset_is_announced_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits.mnist(tmp_path / "data", train=True)
    digits.mnist(tmp_path / "data", train=False)
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if "aren't comparable" in line]) == 1


def test_the_shipped_digits_are_balanced_and_small(tmp_path: Path) -> None:
    train, test = digits.mnist(tmp_path / "data", train=True), digits.mnist(tmp_path / "data", train=False)
    assert train.targets.bincount().tolist() == [500] * 10
    assert test.targets.bincount().tolist() == [100] * 10
    assert train.data.shape == (5_000, 28, 28)
    # the mean grey of MNIST is 0.1307
    assert abs(float(train.data.float().mean()) / 255 - 0.1307) < 0.005
    assert train.targets[:6].tolist() == [5, 0, 4, 1, 9, 2]
    assert sum(path.stat().st_size for path in digits.SHIPPED.glob("*.gz")) < 1_300_000


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MisconfigurationException, match=r"train-images-idx3-ubyte is damaged.*Remove it"):
        digits.mnist(tmp_path)


def test_images_and_labels_of_different_number_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 2) + b"\0\1")
    with pytest.raises(MisconfigurationException, match="6 images and 2 labels"):
        digits.mnist(tmp_path)


def test_a_spawned_worker_reads_it(tmp_path: Path) -> None:
    write_idx(tmp_path)
    data = digits.mnist(tmp_path, transform=ToTensor())
    assert len(pickle.loads(pickle.dumps(data))) == 6
    loader = DataLoader(data, batch_size=3, num_workers=1, multiprocessing_context="spawn")
    assert [labels.tolist() for _, labels in loader] == [[0, 1, 2], [3, 4, 5]]


def test_the_subset_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    from pytorch_lightning.data.digits.make_subset import first_of_each, main

    main(digits.SHIPPED, tmp_path)
    for path in sorted(digits.SHIPPED.glob("*.gz")):
        assert gzip.decompress((tmp_path / path.name).read_bytes()) == gzip.decompress(path.read_bytes())
    assert first_of_each(bytes([3, 3, 3, 1]), 2) == [0, 1, 3]
