"""``Trainer.explain``: that nothing is left of it, and what it says where not everything is known."""

import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, Unfreeze
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.trainer import dry_run
from pytorch_lightning.trainer.explanation import Explanation
from pytorch_lightning.trainer.without_effect import RULES
from tests.trainer.test_finders import DATA, MODELS, Line, digest, everything

QUIET: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "seed": 0}


class Model(LightningModule):
    """20 samples in batches of 4."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.net = nn.Linear(4, width)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.net(data_batch[0]).pow(2).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(20, 4)), 4)


class Validated(Model):
    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.net(data_batch[0]).pow(2).mean()}

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack([output["loss"] for output in outputs]).mean()}

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(6, 4)), 4)


class ByHand(Validated):
    automatic_optimization = False

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.manual_backward(self.net(data_batch[0]).pow(2).mean())
        self.manual_step()


# ------------------------------------------------------------------------------------------ nothing is left
class Never(Line):
    """Nothing of it is run."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        raise AssertionError("nothing is trained")

    def on_epoch_start(self) -> None:
        raise AssertionError("nothing begins")


class Broken(Line):
    def configure_optimizers(self) -> Any:
        self.net.weight.data.zero_()
        torch.rand(1), random.random(), np.random.rand()
        raise KeyError("broken")


@pytest.mark.parametrize("kind", [*MODELS, Never, Broken])
def test_nothing_is_left(tmp_path: Path, kind: Any) -> None:
    keeper, early = ModelCheckpoint(tmp_path / "kept", save_top_k=1), EarlyStopping("val_loss")
    trainer = Trainer(
        default_save_path=tmp_path, checkpoint_callback=keeper, early_stop_callback=early, resume="auto",
        save_every_nb_batches=1, max_nb_epochs=3, **QUIET,
    )  # fmt: skip
    model = kind()
    before = everything(model, trainer, tmp_path), digest(DATA), repr(vars(keeper)), repr(vars(early))
    own, set_here = dict(vars(trainer)), dict(vars(trainer.config))
    if kind is Broken:
        with pytest.raises(KeyError, match="broken"):
            trainer.explain(model)
    else:
        nb_samples = 64 if kind.__name__ in ("OfTheProgram", "Holding") else 200
        assert trainer.explain(model).nb_samples == 3 * nb_samples
    assert (everything(model, trainer, tmp_path), digest(DATA), repr(vars(keeper)), repr(vars(early))) == before
    assert dict(vars(trainer)) == own
    assert dict(vars(trainer.config)) == set_here


class Told(Dataset[Any]):
    """Is told each epoch."""

    def __init__(self) -> None:
        self.epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 12


TOLD, DRAWS = Told(), torch.Generator().manual_seed(3)


def test_what_a_program_keeps_outside_of_the_module_is_left(tmp_path: Path) -> None:
    class Drawing(Model):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(TOLD, 4, sampler=torch.randperm(12, generator=DRAWS).tolist())

    before = DRAWS.get_state()
    trainer = Trainer(False, max_nb_epochs=3, default_save_path=tmp_path, **QUIET)
    assert trainer.explain(Drawing()).nb_batches == 9
    assert TOLD.epoch == -1
    assert torch.equal(DRAWS.get_state(), before)


def test_a_fit_after_it_is_the_fit_without_it(tmp_path: Path) -> None:
    weights = []
    for explains in (False, True):
        torch.manual_seed(5)
        model = Validated()
        trainer = Trainer(False, max_nb_epochs=2, default_save_path=tmp_path, **QUIET)
        if explains:
            trainer.explain(model)
        trainer.fit(model)
        weights.append(digest(model.state_dict()))
    assert weights[0] == weights[1]


def test_passed_loaders_are_explained_and_left(tmp_path: Path) -> None:
    class Counting(Dataset[Any]):
        def __init__(self) -> None:
            self.draws = torch.Generator().manual_seed(1)

        def __len__(self) -> int:
            return 9

        def __getitem__(self, i: int) -> Any:
            raise AssertionError("no sample is read")

    data, validation = Counting(), DataLoader(Counting(), 3)
    loader = DataLoader(data, 2, shuffle=True, generator=torch.Generator().manual_seed(1))
    before, model = digest([data, loader.generator]), Validated()
    names = set(vars(model))
    found = Trainer(False, default_save_path=tmp_path, max_nb_epochs=1, **QUIET).explain(model, loader, validation)
    assert (found.nb_batches, found.nb_samples, found.nb_val_batches) == (5, 9, 3)
    assert digest([data, loader.generator]) == before
    assert set(vars(model)) == names


