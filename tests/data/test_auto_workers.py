"""``auto_nb_workers``: workers are added where batches are waited for, and the bits stay what they are without."""

import contextlib
import functools
import gc
import io
import mmap
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset, get_worker_info

from pytorch_lightning import LightningModule
from pytorch_lightning.data import worker_tuning
from pytorch_lightning.data.replayable import replayable
from pytorch_lightning.data.watched_objects import WatchedObjects
from pytorch_lightning.data.worker_tuning import WorkerTuner
from pytorch_lightning.errors import FitError, Notices
from tests.recorder import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
NB, SIZE = 160, 4
NB_BATCHES = NB // SIZE


MADE_BY = mmap.mmap(-1, NB)
"""Of each sample who made it last: 0 is this process, and others are workers. Memory that they share."""


class Points(Dataset[Any]):
    """Each sample takes some time."""

    def __init__(self, seconds: float = 0.004) -> None:
        self.x, self.seconds, self.level = torch.randn(NB, 3, generator=torch.Generator().manual_seed(2)), seconds, 1.0
        self.inner = Inner()
        self.draws = np.random.default_rng(0)

    def __len__(self) -> int:
        return NB

    def __getitem__(self, i: int) -> Any:
        time.sleep(self.seconds)
        info = get_worker_info()
        MADE_BY[i] = 0 if info is None else 1 + info.id
        x = self.x[i] * self.level * self.inner.scale + 0.1 * torch.rand(3) + self.draws.normal()
        return i, x.float()


class Inner:
    scale = 1.0


class Net(LightningModule):
    def __init__(self, data: Any = None, nb_workers: int = 0, before: Callable[[Any, int], None] | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(3, 1)
        self._data = [Points() if data is None else data]  # not a part of the module
        self._nb_workers, self._before = nb_workers, before
        SEEN.pop(id(self), None)

    @property
    def seen(self) -> list[tuple[list[int], int]]:
        """Of each batch: the samples, and the worker that made it, or -1."""
        return SEEN.setdefault(id(self), [])

    def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        i, x = data_batch
        self.seen.append((i.tolist(), MADE_BY[int(i[0])] - 1))
        if self._before is not None:
            self._before(self, batch_nb)
        return F.mse_loss(self.layer(x), torch.ones(len(x), 1))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self._data[0], SIZE, shuffle=True, num_workers=self._nb_workers)


SEEN: dict[int, list[Any]] = {}


def trained(folder: Path, model: Net, auto: bool = True, nb_epochs: int = 1, **options: Any) -> list[Tensor]:
    quiet_trainer(folder, **{"auto_nb_workers": auto, "max_nb_epochs": nb_epochs, "silence": (), **options}).fit(model)
    return [p.detach().clone() for p in model.parameters()]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert all(map(torch.equal, one, other))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors, few batches for each measurement, and a close look between any two of them."""
    monkeypatch.setattr("pytorch_lightning.data.worker_tuning.cores_for", lambda nb: 2)
    monkeypatch.setattr(worker_tuning, "MEASURED", 4)
    monkeypatch.setattr(worker_tuning, "CHECK_SHARE", 1e9)


@pytest.fixture
def climbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be measured, on a busy machine too: more are better than none, and few better than many."""
    monkeypatch.setattr(WorkerTuner, "_next", lambda tuner: {0: 1, 1: 2, 2: 2, 4: 2}[tuner.nb])


def test_workers_are_added_and_the_bits_stay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, plain = Net(Points(0.02)), Net(Points(0.0))
    bits = trained(tmp_path / "auto", model, nb_epochs=2)
    assert_same(bits, trained(tmp_path / "plain", plain, auto=False, nb_epochs=2))
    workers = [worker for _, worker in model.seen]
    assert workers[0] == -1
    assert max(workers[-10:]) == 1, "two make the last batches"
    assert {worker for _, worker in plain.seen} == {-1}
    for epoch in range(2):  # each sample once
        batches = model.seen[epoch * NB_BATCHES : (epoch + 1) * NB_BATCHES]
        assert sorted(i for batch, _ in batches for i in batch) == list(range(NB))
    said = capfd.readouterr().err
    assert "2 workers make the training batches" in said
    assert said.count("[auto-workers]") == 1


