"""Epochs of a fixed number of batches, of data without a length: cut anywhere, they go on where they were."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pytorch_lightning import LightningModule
from tests.equality.test_resume import Killed, SaveAt, comparable, differences
from tests.recorder import quiet_trainer

ROOT = Path(__file__).parent.parent.parent
NB = 4
"""Batches of an epoch."""
SILENCE = ("not-shuffled", "no-validation", "own-state")


def sample(number: int) -> Tensor:
    return torch.tensor([1.0, number % 7, number % 3]) / 7


class Stream(IterableDataset[Any]):
    """Numbered samples, changed at random as they come."""

    def __init__(self, nb: int | None = None) -> None:
        self.nb = nb

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in count(first, step):
            if self.nb is not None and number >= self.nb:
                return
            yield torch.tensor(float(number)), sample(number) + 0.01 * torch.randn(3)


class Remembering:
    """The same without an end; knows its place."""

    def __init__(self, nb: int | None = None) -> None:
        self.nb, self.place, self.fetched = nb, 0, list[int]()

    def __iter__(self) -> Iterator[Any]:
        while self.nb is None or self.place < self.nb:
            self.fetched.append(self.place)
            self.place += 1
            yield torch.tensor([float(self.place - 1)]), sample(self.place - 1)[None]
        self.place = 0

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class Learner(LightningModule):
    """Notes the numbers of its batches, per epoch."""

    def __init__(self, loader: Any, stop_at: tuple[int, int] | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))
        self.loader, self.stop_at = loader, stop_at
        self.seen: dict[str, list[float]] = {}

    def training_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        number, x = data_batch
        self.seen[str(self.current_epoch)] = [*self.seen.get(str(self.current_epoch), []), *number.tolist()]
        return (self.layers(x) - x.sum()).pow(2).mean()

    def on_batch_start(self, data_batch: Any) -> int | None:
        return -1 if self.stop_at == (self.current_epoch, self.trainer.batch_nb) else None

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.05)

    @property
    def tng_dataloader(self) -> Any:
        return self.loader


def trained(folder: Path, model: Learner, **options: Any) -> tuple[Any, dict[str, list[float]]]:
    trainer = quiet_trainer(folder, **{"max_nb_epochs": 3, "max_nb_tng_batches": NB, "silence": SILENCE, **options})
    assert trainer.fit(model) == 1
    trainer.save_checkpoint(folder / "end.ckpt")
    found = comparable(torch.load(folder / "end.ckpt", weights_only=True))
    found["parts"].pop("callbacks")
    return found, model.seen


LOADERS = {
    "endless": lambda: DataLoader(Stream(), batch_size=2),
    "two workers": lambda: DataLoader(Stream(), batch_size=1, num_workers=2),
    "ends in an epoch": lambda: DataLoader(Stream(6), batch_size=1),
    "ends with an epoch": lambda: DataLoader(Stream(8), batch_size=1),
    "keeps its place": Remembering,
    "keeps its place, and ends": lambda: Remembering(6),
}


def test_an_endless_stream_is_cut_and_not_begun_again(tmp_path: Path) -> None:
    _, seen = trained(tmp_path, Learner(DataLoader(Stream(), batch_size=1)))
    assert seen == {"0": [0, 1, 2, 3], "1": [4, 5, 6, 7], "2": [8, 9, 10, 11]}


@pytest.mark.parametrize("kind", [Stream, Remembering])
def test_one_that_ends_ends_the_epoch_and_begins_again_in_the_next(tmp_path: Path, kind: Any) -> None:
    def loader(nb: int) -> Any:
        return DataLoader(Stream(nb), batch_size=1) if kind is Stream else Remembering(nb)

    _, seen = trained(tmp_path, Learner(loader(6)))
    assert seen == {"0": [0, 1, 2, 3], "1": [4, 5], "2": [0, 1, 2, 3]}
    _, seen = trained(tmp_path, Learner(loader(8)))
    assert seen == {"0": [0, 1, 2, 3], "1": [4, 5, 6, 7], "2": [0, 1, 2, 3]}


def test_an_iterator_goes_on_too(tmp_path: Path) -> None:
    _, seen = trained(tmp_path, Learner(iter(DataLoader(Stream(), batch_size=1))))
    assert seen["2"] == [8, 9, 10, 11]


def test_what_has_a_length_begins_again(tmp_path: Path) -> None:
    class Sized(Stream):
        def __len__(self) -> int:
            return 100

    for loader in (DataLoader(Sized(), batch_size=1), [(torch.tensor([n]), sample(n)) for n in range(9)]):
        _, seen = trained(tmp_path, Learner(loader))
        assert seen == {str(epoch): [0, 1, 2, 3] for epoch in range(3)}


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("name", LOADERS)
def test_a_cut_stream_resumes_where_it_was(tmp_path: Path, name: str, cut: int) -> None:
    whole, seen = trained(tmp_path / "whole", Learner(LOADERS[name]()))
    path = tmp_path / "cut.ckpt"
    with pytest.raises(Killed):
        trained(tmp_path / "first", Learner(LOADERS[name]()), callbacks=[SaveAt(path, cut - 1, kill=True)])
    torch.manual_seed(12345)  # another process has other streams
    rest, after = trained(tmp_path / "rest", Learner(LOADERS[name]()), resume=path)
    assert differences(whole, rest) == []
    assert after == seen


@pytest.mark.parametrize("cut", [2, 3, 5])
@pytest.mark.parametrize("virtual_ranks", [1, 2])
@pytest.mark.parametrize("name", ["endless", "ends in an epoch", "keeps its place"])
def test_a_cut_between_windows_of_virtual_ranks(tmp_path: Path, name: str, virtual_ranks: int, cut: int) -> None:
    options = {"virtual_ranks": virtual_ranks, "max_nb_tng_batches": 3, "accumulate_grad_batches": 2}
    whole, seen = trained(tmp_path / "whole", Learner(LOADERS[name]()), **options)
    path = tmp_path / "cut.ckpt"
    stopping = SaveAt(path, cut - 1, kill=True)
    with pytest.raises(Killed):
        trained(tmp_path / "first", Learner(LOADERS[name]()), callbacks=[stopping], **options)
    rest, after = trained(tmp_path / "rest", Learner(LOADERS[name]()), resume=path, **options)
    assert differences(whole, rest) == []
    assert after == seen


@pytest.mark.parametrize("name", ["endless", "keeps its place"])
def test_a_batch_that_ends_an_epoch_is_gone(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"save_every_nb_batches": 1, "max_nb_tng_batches": 3}
    _, seen = trained(tmp_path / "whole", Learner(LOADERS[name](), (1, 1)), **options)
    ends = SaveAtEpochEnd(tmp_path / "cut.ckpt")
    with pytest.raises(Killed):
        trained(tmp_path / "first", Learner(LOADERS[name](), (1, 1)), callbacks=[ends], **options)
    _, after = trained(tmp_path / "rest", Learner(LOADERS[name](), (1, 1)), resume=ends.path, **options)
    assert after == seen
    flat = [number for numbers in seen.values() for number in numbers]
    nb = 2 if name == "endless" else 1
    assert flat == [n for n in range(8 * nb) if n not in range(4 * nb, 5 * nb)]


class SaveAtEpochEnd(SaveAt):
    """Asks for a checkpoint before the second epoch ends, which comes after the batch that ended it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, -1)

    def on_epoch_start(self, run: Any) -> None:
        if self.path.exists():
            raise Killed

    def on_epoch_end(self, run: Any) -> None:
        if run.progress.epoch == 1:
            run.save(self.path)