# ------------------------------------------------------------------------------------------ what it says
def test_what_is_returned_is_what_is_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pytorch_lightning"):
        found = Trainer(default_save_path=tmp_path, max_nb_epochs=4, **QUIET).explain(Validated())
    assert caplog.messages == [str(found)]
    lines = str(found).splitlines()
    assert "  epochs         0 to 3, each: 5 batches, 5 steps, 20 samples, 1 validation" in lines
    assert "  in all         20 batches, 20 steps, 80 samples, 4 validations" in lines
    assert "  ends           max_nb_epochs reached" in lines
    assert "  validation     4, 2 batches each, at global_step 5, 10, 15, 20" in lines


def test_windows_of_a_number_of_samples_are_counted(tmp_path: Path) -> None:
    model = Model()
    trainer = Trainer(False, max_nb_epochs=2, accumulate_nb_samples=10, default_save_path=tmp_path, **QUIET)
    found = trainer.explain(model)
    trainer.fit(model)
    assert found.nb_optimizer_steps == trainer._run.progress.nb_optimizer_steps == 4  # type: ignore[union-attr]
    assert {row["nb_optimizer_steps"] for row in found.epochs} == {2}  # 12 samples and 8


def test_epochs_of_several_lengths_are_told_apart(tmp_path: Path) -> None:
    class Growing(WeightedRandomSampler):
        def __init__(self) -> None:
            super().__init__([1.0] * 20, 4)

        def set_epoch(self, epoch: int) -> None:
            self.num_samples = 4 * (epoch + 1)

    class Grows(Model):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.ones(20, 4)), 4, sampler=Growing())

    model = Grows()
    trainer = Trainer(False, max_nb_epochs=3, accumulate_grad_batches=2, default_save_path=tmp_path, **QUIET)
    found = trainer.explain(model)
    trainer.fit(model)
    assert [(row["nb_batches"], row["nb_optimizer_steps"]) for row in found.epochs] == [(1, 1), (2, 1), (3, 2)]
    assert found.nb_batches == trainer.global_step == 6


