"""Files of options: ``--config``, ``--print_config``, and ``options.yaml`` of a run."""

import argparse
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytorch_lightning import Trainer, add_default_args
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.options.option_files import text_of
from tests.command_line.test_arguments import GIVEN

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import HyperOptArgumentParser


class Shade(Enum):
    dark = 1
    light = 2


def new_parser(make: Any = argparse.ArgumentParser, **defaults: Any) -> Any:
    """As in a program of 2019: the model's options come after ours, in a parser made from ours."""
    parent = make(add_help=False)
    add_default_args(parent, "/root")
    parser = make(parents=[parent])
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--note", default="")
    parser.set_defaults(**defaults)
    return parser


def own_parser() -> Any:
    """With options of all kinds that argparse has."""
    parser = new_parser()
    parser.add_argument("file", nargs="?")
    parser.add_argument("--widths", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=lambda text: [2 * int(word) for word in text.split(",")], default=[1])
    parser.add_argument("--twice", type=lambda text: 2 * int(text), default=4)
    parser.add_argument("--shade", type=Shade.__getitem__, default=Shade.dark)
    parser.add_argument("--tag", action="append")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    parser.add_argument("--flag", action="store_true")
    parser.add_argument("--no_bias", dest="bias", action="store_false")
    parser.add_argument("--cache", action=argparse.BooleanOptionalAction)
    parser.add_argument("--old_bool", type=bool, default=True)
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--kind", choices=["a", "b"])
    parser.add_argument("--path", type=Path)
    return parser


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "c.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def error_of(capsys: pytest.CaptureFixture[str], parser: Any, *words: str) -> str:
    with pytest.raises(SystemExit) as left:
        parser.parse_args([*words])
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def plain(hparams: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(hparams).items() if not callable(value)}


MAKERS = [argparse.ArgumentParser, HyperOptArgumentParser]


@pytest.mark.parametrize("make", MAKERS)
def test_flags_win_over_the_file_and_the_file_over_defaults(make: Any, write: Any) -> None:
    path = write("lr: 0.2\nmax_nb_epochs: 3\nseed: 5\nprogress_bar: off\n")
    parser = new_parser(make, min_nb_epochs=2, seed=9)
    hparams = parser.parse_args(["--max_nb_epochs", "1000", "--config", path, "--lr=0.3"])
    assert (hparams.max_nb_epochs, hparams.lr, hparams.seed) == (1000, 0.3, 5)  # also one that gives the default
    assert (hparams.min_nb_epochs, hparams.progress_bar, hparams.note) == (2, False, "")
    assert not hasattr(hparams, "config")
    assert not hasattr(hparams, "print_config")
    later = write("lr: 0.7", "later.yaml")
    assert parser.parse_args(["--config", path, f"--config={later}"]).lr == 0.7
    assert parser.parse_args([]).lr == 0.1  # nothing of one call stays for the next


@pytest.mark.parametrize("make", MAKERS)
def test_each_option_of_the_trainer_is_read_as_on_the_command_line(make: Any, write: Any) -> None:
    parser = new_parser(make)
    for name, (words, value) in GIVEN.items():
        hparams = parser.parse_args(["--config", write(f"{name}: {words[0] if words else 'true'}")])
        expected = parser.parse_args([f"--{name}", *words])
        got = getattr(hparams, name)
        assert (got, type(got)) == (value, type(getattr(expected, name))), name
        assert plain(hparams) == plain(expected)


def test_lists_dicts_and_numbers_are_the_trainers(write: Any) -> None:
    text = "silence: [a, b]\nlr_scheduler_milestones: [10, 20]\naccumulate_grad_batches: {1: 2, 5: 8}\nmax_time: null"
    config = Trainer.from_args(new_parser().parse_args(["--config", write(text)])).config
    assert (config.silence, config.lr_scheduler_milestones) == (("a", "b"), (10, 20))
    assert (config.accumulate_grad_batches, config.max_time) == ({1: 2, 5: 8}, None)
    assert new_parser().parse_args(["--config", write("gpus: 2")]).gpus == 2
    assert new_parser().parse_args(["--config", write("gpus: '2'")]).gpus == "2"
    assert new_parser().parse_args(["--config", write("gpus: [0, 2]")]).gpus == "0,2"
    assert new_parser().parse_args(["--config", write("silence: []")]).silence == ()


