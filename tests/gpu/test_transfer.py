"""Batches on their way to the GPU."""

import dataclasses
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.checkpoints.snapshot import Snapshot
from pytorch_lightning.data import transfer
from tests.gpu.measuring import Watched, copies_and_kernels, nb_beside
from tests.gpu.models import Images, Plain, assert_same_bits, bits_of, trainer_in
from tests.gpu.places import GPU, STAND_IN, Place

pytestmark = pytest.mark.gpu


class Heavy(LightningModule):
    """A step that keeps the GPU busy for longer than the process is with a batch of 8 MB."""

    def __init__(self, nb_rows: int, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(*(nn.Linear(width, width) for _ in range(8)))
        self.nb_rows, self.width = nb_rows, width

    def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        return self.net(data_batch).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> Any:
        draws = torch.Generator().manual_seed(1)
        return [torch.randn(self.nb_rows, self.width, generator=draws) for _ in range(4)] * 8


def test_batches_are_copied_beside_the_computation(place: Place, tmp_path: Path, record_property: Any) -> None:
    """In a trace of a fit most batches travel to the GPU, from pinned memory and on a stream of their own, while a
    kernel of an earlier batch runs; no step waits for its copy, and the weights are those without such copies."""
    size = (512, 4096) if place.is_gpu else (8, 32)
    seen = Watched(place, tmp_path, first=8, last=28)
    beside, plain = Heavy(*size), Heavy(*size)
    trainer_in(tmp_path, gpus=place.gpus, add_log_row_interval=10**6, callbacks=[seen]).fit(beside)
    assert seen.waits == []
    if place.is_gpu:
        copies, kernels, kinds = copies_and_kernels(seen.events)
        large = [copy for copy, kind in zip(copies, kinds, strict=True) if copy.end - copy.begin > 50]
        record_property("copies", len(large))
        record_property("of them beside a kernel", nb_beside(large, kernels))
        assert {kind for kind in kinds if "Pageable" in kind} == set()
        assert len(large) >= seen.nb_batches - 2
        assert not {copy.stream for copy in large} & {kernel.stream for kernel in kernels}
        assert nb_beside(large, kernels) >= 0.7 * len(large)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transfer.CopyStream, "copy", lambda self, tensor: tensor.to(self._device))
        trainer_in(tmp_path, gpus=place.gpus).fit(plain)
    assert_same_bits(bits_of(beside), bits_of(plain))


def test_copies_beside_a_kernel_are_seen_in_a_trace() -> None:
    """What the test above looks for in a trace is found where it is, and only there."""

    def event(kind: str, name: str, begin: float, end: float, stream: int) -> dict[str, Any]:
        return {"cat": kind, "name": name, "ts": begin, "dur": end - begin, "args": {"stream": stream}}

    events = [
        event("kernel", "gemm", 0, 100, 7),
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 50, 150, 20),
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 100, 150, 20),
        event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 10, 20, 7),
        event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 10, 20, 9),
        event("cpu_op", "aten::mm", 0, 5, 0),
    ]
    copies, kernels, kinds = copies_and_kernels(events)
    assert [nb_beside([copy], kernels) for copy in copies] == [1, 0, 0]
    assert kinds[2] == "Memcpy HtoD (Pageable -> Device)"


def test_a_copy_does_not_wait_for_what_runs_there(place: Place) -> None:
    """A copy is complete while a kernel that was started before it still runs, and what comes later finds it whole;
    strides stay what they were."""
    batch = {"x": torch.randn(1000, 100), "y": torch.arange(5), "t": torch.randn(4, 3).t(), "s": "a"}
    move = transfer.build_transfer(place.device)
    assert move is not None
    move(batch)  # memory and the stream
    place.wait()
    if place.is_gpu:
        own, copied = transfer.CopyStream(place.device), torch.cuda.Event()
        own.copy(torch.ones(1000))
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000_000)  # about a second
        result = own.copy(torch.ones(1000))
        assert own._stream is not None
        copied.record(own._stream)
        copied.synchronize()
        assert not torch.cuda.current_stream(place.device).query()
        assert torch.equal(result.cpu(), torch.ones(1000))
    moved = move(batch)
    for name in "xyt":
        assert moved[name].device == place.device
        assert torch.equal(moved[name].cpu(), batch[name])
        assert moved[name].stride() == batch[name].stride()


def test_memory_of_a_copied_batch_is_not_given_away_too_early(place: Place) -> None:
    """Batches that are dropped while kernels still use them keep their numbers until those have run."""
    move = transfer.build_transfer(place.device)
    assert move is not None
    large = 2**22 if place.is_gpu else 2**10
    sums = []
    for n in range(20):
        moved = move(torch.full((large,), float(n)))
        if place.is_gpu:
            torch.cuda._sleep(10_000_000)
        sums.append(moved.mean())
        del moved
    assert [float(value) for value in sums] == list(range(20))


Pair = namedtuple("Pair", ["first", "second"])