def test_a_stream_without_a_length_is_not_known(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter([torch.ones(4)] * 9)

    class OfAStream(Validated):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(Stream(), 4)

    trainer = Trainer(False, max_nb_epochs=2, default_save_path=tmp_path, **QUIET)
    found = trainer.explain(OfAStream())
    known = (
        found.nb_batches,
        found.nb_batches_per_epoch,
        found.nb_optimizer_steps,
        found.nb_samples,
        found.stop_reason,
    )
    assert known == (None,) * 5
    assert (found.rows, found.epochs, found.rates) == ([], [], [])
    assert "the training loader doesn't tell its length, so nothing that counts batches is known" in found.notes
    assert re.search(r"epochs +unknown", str(found))


def test_own_steps_are_not_known(tmp_path: Path) -> None:
    model = ByHand()
    trainer = Trainer(False, max_nb_epochs=2, max_nb_steps=100, default_save_path=tmp_path, **QUIET)
    found = trainer.explain(model)
    trainer.fit(model)
    assert (found.nb_batches, trainer.global_step) == (10, 10)
    assert found.nb_optimizer_steps is None
    assert {row["nb_optimizer_steps"] for row in found.rows} == {None}
    assert found.rates == []
    assert "training_step makes its own steps: how many isn't known, and so aren't the learning rates" in found.notes
    assert "max_nb_steps ends training when training_step has made so many" in found.notes


def test_a_plateau_depends_on_metrics(tmp_path: Path) -> None:
    class OnPlateau(Validated):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            steps = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
            return [optimizer], [plateau, steps]

    trainer = Trainer(False, max_nb_epochs=4, check_val_every_n_epoch=2, default_save_path=tmp_path, **QUIET)
    found = trainer.explain(OnPlateau())
    assert [(s["scheduler"], s["monitor"], s["nb_steps"]) for s in found.schedules] == [
        ("ReduceLROnPlateau", "val_loss", 2),
        ("StepLR", None, 4),
    ]
    assert [(row["nb_optimizer_steps"], row["lr_0"]) for row in found.rates] == [(0, 0.1), (10, 0.05)]
    assert "a schedule watches val_loss: the rates are those without its cuts" in found.notes


def test_what_may_end_training_before_is_named(tmp_path: Path) -> None:
    class Own(Callback):
        def on_batch_end(self, run: Any) -> None:
            raise AssertionError("it isn't called")

    class Ending(Validated):
        def on_batch_start(self, data_batch: Any) -> Any:
            raise AssertionError("it isn't called")

    early = EarlyStopping("val_loss", patience=3)
    trainer = Trainer(
        False, early, callbacks=[Own()], max_nb_epochs=2, max_time=5, precision="16", save_every_minutes=1,
        default_save_path=tmp_path, reload_dataloaders_every_nb_epochs=1, **QUIET,
    )  # fmt: skip
    found = trainer.explain(Ending())
    assert found.notes == [
        "EarlyStopping may end training before, by val_loss (patience 3)",
        "max_time may end training before",
        "in 16 bit a step whose gradients overflow is skipped, and isn't counted",
        "the loaders are read again: later ones are taken to be as long as the first",
        "on_batch_start may end an epoch early",
        "what your own callbacks do isn't known: Own",
    ]
    trainer = Trainer(default_save_path=tmp_path, save_every_minutes=1, **QUIET)
    assert trainer.explain(Validated()).notes == ["saves by the clock come in addition"]
    trainer = Trainer(default_save_path=tmp_path, save_every_minutes=0, **QUIET)
    assert trainer.explain(Validated()).notes == []
    assert found.hooks["on_batch_end"] == ["Own"]
    assert found.hooks["on_batch_start"] == ["Ending"]
    assert found.hooks["on_validation_end"] == ["EarlyStopping"]


def test_a_long_fit_is_counted_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "MOST_BATCHES", 1000)
    found = Trainer(False, max_nb_epochs=10**9, default_save_path=tmp_path, **QUIET).explain(Model())
    assert (found.nb_batches, found.stop_reason) == (None, None)
    assert sum(row["nb_batches"] for row in found.epochs) == 1000
    assert any("are counted" in note for note in found.notes)


class Waiting(Model):
    """No save is left out since the one before is still being written."""

    def on_batch_end(self) -> None:
        self.trainer._plan.rolling.wait_for_newest()


@pytest.mark.parametrize("keep", ["newest", "spaced"])
def test_the_saves_that_stay_are_those_that_were_explained(tmp_path: Path, keep: str) -> None:
    options: dict[str, Any] = {"max_nb_epochs": 4, "save_every_nb_batches": 1, "keep_saves": keep}
    options |= {"resume": "auto"} if keep == "newest" else {"certificate": True}  # both save from the start
    trainer = Trainer(default_save_path=tmp_path, **options, **QUIET)
    explained = trainer.explain(Waiting())
    trainer.fit(Waiting())
    gone = {row["path"] for row in explained.events("delete")}
    stay = {Path(row["path"]).name for row in explained.events("save")} - {Path(path).name for path in gone}
    assert stay == {path.name for path in tmp_path.rglob("*.ckpt")}
    assert (len(stay) > 4) == (keep == "spaced")
    assert ("they are spaced: the newest two and the first are kept" in str(explained)) == (keep == "spaced")


def test_several_processes_are_explained_from_one(tmp_path: Path) -> None:
    found = Trainer(False, nb_processes=2, max_nb_epochs=2, default_save_path=tmp_path, **QUIET).explain(Validated())
    assert found.where["nb_processes"] == found.where["virtual_ranks"] == 2
    assert found.where["strategy"] == "ddp"
    assert (found.nb_batches, found.nb_optimizer_steps, found.nb_samples) == (6, 6, 40)
    assert any("one batch on each of 2 virtual ranks" in note for note in found.notes)
    by_hand = Trainer(
        False, nb_processes=2, max_nb_epochs=2, uneven_batches="drop", default_save_path=tmp_path, **QUIET
    ).explain(ByHand())
    assert (by_hand.nb_batches, by_hand.nb_optimizer_steps) == (4, None)
    sharded = Trainer(False, nb_processes=2, data_is_sharded=True, default_save_path=tmp_path, **QUIET)
    found = sharded.explain(Validated())
    assert (found.where["virtual_ranks"], found.epochs[0]["nb_batches"]) == (2, 5)
    assert "each process has a loader of its own: batches and samples are this one's" in found.notes


