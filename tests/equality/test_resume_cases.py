"""Cases in which other trainers resume wrongly: each is cut, resumed, and compared with an uninterrupted run."""

import os
import random
import re
import signal
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, IterableDataset

from pytorch_lightning import data_loader
from pytorch_lightning.callbacks import Callback, EarlyStopping
from tests.equality.models import BATCH_SIZE, Augmented, Classifier, Gan, Validated, samples
from tests.equality.test_loader_grid import Rotating
from tests.equality.test_resume import SaveAt, comparable, differences
from tests.recorder import Recorder, quiet_trainer, rows_of


def ended(folder: Path, model: Any, **options: Any) -> Any:
    """What a fit ends with, its own folder aside."""
    trainer = quiet_trainer(folder, **{"max_nb_epochs": 4, **options})
    assert trainer.fit(model) == 1
    trainer.save_checkpoint(folder / "end.ckpt")
    return comparable(torch.load(folder / "end.ckpt", weights_only=True))


class Scheduled(Validated):
    """An epoch schedule and one that watches the validation; batch normalization and dropout; shuffled."""

    def __init__(self) -> None:
        super().__init__(norm=True, dropout=0.2, shuffle=True)

    def configure_optimizers(self) -> Any:
        first, second = SGD(self.layers[0].parameters(), 0.1), SGD(self.layers[1:].parameters(), 0.1, momentum=0.5)
        return [first, second], [StepLR(first, 2, 0.5), ReduceLROnPlateau(second, factor=0.5, patience=0)]


@pytest.mark.parametrize("cut", [3, 5, 7, 10, 12])
@pytest.mark.parametrize(
    "options",
    [
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 3},
        {"lr_scheduler_milestones": [1, 2]},
        {"accumulate_grad_batches": {1: 2, 3: 3}},
        {"train_percent_check": 0.7},
        {"overfit_pct": 0.5},
    ],
    ids=str,
)
def test_any_schedule_of_validations_and_windows_resumes(tmp_path: Path, options: Any, cut: int) -> None:
    saving = [SaveAt(tmp_path / "cut.ckpt", cut - 1)]
    whole = ended(tmp_path / "whole", Scheduled(), callbacks=saving, **options)
    torch.manual_seed(999)
    assert (tmp_path / "cut.ckpt").exists() == (cut <= whole["global_step"])
    if cut <= whole["global_step"]:
        rest = ended(
            tmp_path / "rest", Scheduled(), callbacks=[SaveAt(Path(), -1)], resume=tmp_path / "cut.ckpt", **options
        )
        assert differences(whole, rest) == []


