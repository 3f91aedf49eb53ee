"""Options that can't mean anything are named when the Trainer is made."""

import datetime
import math
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import pytorch_lightning as ptl
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from tests.mistakes.honest import Honest, Refusals, planted, trainer_in

NAN = math.nan

# option, what was passed, how the message describes it, what to do
MISTAKES: list[tuple[str, Any, str, str]] = [
    ("max_nb_epochs", 0, "0 (int)", "Pass max_nb_epochs=1"),
    ("max_nb_epochs", "10", "'10' (str)", "whole number"),
    ("max_nb_epochs", 1.5, "1.5 (float)", "whole number"),
    ("max_nb_epochs", None, "None", "whole number"),
    ("max_nb_steps", 0, "0 (int)", "Pass max_nb_steps=1"),
    ("val_check_interval", 0, "0 (int)", "Pass 0.5"),
    ("val_check_interval", -1, "-1 (int)", "Pass 0.5"),
    ("val_check_interval", "x", "'x' (str)", "Pass 0.5"),
    ("val_check_interval", 1.5, "1.5 (float)", "Pass 0.5"),
    ("val_check_interval", NAN, "nan", "Pass 0.5"),
    ("val_check_interval", math.inf, "inf", "Pass 0.5"),
    ("accumulate_grad_batches", 0, "0 (int)", "Pass 4"),
    ("accumulate_grad_batches", {0: 2}, "{0: 2}", "Pass 4"),
    ("accumulate_grad_batches", {}, "{}", "Pass 4"),
    ("accumulate_grad_batches", "1:2,3", "'1:2,3'", "Pass 4"),
    ("gradient_clip", "a", "'a' (str)", "Pass gradient_clip=1"),
    ("gradient_clip", None, "None", "Pass gradient_clip=1"),
    ("gradient_clip", NAN, "nan", "Pass gradient_clip=1"),
    ("gradient_clip_algorithm", "l2", "'l2' (str)", "'norm', 'value'"),
    ("precision", "fp16", "'fp16' (str)", "'bf16'"),
    ("precision", 8, "8 (int)", "'bf16'"),
    ("use_amp", "maybe", "'maybe' (str)", "Pass use_amp=True or use_amp=False"),
    ("amp_level", "O9", "'O9' (str)", "'O2'"),
    ("gpus", 1.5, "1.5 (float)", "Pass gpus=1"),
    ("gpus", -2, "-2 (int)", "Pass gpus=1"),
    ("gpus", True, "True (bool)", "Pass gpus=1"),
    ("gpus", ["a"], "['a'] (list)", "Pass gpus=1"),
    ("gpus", [0, 0], "[0, 0] (list)", "Pass gpus=1"),
    ("overfit_pct", NAN, "nan", "Pass overfit_pct=1"),
    ("train_percent_check", -0.5, "-0.5 (float)", "at least 0"),
    ("val_percent_check", NAN, "nan", "at least 0"),
    ("test_percent_check", "all", "'all' (str)", "at least 0"),
    ("check_val_every_n_epoch", 0, "0 (int)", "at least 1"),
    ("accumulate_nb_samples", 0, "0 (int)", "at least 1"),
    ("max_nb_tng_batches", 0, "0 (int)", "Pass max_nb_tng_batches=1"),
    ("max_nb_val_batches", 0.5, "0.5 (float)", "whole number"),
    ("max_nb_test_batches", -1, "-1 (int)", "at least 1"),
    ("val_every_nb_batches", 0, "0 (int)", "at least 1"),
    ("nb_sanity_val_steps", -1, "-1 (int)", "at least 0"),
    ("track_grad_norm", "inf", "'inf' (str)", "Pass track_grad_norm=1"),
    ("log_save_interval", 0, "0 (int)", "at least 1"),
    ("add_log_row_interval", 0, "0 (int)", "at least 1"),
    ("process_position", -1, "-1 (int)", "at least 0"),
    ("seed", -1, "-1 (int)", "Pass seed=1"),
    ("seed", 2**70, "(int)", "Pass seed=1"),
    ("silence", "not-shuffled", "'not-shuffled' (str)", "Pass silence=('not-shuffled',)"),
    ("silence", 3, "3 (int)", "Pass silence=("),
    ("callbacks", EarlyStopping("val_loss"), "an EarlyStopping", "Pass callbacks=[EarlyStopping(...)]"),
    ("callbacks", [EarlyStopping], "the class EarlyStopping", "Pass EarlyStopping(...)"),
    ("callbacks", ["x"], "'x' (str)", "Pass [MyCallback()]"),
    ("early_stop_callback", True, "True (bool)", "Pass EarlyStopping('val_loss')"),
    ("checkpoint_callback", "folder", "'folder' (str)", "Pass ModelCheckpoint('folder')"),
    ("experiment", "name", "'name' (str)", "Pass None"),
    ("experiment", True, "True (bool)", "Pass None"),
    ("fast_dev_run", 3, "3 (int)", "Pass fast_dev_run=True"),
    ("progress_bar", "never", "'never' (str)", "Pass progress_bar=True"),
    ("enable_early_stop", None, "None", "Pass enable_early_stop=True"),
    ("lr_scheduler_milestones", "a,b", "'a,b' (str)", "Pass [100, 200]"),
    ("lr_scheduler_milestones", 5, "5 (int)", "Pass [100, 200]"),
    ("lr_scheduler_milestones", [1.5], "[1.5] (list)", "Pass [100, 200]"),
    ("lr_scheduler_milestones", [-1], "[-1] (list)", "Pass [100, 200]"),
    ("max_time", -1, "-1 (int)", "Pass None"),
    ("max_time", datetime.timedelta(days=-1), "datetime.timedelta(days=-1)", "Pass None"),
    ("max_time", True, "True (bool)", "Pass None"),
    ("resume", True, "True (bool)", "Pass resume="),
    ("resume_check", "maybe", "'maybe' (str)", "'error', 'warn'"),
    ("default_save_path", 3, "3 (int)", "Pass '.'"),
    ("default_save_path", "", "'' (str)", "Pass '.'"),
]