@pytest.mark.slow
def test_several_processes_do_what_was_explained(tmp_path: Path) -> None:
    model, keeper = Validated(), ModelCheckpoint(tmp_path / "kept", every_nb_batches=2)
    options: dict[str, Any] = {"accumulate_grad_batches": 2, "save_every_nb_batches": 2, **QUIET}
    trainer = Trainer(None, keeper, nb_processes=2, max_nb_epochs=2, default_save_path=tmp_path, **options)
    found = trainer.explain(model)
    assert not any(tmp_path.iterdir())
    trainer.fit(model)
    steps = trainer._run.progress.nb_optimizer_steps  # type: ignore[union-attr]
    assert (trainer.global_step, steps) == (found.nb_batches, found.nb_optimizer_steps)
    rows = (tmp_path / "Validated/version_0/metrics.csv").read_text().splitlines()
    assert len(rows) - 1 == len(found.events("row"))
    gone = {row["path"] for row in found.events("delete")}
    expected = {Path(row["path"]).name for row in found.events("save") if row["path"] not in gone}
    assert {path.name for path in tmp_path.rglob("*.ckpt")} == expected


# ------------------------------------------------------------------------------------------ resumes
@pytest.mark.parametrize("first", [{"max_nb_epochs": 2}, {"max_nb_epochs": 5, "max_nb_steps": 7}])
def test_what_is_left_of_a_run_that_is_resumed(tmp_path: Path, first: dict[str, Any]) -> None:
    def trainer(**options: Any) -> Trainer:
        keeper = ModelCheckpoint(tmp_path / "kept", save_top_k=2)
        how: dict[str, Any] = {"default_save_path": tmp_path, "resume": "auto", "save_every_nb_batches": 4, **QUIET}
        return Trainer(None, keeper, **{**how, **options})

    trainer(**first).fit(Validated())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    model, again = Validated(), trainer(max_nb_epochs=5)
    found = again.explain(model)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    done = first.get("max_nb_steps", 10)
    assert found.start["global_step"] == done
    assert (found.nb_batches, found.nb_samples) == (25 - done, 4 * (25 - done))
    assert found.epochs[0]["nb_batches"] == (3 if done == 7 else 5)
    again.fit(model)
    assert again.global_step == 25
    saves = [row for row in found.events("save") if row.get("rolling")]
    assert {row["path"] for row in saves[-1:]} == {str(path) for path in tmp_path.rglob("step-*.ckpt")}
    assert f"resumes        {found.start['resume']} (epoch {found.start['epoch']}" in str(found)
    complete = trainer(max_nb_epochs=5).explain(model)
    assert (complete.nb_batches, complete.stop_reason) == (0, "max_nb_epochs reached")


# ------------------------------------------------------------------------------------------ files
class Momentum(Validated):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class WithAdam(Validated):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), amsgrad=True)


