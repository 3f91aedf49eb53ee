"""What a fit took it gives back: workers and memory. What nobody asked for isn't written: saves, streams, notices."""

import gc
import multiprocessing
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.recorder import quiet_trainer

ROOT = Path(__file__).parents[2]
SILENCE = ("not-shuffled", "no-validation", "first-save")


class Points(Dataset[Any]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> Tensor:
        return torch.full((4,), float(i))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(torch.full((4,), float(i)) for i in range(16))


class Own(DataLoader[Any]):
    """A loader that the library can't make again."""

    def __iter__(self) -> Any:
        return super().__iter__()


class Net(LightningModule):
    draws: Any = None
    """What is called in each step."""

    def __init__(self, loader: Any = None, fails: bool = False, width: int = 4) -> None:
        super().__init__()
        self.layer, self.fails = nn.Linear(width, 1), fails
        self.loaders: list[Any] = [loader, None]

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.fails and self.global_step == 5:
            raise KeyError("cut")
        if Net.draws is not None:
            Net.draws()
        return self.layer(data_batch).pow(2).mean()

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch).mean()

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-4, momentum=0.9)

    @property
    def tng_dataloader(self) -> Any:
        return self.loaders[0] if self.loaders[0] is not None else self.ready()

    @property
    def val_dataloader(self) -> Any:
        return self.loaders[1] if self.loaders[1] is not None else self.ready()

    def ready(self) -> Any:
        return DataLoader(torch.ones(16, self.layer.in_features), 4)

    test_dataloader = val_dataloader


# ------------------------------------------------------------------------------------------ workers
WORKERS: dict[str, Any] = {"num_workers": 2, "persistent_workers": True}
LOADERS: dict[str, Any] = {
    "map": lambda: DataLoader(Points(), 4, **WORKERS),
    "stream": lambda: DataLoader(Stream(), 4, **WORKERS),
    "own": lambda: Own(Points(), 4, **WORKERS),
    "not persistent": lambda: DataLoader(Points(), 4, num_workers=2),
}


@pytest.mark.parametrize("name", sorted(LOADERS))
@pytest.mark.parametrize("fails", [False, True])
def test_workers_end_with_the_fit_and_with_an_evaluation(tmp_path: Path, name: str, fails: bool) -> None:
    model = Net(LOADERS[name](), fails)
    model.loaders[1] = LOADERS["map" if name == "not persistent" else name]()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, max_nb_steps=6, silence=SILENCE, crash_bundle=False)
    raised = None
    try:
        trainer.fit(model)
    except KeyError as error:  # whose traceback holds all that was on the way
        raised = error
    assert (raised is not None) == fails
    assert multiprocessing.active_children() == []
    trainer.validate(model)
    trainer.test(model)
    assert multiprocessing.active_children() == []


def test_workers_that_a_users_own_loader_had_before_are_the_users(tmp_path: Path) -> None:
    loader = LOADERS["own"]()
    next(iter(loader))
    before = {process.pid for process in multiprocessing.active_children()}
    quiet_trainer(tmp_path, silence=SILENCE).fit(Net(loader))
    assert {process.pid for process in multiprocessing.active_children()} == before != set()
    loader._iterator._shutdown_workers()


def test_workers_of_the_batches_before_training_end_before_it(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counting(Net):
        def on_epoch_start(self) -> None:
            seen.append(len(multiprocessing.active_children()))

    model = Counting()
    model.loaders[1] = LOADERS["map"]()
    quiet_trainer(tmp_path, max_nb_epochs=2, silence=SILENCE, nb_sanity_val_steps=1).fit(model)
    assert seen == [0, 2]


# ------------------------------------------------------------------------------------------ memory
WIDTH = 50_000


def held(than: set[int]) -> int:
    """The bytes in tensors that are alive, without the storages in ``than``."""
    gc.collect()
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors()}
    return sum(size for place, size in sizes.items() if place not in than)


def storages() -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors()}


def tensors() -> list[Tensor]:
    """Those that are alive, the sparse ones aside: they have no storage of their own."""
    alive = [o for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter)]
    return [tensor for tensor in alive if tensor.layout == torch.strided]


@pytest.mark.parametrize("start", ["new", "auto", "file", "failed"])
def test_after_a_fit_only_the_weights_and_the_optimizers_state_are_held(tmp_path: Path, start: str) -> None:
    options = {"resume": "auto", "save_every_nb_batches": 1, "silence": SILENCE, "crash_bundle": False}
    if start in ("auto", "file"):
        first = quiet_trainer(tmp_path, **options)
        first.fit(Net(width=WIDTH))
        first.save_checkpoint(tmp_path / "a.ckpt")
        del first
    gc.collect()
    before = storages()
    if start == "file":
        options["resume"] = tmp_path / "a.ckpt"
    trainer, model = quiet_trainer(tmp_path, max_nb_epochs=2, **options), Net(width=WIDTH, fails=start == "failed")
    try:
        trainer.fit(model)
    except KeyError:
        assert start == "failed"
    state = 4 * (WIDTH + 1)
    # weights and momentum, and the batches of training, of the validation before it, and of that in it; a checkpoint or
    # a copy of one would be two more
    extra = held(before) - 3 * 16 * 4 * WIDTH - (4 * 4 * WIDTH if start == "failed" else 0)  # the batch that failed
    assert 2 * state <= extra < 2.5 * state, extra / state
    assert trainer.global_step == (5 if start == "failed" else 8)