def test_nothing_of_a_stream_that_keeps_its_place_is_fetched_again(tmp_path: Path) -> None:
    first, second = Remembering(), Remembering()
    path = tmp_path / "cut.ckpt"
    with pytest.raises(Killed):
        trained(tmp_path / "first", Learner(first), callbacks=[SaveAt(path, 5, kill=True)])
    trained(tmp_path / "rest", Learner(second), resume=path)
    assert second.fetched == list(range(6, 12))


def test_numbers_of_batches_are_known(tmp_path: Path) -> None:
    class Asking(Learner):
        def configure_optimizers(self) -> Any:
            self.told = [self.trainer.nb_tng_batches, self.trainer.nb_total_steps]
            return super().configure_optimizers()

    model = Asking(DataLoader(Stream(), batch_size=2))
    trained(tmp_path, model, accumulate_grad_batches=3)
    assert model.told == [4, 6]
    assert model.trainer.progress.nb_optimizer_steps == 6
    model = Asking([(torch.tensor([1.0]), sample(1))] * 10)
    trained(tmp_path, model, train_percent_check=0.2)  # the smaller of 2 and 4
    assert (model.told, model.trainer.global_step) == ([2, 6], 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["endless", "ends in an epoch"])
def test_two_processes_and_one_cut_the_same_stream(tmp_path: Path, name: str) -> None:
    def weights(folder: Path, nb: int, **options: Any) -> Any:
        return trained(folder, Learner(LOADERS[name]()), virtual_ranks=2, nb_processes=nb, **options)[0]["state_dict"]

    whole = weights(tmp_path / "one", 1, callbacks=[SaveAt(tmp_path / "5.ckpt", 4), SaveAt(tmp_path / "4.ckpt", 3)])
    assert differences(whole, weights(tmp_path / "two", 2)) == []
    for cut in (4, 5):
        assert differences(whole, weights(tmp_path / f"at {cut}", 2, resume=tmp_path / f"{cut}.ckpt")) == []


PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch
from tests.equality.test_counted import LOADERS, SILENCE, Learner
from tests.recorder import quiet_trainer
from pytorch_lightning.callbacks import ModelCheckpoint

class Killed(Learner):
    def on_batch_start(self, data_batch):
        if str(self.global_step) == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)

model = Killed(LOADERS["endless"]())
kept = ModelCheckpoint("kept", every_nb_batches=3, filename="{global_step}", save_last=True)
quiet_trainer(
    Path(sys.argv[1]), max_nb_epochs=3, max_nb_tng_batches=4, save_every_nb_batches=2, resume="auto",
    checkpoint_callback=kept, silence=(*SILENCE, "first-save"),
).fit(model)
torch.save((model.state_dict(), model.seen), "end.pt")
"""


@pytest.mark.slow
def test_a_killed_program_goes_on_with_the_stream(tmp_path: Path) -> None:
    def run(folder: Path, at: int) -> int:
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PROGRAM, "runs", str(at)]
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode

    assert run(tmp_path / "whole", -1) == 0
    for at in (3, 5, 8, 10):
        assert run(tmp_path / "cut", at) == -signal.SIGKILL
    assert run(tmp_path / "cut", -1) == 0
    (weights, seen), (others, after) = (torch.load(tmp_path / name / "end.pt") for name in ("whole", "cut"))
    assert differences(weights, others) == []
    assert seen == after
    kept = [sorted(path.name for path in (tmp_path / name / "kept").iterdir()) for name in ("whole", "cut")]
    assert kept[0] == kept[1] == [*(f"global_step={n}.ckpt" for n in (12, 3, 6, 9)), "last.ckpt"]