@pytest.mark.parametrize("width", [2_000, pytest.param(40_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [Validated, Momentum, WithAdam])
def test_sizes_are_those_of_the_files(tmp_path: Path, kind: Any, width: int) -> None:
    weights = ModelCheckpoint(tmp_path / "weights", save_weights_only=True, prefix="w")
    trainer = Trainer(
        None, ModelCheckpoint(tmp_path / "whole"), callbacks=[weights], max_nb_epochs=1, save_every_nb_batches=2,
        default_save_path=tmp_path / "logs", **QUIET,
    )  # fmt: skip
    model = kind(width)
    found = trainer.explain(model)
    trainer.fit(model)
    real = [next((tmp_path / name).rglob("*.ckpt")).stat().st_size for name in ("whole", "weights", "logs")]
    assert [row["bytes"] for row in found.checkpoints] == pytest.approx(real, rel=0.03)
    assert [row["by"] for row in found.checkpoints] == ["ModelCheckpoint", "ModelCheckpoint", "saves for a resume"]


def test_files_of_an_earlier_run_stay(tmp_path: Path) -> None:
    """Also those that a resumed fit would delete."""
    options: dict[str, Any] = {"default_save_path": tmp_path, "resume": "auto", "save_every_nb_batches": 1, **QUIET}
    Trainer(None, ModelCheckpoint(tmp_path / "kept", save_top_k=1), max_nb_epochs=1, **options).fit(Validated())
    there = sorted(tmp_path.rglob("*.ckpt"))
    found = Trainer(None, ModelCheckpoint(tmp_path / "kept", save_top_k=1), max_nb_epochs=3, **options)
    assert {row["if_better"] for row in found.explain(Validated()).events("save") if "if_better" in row} == {"val_loss"}
    assert sorted(tmp_path.rglob("*.ckpt")) == there
    assert len(there) == 2


def test_names_with_metrics_are_left_open(tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path, filename="{epoch}-{val_loss:.2f}")
    found = Trainer(False, keeper, max_nb_epochs=1, default_save_path=tmp_path, **QUIET).explain(Validated())
    assert [row["path"] for row in found.events("save")] == [f"{tmp_path}/epoch=1-val_loss=....ckpt"]


def test_layers_that_are_unfrozen_have_their_rates(tmp_path: Path) -> None:
    class Head(Validated):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.head.parameters(), 0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]

    trainer = Trainer(
        False, callbacks=[Unfreeze({"net": 1}, lr_factor=0.1)], max_nb_epochs=2, default_save_path=tmp_path, **QUIET
    )
    rates = trainer.explain(Head()).rates
    assert [(row["lr_0"], pytest.approx(row["lr_0_1"])) for row in rates] == [(0.1, 0.01), (0.05, 0.005)]


def test_a_model_that_can_not_be_copied_is_refused(tmp_path: Path) -> None:
    model = Model()
    model.lines = (line for line in "ab")  # type: ignore[assignment]
    with pytest.raises(MisconfigurationException, match="explain plans a copy of Model, which can't be copied"):
        Trainer(False, default_save_path=tmp_path).explain(model)


def test_what_a_fit_refuses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="Unfreeze: 'absent' isn't there"):
        Trainer(False, callbacks=[Unfreeze({"absent": 1})], default_save_path=tmp_path).explain(Model())


# ------------------------------------------------------------------------------------------ no effect
class Experiment:
    """Like test-tube's."""

    def __init__(self, folder: Path) -> None:
        self.save_dir, self.name, self.version, self.debug = str(folder), "x", 0, False