class Disturbed(Points):
    """Workers take long for the first samples that they make, as on a machine that is busy with something else."""

    def __init__(self) -> None:
        super().__init__(0.02)
        self.nb = mmap.mmap(-1, 8)

    def __getitem__(self, i: int) -> Any:
        if get_worker_info() is not None and (nb := int.from_bytes(self.nb[:8], "little")) < 100:
            self.nb[:8] = (nb + 1).to_bytes(8, "little")
            time.sleep(0.08)
        return super().__getitem__(i)


def test_workers_that_were_slow_while_something_else_ran_are_tried_again(tmp_path: Path) -> None:
    data = Disturbed()
    model, plain = Net(data), Net(Points(0.0))
    bits = trained(tmp_path / "auto", model, nb_epochs=3)
    assert_same(bits, trained(tmp_path / "plain", plain, auto=False, nb_epochs=3))
    workers = [worker for _, worker in model.seen]
    assert workers[0] == -1
    assert int.from_bytes(data.nb[:8], "little") >= 100, "else they weren't slow for long"
    assert {*workers[-20:]} == {0, 1}


def test_no_worker_is_started_where_little_is_waited_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_tuning, "WAITS", 0.3)  # on a busy machine, too
    model = Net(Points(0.0), before=lambda module, batch_nb: time.sleep(0.1))
    trained(tmp_path, model, max_nb_steps=20)
    assert {worker for _, worker in model.seen} == {-1}
    assert "auto-workers" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("climbs")
def test_there_may_be_fewer_but_never_none_where_the_user_asked_for_some(tmp_path: Path) -> None:
    model, plain = Net(nb_workers=4), Net(nb_workers=4)
    assert_same(trained(tmp_path / "auto", model), trained(tmp_path / "plain", plain, auto=False))
    assert {worker for _, worker in plain.seen} == {0, 1, 2, 3}
    assert {worker for _, worker in model.seen[-10:]} == {0, 1}
    assert min(worker for _, worker in model.seen) == 0


def set_level(module: Any, batch_nb: int) -> None:
    if batch_nb == 33:
        module._data[0].level = 3.0


def set_inside(module: Any, batch_nb: int) -> None:
    if batch_nb == 33:
        module._data[0].inner.scale = 3.0


def write_to_a_tensor(module: Any, batch_nb: int) -> None:
    if batch_nb == 33:
        module._data[0].x.mul_(2)


def write_past_torch(module: Any, batch_nb: int) -> None:
    if batch_nb == 33:
        module._data[0].x.numpy()[:] *= 2


@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("change", [set_level, set_inside, write_to_a_tensor, write_past_torch])
def test_what_changes_in_the_middle_is_in_the_next_batch(
    tmp_path: Path, change: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without workers it would be."""
    plain = trained(tmp_path / "plain", Net(before=change), auto=False)
    untouched = trained(tmp_path / "untouched", Net(), auto=False)
    assert not torch.equal(plain[0], untouched[0])
    model = Net(before=change)
    assert_same(trained(tmp_path / "auto", model), plain)
    assert max(worker for _, worker in model.seen[28:34]) >= 0, "workers made those before"
    assert {worker for _, worker in model.seen[34:]} == {-1}
    assert capfd.readouterr().err.count("changed inside an epoch, which workers wouldn't see") == 1


SETTINGS: dict[str, Any] = {"level": 1.0}
SHIFT = np.zeros(3)


class Shared:
    level = 1.0


class ReadsElsewhere(Points):
    """Its level is another one's."""

    def __init__(self, level: Callable[[], float]) -> None:
        super().__init__()
        self.read = level

    def __getitem__(self, i: int) -> Any:
        i, x = super().__getitem__(i)
        return i, x * self.read()


class Collates(Net):
    """Reads its own level where a batch is made."""

    level, unread = 1.0, 0

    def collate(self, samples: list[Any]) -> Any:
        i, x = torch.utils.data.default_collate(samples)
        return i, self.scaled(x)

    def scaled(self, x: Tensor) -> Tensor:
        return x * self.level

    def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        self.unread += 1  # what isn't read there may change
        return super().training_step(data_batch, batch_nb)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self._data[0], SIZE, shuffle=True, collate_fn=self.collate)