class Signs(torch.optim.Optimizer):
    """A user's own, whose groups have nothing but a rate: its steps go by the sign of all gradients so far."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.01})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                total = self.state[parameter].setdefault("total", torch.zeros_like(parameter))
                parameter.sub_(group["lr"] * total.add_(parameter.grad).sign())


@pytest.mark.parametrize("make", [Signs, torch.optim.LBFGS, torch.optim.Rprop, torch.optim.Adafactor])
def test_every_kind_of_optimizer_is_resumed(tmp_path: Path, make: Any) -> None:
    class Stepped(Validated):
        def configure_optimizers(self) -> Any:
            return [make(self.parameters())]

    whole = ended(tmp_path / "whole", Stepped(), callbacks=[SaveAt(tmp_path / "cut.ckpt", 6)])
    resuming = {"callbacks": [SaveAt(Path(), -1)], "resume": tmp_path / "cut.ckpt"}
    assert differences(whole, ended(tmp_path / "rest", Stepped(), **resuming)) == []


def test_a_loader_that_was_used_before_the_fit_gives_what_it_would_have(tmp_path: Path) -> None:
    class Used(Scheduled):
        touched = False

        @data_loader
        def tng_dataloader(self) -> Any:
            own = torch.Generator().manual_seed(4)
            loader = DataLoader(Augmented(), BATCH_SIZE, sampler=Rotating(), generator=own)
            if self.touched:
                assert len(loader) == 5
                own.manual_seed(4), torch.randperm(9, generator=own)
                next(iter(loader))
                loader.sampler.nb_drawn = 0  # type: ignore[attr-defined]
            return loader

    whole = ended(tmp_path / "whole", Used(), callbacks=[SaveAt(tmp_path / "cut.ckpt", 7)])
    again = Used()
    again.touched = True
    len(again.tng_dataloader)
    rest = ended(tmp_path / "rest", again, callbacks=[SaveAt(Path(), -1)], resume=tmp_path / "cut.ckpt")
    assert differences(whole, rest) == []


class Alternating(Gan):
    """Steps the generator after each second batch and the discriminator after each third, counted over epochs, with
    the gradients of all batches since."""

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        if (self.global_step + 1) % (2 + optimizer_i) == 0:
            optimizer.step()


@pytest.mark.parametrize("cut", range(1, 8))
def test_gradients_that_wait_for_a_users_step_are_not_lost(tmp_path: Path, cut: int) -> None:
    whole = ended(tmp_path / "whole", Alternating(), callbacks=[SaveAt(tmp_path / "cut.ckpt", cut - 1)])
    rest = ended(tmp_path / "rest", Alternating(), callbacks=[SaveAt(Path(), -1)], resume=tmp_path / "cut.ckpt")
    assert differences(whole, rest) == []


def test_an_exception_does_not_save_gradients_of_a_broken_window(tmp_path: Path) -> None:
    class Failing(Alternating):
        fails = True

        def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
            if self.fails and self.global_step == 3:  # the second batch of a window, before which gradients waited
                raise ValueError("failed")
            return super().training_step(data_batch, batch_nb, optimizer_i)

    options: Any = {"accumulate_grad_batches": 2, "resume": "auto"}
    options["silence"] = ("not-shuffled", "no-validation", "first-save")
    with pytest.raises(ValueError, match="failed"):
        ended(tmp_path / "run", Failing(), **options)
    Failing.fails = False
    rest = ended(tmp_path / "run", Failing(), **options)
    assert differences(ended(tmp_path / "whole", Failing(), **options), rest) == []


class Endless(IterableDataset[Any]):
    """Never ends, and has no length."""

    def __iter__(self) -> Iterator[Any]:
        x, y = samples()
        while True:
            i = random.randrange(len(x))
            yield x[i] + 0.1 * torch.randn(6), y[i]


class OwnLoop:
    """No loader of torch's, and never at its end."""

    def __iter__(self) -> Iterator[Any]:
        x, y = samples()
        while True:
            i = torch.randperm(len(x))[:BATCH_SIZE]
            yield x[i], y[i]


@pytest.mark.parametrize("data", ["stream", "two workers", "own loop"])
@pytest.mark.parametrize("cut", [5, 7])
def test_an_endless_loader_continues(tmp_path: Path, data: str, cut: int) -> None:
    class Streamed(Validated):
        @property
        def tng_dataloader(self) -> Any:
            workers = 2 if data == "two workers" else 0
            return OwnLoop() if data == "own loop" else DataLoader(Endless(), BATCH_SIZE, num_workers=workers)

    options: Any = {"max_nb_epochs": 1, "max_nb_steps": 12, "val_check_interval": 5}
    whole = ended(tmp_path / "whole", Streamed(), callbacks=[SaveAt(tmp_path / "cut.ckpt", cut - 1)], **options)
    assert (whole["global_step"], whole["parts"]["progress"]["nb_validations"]) == (12, 2)
    saving = [SaveAt(Path(), -1)]
    rest = ended(tmp_path / "rest", Streamed(), callbacks=saving, resume=tmp_path / "cut.ckpt", **options)
    assert differences(whole, rest) == []