CASES: list[tuple[str, str, dict[str, Any], type[Model]]] = [
    *(
        (name, "the module has no validation", {name: value}, Model)
        for name, value in {
            "val_check_interval": 0.5,
            "val_every_nb_batches": 3,
            "check_val_every_n_epoch": 2,
            "val_percent_check": 0.5,
            "max_nb_val_batches": 1,
            "nb_sanity_val_steps": 1,
            "gather_validation": False,
        }.items()
    ),
    *(
        (name, "overfit_pct is taken instead", {name: 0.5, "overfit_pct": 0.4}, Validated)
        for name in ("train_percent_check", "val_percent_check", "test_percent_check")
    ),
    *(
        (name, "fast_dev_run runs one batch, and keeps nothing", {name: value, "fast_dev_run": True}, Validated)
        for name, value in {
            "max_nb_epochs": 3,
            "train_percent_check": 0.5,
            "max_nb_tng_batches": 2,
            "val_percent_check": 0.5,
            "max_nb_val_batches": 2,
            "val_check_interval": 0.5,
            "val_every_nb_batches": 2,
            "check_val_every_n_epoch": 2,
            "save_every_nb_batches": 2,
        }.items()
    ),
    ("gradient_clip", "training_step makes its own steps: clip before each of them", {"gradient_clip": 1}, ByHand),
    ("gradient_clip_algorithm", "gradient_clip is off", {"gradient_clip_algorithm": "value"}, Model),
    ("gradient_clip_norm_type", "gradient_clip is off, or clips values", {"gradient_clip_norm_type": 1.0}, Model),
    ("amp_level", "use_amp is off", {"amp_level": "O1"}, Model),
    ("accumulate_grad_batches", "training ends before its first epoch", {"accumulate_grad_batches": {5: 2}}, Model),
    (
        "early_stop_callback",
        "enable_early_stop is false",
        {"enable_early_stop": False, "early_stop_callback": EarlyStopping("val_loss")},
        Validated,
    ),
    ("min_nb_epochs", "there is no EarlyStopping", {"min_nb_epochs": 2}, Model),
    ("max_nb_epochs", "max_nb_steps is reached before", {"max_nb_epochs": 3, "max_nb_steps": 4}, Model),
    ("max_nb_steps", "max_nb_epochs is reached before", {"max_nb_steps": 400}, Model),
    ("check_val_every_n_epoch", "training ends before that epoch does", {"check_val_every_n_epoch": 5}, Validated),
    ("lr_scheduler_milestones", "training ends before the first one", {"lr_scheduler_milestones": [4]}, Model),
    ("save_every_nb_batches", "training ends before", {"save_every_nb_batches": 100}, Model),
    ("process_position", "progress_bar is off", {"process_position": 2}, Model),
    ("current_gpu_name", "progress_bar is off", {"current_gpu_name": "a"}, Model),
    *(
        (name, "experiment is False: nothing is logged", {name: 7, "experiment": False}, Model)
        for name in ("log_save_interval", "track_grad_norm")
    ),
    ("resume_check", "nothing is resumed", {"resume_check": "warn"}, Model),
    ("exact_elastic", "there is one virtual rank", {"exact_elastic": True}, Model),
    ("uneven_batches", "there is one virtual rank", {"uneven_batches": "drop"}, Model),
    ("gather_validation", "there is one process", {"gather_validation": False}, Validated),
    ("process_timeout_minutes", "there is one process", {"process_timeout_minutes": 3}, Model),
]


@pytest.mark.parametrize(("name", "why", "given", "kind"), CASES, ids=[f"{name}-{why[:20]}" for name, why, *_ in CASES])
def test_an_option_without_effect_is_named(
    tmp_path: Path, name: str, why: str, given: dict[str, Any], kind: type[Model]
) -> None:
    options = {"max_nb_epochs": 2, "default_save_path": tmp_path, **QUIET, **given}
    found = Trainer(**options).explain(kind())
    assert found.without_effect[name] == why
    assert f"{name}=" in str(found)
    assert f"has no effect: {why}" in str(found)


def test_an_experiment_has_its_own_folder(tmp_path: Path) -> None:
    test_tube = pytest.importorskip("test_tube")
    experiment = test_tube.Experiment(str(tmp_path / "own"), name="x", debug=False)
    trainer = Trainer(experiment, max_nb_epochs=1, default_save_path=tmp_path / "other", **QUIET)
    assert trainer.explain(Model()).without_effect["default_save_path"] == "the experiment has a folder of its own"


def test_every_rule_has_a_case() -> None:
    assert {(name, why) for name, why, _ in RULES if name != "default_save_path"} == {
        (name, why) for name, why, *_ in CASES
    }


def test_options_with_an_effect_are_not_named(tmp_path: Path) -> None:
    trainer = Trainer(
        None, early_stop_callback=EarlyStopping("val_loss"), max_nb_epochs=3, min_nb_epochs=2, gradient_clip=1.0,
        gradient_clip_algorithm="value", accumulate_grad_batches={2: 2}, val_check_interval=0.5,
        val_percent_check=0.5, nb_sanity_val_steps=1, check_val_every_n_epoch=2, lr_scheduler_milestones=[2],
        save_every_nb_batches=2, log_save_interval=3, virtual_ranks=2, uneven_batches="drop", train_percent_check=0.9,
        default_save_path=tmp_path, **QUIET,
    )  # fmt: skip
    found = trainer.explain(Validated())
    assert isinstance(found, Explanation)
    assert found.without_effect == {}
    assert {"gradient_clip", "virtual_ranks", "val_check_interval"} <= set(found.given)
    assert found.options["accumulate_grad_batches"] == {2: 2}