def elsewhere(place: str) -> tuple[Any, Callable[[Any], None]]:
    """A dataset that reads its level in some place, and what changes it there."""
    inside, shared = [1.0], Shared()
    found: dict[str, tuple[Any, Callable[[Any], None]]] = {
        "global": (lambda: SETTINGS["level"], lambda module: SETTINGS.update(level=3.0)),
        "class": (lambda: Shared.level, lambda module: setattr(Shared, "level", 3.0)),
        "array": (lambda: 1.0 + SHIFT[0], lambda module: SHIFT.__setitem__(0, 2.0)),
        "closure": (lambda: inside[0], lambda module: inside.__setitem__(0, 3.0)),
        "partial": (partial(getattr, shared, "level"), lambda module: setattr(shared, "level", 3.0)),
        "module": (lambda: 1.0, lambda module: setattr(module, "level", 3.0)),
    }
    SETTINGS["level"] = Shared.level = 1.0
    SHIFT[0] = 0.0
    return ReadsElsewhere(found[place][0]), found[place][1]


@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("place", ["global", "class", "array", "closure", "partial", "module"])
def test_what_is_read_elsewhere_is_watched(tmp_path: Path, place: str) -> None:
    def fitted(auto: bool, is_changed: bool = True) -> tuple[list[Tensor], Net]:
        data, change = elsewhere(place)
        kind = Collates if place == "module" else Net
        model = kind(data, before=lambda module, nb: change(module) if nb == 33 and is_changed else None)
        return trained(tmp_path / f"{auto}", model, auto), model

    (plain, _), (untouched, _) = fitted(False), fitted(False, is_changed=False)
    assert not torch.equal(plain[0], untouched[0])
    bits, model = fitted(True)
    assert_same(bits, plain)
    assert max(worker for _, worker in model.seen[28:34]) >= 0, "workers made those before"
    assert {worker for _, worker in model.seen[34:]} == {-1}


class Caching(Points):
    """What it read once it has."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[int, Tensor] = {}

    def __getitem__(self, i: int) -> Any:
        if i not in self.cache:
            self.cache[i] = super().__getitem__(i)
        return self.cache[i]


class AsksTheModel(Points):
    """Gives what the weights of now make of a sample."""

    model: Any = None

    def __getitem__(self, i: int) -> Any:
        i, x = super().__getitem__(i)
        with torch.no_grad():
            return i, x + self.model.layer(x).detach()


@pytest.mark.slow
@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("kind", [Caching, AsksTheModel])
def test_data_that_change_by_being_read_or_trained_get_no_workers(
    tmp_path: Path, kind: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def made() -> Net:
        model = Net(kind())
        model._data[0].model = model
        return model

    model = made()
    assert_same(trained(tmp_path / "auto", model), trained(tmp_path / "plain", made(), auto=False))
    assert {worker for _, worker in model.seen} == {-1}
    assert "auto_nb_workers has no effect: " in capfd.readouterr().err


@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("looks", [5, 1000], ids=["now and then", "at the end of the epoch"])
def test_what_is_seen_too_late_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """Attributes of some megabytes aren't looked at between any two batches."""
    looked = WorkerTuner._changed_between

    def rarely(tuner: WorkerTuner) -> list[str]:
        period = tuner._found[0].period
        monkeypatch.setattr(worker_tuning, "CHECK_SHARE", tuner._seconds_of_look / period / looks)
        return looked(tuner)

    monkeypatch.setattr(WorkerTuner, "_changed_between", rarely)
    model = Net(before=write_past_torch)
    with pytest.raises(
        FitError, match=r"training dataset.x changed after batch \d+ of this epoch.*auto_nb_workers=False"
    ):
        trained(tmp_path, model)
    assert len(model.seen) == NB_BATCHES if looks == 1000 else 34 <= len(model.seen) < NB_BATCHES