# ------------------------------------------------------------------------------------------ files
def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_fit_from_a_file_writes_no_save_that_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quiet: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "silence": SILENCE, "seed": 1}
    first = Trainer(False, max_nb_epochs=1, **quiet)
    first.fit(Net())
    first.save_checkpoint("a.ckpt")
    Trainer(False, resume="a.ckpt", max_nb_epochs=2, **quiet).fit(Net())
    assert files(tmp_path) == ["a.ckpt"]
    Trainer(resume="a.ckpt", max_nb_epochs=2, **quiet).fit(Net())
    assert [name for name in files(tmp_path) if name.endswith(".ckpt")] == ["a.ckpt"]
    # asked for
    Trainer(resume="a.ckpt", max_nb_epochs=2, save_every_nb_batches=3, **quiet).fit(Net())
    assert any("version_1/checkpoints/step-000000000008" in name for name in files(tmp_path))


def test_the_script_that_makes_the_docs_leaves_no_folder_behind(tmp_path: Path) -> None:
    page = (ROOT / "docs/Trainer/hooks.md").read_text()
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['filled'](sys.argv[2])"
    subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "docs/generate.py"), page], cwd=tmp_path, check=True, timeout=120
    )
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ streams
DRAWS: dict[str, Any] = {
    "none": None,
    "torch": lambda: torch.rand(1),
    "python": random.random,
    "numpy": np.random.rand,
}


def draws_of(states: dict[str, Any]) -> list[float]:
    from pytorch_lightning import seeding

    with seeding.preserved():
        seeding.set_generator_states(states)
        return [
            float(torch.rand(1)),
            float(torch.randn(1)),
            random.random(),
            random.gauss(0, 1),
            float(np.random.rand()),
        ]


@pytest.mark.parametrize("name", sorted(DRAWS))
@pytest.mark.parametrize("validates", [False, True])
def test_a_file_holds_the_streams_that_were_drawn_from_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, validates: bool
) -> None:
    drawn: list[list[float]] = []

    class Keeping(Net):
        def on_save_checkpoint(self, checkpoint: Any) -> None:
            from pytorch_lightning import seeding

            drawn.append(draws_of(seeding.get_generator_states()))

    if not validates:
        monkeypatch.setattr(Keeping, "val_dataloader", LightningModule.val_dataloader)
        monkeypatch.setattr(Keeping, "validation_step", LightningModule.validation_step)
        monkeypatch.setattr(Keeping, "validation_end", LightningModule.validation_end)
    monkeypatch.setattr(Net, "draws", staticmethod(DRAWS[name]) if name != "none" else None)
    keeper = ModelCheckpoint(tmp_path / "kept")
    quiet_trainer(tmp_path, max_nb_epochs=2, checkpoint_callback=keeper, silence=SILENCE, experiment=False).fit(
        Keeping()
    )
    sizes = []
    for path, after in zip(sorted((tmp_path / "kept").iterdir()), drawn, strict=True):
        states = torch.load(path, weights_only=True)["parts"]["random"]
        full = [stream for stream in ("torch", "python", "numpy") if not isinstance(states[stream], int)]
        # validations are seeded anew, and draw nothing
        assert full == ([] if validates or name == "none" else [name])
        assert draws_of(states) == after
        sizes.append(path.stat().st_size)
    assert max(sizes) < (8_000 if validates or name == "none" else 15_000)


def test_streams_that_a_hook_draws_from_between_batches_are_resumed(tmp_path: Path) -> None:
    seen: dict[str, list[Any]] = {}

    class Drawing(Net):
        def on_epoch_end(self) -> None:
            drawn = [float(torch.rand(1)), random.random(), float(np.random.rand())]
            seen.setdefault(self.run_name, []).append(drawn)

        run_name = "whole"

    def fit(name: str, **options: Any) -> Trainer:
        Drawing.run_name = name
        torch.manual_seed(len(name)), random.seed(3), np.random.seed(4)
        trainer = quiet_trainer(tmp_path / name, experiment=False, silence=SILENCE, seed=1, **options)
        trainer.fit(Drawing())
        return trainer

    fit("whole", max_nb_epochs=3)
    for cut in (4, 5, 7):
        fit("cut", max_nb_epochs=3, max_nb_steps=cut).save_checkpoint(tmp_path / "a.ckpt")
        del seen["cut"]
        fit("rest", max_nb_epochs=3, resume=tmp_path / "a.ckpt")
        assert seen.pop("rest") == seen["whole"][1:]


# ------------------------------------------------------------------------------------------ notices
def test_a_notice_is_not_repeated_by_the_next_fit_of_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(model: Any, name: str = "logs", **options: Any) -> list[str]:
        quiet_trainer(tmp_path / name, silence=(), **options).fit(model)
        return [line.rpartition("[")[2].rstrip("]") for line in capsys.readouterr().err.splitlines()]

    assert said(Net(), resume="auto") == ["not-shuffled", "first-save"]
    assert said(Net(), "other", resume="auto") == []
    # another text is another notice
    assert said(Net(), "other", resume="auto", max_nb_epochs=2, precision="bf16") == ["other-settings"]
    assert said(Net(), "other", resume="auto", max_nb_epochs=3, gradient_clip=1.0) == ["other-settings"]


def test_what_goes_wrong_in_a_fit_is_said_in_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Infinite(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return super().training_step(data_batch, batch_nb) * (float("inf") if batch_nb == 0 else 1.0) * 0.0

    for _ in range(2):
        quiet_trainer(tmp_path, silence=SILENCE, stop_on_nan=False, experiment=False, max_nb_steps=1).fit(Infinite())
        assert "[loss-not-finite]" in capsys.readouterr().err
