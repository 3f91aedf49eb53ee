"""Options on the command line, derived from the Trainer's signature."""

import argparse
import os
from argparse import ArgumentParser, Namespace, _ActionsContainer
from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning.options.config import OBJECT_OPTIONS, options
from pytorch_lightning.options.meaning import ALIASES
from pytorch_lightning.options.words import Words, boolean, gathering, optional, switch
from pytorch_lightning.trainer.trainer import option_defaults

RUN_OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    ("early_stop_metric", "val_acc", str, "the metric that early stopping watches"),
    ("early_stop_mode", "auto", str, "min, max or auto"),
    ("early_stop_patience", 3, int, "checks without a gain"),
    ("model_save_path", "{root}/model_weights", str, "the folder for checkpoints"),
    ("model_save_monitor_value", "val_acc", str, "the metric that decides what the best checkpoint is"),
    ("model_save_monitor_mode", "auto", str, "min, max or auto"),
    ("model_load_weights_path", None, optional(str), "a checkpoint to start from"),
    ("tt_name", "default", str, "the name of the test-tube experiment"),
    ("tt_description", "", str, "its description"),
    ("tt_save_path", "{root}/test_tube_logs", str, "the folder for its files"),
    ("single_run", False, boolean, "run once, without a search"),
    ("single_run_gpu", False, boolean, "run once, on a GPU"),
    ("nb_hopt_trials", 1, int, "trials of a hyperparameter search"),
    ("log_stdout", False, boolean, "keep what is printed"),
    ("default_tensor_type", "torch.FloatTensor", str, "accepted for programs that read it"),
    ("per_experiment_nb_gpus", 1, int, "GPUs of one trial"),
    ("on_cluster", False, boolean, "run on a cluster"),
    ("eval_test_set", False, boolean, "test after training"),
    ("interactive", False, boolean, "run here, in one process"),
    ("debug", False, boolean, "keep nothing of the experiment"),
    ("local", False, boolean, "run on this machine"),
)
"""What programs of 2019 read from the command line beside the Trainer's own options."""


READ_ALIASES = ("overfit", "check_grad_nans", "enable_tqdm")
"""Other spellings of the Trainer's options that programs of 2019 read as well as give."""


def kind_of(name: str, default: Any) -> Callable[[str], Any]:
    """How the words of option ``name`` are read."""
    word = options()[name].word
    if word is not None:
        return word
    if isinstance(default, bool):
        return switch if default else boolean
    return type(default) if isinstance(default, (int, float)) else str


def add_default_args(
    parser: ArgumentParser,
    root_dir: str,
    rand_seed: int | None = None,
    possible_model_names: Sequence[str] | None = None,
    run_options: bool = True,
) -> None:
    """Give ``parser`` every option of the Trainer, with its default, and what programs of 2019 read beside them.

    ``root_dir`` is the folder under which a run keeps its files. ``rand_seed`` becomes the default of ``--seed``
    and ``--random_seed``; ``possible_model_names`` the choices of ``--model_name``. ``run_options=False`` leaves out
    what programs of 2019 read, so that a program that reads none of it refuses it. A bool may stand alone
    (``--fast_dev_run``) or with a value (``--progress_bar false``). An option that the parser has already stays as
    it is. A parser made from this one may add options of the same names, which then win.

    >>> from argparse import ArgumentParser
    >>> from pytorch_lightning import Trainer
    >>> parser = ArgumentParser()
    >>> add_default_args(parser, "runs", rand_seed=1)
    >>> hparams = parser.parse_args(["--max_nb_epochs", "3", "--gradient_clip", "0.5"])
    >>> trainer = Trainer.from_args(hparams, progress_bar=False)
    >>> trainer.max_nb_epochs, trainer.seed
    (3, 1)
    """
    if not hasattr(parser, "strategy"):  # a model may read it off any parser that it is given
        parser.strategy = "grid_search"  # type: ignore[attr-defined]
    for name, default in option_defaults().items():
        if name not in OBJECT_OPTIONS:
            value = rand_seed if name == "seed" and rand_seed is not None else default
            kind = kind_of(name, default)
            _add(parser, name, value, kind, text=options()[name].text)
            for alias in (alias for alias, meant in ALIASES.items() if meant == name):
                if alias in READ_ALIASES:
                    _add(parser, alias, value, kind, text=f"the same as --{name}")
                else:
                    _add(parser, alias, argparse.SUPPRESS, kind, text=f"the same as --{name}", dest=name)
    for name, default, kind, text in RUN_OPTIONS if run_options else ():
        value = default.format(root=str(root_dir).rstrip(os.sep)) if isinstance(default, str) else default
        _add(parser, name, value, kind, text=text)
    for short, name in (("-en", "tt_name"), ("-td", "tt_description")) if run_options else ():
        _add(parser, short, argparse.SUPPRESS, str, text=f"the same as --{name}", dest=name)
    _add(
        parser,
        "disable_early_stop",
        argparse.SUPPRESS,
        None,
        text="train on",
        nargs=0,
        const=False,
        dest="enable_early_stop",
    )
    if run_options:
        once = {"nargs": 0, "const": True, "dest": "single_run"}
        _add(parser, "enable_single_run", argparse.SUPPRESS, None, text="run once", **once)
    if possible_model_names:
        _add(parser, "model_name", "", str, text=f"one of {', '.join(possible_model_names)}")
    if rand_seed is not None:
        _add(parser, "random_seed", rand_seed, int, text="the seed")
    _add_files(parser)