def test_a_word_stays_the_word_that_it_is(write: Any) -> None:
    """YAML makes a bool of ``no``, a float of ``1.10``, a date of ``2024-01-01``, and a word of ``1e-5``."""
    for word in ("no", "1.10", "2024-01-01", "1_000", "null_", "0x10", "012"):
        assert new_parser().parse_args(["--config", write(f"note: {word}")]).note == word
        assert new_parser().parse_args(["--config", write(f"note: '{word}'")]).note == word
    assert new_parser().parse_args(["--config", write("lr: 1e-5")]).lr == 1e-5
    assert new_parser().parse_args(["--config", write("base: &b\nlr: &b 0.25".replace("base: &b\n", ""))]).lr == 0.25
    hparams = new_parser().parse_args(["--config", write("")])
    assert plain(hparams) == plain(new_parser().parse_args([]))


OWN = [
    ("widths: [3, -4]", ["--widths", "3", "-4"]),
    ("twice: 5", ["--twice", "5"]),
    ("shade: light", ["--shade", "light"]),
    ("tag: [a, b]", ["--tag", "a", "--tag", "b"]),
    ("tag: a", ["--tag", "a"]),
    ("verbose: 2", ["-vv"]),
    ("flag: true", ["--flag"]),
    ("flag: false", []),
    ("no_bias: true", ["--no_bias"]),
    ("no_bias: false", []),
    ("bias: false", ["--no_bias"]),
    ("bias: true", []),
    ("cache: false", ["--no-cache"]),
    ("cache: true", ["--cache"]),
    ("old_bool: false", ["--old_bool", ""]),
    ("learning-rate: 2", ["--learning-rate", "2"]),
    ("learning_rate: 2", ["--learning-rate", "2"]),
    ("kind: b", ["--kind", "b"]),
    ("path: /a/b", ["--path", "/a/b"]),
    ("gradient_clip_val: 2", ["--gradient_clip_val", "2"]),
    ("overfit: 0.5", ["--overfit", "0.5"]),
    ("disable_early_stop: true", ["--disable_early_stop"]),
    ("note: -x", ["--note=-x"]),
]


@pytest.mark.parametrize(("entry", "words"), OWN)
def test_a_programs_own_options(entry: str, words: list[str], write: Any) -> None:
    path = write(entry)
    assert plain(own_parser().parse_args(["--config", path])) == plain(own_parser().parse_args(words))
    assert plain(own_parser().parse_args(["--config", path, "here"]))["file"] == "here"


