"""The command line, and back."""

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

import pytorch_lightning
from pytorch_lightning import LightningModule, Trainer, add_default_args
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.options.config import OBJECT_OPTIONS
from pytorch_lightning.trainer.trainer import option_defaults

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import HyperOptArgumentParser

TEMPLATES = Path(pytorch_lightning.__file__).parent.parent / "examples" / "new_project_templates"
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
    "gradient_clip_norm_type": (("inf",), float("inf")),
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
    "accumulate_nb_samples": (("64",), 64),
    "val_every_nb_batches": (("7",), 7),
    "max_nb_tng_batches": (("7",), 7),
    "max_nb_val_batches": (("3",), 3),
    "max_nb_test_batches": (("4",), 4),
    "reload_dataloaders_every_nb_epochs": (("2",), 2),
    "log_save_interval": (("5",), 5),
    "add_log_row_interval": (("5",), 5),
    "lr_scheduler_milestones": (("1,2",), "1,2"),
    "precision": (("bf16",), "bf16"),
    "use_amp": ((), True),
    "amp_level": (("O1",), "O1"),
    "print_nan_grads": ((), True),
    "stop_on_nan": (("no",), False),
    "crash_bundle": (("no",), False),
    "print_weights_summary": (("off",), False),
    "nb_sanity_val_steps": (("0",), 0),
    "seed": (("5",), 5),
    "deterministic": (("yes",), True),
    "default_save_path": (("/x",), "/x"),
    "resume": (("/x.ckpt",), "/x.ckpt"),
    "resume_check": (("warn",), "warn"),
    "silence": (("a,b",), ("a", "b")),
    "nb_gpu_nodes": (("2",), 2),
    "nb_processes": (("2",), 2),
    "save_every_minutes": (("0.5",), 0.5),
    "keep_saves": (("spaced",), "spaced"),
    "certificate": ((), True),
    "save_every_nb_batches": (("7",), 7),
    "distributed_backend": (("ddp",), "ddp"),
    "virtual_ranks": (("4",), 4),
    "exact_elastic": ((), True),
    "gather_validation": (("rank0",), "rank0"),
    "data_is_sharded": (("true",), True),
    "auto_nb_workers": ((), True),
    "uneven_batches": (("repeat",), "repeat"),
    "process_timeout_minutes": (("2.5",), 2.5),
    "compile": ((), True),
    "fused_optimizers": ((), True),
    "profile": ((), True),
}


def test_the_table_of_given_values_is_complete() -> None:
    assert set(GIVEN) | set(OBJECT_OPTIONS) == set(option_defaults())


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


@pytest.mark.parametrize(
    ("entries", "changed"),
    [
        ({"max_epochs": 7, "lr": 1, "func": print, "options": {}, "aliases": 3}, {}),
        ({"gradient_clip_val": 0.5, "overfit": 0.1}, {"gradient_clip": 0.5, "overfit_pct": 0.1}),
        ({"gradient_clip_val": 0.5, "gradient_clip": 2.0}, {"gradient_clip": 2.0}),
        ({"logger": "a word", "experiment": "another", "callbacks": 3}, {}),
        ({3: "a key that is no word", "nb_nodes": 1, "max_nb_steps": 4}, {"max_nb_steps": 4}),
    ],
)
def test_options_are_picked_by_each_of_their_spellings_and_nothing_else_is(
    entries: dict[Any, Any], changed: dict[str, Any]
) -> None:
    expected = {**Trainer().options, **changed}
    assert Trainer.from_args(entries).options == expected
    if all(isinstance(name, str) for name in entries):
        assert Trainer.from_args(argparse.Namespace(**entries)).options == expected


def test_a_models_arguments_can_be_added_without_a_root_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = argparse.ArgumentParser(add_help=False)
    add_default_args(parent, "/root")
    for more in ((), ("/root",)):
        assert LightningModule.add_model_specific_args(parent, *more) is parent
    assert LightningModule.add_model_specific_args(parent, root_dir="/root") is parent
    monkeypatch.syspath_prepend(str(TEMPLATES))
    from lightning_module_template import LightningTemplateModel

    there = LightningTemplateModel.add_model_specific_args(parent).parse_args([])
    assert there.data_root == os.path.join(".", "mnist")
    assert LightningTemplateModel.add_model_specific_args(parent, "/root").parse_args([]).data_root == "/root/mnist"


def test_root_dir_is_where_a_run_keeps_its_files() -> None:
    hparams = parsed(argparse.ArgumentParser)
    assert (hparams.tt_save_path, hparams.model_save_path) == ("/root/test_tube_logs", "/root/model_weights")