def _add_files(parser: ArgumentParser) -> None:
    """``--config`` and ``--print_config``. The group leads from the first to each parser that it is put into."""
    from pytorch_lightning.options.option_files import CONFIG, PRINT

    if CONFIG not in parser._option_string_actions:
        text = "a file of options in YAML, 'max_nb_epochs: 5'; what is written here wins over it"
        parser.add_mutually_exclusive_group().add_argument(CONFIG, action=FileOption, metavar="FILE", help=text)
    if PRINT not in parser._option_string_actions:
        parser.add_argument(PRINT, action=FileOption, nargs=0, help="print such a file of what holds, and exit")


class YieldingOption(argparse.Action):
    """Stores a value, and gives way to a later option of the same name.

    argparse refuses such an option unless its parser was made with ``conflict_handler='resolve'``; a model makes
    its parser from ours with ``parents=[...]`` and needn't know which names are taken.
    """

    is_ours = True

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option_string: str | None = None) -> None:
        option = ALIASES.get(self.dest, self.dest)
        for name in (option, *READ_ALIASES):
            ours = isinstance(parser._option_string_actions.get(f"--{name}"), YieldingOption)
            if name == self.dest or (ours and option in (name, ALIASES.get(name))):
                setattr(namespace, name, self.const if self.nargs == 0 else values)

    @property
    def default(self) -> Any:
        """The value used if the flag isn't given; the parser's ``set_defaults`` may change it."""
        return self._default

    @default.setter
    def default(self, value: Any) -> None:
        self._default = Words(value) if isinstance(value, (tuple, list)) else value
        vars(self)["default"] = self._default  # where formatters of --help read it

    @property
    def container(self) -> Any:
        """The group of options that this one was put into last."""
        return self._container

    @container.setter
    def container(self, group: Any) -> None:
        self._container = group
        group.conflict_handler = "resolve"
        for flag in self.option_strings if isinstance(group, _ActionsContainer) else ():
            if flag.startswith(
                "--"
            ):  # a second match for whatever abbreviates it: --lr isn't --lr_scheduler_milestones
                group._option_string_actions[f"{flag} (written in full)"] = self


class FileOption(YieldingOption):
    """``--config`` or ``--print_config``: leaves nothing in the namespace. The parser takes it before it parses."""

    def __init__(self, option_strings: list[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, default=argparse.SUPPRESS, **more)

    def __call__(self, parser: Any, namespace: Namespace, values: Any, option_string: str | None = None) -> None:
        parser.error(f"argument {option_string}: pass the parser itself to add_default_args, and call parse_args")

    @property
    def container(self) -> Any:
        """As for the others; and the parser that it belongs to reads files from now on."""
        return self._container

    @container.setter
    def container(self, group: Any) -> None:
        from pytorch_lightning.options.option_files import read_files_too

        YieldingOption.container.__set__(self, group)  # type: ignore[attr-defined]
        for parser in (each._container for each in getattr(group, "_mutually_exclusive_groups", ())):
            if isinstance(parser, ArgumentParser):
                read_files_too(parser)


def _add(parser: ArgumentParser, name: str, default: Any, kind: Any, *, text: str = "", **more: Any) -> None:
    flag = name if name.startswith("-") else f"--{name}"
    if flag in parser._option_string_actions:
        return
    if kind in (boolean, switch, gathering):
        more.update(nargs="?", const=True)
    elif default == "" or name == "-td":
        more.update(nargs="?", const="")  # an empty value may be no word at all
    parser.add_argument(flag, action=YieldingOption, default=default, type=kind, help=text or None, **more)