@pytest.mark.parametrize(
    ("name", "value", "received", "do"), MISTAKES, ids=[f"{m[0]}-{i}" for i, m in enumerate(MISTAKES)]
)
def test_a_value_that_means_nothing_is_named(refusal: Refusals, name: str, value: Any, received: str, do: str) -> None:
    message = refusal.of(lambda: Trainer(**{name: value}), (name, received, do))
    assert "\n" not in message


def test_several_mistakes_are_one_error(refusal: Refusals) -> None:
    message = refusal.of(
        lambda: Trainer(max_nb_epochs=0, seed=-1, precision="fp16", callbacks=3, silence="x", gpus=1.5), ()
    )
    assert message.startswith("6 problems must be fixed")
    for name in ("max_nb_epochs", "seed", "precision", "callbacks", "silence", "gpus"):
        assert message.count(f". {name} must be ") == 1, message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_nb_epochs": 5, "max_nb_epochs": 2}, ("min_nb_epochs=5", "max_nb_epochs=2", "Raise max_nb_epochs")),
        ({"precision": "32", "use_amp": True}, ("use_amp=True", "precision='32'", "Pass one of them")),
        ({"progress_bar": False, "show_progress_bar": True}, ("another name of progress_bar", "Pass one of them")),
        ({"gradient_clip": 1.0, "gradient_clip_val": 2.0}, ("gradient_clip=1.0 and gradient_clip_val=2.0",)),
        ({"progress_bar": True, "show_progress_bar": False, "enable_tqdm": True}, ("enable_tqdm=True",)),
        ({"max_epochs": 3}, ("no option 'max_epochs'", "Write max_nb_epochs")),
        ({"gradeint_clip": 3}, ("no option 'gradeint_clip'", "Did you mean 'gradient_clip'")),
        ({"wood": 3}, ("no option 'wood'", "It has: experiment")),
    ],
)
def test_options_that_contradict_each_other_or_are_unknown(
    refusal: Refusals, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    refusal.of(lambda: Trainer(**options), words)


def test_all_unknown_names_are_one_error(refusal: Refusals) -> None:
    message = refusal.of(lambda: Trainer(max_nb_epoch=3, gradeint_clip=1), ("'max_nb_epoch'", "'gradeint_clip'"))
    assert message.startswith("2 problems")


def test_two_names_of_an_option_may_agree() -> None:
    assert not Trainer(progress_bar=False, show_progress_bar=False).config.progress_bar


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EarlyStopping(3), ("monitor", "3 (int)")),  # type: ignore[arg-type]
        (lambda: EarlyStopping("a", mode="lowest"), ("mode", "'lowest'", "'min' or 'max'")),
        (lambda: EarlyStopping("a", patience=-1), ("EarlyStopping: patience", "-1 (int)", "at least 0")),
        (lambda: EarlyStopping("a", patience="3"), ("EarlyStopping: patience", "'3' (str)")),  # type: ignore[arg-type]
        (lambda: ModelCheckpoint(None), ("ModelCheckpoint: filepath", "None", "Pass")),  # type: ignore[arg-type]
        (lambda: ModelCheckpoint("w", period=0), ("ModelCheckpoint: period", "0 (int)", "at least 1")),
        (lambda: ModelCheckpoint("w", save_top_k=-5), ("ModelCheckpoint: save_top_k", "-5 (int)")),
        (lambda: ModelCheckpoint("w", save_best_only=True, save_top_k=3), ("save_top_k=3", "Pass one of them")),
    ],
)
def test_callbacks_check_their_own_options(refusal: Refusals, make: Any, words: tuple[str, ...]) -> None:
    refusal.of(make, words)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda t: Trainer(Honest()), ("experiment", "a Honest", "Pass the model to fit")),
        (lambda t: t.fit(Honest), ("the class Honest", "Make one: Honest(...)")),
        (lambda t: t.test(Honest), ("the class Honest", "Make one: Honest(...)")),
        (lambda t: t.fit(nn.Linear(1, 1)), ("Linear", "Subclass pytorch_lightning.LightningModule")),
        (lambda t: t.fit(None), ("None", "Subclass pytorch_lightning.LightningModule")),
        (lambda t: t.test("a.ckpt"), ("'a.ckpt' (str)", "Pass a checkpoint by its name: ckpt='a.ckpt'")),
        (lambda t: t.validate(), ("no model yet", "trainer.validate(model)")),
        (lambda t: t.test(), ("no model yet", "trainer.test(model)")),
        (lambda t: t.predict(), ("no model yet", "trainer.predict(model)")),
        (lambda t: t.save_checkpoint("a.ckpt"), ("before fit", "Call fit(model) first")),
        (lambda t: Trainer.from_args(3), ("hparams", "3 (int)", "Pass parser.parse_args()")),
    ],
)
def test_what_is_passed_to_the_wrong_place(refusal: Refusals, act: Any, words: tuple[str, ...]) -> None:
    refusal.of(lambda: act(trainer_in(refusal.folder)), words)


