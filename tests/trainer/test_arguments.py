"""The command line, and back."""

import argparse
import warnings
from pathlib import Path
from typing import Any

import pytest

from pytorch_lightning import LightningModule, Trainer, add_default_args
from pytorch_lightning.trainer.config import LATER, OBJECT_OPTIONS
from pytorch_lightning.trainer.trainer import option_defaults

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import HyperOptArgumentParser

PARSERS = [argparse.ArgumentParser, lambda: HyperOptArgumentParser(strategy="grid_search", add_help=False)]


def parsed(make: Any, *words: str) -> Any:
    parser = make()
    add_default_args(parser, "/root")
    return parser.parse_args(list(words))


@pytest.mark.parametrize("make", PARSERS, ids=["argparse", "test-tube"])
def test_every_option_is_offered_with_the_trainers_default(make: Any) -> None:
    values = vars(parsed(make))
    for name, default in option_defaults().items():
        if name not in OBJECT_OPTIONS:
            assert values[name] == default, name
    assert Trainer.from_args(values).options == Trainer().options


GIVEN: dict[str, tuple[tuple[str, ...], Any]] = {
    "gradient_clip": (("0.5",), 0.5),
    "gradient_clip_algorithm": (("value",), "value"),
    "process_position": (("2",), 2),
    "current_gpu_name": (("a",), "a"),
    "gpus": (("0,1",), "0,1"),
    "progress_bar": (("false",), False),
    "overfit_pct": (("0.1",), 0.1),
    "track_grad_norm": (("2",), 2),
    "check_val_every_n_epoch": (("2",), 2),
    "fast_dev_run": ((), True),
    "accumulate_grad_batches": (("1:2,4:8",), "1:2,4:8"),
    "enable_early_stop": (("0",), False),
    "max_nb_epochs": (("7",), 7),
    "min_nb_epochs": (("3",), 3),
    "max_nb_steps": (("70",), 70),
    "max_time": (("1.5",), 1.5),
    "train_percent_check": (("0.5",), 0.5),
    "val_percent_check": (("0.5",), 0.5),
    "test_percent_check": (("0.5",), 0.5),
    "val_check_interval": (("5",), 5),
    "log_save_interval": (("5",), 5),
    "add_log_row_interval": (("5",), 5),
    "lr_scheduler_milestones": (("1,2",), "1,2"),
    "precision": (("bf16",), "bf16"),
    "use_amp": ((), True),
    "amp_level": (("O1",), "O1"),
    "print_nan_grads": ((), True),
    "stop_on_nan": (("no",), False),
    "print_weights_summary": (("off",), False),
    "nb_sanity_val_steps": (("0",), 0),
    "seed": (("5",), 5),
    "deterministic": (("yes",), True),
    "default_save_path": (("/x",), "/x"),
    "resume": (("/x.ckpt",), "/x.ckpt"),
    "resume_check": (("warn",), "warn"),
    "silence": (("a,b",), ("a", "b")),
    "compile": ((), True),
    "fused_optimizers": ((), True),
    "profile": ((), True),
}


def test_the_table_of_given_values_is_complete() -> None:
    assert set(GIVEN) | set(OBJECT_OPTIONS) | set(LATER) == set(option_defaults())


@pytest.mark.parametrize("make", PARSERS, ids=["argparse", "test-tube"])
@pytest.mark.parametrize("name", GIVEN)
def test_an_option_goes_round(make: Any, name: str) -> None:
    words, value = GIVEN[name]
    hparams = parsed(make, f"--{name}", *words)
    assert getattr(hparams, name) == value
    assert Trainer.from_args(hparams).options == {**Trainer().options, name: value}


def test_overrides_win_and_other_entries_are_left_alone() -> None:
    trainer = Trainer.from_args({"max_nb_epochs": 3, "hidden_dim": 5}, max_nb_epochs=4)
    assert trainer.max_nb_epochs == 4


def test_root_dir_is_where_a_run_keeps_its_files() -> None:
    hparams = parsed(argparse.ArgumentParser)
    assert (hparams.tt_save_path, hparams.model_save_path) == ("/root/test_tube_logs", "/root/model_weights")


def test_seed_and_model_names() -> None:
    parser = argparse.ArgumentParser()
    add_default_args(parser, "/root", rand_seed=7, possible_model_names=["a", "b"])
    hparams = parser.parse_args(["--model_name", "b"])
    assert (hparams.seed, hparams.random_seed, hparams.model_name) == (7, 7, "b")


@pytest.mark.parametrize("words", [("-en", "x"), ("--tt_name", "x")])
def test_the_short_names_of_2019(words: tuple[str, ...]) -> None:
    assert parsed(argparse.ArgumentParser, *words).tt_name == "x"


def test_windows_by_epoch_can_be_written_as_text() -> None:
    assert Trainer(accumulate_grad_batches="1:2,4:8").config.accumulate_grad_batches == {1: 2, 4: 8}
    assert Trainer(accumulate_grad_batches="3").config.accumulate_grad_batches == 3


def test_disable_early_stop() -> None:
    assert parsed(argparse.ArgumentParser, "--disable_early_stop").enable_early_stop is False


def test_an_option_that_the_parser_has_already_stays_as_it_is() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_nb_epochs", default=77, type=int)
    add_default_args(parser, "/root")
    assert parser.parse_args([]).max_nb_epochs == 77


@pytest.mark.parametrize("make", PARSERS, ids=["argparse", "test-tube"])
def test_a_models_own_option_of_the_same_name_wins(make: Any) -> None:
    class Model(LightningModule):
        @staticmethod
        def add_model_specific_args(parent_parser: Any, root_dir: str) -> Any:
            parser = HyperOptArgumentParser(strategy=parent_parser.strategy, parents=[parent_parser])
            parser.add_argument("--gradient_clip", default=5.0, type=float)
            return parser

    parent = argparse.ArgumentParser(add_help=False) if make is argparse.ArgumentParser else make()
    add_default_args(parent, "/root")
    assert Model.add_model_specific_args(parent, "/root").parse_args([]).gradient_clip == 5.0


def test_help_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(argparse.ArgumentParser, "--help")
    assert "--max_nb_epochs" in capsys.readouterr().out


def test_a_word_that_is_no_bool_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(argparse.ArgumentParser, "--use_amp", "perhaps")
    assert "expected true or false" in capsys.readouterr().err


def test_a_fit_from_the_command_line_is_the_fit_from_python(tmp_path: Path) -> None:
    from tests.trainer.recorder import QUIET, Recorder

    words = ["--max_nb_epochs", "2", "--gradient_clip", "0.5", "--accumulate_grad_batches", "3", "--seed", "4"]
    hparams = parsed(argparse.ArgumentParser, *words, "--default_save_path", str(tmp_path))
    quiet = {k: v for k, v in QUIET.items() if k != "seed"}
    by_line, by_hand = Recorder(), Recorder()
    Trainer.from_args(hparams, **quiet).fit(by_line)
    Trainer(
        max_nb_epochs=2, gradient_clip=0.5, accumulate_grad_batches=3, seed=4, default_save_path=tmp_path, **quiet
    ).fit(by_hand)
    assert by_line.weight.item() == by_hand.weight.item() != 0.0
