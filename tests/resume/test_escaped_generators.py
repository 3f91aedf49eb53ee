"""A generator that isn't found and draws all the same is reported; one that is found, or seeded, isn't."""

import gc
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.resume import escaped
from tests.recorder import quiet_trainer
from tests.resume.test_changes_in_training import Model, assert_same


class Noisy(Dataset[Any]):
    def __init__(self, noise: Callable[[], float]) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Any:
        return torch.full((4,), float(i)).sin() + self.noise()


def in_c() -> Callable[[], float]:
    return map(random.Random(1).gauss, iter(lambda: 0.0, 1), iter(lambda: 1.0, 0)).__next__


def in_a_frame() -> Callable[[], float]:
    def draws() -> Iterator[float]:
        generator = np.random.default_rng(1)
        while True:
            yield float(generator.normal())

    made = draws()
    next(made)
    return made.__next__


class Held:
    """Found by its attribute."""

    def __init__(self) -> None:
        self.generator = random.Random(1)

    def __call__(self) -> float:
        return self.generator.random()


def said_by(tmp_path: Path, model: Any, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, resume="auto", save_every_nb_batches=3, **options)
    trainer.fit(model)
    return capsys.readouterr().err


def model_on(make: Callable[[], Any]) -> Any:
    class Trained(Model):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(make(), batch_size=2)

    return Trained()


@pytest.mark.parametrize("hide", [in_c, in_a_frame])
def test_a_generator_that_escapes_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hide: Any
) -> None:
    said = said_by(tmp_path, model_on(lambda: Noisy(hide())), capsys)
    assert said.count("[escaped-generator]") == 1


@pytest.mark.parametrize("cut", [2, 5, 8])
def test_that_of_a_callback_is_found_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int) -> None:
    class Drawing(Callback):
        def __init__(self) -> None:
            self.generator = np.random.default_rng(1)

        def on_batch_end(self, run: Any) -> None:
            with torch.no_grad():
                run.module.head.bias += float(self.generator.normal())

    models = [Model(), Model(), Model()]
    quiet_trainer(tmp_path / "whole", max_nb_epochs=2, callbacks=[Drawing()]).fit(models[0])
    first = quiet_trainer(tmp_path / "first", max_nb_epochs=2, max_nb_steps=cut, callbacks=[Drawing()])
    first.fit(models[1])
    first.save_checkpoint(tmp_path / "cut.ckpt")
    resumed = quiet_trainer(tmp_path / "again", max_nb_epochs=2, resume=tmp_path / "cut.ckpt", callbacks=[Drawing()])
    resumed.fit(models[2])
    assert_same(models[0], models[2])
    assert not models[0].head.bias.equal(models[1].head.bias)
    assert "escaped" not in capsys.readouterr().err


def test_without_resume_the_second_save_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, save_every_nb_batches=3)
    trainer.fit(model_on(lambda: Noisy(in_c())))
    assert capsys.readouterr().err.count("[escaped-generator]") == 1


@pytest.mark.parametrize("seconds", [0.0, 2.1])
def test_a_short_fit_that_nobody_wants_to_resume_is_not_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    class Slow(Callback):
        def on_fit_start(self, run: Any) -> None:
            time.sleep(seconds)

        def on_epoch_end(self, run: Any) -> None:
            run.save(tmp_path / f"{run.progress.epoch}.ckpt")

    nb_looks, get_objects = Counter[str](), gc.get_objects
    monkeypatch.setattr(gc, "get_objects", lambda: nb_looks.update(["look"]) or get_objects())
    trainer = quiet_trainer(tmp_path, max_nb_epochs=4, callbacks=[Slow()])
    trainer.fit(model_on(lambda: Noisy(in_c())))
    assert nb_looks["look"] == (2 if seconds else 0)  # the second one finds it
    assert capsys.readouterr().err.count("[escaped-generator]") == (1 if seconds else 0)


def test_of_three_saves_two_look_at_every_object_where_nothing_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Callback):
        def on_fit_start(self, run: Any) -> None:
            time.sleep(2.1)

        def on_epoch_end(self, run: Any) -> None:
            run.save(tmp_path / f"{run.progress.epoch}.ckpt")

    nb_looks, get_objects = Counter[str](), gc.get_objects
    monkeypatch.setattr(gc, "get_objects", lambda: nb_looks.update(["look"]) or get_objects())
    quiet_trainer(tmp_path, max_nb_epochs=4, callbacks=[Slow()]).fit(model_on(lambda: Noisy(Held())))
    assert nb_looks["look"] == 2


@pytest.mark.parametrize(
    "options",
    [
        {"resume": "auto", "save_every_nb_batches": 3},
        {"save_every_nb_batches": 3},  # the second save is in the next epoch
        {"save_every_nb_batches": 1},  # and here in the same one
    ],
)
def test_a_shuffle_of_an_installed_package_that_nobody_seeds_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    source = """
def shuffled(items):
    rng = random.Random(time.time_ns())
    items = list(items)
    while items:
        yield items.pop(rng.randrange(len(items)))
"""
    package: dict[str, Any] = {"__name__": "webshuffle.filters", "random": random, "time": __import__("time")}
    exec(compile(source, "/somewhere/site-packages/webshuffle/filters.py", "exec"), package)

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return package["shuffled"](torch.arange(40.0).reshape(10, 4).sin())  # type: ignore[no-any-return]

    quiet_trainer(tmp_path, max_nb_epochs=2, **options).fit(model_on(Stream))
    assert "webshuffle.filters.shuffled" in capsys.readouterr().err


def test_generators_that_are_found_or_seeded_are_not_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Ordered(Noisy):
        def __getitem__(self, i: int) -> Any:
            return super().__getitem__(i) + random.Random(i).random()

    class Trained(Model):
        def __init__(self) -> None:
            super().__init__()
            self.own = np.random.default_rng(3)

        def on_batch_end(self) -> None:
            self.own.normal()

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(Ordered(Held()), batch_size=2)

        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            return data_batch.sum()

        def validation_end(self, outputs: Any) -> Any:
            return {"val_loss": torch.stack(outputs).sum()}

        @property
        def val_dataloader(self) -> Any:
            return DataLoader(Noisy(Held()), batch_size=2)

    assert "escaped" not in said_by(tmp_path, Trained(), capsys)


def test_a_tuple_that_is_being_made_in_another_thread_is_completed() -> None:
    """Whoever holds one that isn't complete keeps python from completing it."""
    made, errors, is_over = [0], list[Exception](), threading.Event()
    others = [[n] for n in range(300_000)]  # so many take longer than a thread waits for its turn

    def make() -> None:
        while not is_over.is_set():
            try:
                made[0] += len(tuple(n for n in range(3000))) == 3000
            except SystemError as error:
                errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        assert any(type(value) is GeneratorType for value in escaped._seen())
        time.sleep(0.01)
    is_over.set()
    for thread in threads:
        thread.join()
    assert made[0]
    assert not errors
    assert len(others) == 300_000