def test_gpus_that_are_not_there_are_named_with_the_other_mistakes(refusal: Refusals) -> None:
    words = ("gpus=800", "aren't there", "Pass gpus=None")
    refusal.before_training(Honest(), words, gpus=800)
    model = planted(configure_optimizers=lambda self: None)
    assert refusal.of(lambda: trainer_in(refusal.folder, gpus=800).fit(model), words).startswith("2 problems")


@pytest.mark.parametrize("name", ["default_save_path", "filepath"])
def test_a_file_in_the_way_of_a_folder(refusal: Refusals, name: str) -> None:
    path = refusal.folder / "file"
    path.touch()
    inside = path / "deep" / "er"
    options: dict[str, Any] = {"default_save_path": inside}
    if name == "filepath":
        good = ModelCheckpoint(refusal.folder / "kept")
        options = {"checkpoint_callback": ModelCheckpoint(inside), "callbacks": [good]}
    refusal.before_training(Honest(), (name, str(inside), f"{path} isn't a folder", "Choose another folder"), **options)


def test_a_default_folder_that_cannot_be_made_is_one_line(refusal: Refusals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(refusal.folder)
    (refusal.folder / "lightning_logs").touch()
    assert Trainer(progress_bar=False, print_weights_summary=False, max_nb_epochs=1).fit(Honest()) == 1
    said = refusal.capsys.readouterr().err
    assert "lightning_logs isn't writable" in said
    assert said.endswith("so this run writes no files  [no-files]\n")
    assert said.count("\n") == 1


def test_a_failed_start_makes_no_folder_of_checkpoints(refusal: Refusals) -> None:
    keep = ModelCheckpoint(refusal.folder / "kept")
    model = planted(configure_optimizers=lambda self: None)
    refusal.before_training(model, ("configure_optimizers",), checkpoint_callback=keep)
    assert not (refusal.folder / "kept").exists()


def test_two_checkpoint_callbacks_may_not_share_their_files(refusal: Refusals) -> None:
    keepers = [ModelCheckpoint(refusal.folder), ModelCheckpoint(refusal.folder, save_best_only=True)]
    refusal.before_training(Honest(), ("write the same files", str(refusal.folder), "prefix"), callbacks=keepers)


@pytest.mark.parametrize("words", [["--max_nb_epochs", "0"], ["--gpus", "x"], ["--lr_scheduler_milestones", "a"]])
def test_values_of_the_command_line_are_checked_too(refusal: Refusals, words: list[str]) -> None:
    parser = ArgumentParser(add_help=False)
    ptl.add_default_args(parser, str(refusal.folder))
    hparams = parser.parse_args(words)
    refusal.of(lambda: Trainer.from_args(hparams, progress_bar=False).fit(Honest()), (words[0][2:], words[1]))


def test_numbers_of_numpy_are_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = trainer_in(
        tmp_path, max_nb_epochs=np.int64(2), gradient_clip=np.float32(0.5), fast_dev_run=np.bool_(True)
    )
    trainer.fit(Honest())
    assert (type(trainer.config.max_nb_epochs), trainer.config.gradient_clip) == (int, 0.5)
    assert capsys.readouterr() == ("", "")