# ---------------------------------------------------------------------------------------------- what is called
class Interrupt(Callback):
    """Ctrl-C once, at the end of the first of some batches, counted over all epochs."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step + 1 in self.steps:
            self.steps = ()
            os.kill(os.getpid(), signal.SIGINT)


class Noting(Recorder):
    """Notes every hook of an epoch."""

    def note_here(self, name: str) -> None:
        self.note(name, self.current_epoch, self.trainer.batch_nb, self.global_step)

    def on_epoch_start(self) -> None:
        self.note_here("on_epoch_start")

    def on_epoch_end(self) -> None:
        self.note_here("on_epoch_end")

    def on_batch_start(self, data_batch: Any) -> None:
        self.note_here("on_batch_start")

    def on_batch_end(self) -> None:
        self.note_here("on_batch_end")

    def on_pre_performance_check(self) -> None:
        self.note_here("on_pre_performance_check")

    def on_post_performance_check(self) -> None:
        self.note_here("on_post_performance_check")

    def on_after_backward(self) -> None:
        self.note_here("on_after_backward")

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.note_here("on_before_zero_grad")

    def on_tng_metrics(self, metrics: Any) -> None:
        self.note_here("on_tng_metrics")


class NotingToo(Callback):
    """The same of a callback's hooks."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def note(self, run: Any, *what: Any) -> None:
        self.calls.append((*what, run.progress.epoch, run.progress.batch_nb, run.progress.global_step))

    def on_epoch_start(self, run: Any) -> None:
        self.note(run, "epoch start")

    def on_batch_start(self, run: Any, data_batch: Any) -> None:
        self.note(run, "batch start")

    def on_batch_end(self, run: Any) -> None:
        self.note(run, "batch end")

    def on_evaluation_start(self, run: Any, stage: str, nb_batches: int | None) -> None:
        self.note(run, stage, nb_batches)

    def on_evaluation_batch_end(self, run: Any, stage: str, batch_nb: int) -> None:
        self.note(run, stage, batch_nb)

    def on_evaluation_end(self, run: Any, stage: str) -> None:
        self.note(run, stage)

    def on_validation_end(self, run: Any, metrics: Any) -> None:
        self.note(run, "validation end", metrics)

    def on_epoch_end(self, run: Any) -> None:
        self.note(run, "epoch end")


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}, {"accumulate_grad_batches": 3}], ids=str)
@pytest.mark.parametrize("steps", [(1,), (2, 3), (4,), (4, 8), (5, 6, 7)], ids=str)
def test_hooks_of_all_starts_together_are_those_of_one_run(
    tmp_path: Path, steps: tuple[int, ...], options: Any
) -> None:
    def fit(folder: str, *at: int) -> tuple[list[Any], list[Any], bool]:
        model, watching = Noting(), NotingToo()
        quiet = ("not-shuffled", "first-save")
        kwargs: Any = {"callbacks": [watching, Interrupt(*at)], "resume": "auto", "silence": quiet, **options}
        return model.calls, watching.calls, not quiet_trainer(tmp_path / folder, max_nb_epochs=3, **kwargs).fit(model)

    calls, seen, _ = fit("whole")
    nb_starts, together, seen_together, interrupted = 0, [], [], True
    while interrupted and nb_starts < 9:
        some, others, interrupted = fit("cut", *steps)
        together += some
        seen_together = others  # what an attribute of a callback holds goes from start to start
        nb_starts += 1
    assert nb_starts > 1
    assert together == calls
    assert seen_together == seen


def test_saves_by_number_keep_their_pace_over_restarts(tmp_path: Path) -> None:
    class Saved(Recorder):
        def on_save_checkpoint(self, checkpoint: Any) -> None:
            self.note("save", checkpoint["global_step"])

    def saves(folder: str, *at: int) -> list[int]:
        options: Any = {"max_nb_epochs": 3, "save_every_nb_batches": 3, "resume": "auto", "callbacks": [Interrupt(*at)]}
        # where a save takes long, there is another one before a validation
        options |= {"check_val_every_n_epoch": 9, "silence": ("not-shuffled", "first-save", "never-validated")}
        model = Saved()
        quiet_trainer(tmp_path / folder, **options).fit(model)
        return [call[1] for call in model.calls if call[0] == "save"]

    assert saves("whole") == [0, 3, 6, 9, 12, 12]
    assert saves("cut", 5) == [0, 3, 5]
    assert saves("cut", 7) == [6, 7]
    assert saves("cut") == [9, 12, 12]