@pytest.mark.parametrize(("entry", "words"), OWN)
def test_what_is_printed_recreates_what_holds(
    entry: str, words: list[str], write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = plain(own_parser().parse_args(words))
    with pytest.raises(SystemExit) as left:
        own_parser().parse_args([*words, "--print_config"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed).keys() >= {"lr", "max_nb_epochs", "widths"}
    assert plain(own_parser().parse_args(["--config", write(printed)])) == wanted


def test_a_required_option_may_come_from_the_file(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    parser = new_parser()
    parser.add_argument("--data", required=True)
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--a", action="store_true")
    one.add_argument("--b", action="store_true")
    assert parser.parse_args(["--config", write("data: x\na: true")]).data == "x"
    assert "--data" in error_of(capsys, parser, "--a")
    assert "--a --b" in error_of(capsys, parser, "--data", "x")


def test_flags_replace_what_the_file_has_of_a_collecting_option(write: Any) -> None:
    path = write("tag: [a, b]\nverbose: 3")
    hparams = own_parser().parse_args(["--tag", "c", "--config", path])
    assert (hparams.tag, hparams.verbose) == (["c"], 3)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("lrr: 3", "line 1: there is no option 'lrr'. Did you mean 'lr'?"),
        ("lr: 1\nmax_nb_epoch: 3", "line 2: there is no option 'max_nb_epoch'. Did you mean 'max_nb_epochs'?"),
        ("limit_train_batches: 3", "no option 'limit_train_batches'. Write train_percent_check="),
        ("trainer: {max_nb_epochs: 3}", "Options aren't nested"),
        ("config: other.yaml", "'config' can't be in a file"),
        ("help: true", "'help' can't be in a file"),
        ("file: here", "'file' is positional"),
        ("lr: 1\nlr: 2", "'lr' is in it twice"),
        ("overfit: 0.1\noverfit_pct: 0.2", "'overfit_pct' is in it by two names, 'overfit_pct' the second"),
        ("- lr", "it must have one option a line"),
        ("lr: [", "isn't YAML"),
        ("lr: 1\n---\nlr: 2", "isn't YAML"),
        ("note: !!python/object/apply:os.system [ls]", "argument --note: it takes one value"),
        ("steps: !!python/object/apply:os.system [ls]", "isn't plain YAML"),
        ("lr: [1]", "argument --lr: it takes one value, received a sequence"),
        ("widths: 3", "argument --widths: it takes a list of values"),
        ("widths: []", "argument --widths: expected at least one argument"),
        ("tag: {a: b}", "argument --tag"),
        ("compile: {mode: x}", "argument --compile: it takes no names"),
        ("old_bool: perhaps", "argument --old_bool: expected true or false"),
        ("flag: 3", "argument --flag: expected true or false"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(
    entry: str, said: str, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(entry)
    error = error_of(capsys, own_parser(), "--config", path)
    assert said in error
    assert path in error


@pytest.mark.parametrize("name", ["max_nb_epochs", "lr", "kind", "use_amp", "widths", "twice"])
def test_a_wrong_value_has_the_error_of_the_command_line(
    name: str, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    value = "[x]" if name == "widths" else "x"
    wanted = error_of(capsys, own_parser(), f"--{name}", "x").partition("argument --")[2]
    assert error_of(capsys, own_parser(), "--config", write(f"{name}: {value}")).endswith(f"argument --{wanted}")
    assert wanted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config"], "expected one argument"),
        (["--config", "--lr", "3"], "expected one argument"),
        (["--config", "/no/such/file"], "No such file"),
        (["--config", "/"], "Is a directory"),
        (["--config=/no/such/file", "--lr", "3"], "No such file"),
    ],
)
def test_a_file_that_is_not_there(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in error_of(capsys, new_parser(), *words)


def test_without_pyyaml_it_says_what_to_install(
    write: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "pip install pyyaml" in error_of(capsys, new_parser(), "--config", write("lr: 1"))
    with pytest.raises(SystemExit, match="0"):
        new_parser().parse_args(["--print_config"])


def test_a_programs_own_config_option_is_its_own(write: Any) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="mine")
    add_default_args(parser, "/root")
    assert parser.parse_args(["--config", "/no/such"]).config == "/no/such"
    later = new_parser()
    later.add_argument("--config", default="mine")
    later.add_argument("--print_config", default=1, type=int)
    hparams = later.parse_args(["--config", "/no/such"])
    assert (hparams.config, hparams.print_config) == ("/no/such", 1)


def test_a_subcommand_reads_its_own_file(write: Any) -> None:
    parent = argparse.ArgumentParser(add_help=False)
    add_default_args(parent, "/root")
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fit", parents=[parent])
    hparams = parser.parse_args(["fit", "--config", write("max_nb_epochs: 3"), "--min_nb_epochs", "2"])
    assert (hparams.command, hparams.max_nb_epochs, hparams.min_nb_epochs) == ("fit", 3, 2)


def test_words_that_argparse_itself_reads_from_a_file(write: Any) -> None:
    parser = argparse.ArgumentParser(fromfile_prefix_chars="@")
    add_default_args(parser, "/root")
    words = write(f"--min_nb_epochs\n2\n--config\n{write('max_nb_epochs: 3')}", "words.txt")
    hparams = parser.parse_args([f"@{words}"])
    assert (hparams.min_nb_epochs, hparams.max_nb_epochs) == (2, 3)


def test_a_group_that_has_no_parser_is_refused(capsys: pytest.CaptureFixture[str], write: Any) -> None:
    parser = argparse.ArgumentParser()
    add_default_args(parser.add_argument_group("trainer"), "/root")  # type: ignore[arg-type]
    said = error_of(capsys, parser, "--config", write("max_nb_epochs: 3"))
    assert "pass the parser itself to add_default_args" in said


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(plain_values)
def test_text_is_yaml_of_the_same_value(value: Any) -> None:
    assert yaml.safe_load(f"name: {text_of(value)}") == {"name": value}


@pytest.mark.parametrize(
    "text", ["\ud83d\ude00", "😀", "\x85\u2028\x7f\x00", "a: b # c", "'\"\\", "\n\t ", "é", "\udc80"]
)
def test_any_text_goes_round(text: str, write: Any) -> None:
    made = text_of(text)
    assert "\n" not in made
    assert new_parser().parse_args(["--config", write(f"note: {made}")]).note == text


# ------------------------------------------------------------------ what is used like a list or a dict
class Row(Sequence[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


class Table(Mapping[Any, Any]):
    def __init__(self, **items: Any) -> None:
        self.entries = items

    def __getitem__(self, key: Any) -> Any:
        return self.entries[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def test_the_trainer_takes_what_is_used_like_a_list_or_a_dict(tmp_path: Path) -> None:
    callback = Callback()
    trainer = Trainer(
        callbacks=Row(callback),
        lr_scheduler_milestones=Row(10, 20),
        silence=Row("no-validation"),
        compile=Table(options=Table(a=Row(1))),
        gpus=Row(),
    )
    assert trainer.config.callbacks == (callback,)
    assert trainer.config.lr_scheduler_milestones == (10, 20)
    assert trainer.config.compile == {"options": {"a": [1]}}
    assert type(trainer.options["silence"]) is list
    assert Trainer.from_args(Table(max_nb_epochs=3, silence=Row("a"))).config.silence == ("a",)