def test_what_programs_of_2019_read_can_be_left_out() -> None:
    parser = argparse.ArgumentParser()
    add_default_args(parser, "/root", run_options=False)
    assert Trainer.from_args(parser.parse_args([])).options == Trainer().options
    for name in option_defaults().keys() - OBJECT_OPTIONS:
        assert f"--{name}" in parser.format_help()
    assert parser.parse_args(["--disable_early_stop"]).enable_early_stop is False
    for word in ("--tt_name", "-en", "-td", "--debug", "--enable_single_run", "--early_stop_patience"):
        with pytest.raises(SystemExit):
            parser.parse_args([word])


def test_seed_and_model_names() -> None:
    parser = argparse.ArgumentParser()
    add_default_args(parser, "/root", rand_seed=7, possible_model_names=["a", "b"])
    hparams = parser.parse_args(["--model_name", "b"])
    assert (hparams.seed, hparams.random_seed, hparams.model_name) == (7, 7, "b")


@pytest.mark.parametrize("words", [("-en", "x"), ("--tt_name", "x")])
def test_the_short_names_of_2019(words: tuple[str, ...]) -> None:
    assert parsed(argparse.ArgumentParser, *words).tt_name == "x"


NAMES_OF_2019 = """eval_test_set check_val_every_n_epoch accumulate_grad_batches max_nb_epochs min_nb_epochs
    train_percent_check val_percent_check test_percent_check val_check_interval log_save_interval add_log_row_interval
    enable_early_stop early_stop_metric early_stop_mode early_stop_patience gradient_clip track_grad_norm
    model_save_path model_save_monitor_value model_save_monitor_mode model_load_weights_path model_name tt_name
    tt_description tt_save_path single_run nb_hopt_trials log_stdout gpus single_run_gpu default_tensor_type use_amp
    check_grad_nans amp_level on_cluster fast_dev_run enable_tqdm overfit random_seed interactive debug local
    lr_scheduler_milestones per_experiment_nb_gpus"""


@pytest.mark.parametrize("make", PARSERS, ids=["argparse", "test-tube"])
def test_every_name_of_2019_is_offered_and_read(make: Any) -> None:
    parser = make()
    add_default_args(parser, "/root", rand_seed=3, possible_model_names=["a"])
    values = vars(parser.parse_args([]))
    assert set(NAMES_OF_2019.split()) <= set(values)
    # the metric that they watch by default gets better upwards
    stop = EarlyStopping(values["early_stop_metric"], mode=values["early_stop_mode"])
    keep = ModelCheckpoint("/x", values["model_save_monitor_value"], mode=values["model_save_monitor_mode"])
    assert (stop.monitor, stop.mode, keep.mode) == ("val_acc", "max", "max")


@pytest.mark.parametrize("make", PARSERS, ids=["argparse", "test-tube"])
@pytest.mark.parametrize(
    ("words", "option", "read"),
    [
        (("--overfit", "0.25"), ("overfit_pct", 0.25), ("overfit", 0.25)),
        (("--overfit_pct", "0.25"), ("overfit_pct", 0.25), ("overfit", 0.25)),
        (("--enable_tqdm", "false"), ("progress_bar", False), ("enable_tqdm", False)),
        (("--check_grad_nans",), ("print_nan_grads", True), ("check_grad_nans", True)),
        (("--show_progress_bar", "no"), ("progress_bar", False), ("enable_tqdm", False)),
        (("--gradient_clip_val", "2"), ("gradient_clip", 2), ("gradient_clip", 2)),
        (("--row_log_interval", "3"), ("add_log_row_interval", 3), ("add_log_row_interval", 3)),
        (("-td", "why"), None, ("tt_description", "why")),
    ],
)
def test_another_spelling_means_the_same(make: Any, words: Any, option: Any, read: Any) -> None:
    hparams = parsed(make, *words)
    assert getattr(hparams, read[0]) == read[1]
    changed = {} if option is None else {option[0]: option[1]}
    assert Trainer.from_args(hparams).options == {**Trainer().options, **changed}


def flags_of(parser: Any) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings if flag not in ("-h", "--help")]


def by_opt_range(parser: Any, flag: str) -> None:
    parser.opt_range(flag, default=5.0, type=float, low=1.0, high=9.0, nb_samples=3, tunable=True)


WAYS = {
    "add_argument": lambda parser, flag: parser.add_argument(flag, default=5.0, type=float),
    "opt_list": lambda parser, flag: parser.opt_list(flag, default=5.0, type=float, options=[5.0, 6.0], tunable=True),
    "opt_range": by_opt_range,
}