@dataclasses.dataclass
class Record:
    x: Tensor
    name: str


class Sent:
    """Anything with ``to``."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def to(self, device: Any) -> "Sent":
        return Sent(self.x.to(device))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_whatever_a_batch_is_made_of_comes_to_the_gpu(place: Place, dtype: Any) -> None:
    """Tensors in lists, tuples, named tuples, dicts and dataclasses, and things with a .to, arrive; floating ones in
    the precision's type, views and tensors that are pinned or already there too; the rest passes."""
    move = transfer.build_transfer(place.device, dtype)
    assert move is not None
    x = torch.arange(6.0).reshape(2, 3)
    batch = {
        "list": [x, (x[:, 1], Pair(x.t(), "a"))],
        "dict": OrderedDict(inner=Record(x, "b")),
        "other": Sent(x),
        "there": x.to(place.device),
        "whole": torch.arange(3),
        "sparse": x.to_sparse() if place.is_gpu else x,
        "empty": torch.empty(0, 3),
        "text": "c",
        "none": None,
    }
    if place.is_gpu:
        batch["pinned"] = x.pin_memory()
    moved = move(batch)
    wanted = torch.float32 if dtype is None else dtype
    found = [moved["list"][0], moved["list"][1][0], moved["list"][1][1].first, moved["dict"]["inner"].x]
    found += [moved[name] for name in ("there", "empty", "pinned") if name in moved]
    assert {(tensor.device, tensor.dtype) for tensor in found} == {(place.device, wanted)}
    assert torch.equal(moved["list"][1][0].float().cpu(), x[:, 1])
    assert moved["other"].x.device == moved["sparse"].device == place.device
    assert (moved["whole"].dtype, moved["whole"].device) == (torch.int64, place.device)
    assert (moved["list"][1][1].second, moved["dict"]["inner"].name, moved["text"]) == ("a", "b", "c")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(Plain().data())


LOADERS: dict[str, Any] = {
    "tensors in memory": {},
    "workers": {"num_workers": 2},
    "pinned": {"pin_memory": True},
    "pinned by workers": {"num_workers": 2, "pin_memory": True, "persistent_workers": True},
}


@pytest.mark.share(60)
@pytest.mark.parametrize("name", [*LOADERS, "a stream", "ready batches"])
def test_every_kind_of_loader_gives_the_same_weights(place: Place, tmp_path: Path, name: str) -> None:
    """Batches from memory, from workers, pinned by torch, from a stream or ready on the GPU train to the same bits."""
    if place.kind == STAND_IN and "pinned" in name:
        pytest.skip("pinned memory is a GPU's")

    class Loaded(Plain):
        @property
        def tng_dataloader(self) -> Any:
            if name == "ready batches":
                return [[tensor.to(place.device) for tensor in batch] for batch in self.loader()]
            return DataLoader(Stream() if name == "a stream" else self.data(), batch_size=16, **LOADERS.get(name, {}))

    ours, plain = Loaded(), Plain()
    trainer_in(tmp_path, gpus=place.gpus, max_nb_epochs=2).fit(ours)
    trainer_in(tmp_path, gpus=place.gpus, max_nb_epochs=2).fit(plain)
    assert_same_bits(bits_of(ours), bits_of(plain))


def test_a_save_is_of_the_moment_it_was_asked_for(place: Place) -> None:
    """A copy of weights for a save holds what they were when it was queued, though training changes them before the
    copy has taken place."""
    size = 10_000_000 if place.kind == GPU else 1000
    weights = torch.zeros(size, device=place.device)
    snapshot = Snapshot()
    for value in range(5):
        weights.fill_(value)
        copy = snapshot.take({"w": weights})
        weights.fill_(-1.0)
        snapshot.wait()
        assert copy["w"].device.type == "cpu"
        assert (copy["w"] == value).all()


def test_saves_beside_training_hold_what_training_had(place: Place, tmp_path: Path) -> None:
    """Rolling saves that are written while the GPU trains on each hold the weights of their own batch."""

    class Kept(Images):
        def __init__(self) -> None:
            super().__init__(nb_batches=12)
            self.then: dict[int, Tensor] = {}

        def on_batch_end(self) -> None:
            self.then[self.global_step + 1] = self.net[5].weight.detach().clone()

    model = Kept()
    folder = tmp_path / "Kept" / "version_0" / "checkpoints"
    found: dict[str, Tensor] = {}

    class Reading(Watched):
        def on_batch_end(self, run: Any) -> None:
            for path in sorted(folder.glob("*.ckpt")):
                if path.name not in found:
                    saved = torch.load(path, weights_only=True)["state_dict"]
                    found[path.name] = saved["net.5.weight"]

    reading = Reading(place, tmp_path)
    trainer_in(tmp_path, gpus=place.gpus, save_every_nb_batches=2, callbacks=[reading]).fit(model)
    assert len(found) >= 2
    for name, weight in found.items():
        assert torch.equal(weight, model.then[int(name[5:17])].cpu())
