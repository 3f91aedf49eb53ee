"""Where the digits come from: files, a download, or the shipped subset."""

import gzip
import hashlib
import http.server
import pickle
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from pytorch_lightning.data import digits
from pytorch_lightning.errors import MisconfigurationException

IMAGES = "train-images-idx3-ubyte"


def write_idx(folder: Path, nb: int = 6, zipped: bool = False) -> None:
    """Four small idx files: digit n is a grey square of value n, its label n % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        images = struct.pack(">IIII", 2051, nb, 28, 28) + b"".join(bytes([n]) * 784 for n in range(nb))
        labels = struct.pack(">II", 2049, nb) + bytes(n % 10 for n in range(nb))
        for name, content in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            path = folder / (f"{name}.gz" if zipped else name)
            path.write_bytes(gzip.compress(content) if zipped else content)


def refusing_address() -> str:
    """An address of this machine where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"


def offer_files(monkeypatch: pytest.MonkeyPatch, web: Path) -> None:
    """Four gzipped files in a folder, and torchvision naming these with their md5."""
    write_idx(web, zipped=True)
    files = sorted(web.iterdir())
    monkeypatch.setattr(MNIST, "resources", [(p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in files])


def await_downloads() -> None:
    """Wait for the end of what was left running behind a download that was given up."""
    for thread in threading.enumerate():
        if thread.name == "mnist-download":
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_said", threading.Event())
    monkeypatch.setattr(digits, "_given_up", threading.Event())
    monkeypatch.setattr(digits, "SECONDS_WITHOUT_A_BYTE", 0.4)
    monkeypatch.setattr(MNIST, "mirrors", [refusing_address()])
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
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/", asked
        running.shutdown()


@pytest.fixture
def scripted_server() -> Iterator[Callable[[Callable[[socket.socket], None]], tuple[str, list[socket.socket]]]]:
    """Starts a server that calls the given function with each connection: its address, and the connections."""
    listening = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def start(answer: Callable[[socket.socket], None]) -> tuple[str, list[socket.socket]]:
        def accept() -> None:
            try:
                while True:
                    connection = listening.accept()[0]
                    taken.append(connection)
                    answer(connection)
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/", taken

    yield start
    listening.close()
    for connection in taken:
        connection.close()


@pytest.mark.parametrize("where", ["MNIST/raw", "raw", "."])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
def test_files_that_are_there_are_used(
    tmp_path: Path, where: str, zipped: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_idx(tmp_path / where, zipped=zipped)
    monkeypatch.setattr(digits, "_download", lambda *_: pytest.fail("the network was asked"))
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
        assert type(image) is type(their_image)
        assert type(label) is int
    assert (ours.data.dtype, ours.targets.dtype) == (theirs.data.dtype, theirs.targets.dtype)
    assert ours.classes == theirs.classes
    assert ours.class_to_idx == theirs.class_to_idx


def test_transforms_are_applied_to_image_and_label(tmp_path: Path) -> None:
    write_idx(tmp_path)
    data = digits.mnist(tmp_path, transform=lambda image: image.getpixel((0, 0)), target_transform=lambda n: n * 10)
    assert list(data)[:3] == [(0, 0), (1, 10), (2, 20)]


def test_a_root_below_the_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_idx(tmp_path / "digits")
    assert len(digits.mnist("~/digits")) == 6


def test_a_download_lands_whole_under_the_root(
    tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address, asked = server
    monkeypatch.setattr(MNIST, "mirrors", [refusing_address(), address])
    offer_files(monkeypatch, tmp_path / "web")
    root = tmp_path / "data"
    assert len(digits.mnist(root)) == 6
    assert len(asked) == len(set(asked)) == 4
    assert len(digits.mnist(root, train=False)) == 6
    assert len(asked) == 4, "files that are there are loaded again"
    assert [p.name for p in root.iterdir()] == ["MNIST"]
    assert len(MNIST(str(root), train=True)) == 6, "torchvision doesn't find them"
    assert capsys.readouterr().err == ""


def test_a_download_completes_a_folder_that_lacks_a_file(
    tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [server[0]])
    offer_files(monkeypatch, tmp_path / "web")
    raw = tmp_path / "data" / "MNIST" / "raw"
    write_idx(raw)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    assert len(digits.mnist(tmp_path / "data")) == 6
    assert (raw / "t10k-labels-idx1-ubyte").is_file()


def test_a_file_with_another_md5_is_not_taken(
    tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [server[0]])
    offer_files(monkeypatch, tmp_path / "web")
    write_idx(tmp_path / "web", nb=7, zipped=True)
    assert len(digits.mnist(tmp_path / "data")) == 5_000
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\nthe first bytes"], ids=["nothing", "a part"]
)
def test_a_server_that_falls_silent_is_given_up_once_for_all_files_and_mirrors(
    tmp_path: Path, scripted_server: Any, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, taken = scripted_server(lambda connection: connection.sendall(sent))
    monkeypatch.setattr(MNIST, "mirrors", [address, address])
    began = time.monotonic()
    assert len(digits.mnist(tmp_path / "deep" / "data", train=True)) == 5_000
    assert 0.4 <= time.monotonic() - began < 10
    assert len(digits.mnist(tmp_path / "deep" / "data", train=False)) == 1_000
    await_downloads()
    assert len(taken) == 1, "the second call, a second file or a second mirror was tried"
    assert list(tmp_path.iterdir()) == []


def test_a_late_answer_to_a_download_that_was_given_up_writes_nothing(
    tmp_path: Path, scripted_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, taken = scripted_server(lambda connection: None)
    monkeypatch.setattr(MNIST, "mirrors", [address, address])
    monkeypatch.setattr(digits._Fetch, "is_silent", lambda self: bool(taken))
    assert len(digits.mnist(tmp_path / "data")) == 5_000
    taken[0].sendall(b"HTTP/1.0 503 Busy\r\n\r\n")
    taken[0].close()
    await_downloads()
    assert len(taken) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_slow_server_is_waited_for_as_long_as_bytes_come(
    tmp_path: Path, scripted_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_files(monkeypatch, tmp_path / "web")

    def dribble(connection: socket.socket) -> None:
        name = connection.recv(10_000).split()[1].decode().strip("/")
        content = (tmp_path / "web" / name).read_bytes()
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
        for start in range(0, len(content), 5):
            time.sleep(0.07 if name == f"{IMAGES}.gz" else 0)
            connection.sendall(content[start : start + 5])
        connection.close()

    address, taken = scripted_server(dribble)
    monkeypatch.setattr(MNIST, "mirrors", [address])
    monkeypatch.setattr(digits, "SECONDS_WITHOUT_A_BYTE", 0.6)
    began = time.monotonic()
    assert len(digits.mnist(tmp_path / "data")) == 6
    assert time.monotonic() - began > digits.SECONDS_WITHOUT_A_BYTE
    assert len(taken) == 4


def test_an_address_that_cannot_be_looked_up_is_given_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(digits, "SECONDS_WITHOUT_A_BYTE", 60.0)
    monkeypatch.setattr(MNIST, "mirrors", ["http://digits.invalid/", "http://others.invalid/"])
    began = time.monotonic()
    assert len(digits.mnist(tmp_path / "data")) == 5_000
    assert time.monotonic() - began < 10


def test_a_refused_connection_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits._Fetch, "is_silent", lambda self: False)  # nothing ends it but the refusal
    (tmp_path / "data").mkdir()
    assert len(digits.mnist(tmp_path / "data")) == 5_000
    assert list((tmp_path / "data").iterdir()) == []


def test_an_interrupted_download_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: threading.Thread, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(digits._Fetch, "is_alive", lambda self: True)
    monkeypatch.setattr(digits._Fetch, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        digits.mnist(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_root_that_cannot_be_written_gives_the_subset(
    tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> str:
        raise PermissionError("read-only")

    monkeypatch.setattr(MNIST, "mirrors", [server[0]])
    (tmp_path / "file").write_text("not a folder")
    assert len(digits.mnist(tmp_path / "file")) == 5_000
    assert len(digits.mnist(tmp_path / "file" / "below")) == 5_000
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert len(digits.mnist(tmp_path / "data")) == 5_000
    assert server[1] == [], "what can't be kept was loaded"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_subset_is_announced_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits.mnist(tmp_path / "data", train=True)
    digits.mnist(tmp_path / "data", train=False)
    digits.mnist(tmp_path / "elsewhere")
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    for part in ("5,000", "1,000", "shipped", "comparable", "t10k-labels-idx1-ubyte", str(tmp_path / "data")):
        assert part in said.err


def test_the_shipped_digits_are_balanced_and_small(tmp_path: Path) -> None:
    train, test = digits.mnist(tmp_path / "data", train=True), digits.mnist(tmp_path / "data", train=False)
    assert train.targets.bincount().tolist() == [500] * 10
    assert test.targets.bincount().tolist() == [100] * 10
    assert (train.data.shape, test.data.shape) == ((5_000, 28, 28), (1_000, 28, 28))
    assert (train.data.dtype, train.targets.dtype) == (torch.uint8, torch.int64)
    # the mean grey of MNIST is 0.1307
    assert abs(float(train.data.float().mean()) / 255 - 0.1307) < 0.005
    assert train.targets[:6].tolist() == [5, 0, 4, 1, 9, 2]
    assert test.targets[:6].tolist() == [7, 2, 1, 0, 4, 1]
    assert sum(path.stat().st_size for path in digits.SHIPPED.glob("*.gz")) < 1_300_000


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(lambda b: b[:1000], "after its header are 984 bytes, where that says 4,704", id="short"),
        pytest.param(lambda b: b + b"more", "after its header are more bytes, where that says 4,704", id="long"),
        pytest.param(lambda b: b[:6], "images must be 28 x 28", id="header only"),
        pytest.param(lambda b: b"", "not with none", id="empty"),
        pytest.param(lambda b: b"\0\0\x08\x01" + b[4:], "not with 00 00 08 01", id="magic of labels"),
        pytest.param(lambda b: b"<htm" + b[4:], "not with 3c 68 74 6d", id="web page"),
        pytest.param(lambda b: b[:4] + b"\0\x0f\x42\x40" + b[8:], "its header says 1,000,000 images", id="too many"),
        pytest.param(lambda b: b[:4] + b"\0" * 4 + b[8:], "its header says 0 images", id="none"),
        pytest.param(lambda b: b[:11] + b"\x0e" + b[12:], "images must be 28 x 28, not 14 x 28", id="shape"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], why: str) -> None:
    write_idx(tmp_path)
    path = tmp_path / IMAGES
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MisconfigurationException, match=f"{IMAGES} is damaged.*{why}.*Remove it and get it again"):
        digits.mnist(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b"no gzip", lambda b: b[:-20], lambda b: b[:30] + b"\xff" * 10 + b[40:]],
    ids=["no gzip", "short", "garbled"],
)
def test_a_damaged_gzipped_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_idx(tmp_path, zipped=True)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(MisconfigurationException, match=f"{IMAGES}.gz is damaged.*can't be unpacked.*Remove it"):
        digits.mnist(tmp_path)


def test_a_file_that_grows_when_it_is_unpacked_is_refused_at_once(tmp_path: Path) -> None:
    """A megabyte that unpacks to a gigabyte, behind the header of six digits, and behind none."""
    write_idx(tmp_path)
    (tmp_path / IMAGES).unlink()
    packer = zlib.compressobj(wbits=31)
    zeros, rest = bytes(1 << 24), b""
    for _ in range(64):
        rest += packer.compress(zeros)
    rest += packer.flush()
    assert len(rest) < 1 << 21
    for header in (gzip.compress(struct.pack(">IIII", 2051, 6, 28, 28)), b""):
        (tmp_path / f"{IMAGES}.gz").write_bytes(header + rest)
        tracemalloc.start()
        with pytest.raises(MisconfigurationException, match="is damaged"):
            digits.mnist(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
        tracemalloc.stop()


def test_a_server_that_never_ends_a_file_is_given_up(
    tmp_path: Path, scripted_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 16))

    monkeypatch.setattr(MNIST, "mirrors", [scripted_server(pour)[0]])
    monkeypatch.setattr(digits, "MOST_BYTES", 20_000_000)
    assert len(digits.mnist(tmp_path / "data")) == 5_000
    await_downloads()
    assert list(tmp_path.iterdir()) == []


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


def test_the_subset_of_the_subset_is_itself(tmp_path: Path) -> None:
    from pytorch_lightning.data.digits.make_subset import first_of_each, main

    main(digits.SHIPPED, tmp_path / "out")
    for path in sorted(digits.SHIPPED.glob("*.gz")):
        made = (tmp_path / "out" / path.name).read_bytes()
        assert gzip.decompress(made) == gzip.decompress(path.read_bytes())
        assert made[4:8] == path.read_bytes()[4:8] == bytes(4), "a time in the gzip header"
    assert first_of_each(bytes([3, 3, 3, 1]), 2) == [0, 1, 3]


def test_a_subset_is_not_made_of_damaged_files(tmp_path: Path) -> None:
    from pytorch_lightning.data.digits.make_subset import main

    write_idx(tmp_path)
    (tmp_path / IMAGES).write_bytes((tmp_path / IMAGES).read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{IMAGES} isn't a whole idx file"):
        main(tmp_path, tmp_path / "out")


def test_the_licence_of_the_digits_lies_beside_them() -> None:
    notice = (digits.SHIPPED / "NOTICE").read_text()
    for part in ("LeCun", "Cortes", "Burges", "ShareAlike 3.0", "https://creativecommons.org/licenses/by-sa/3.0/"):
        assert part in notice


def test_importing_the_digits_does_not_import_torchvision() -> None:
    code = "import sys, pytorch_lightning.data.digits; sys.exit('torchvision' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