@pytest.mark.slow
@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("looks", [0.5, 1000])
def test_what_changes_after_the_last_batch_is_in_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: float
) -> None:
    def change(module: Any, batch_nb: int) -> None:
        if batch_nb == NB_BATCHES - 1:
            module._data[0].level += 1.0

    monkeypatch.setattr(worker_tuning, "CHECK_SHARE", 1e9 if looks < 1 else 1e-9)
    model = Net(before=change)
    bits = trained(tmp_path / "auto", model, nb_epochs=3)
    assert_same(bits, trained(tmp_path / "plain", Net(before=change), auto=False, nb_epochs=3))
    assert max(worker for _, worker in model.seen[-10:]) == 1


class KnowsWorkers(Points):
    """Another shift in every worker, and the first one's is that without any, or isn't."""

    def __init__(self, of_first: float) -> None:
        super().__init__()
        self.of_first = of_first

    def __getitem__(self, i: int) -> Any:
        info = get_worker_info()
        i, x = super().__getitem__(i)
        return i, x + (0 if info is None else info.id + self.of_first)


def shift_dataset(worker_id: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.level = 2.0


@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("of_first", [0.0, 1.0, None], ids=["second worker", "each worker", "worker_init_fn"])
def test_workers_that_make_other_batches_are_not_taken(
    tmp_path: Path, of_first: float | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """Their first batches are made once more, and looked at."""

    class Given(Net):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(self._data[0], SIZE, shuffle=True, worker_init_fn=None if is_known else shift_dataset)

    is_known = of_first is not None
    data = [KnowsWorkers(of_first) if is_known else Points() for _ in range(2)]
    model = Given(data[0])
    assert_same(trained(tmp_path / "auto", model), trained(tmp_path / "plain", Given(data[1]), auto=False))
    assert {worker for _, worker in model.seen} == ({-1, 0} if of_first == 0 else {-1})
    assert "workers make other batches of the same samples" in capfd.readouterr().err


class Collects(Points):
    """Garbage is collected while a batch is made."""

    def __getitem__(self, i: int) -> Any:
        if not i % 20:
            gc.collect()
        return super().__getitem__(i)


@pytest.mark.usefixtures("climbs")
def test_what_is_left_of_earlier_workers_changes_no_batch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = Net(Collects(0.0))
    bits = trained(tmp_path / "auto", model, nb_epochs=2)
    assert_same(bits, trained(tmp_path / "plain", Net(Points(0.0)), auto=False, nb_epochs=2))
    assert {worker for _, worker in model.seen} == {-1, 0, 1}
    assert "Exception ignored" not in capfd.readouterr().err


class FromFile(Points):
    """Seeks, then reads, in a file that it opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.write_bytes(bytes(range(NB)))
        self.file = path.open("rb", buffering=0)

    def __getitem__(self, i: int) -> Any:
        self.file.seek(i)
        time.sleep(0.001)
        (value,) = self.file.read(1)
        i, x = super().__getitem__(i)
        return i, x + value


@pytest.mark.usefixtures("climbs")
def test_a_file_that_the_dataset_opened_is_not_shared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    models = []
    for auto in (True, False):
        data = FromFile(tmp_path / "values")
        models.append(Net(data))
        with data.file:
            trained(tmp_path / f"{auto}", models[-1], auto, silence=("no-validation",))
    assert_same(*([*model.parameters()] for model in models))
    assert {worker for _, worker in models[0].seen} == {-1}
    assert "is an open file, whose position all workers would share" in capfd.readouterr().err


@functools.cache
def opened(path: Path) -> io.FileIO:
    return path.open("rb", buffering=0)


class FromCached(Points):
    """Asks a function for the file, or knows its descriptor's number: no attribute shows that it is open."""

    def __init__(self, path: Path, has_number: bool) -> None:
        super().__init__()
        path.write_bytes(bytes(range(NB)))
        self.path, self.number = path, os.open(path, os.O_RDONLY) if has_number else None

    def __getitem__(self, i: int) -> Any:
        number = opened(self.path).fileno() if self.number is None else self.number
        os.lseek(number, i, os.SEEK_SET)
        time.sleep(0.001)
        value = os.read(number, 1)[0]
        assert value == i, "another one moved the position"
        return super().__getitem__(i)


@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("nb_workers", [0, 1])
@pytest.mark.parametrize("has_number", [False, True])
def test_a_position_that_a_batch_moved_is_not_shared(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], has_number: bool, nb_workers: int
) -> None:
    data = FromCached(tmp_path / "values", has_number)
    model = Net(data, nb_workers)
    file = os.fdopen(data.number) if data.number is not None else opened(data.path)
    with file:
        trained(tmp_path / "auto", model)
    assert {worker for _, worker in model.seen} == {nb_workers - 1}
    assert f"{data.path} is an open file, whose position all workers would share" in capfd.readouterr().err


class FromAnywhere(Points):
    """Reads without a position of its own, as h5py and lmdb do; a file that is only written is none of it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.write_bytes(bytes(range(NB)))
        self.folder = path.parent
        self.number, self.log = os.open(path, os.O_RDONLY), os.open(path.with_name("log"), os.O_WRONLY | os.O_CREAT)
        os.read(self.number, 3)

    def __getitem__(self, i: int) -> Any:
        os.write(self.log, b"read")
        assert os.pread(self.number, 1, i)[0] == i
        path = self.folder / f"{os.getpid()}-{i}"
        path.write_bytes(b"one")
        path.read_bytes()
        path.unlink()
        return super().__getitem__(i)


@pytest.mark.usefixtures("climbs")
def test_a_position_that_stays_forbids_nothing(tmp_path: Path) -> None:
    data = FromAnywhere(tmp_path / "values")
    model = Net(data)
    with os.fdopen(data.number), os.fdopen(data.log, "w"):
        trained(tmp_path / "auto", model)
    assert {worker for _, worker in model.seen} == {-1, 0, 1}


class ReadsAtFirst(Points):
    def __init__(self, path: Path) -> None:
        super().__init__()
        path.write_bytes(bytes(range(NB)))
        self.path = path

    def __getitem__(self, i: int) -> Any:
        if not opened.cache_info().currsize:
            opened(self.path).read(3)
        return super().__getitem__(i)


@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_file_that_was_closed_before_workers_start_forbids_nothing(tmp_path: Path, is_closed: bool) -> None:
    def close(module: Any, batch_nb: int) -> None:
        if batch_nb == 2 and is_closed:
            opened(tmp_path / "values").close()

    opened.cache_clear()
    model = Net(ReadsAtFirst(tmp_path / "values"), before=close)
    trained(tmp_path / "auto", model)
    opened(tmp_path / "values").close()
    assert {worker for _, worker in model.seen} == ({-1, 0, 1} if is_closed else {-1})


@functools.cache
def threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1)


class AsksThreads(Points):
    def __getitem__(self, i: int) -> Any:
        i, x = super().__getitem__(i)
        return i, x + threads().submit(float, i).result()


@pytest.mark.usefixtures("climbs")
def test_workers_that_wait_for_a_thread_that_no_fork_has_are_given_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_tuning, "PATIENCE", 1.0)
    model = Net(AsksThreads())
    bits = trained(tmp_path / "auto", model)
    assert_same(bits, trained(tmp_path / "plain", Net(AsksThreads()), auto=False))
    assert {worker for _, worker in model.seen} == {-1}
    assert "workers made no batch in 1 s: a thread or a lock that they wait for" in capfd.readouterr().err


class NotInWorkers(Points):
    def __getitem__(self, i: int) -> Any:
        if get_worker_info() is not None:
            raise ConnectionError("opened by another process")
        return super().__getitem__(i)


class Dies(Points):
    def __getitem__(self, i: int) -> Any:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


@pytest.mark.slow
@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize(
    ("kind", "said"), [(NotInWorkers, "ConnectionError: .*opened by another process"), (Dies, "a worker died")]
)
def test_where_workers_fail_this_process_goes_on(
    tmp_path: Path, kind: Any, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Net(kind())
    assert_same(trained(tmp_path / "auto", model), trained(tmp_path / "plain", Net(), auto=False))
    assert {worker for _, worker in model.seen} == {-1}
    assert re.search(f"auto_nb_workers has no effect: .*{said}", capfd.readouterr().err, re.DOTALL)


@pytest.mark.usefixtures("climbs")
def test_an_error_of_the_dataset_is_raised_as_it_is(tmp_path: Path) -> None:
    class Fails(Points):
        def __getitem__(self, i: int) -> Any:
            if i == 17:
                raise ValueError("sample 17 is broken")
            return super().__getitem__(i)

    with pytest.raises(ValueError, match="sample 17 is broken") as raised:
        trained(tmp_path, Net(Fails()))
    assert any("sample 17" in note for note in getattr(raised.value, "__notes__", ()))


@pytest.mark.slow
@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("cut", [9, 20, 47])
def test_a_run_that_is_cut_goes_on_with_the_same_bits(tmp_path: Path, cut: int) -> None:
    whole = trained(tmp_path / "whole", Net(), auto=False, nb_epochs=2)
    options: dict[str, Any] = {"save_every_nb_batches": 1, "resume": "auto", "nb_epochs": 2}
    trained(tmp_path / "cut", Net(), max_nb_steps=cut, **options)
    assert_same(trained(tmp_path / "cut", Net(), **options), whole)


@pytest.mark.usefixtures("climbs")
@pytest.mark.slow
def test_several_processes(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", Net(), auto=False, virtual_ranks=2, exact_elastic=True)
    two = trained(tmp_path / "two", Net(), nb_processes=2, exact_elastic=True)
    assert_same(one, two)


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([Points(0.0)[i] for i in range(8)])


class Counting(Sampler[int]):
    nb = 0

    def __iter__(self) -> Iterator[int]:
        for i in range(NB):
            self.nb += 1
            yield i


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Streamed(), SIZE),
        DataLoader(Points(0.0), SIZE, sampler=Counting()),
        [[torch.zeros(2).long(), torch.zeros(2, 3)]],
        DataLoader(TensorDataset(torch.zeros(8).long(), torch.zeros(8, 3)), SIZE),
    ],
    ids=["stream", "own sampler", "list", "in memory"],
)
def test_where_it_can_have_no_effect_it_says_so(tmp_path: Path, loader: Any, capfd: pytest.CaptureFixture[str]) -> None:
    class Given(Net):
        @property
        def tng_dataloader(self) -> Any:
            return loader

    trained(tmp_path, Given())
    assert "auto_nb_workers has no effect: " in capfd.readouterr().err


# ------------------------------------------------------------------ the choice alone
def tuned(
    periods: dict[int, tuple[float, float]],
    begun: int,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
    memory: Callable[[int], tuple[float, float]] = lambda nb: (8e9, 16e9),
) -> tuple[WorkerTuner, int, list[int]]:
    """A tuner on a clock of its own; ``periods``: seconds of waiting and computing by the number of workers. Gives
    how many batches it took, and what it tried."""
    clock = [0.0]
    monkeypatch.setattr(worker_tuning, "_clock", lambda: clock[0])
    numbers = [begun]
    tuner = WorkerTuner(begun, most, {}, list, Notices(("auto-workers",)), lambda: memory(numbers[-1]))

    def made() -> Iterator[int]:
        while True:
            clock[0] += periods[numbers[-1]][0]
            yield 0

    for nb, _ in enumerate(tuner.timed(made())):
        clock[0] += periods[numbers[-1]][1]
        wanted = tuner.wanted()
        if wanted is not None:
            numbers.append(wanted)
        if tuner.settled:
            return tuner, nb, numbers
    raise AssertionError


ALONE = 0.004


@pytest.mark.parametrize(
    ("waiting", "begun", "most", "chosen"),
    [
        ({0: 0.016, 2: 0.006, 4: 0.0001}, 0, 16, 4),  # enough
        ({0: 0.016, 2: 0.010, 4: 0.009, 8: 0.009, 16: 0.009}, 0, 16, 4),  # the disk gives no more
        ({0: 0.016, 2: 0.020}, 0, 16, 0),  # they are slower
        ({0: 0.016, 1: 0.012, 2: 0.001}, 0, 2, 2),  # a small machine
        ({0: 0.016, 2: 0.017, 1: 0.009}, 0, 2, 1),
        ({0: 0.016, 2: 0.009}, 0, 2, 2),  # the dataset is what takes long: one would be slower
        ({0: 0.016, 2: 0.001, 1: 0.001}, 0, 2, 1),
        ({0: 0.016, 1: 0.001}, 0, 1, 1),
        ({0: 0.016, 2: 0.009, 3: 0.005}, 0, 3, 3),
        ({8: 0.0, 4: 0.0}, 8, 16, 4),  # too many
        ({8: 0.0, 4: 0.008}, 8, 16, 8),
        ({0: 0.0001}, 0, 16, 0),
        ({0: 0.1, 2: 0.05, 4: 0.025, 8: 0.012, 16: 0.006, 32: 0.003, 64: 0.001}, 0, 64, 16),  # no more batches
    ],
)
def test_the_number_is_that_of_the_least_time(
    waiting: dict[int, float], begun: int, most: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    periods = {nb: (seconds, ALONE) for nb, seconds in waiting.items()}
    monkeypatch.setattr(worker_tuning, "MEASURED", 12)
    tuner, nb_batches, numbers = tuned(periods, begun, most, monkeypatch)
    assert tuner.nb == chosen, numbers
    assert nb_batches <= 200 + 12
    assert set(numbers) <= set(waiting)


def test_no_more_than_the_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    periods = {0: (0.1, ALONE), 2: (0.05, ALONE), 4: (0.02, ALONE)}
    tuner, _, numbers = tuned(periods, 0, 16, monkeypatch, lambda nb: (10e9 - 1.5e9 * nb, 16e9))
    assert numbers == [0, 2, 4]
    tuner, _, numbers = tuned(periods, 0, 16, monkeypatch, lambda nb: (6e9 - 1.5e9 * nb, 16e9))
    assert numbers == [0, 2], "four would leave nothing"
    assert tuner.nb == 2


def test_what_objects_are_made_of_is_watched() -> None:
    data = Points()
    data.list, data.nest = [1, 2], {"a": [torch.zeros(2)]}  # type: ignore[attr-defined]
    watched = WatchedObjects({"dataset": data})
    assert watched.changed() == []
    data.nest["a"][0] += 1  # type: ignore[attr-defined]
    assert watched.changed() == ["dataset.nest['a'][0]"]
    data.list.append(3)  # type: ignore[attr-defined]
    data.inner.scale = 2.0
    data.new = 1  # type: ignore[attr-defined]
    assert {*watched.changed()} == {"dataset.nest['a'][0]", "dataset.list", "dataset.inner.scale", "dataset.new"}


def test_what_a_fork_would_share_is_found(tmp_path: Path) -> None:
    data: Any = Points()
    (tmp_path / "values").write_bytes(b"x")
    with contextlib.ExitStack() as stack:
        data.files = [stack.enter_context((tmp_path / "values").open("rb")) for _ in range(100)]
        data.texts, data.inside = ["x"] * 100, io.BytesIO(b"x")
        data.client = {"connection": stack.enter_context(socket.socket())}
        shared = WatchedObjects({"dataset": data}).shared
    assert shared == [
        "dataset.files[0] is an open file, whose position all workers would share",
        "dataset.client['connection'] is a connection, and each worker would read what was sent to others",
    ]


def test_an_order_that_was_left_changes_no_generator_later() -> None:
    """Where its iterator is in a cycle, it ends when garbage is collected: in the middle of a batch, perhaps."""
    data = Points()
    loader: Any = replayable(DataLoader(data, SIZE, shuffle=True), 1, 0)
    before = data.draws.bit_generator.state
    left = loader._plan.drawn()
    next(left)
    data.draws.normal()
    loader.batches(1)
    assert data.draws.bit_generator.state == before, "as at the end of an order"
    newer = loader._plan.drawn()
    next(newer)
    data.draws.normal()
    drawn = data.draws.bit_generator.state
    left.close()
    assert data.draws.bit_generator.state == drawn