@pytest.mark.parametrize("where", ["child", "same parser"])
@pytest.mark.parametrize("way", WAYS)
def test_a_model_may_define_any_flag_of_ours_in_any_way(
    way: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = HyperOptArgumentParser(strategy="random_search", add_help=False)
    add_default_args(first, "/root", rand_seed=1, possible_model_names=["a"])
    flags = flags_of(first)
    assert len(flags) > 80
    for flag in flags:
        parent = HyperOptArgumentParser(strategy="random_search", add_help=where == "same parser")
        add_default_args(parent, "/root", rand_seed=1, possible_model_names=["a"])
        if where == "child":
            parser = HyperOptArgumentParser(strategy=parent.strategy, parents=[parent])
        else:
            parser = parent
        WAYS[way](parser, flag)
        name = flag.lstrip("-")
        assert getattr(parser.parse_args([]), name) == 5.0, flag
        assert getattr(parser.parse_args([flag, "6.0"]), name) == 6.0, flag
        if way != "add_argument":
            assert 1.0 <= getattr(next(parser.parse_args([]).trials(1)), name) <= 9.0, flag
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "--max_nb_epochs" in capsys.readouterr().out


def test_a_models_own_flag_is_not_touched_by_ours_of_the_same_meaning() -> None:
    parser = argparse.ArgumentParser()
    add_default_args(parser, "/root")
    parser.add_argument("--overfit", default="mine")
    parser.add_argument("--enable_early_stop", default=0, type=int)
    hparams = parser.parse_args(["--overfit_pct", "0.5"])
    assert (hparams.overfit, hparams.overfit_pct, hparams.enable_early_stop) == ("mine", 0.5, 0)


def test_windows_by_epoch_can_be_written_as_text() -> None:
    assert Trainer(accumulate_grad_batches="1:2,4:8").config.accumulate_grad_batches == {1: 2, 4: 8}
    assert Trainer(accumulate_grad_batches="3").config.accumulate_grad_batches == 3


def test_disable_early_stop() -> None:
    assert parsed(argparse.ArgumentParser, "--disable_early_stop").enable_early_stop is False


def test_an_option_that_the_parser_has_already_is_left_unchanged() -> None:
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
    with pytest.raises(SystemExit):
        parsed(argparse.ArgumentParser, "--gather_validation", "rank1")
    assert "expected true, false or rank0, received 'rank1'" in capsys.readouterr().err


def test_a_fit_from_the_command_line_is_the_fit_from_python(tmp_path: Path) -> None:
    from tests.recorder import QUIET, Recorder

    words = ["--max_nb_epochs", "2", "--gradient_clip", "0.5", "--accumulate_grad_batches", "3", "--seed", "4"]
    hparams = parsed(argparse.ArgumentParser, *words, "--default_save_path", str(tmp_path))
    quiet = {k: v for k, v in QUIET.items() if k != "seed"}
    by_line, by_hand = Recorder(), Recorder()
    Trainer.from_args(hparams, **quiet).fit(by_line)
    Trainer(
        max_nb_epochs=2, gradient_clip=0.5, accumulate_grad_batches=3, seed=4, default_save_path=tmp_path, **quiet
    ).fit(by_hand)
    assert by_line.weight.item() == by_hand.weight.item() != 0.0


@pytest.mark.parametrize("name", ["HelpFormatter", "ArgumentDefaultsHelpFormatter", "RawTextHelpFormatter"])
def test_any_formatter_shows_the_help_of_a_derived_parser(name: str) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_default_args(parser, "here")
    derived = argparse.ArgumentParser(parents=[parser], formatter_class=getattr(argparse, name))
    text = " ".join(derived.format_help().split())
    assert "--gradient_clip " in text
    assert ("(default: 1000)" in text) == (name == "ArgumentDefaultsHelpFormatter")


@pytest.mark.parametrize("words", [["--lr", "3"], ["--lr=3"], ["--max_nb_ep", "2"], ["--gpu", "1"]])
def test_an_option_is_never_abbreviated(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_default_args(parser, "here")
    for each in (parser, argparse.ArgumentParser(parents=[parser])):
        with pytest.raises(SystemExit):
            each.parse_args(words)
        assert "ambiguous option" in capsys.readouterr().err
        assert each.parse_args(["--lr_scheduler_milestones", "3"]).lr_scheduler_milestones is not None


def test_an_option_of_the_models_own_may_begin_as_one_of_ours() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_default_args(parser, "here")
    derived = argparse.ArgumentParser(parents=[parser])
    derived.add_argument("--lr", type=float)
    assert derived.parse_args(["--lr", "0.5"]).lr == 0.5