def test_a_limit_of_steps_counts_over_all_restarts(tmp_path: Path) -> None:
    options: Any = {"max_nb_epochs": 9, "max_nb_steps": 7, "accumulate_grad_batches": 2, "resume": "auto"}
    steps: list[tuple[int, int]] = []
    for at in ((3,), (6,), (10,), ()):
        trainer = quiet_trainer(tmp_path, callbacks=[Interrupt(*at)], silence=("not-shuffled", "first-save"), **options)
        trainer.fit(Recorder())
        assert trainer.progress is not None
        steps.append((trainer.global_step, trainer.progress.nb_optimizer_steps))
    assert steps == [(4, 2), (6, 3), (10, 5), (14, 7)]


# ---------------------------------------------------------------------------------------------- how it had stopped
WORSE = (1.0, 0.5, 0.6, 0.7, 0.4, 0.8, 0.9, 0.95, 0.97, 0.98)
"""Best at the second and at the fifth validation."""


class Judged(Recorder):
    """Validations that go on where they were: what they give depends on how much was trained."""

    def validation_end(self, outputs: Any) -> Any:
        self.note("validation_end", self.global_step)
        return {"val_loss": WORSE[self.global_step // self.nb_batches - 1]}


def judged(tmp_path: Path, patience: int | None = 2, **options: Any) -> tuple[Any, Judged]:
    model = Judged()
    stop = None if patience is None else EarlyStopping(patience=patience)
    kwargs = {"max_nb_epochs": 10, "early_stop_callback": stop, "resume": "auto", **options}
    trainer = quiet_trainer(tmp_path, silence=("not-shuffled", "first-save", "absent-callbacks"), **kwargs)
    trainer.fit(model)
    return trainer, model


@pytest.mark.parametrize(
    ("first", "then", "nb_epochs"),
    [
        ({}, {}, 4),
        ({}, {"max_nb_epochs": 20}, 4),
        ({"max_nb_epochs": 4}, {}, 4),
        ({"max_nb_steps": 16}, {}, 4),
        ({"max_nb_epochs": 3}, {}, 4),
        ({}, {"patience": 3}, 8),
        ({}, {"patience": None}, 10),
        ({}, {"min_nb_epochs": 6}, 7),
    ],
    ids=str,
)
def test_early_stopping_stays_so_unless_it_has_more_patience(
    tmp_path: Path, first: Any, then: Any, nb_epochs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it would have been with the second options from the start."""
    trainer, _ = judged(tmp_path, **first)
    before = trainer.current_epoch
    assert before <= 4
    assert capsys.readouterr().err == ""
    trainer, model = judged(tmp_path, **then)
    assert trainer.current_epoch == nb_epochs
    assert model.nb("training_step") == 4 * (nb_epochs - before)
    said = capsys.readouterr().err
    assert said.count("[already-stopped]") == (nb_epochs == before)
    assert ("early stopping: val_loss didn't improve on 0.5 in 2 checks" in said) == (nb_epochs == before)
    again, _ = judged(tmp_path, **then)
    assert again.current_epoch == nb_epochs


def test_a_run_that_was_complete_is_named_where_another_may_have_been_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(nb_epochs: int, resume: Any = "auto", **hparams: Any) -> list[str]:
        model = Recorder()
        model.hparams = Namespace(**hparams)
        silence = ("not-shuffled", "no-validation", "first-save")
        trainer = quiet_trainer(tmp_path, max_nb_epochs=nb_epochs, resume=resume, silence=silence)
        assert trainer.fit(model) == 1
        trainer.save_checkpoint(tmp_path / "end.ckpt")
        return capsys.readouterr().err.splitlines()

    assert said(2, lr=0.1, width=3) == []
    (line,) = said(2, lr=0.1, width=3)
    assert re.search(r"version_0/checkpoints/step-0{11}8\.ckpt is of a run that was complete \(max_nb_epochs", line)
    assert "hparams" not in line
    differs, line = said(2, lr=0.2, width=3)  # the second trial of a search
    assert "Other hparams: lr (saved 0.1, now 0.2); the module has the new ones" in differs
    assert "[already-complete]" in line
    assert said(3, lr=0.2, width=3) == []  # as it was said before
    differs, line = said(3, resume=tmp_path / "end.ckpt", lr=0.1)
    assert "Other hparams: width (saved 3, now absent);" in differs


def test_a_stop_that_another_callback_asked_for_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Enough(Callback):
        def on_batch_end(self, run: Any) -> None:
            if run.progress.global_step == 5:
                run.stop("seen enough")

    judged(tmp_path, callbacks=[Enough()])
    trainer, model = judged(tmp_path, max_nb_epochs=20)
    assert (trainer.global_step, model.nb("training_step"), trainer.progress.stop_reason) == (6, 0, "seen enough")
    assert "isn't trained further: seen enough" in capsys.readouterr().err


def test_a_signal_in_the_validation_that_stops_early_does_not_undo_the_stop(tmp_path: Path) -> None:
    class Signalled(Callback):
        def on_validation_end(self, run: Any, metrics: Any) -> None:
            if metrics["val_loss"] == 0.7:
                os.kill(os.getpid(), signal.SIGINT)

    class First(EarlyStopping):
        """Is asked after the signal came."""

    model = Judged()
    trainer = quiet_trainer(
        tmp_path,
        max_nb_epochs=9,
        callbacks=[Signalled(), First(patience=2, every="validation")],
        silence=("not-shuffled",),
    )
    with pytest.raises(KeyboardInterrupt):  # training was complete, so the signal has its usual effect
        trainer.fit(model)
    assert trainer.progress is not None
    assert trainer.progress.stop_reason.startswith("early stopping")


class SaveAtStop(Callback):
    """Saves after the validation that ended training, before the epoch's end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_end(self, run: Any, metrics: Any) -> None:
        if run.progress.nb_validations == 3:
            run.save(self.path)
            run.stop("enough")


class SaveAtLimit(Callback):
    """Saves after the batch that is the last one, before its validation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step == 14:
            run.save(self.path)


@pytest.mark.parametrize(
    ("saving", "options"), [(SaveAtStop, {}), (SaveAtLimit, {"max_nb_steps": 15})], ids=["a callback", "a limit"]
)
def test_what_an_epochs_end_owes_is_done_also_where_training_has_ended(
    tmp_path: Path, saving: Any, options: Any
) -> None:
    whole = ended(tmp_path / "whole", Scheduled(), callbacks=[saving(tmp_path / "cut.ckpt")], **options)
    saved = torch.load(tmp_path / "cut.ckpt", weights_only=True)["parts"]["progress"]
    assert (saved["epoch"], saved["batch_nb"], bool(saved["stop_reason"])) == (2, 5, True)
    rest = ended(tmp_path / "rest", Scheduled(), callbacks=[Callback()], resume=tmp_path / "cut.ckpt", **options)
    for each in (whole, rest):
        each["parts"].pop("callbacks")
    assert differences(whole, rest) == []
    assert rest["epoch"] == 3


# ---------------------------------------------------------------------------------------------- callbacks
class Counter(Callback):
    def __init__(self) -> None:
        self.nb = 0

    def on_batch_end(self, run: Any) -> None:
        self.nb += 1

    def state_dict(self) -> dict[str, Any]:
        return {"nb": self.nb}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.nb = state["nb"]


class Other(Counter):
    pass


def cut_with(tmp_path: Path, name: str, callbacks: list[Callback], **options: Any) -> None:
    silence = ("not-shuffled", "first-save")
    trainer = quiet_trainer(tmp_path, callbacks=callbacks, silence=silence, **{"max_nb_epochs": 4, **options})
    trainer.fit(Recorder())
    trainer.save_checkpoint(tmp_path / name)


def test_callbacks_find_their_state_in_any_order(tmp_path: Path) -> None:
    loss, twice = EarlyStopping("val_loss", patience=50), EarlyStopping("twice", patience=60)
    cut_with(tmp_path, "cut.ckpt", [Counter(), loss, twice, Other()], max_nb_steps=6)
    counter, other = Counter(), Other()
    again = [EarlyStopping("twice", patience=60), EarlyStopping("val_loss", patience=50)]
    rest = [other, *again, Callback(), counter]
    cut_with(tmp_path, "end.ckpt", rest, resume=tmp_path / "cut.ckpt")
    assert (counter.nb, other.nb) == (16, 16)
    assert [stop.best for stop in again] == [pytest.approx(again[0].best), 1.0]
    assert again[0].best != 1.0


def test_the_state_of_a_callback_that_is_not_there_is_kept_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_with(tmp_path, "cut.ckpt", [Counter(), Other()], max_nb_steps=6)
    other = Other()
    cut_with(tmp_path, "between.ckpt", [other], resume=tmp_path / "cut.ckpt", max_nb_steps=9)
    assert "callbacks that are missing now; it is kept: Counter  [absent-callbacks]" in capsys.readouterr().err
    counter, other = Counter(), Other()
    cut_with(tmp_path, "end.ckpt", [counter, other], resume=tmp_path / "between.ckpt")
    assert (counter.nb, other.nb) == (6 + 7, 16)
    assert capsys.readouterr().err == ""


def test_a_model_that_is_loaded_in_between_changes_no_random_number(tmp_path: Path) -> None:
    class Drawing(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.drawn = torch.rand(3), np.random.rand(), random.random()

    trainer = quiet_trainer(tmp_path)
    trainer.fit(Drawing())
    trainer.save_checkpoint(tmp_path / "x.ckpt")

    def draw() -> list[float]:
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        if draws:
            Drawing.load_from_checkpoint(tmp_path / "x.ckpt")
        return [float(torch.rand(())), float(np.random.rand()), random.random()]

    draws: list[Any] = []
    draws.append(draw())
    assert draw() == draws[0]


# ---------------------------------------------------------------------------------------------- rows
def test_tensorboard_shows_one_curve(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from pytorch_lightning.loggers import TensorBoardLogger

    def fit(folder: str, *at: int) -> None:
        logger = TensorBoardLogger(tmp_path / folder, "Recorder")
        options: Any = {"max_nb_epochs": 3, "add_log_row_interval": 1, "save_every_nb_batches": 2, "resume": "auto"}
        trainer = quiet_trainer(
            tmp_path,
            experiment=logger,
            callbacks=[Raise(*at)],
            silence=("not-shuffled", "first-save"),
            **options,
        )
        try:
            trainer.fit(Recorder())
        except Cut:
            assert at

    def curve(folder: str) -> list[tuple[int, float]]:
        (found,) = (tmp_path / folder).glob("Recorder/version_*/tf")
        events = EventAccumulator(str(found)).Reload()
        return [(event.step, event.value) for event in events.Scalars("tng_loss")]

    fit("whole")
    for at in ((5,), (10,), ()):
        fit("cut", *at)
    assert curve("cut") == curve("whole")
    assert [step for step, _ in curve("cut")] == list(range(12))


class Cut(Exception):
    pass


class Raise(Interrupt):
    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step in self.steps:
            raise Cut


def test_rows_of_a_fit_from_another_runs_file_are_the_rest(tmp_path: Path) -> None:
    options: Any = {"max_nb_epochs": 3, "add_log_row_interval": 1}
    quiet_trainer(tmp_path / "whole", callbacks=[SaveAt(tmp_path / "cut.ckpt", 5)], **options).fit(Recorder())
    quiet_trainer(tmp_path / "rest", resume=tmp_path / "cut.ckpt", **options).fit(Recorder())
    whole, rest = (
        [{k: v for k, v in row.items() if k != "created_at"} for row in rows_of(tmp_path / folder)]
        for folder in ("whole", "rest")
    )
    assert rest == [row for row in whole if int(row["global_step"]) > 5]
