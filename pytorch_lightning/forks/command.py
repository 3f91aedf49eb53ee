"""``python -m pytorch_lightning fork RUN BATCH --script train.py --set lr=0.001``: a run from a batch of another on.

The fork is trained from the nearest save at or before BATCH with the settings of its parent up to that batch; then the
edits are made, and it goes its own way. Its folder lies beside that of the parent. The model is built from a class in
``train.py`` (``--module package.module`` imports one instead) and the arguments in the save; a run never decides which
code runs.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.errors import LightningError, MisconfigurationException
from pytorch_lightning.forks.child import hparams_of, make_fork, options_in
from pytorch_lightning.forks.names import edits_of
from pytorch_lightning.forks.parent import Parent, parent_at
from pytorch_lightning.launchers.environment import Environment, read_environment
from pytorch_lightning.launchers.job import read_job
from pytorch_lightning.launchers.signals import RUN_AGAIN, Stopped
from pytorch_lightning.launchers.spawned import run_in_processes
from pytorch_lightning.replay import build_module, import_code
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.run import record
from pytorch_lightning.samples import model_of, newest_save
from pytorch_lightning.trainer.trainer import Trainer


def main(words: list[str] | None = None) -> int:
    """The command line; returns the exit status. What can't be done exactly is one line on stderr."""
    try:
        return fork(sys.argv[1:] if words is None else words)
    except LightningError as error:
        if read_environment(os.environ) is not None:  # the other processes are to end too
            raise
        print(error, file=sys.stderr)
        return 1


def fork(words: list[str]) -> int:
    """Make a fork, or find it, and train it to its end; returns the exit status."""
    parser = parser_of_fork()
    given = parser.parse_args(words)
    place = read_environment(os.environ)
    parent = parent_at(given.run, given.batch, parser)
    make = model_of(import_code(given.script, given.module), parent.folder.parent.name, given.model)

    def build(saved: Mapping[str, Any]) -> LightningModule:
        return build_module({"hparams_is_dict": False, **saved}, make)

    folder = existing(parent, about_of(parent, given), given) if given.resume else None
    if folder is None:
        refuse_several(place)
        folder = start(parent, given, build, is_class=isinstance(make, type))
    if given.make_only:
        return 0
    nb = parent.nb_processes if given.nb_processes is None else given.nb_processes
    if place is None and nb > 1:
        return train_in_processes(words, nb)
    return train(parent, folder, build, place)


def parser_of_fork() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(
        "python -m pytorch_lightning fork", description="Train a run once more, otherwise from a batch on."
    )
    parser.add_argument("run", help="the folder of the parent, such as .../version_0")
    parser.add_argument("batch", type=int, help="the first batch that is trained otherwise, a global_step")
    code = parser.add_mutually_exclusive_group(required=True)
    code.add_argument("--script", help="the file that defines the model's class; it is run as if it were imported")
    code.add_argument("--module", help="the module that defines the model's class, package.module")
    parser.add_argument("--model", help="the name in it of another class, or of a function that returns the model")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", action="extend",
        help="an option of the Trainer, a hyperparameter of the model, or a setting of parameter groups, such as lr",
    )  # fmt: skip
    parser.add_argument(
        "--skip_batches", nargs="+", default=[], metavar="A:B", action="extend",
        help="leave out the batches numbered A to B-1",
    )  # fmt: skip
    parser.add_argument("--default_save_path", help="the folder for the fork (default: that of the parent)")
    parser.add_argument("--resume", action="store_true", help="resume the newest such fork, if there is one")
    parser.add_argument("--make_only", action="store_true", help="make the fork, and don't train it further")
    parser.add_argument("--nb_processes", type=int, help="those that train the fork (default: as its parent)")
    return parser


def pairs_in(words: list[str]) -> dict[str, str]:
    """The texts of ``--set`` by name.

    >>> pairs_in(["lr=0.1", "name=a=b"])
    {'lr': '0.1', 'name': 'a=b'}
    """
    pairs = [word.partition("=") for word in words]
    wrong = next((word for word, (_, sign, _) in zip(words, pairs, strict=True) if not sign), None)
    if wrong is not None:
        raise MisconfigurationException(f"--set {wrong}: pass NAME=VALUE, such as lr=0.001.")
    return {name: text for name, _, text in pairs}


def ranges_in(words: list[str], batch: int) -> list[tuple[int, int]]:
    """The ranges of ``--skip_batches``.

    >>> ranges_in(["5:7", "9:10"], 5)
    [(5, 7), (9, 10)]
    """
    found = []
    for word in words:
        first, _, end = word.partition(":")
        if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
            raise MisconfigurationException(f"--skip_batches {word}: pass FIRST:END, such as 20:30 for ten batches.")
        if int(first) < batch:
            raise MisconfigurationException(
                f"--skip_batches {word}: the fork is its parent before batch {batch}. Pass {first} as BATCH, or skip"
                f" batches from {batch} on."
            )
        found.append((int(first), int(end)))
    return found


def about_of(parent: Parent, given: argparse.Namespace) -> dict[str, Any]:
    """What ``run.json`` says of the fork; the parent is said as seen from it."""
    home = home_of(parent, given)
    return {
        "parent": os.path.relpath(parent.folder.resolve(), home.resolve() / "child"),
        "batch": given.batch,
        "set": pairs_in(given.set),
        "skip_batches": [f"{first}:{end}" for first, end in ranges_in(given.skip_batches, given.batch)],
    }


def home_of(parent: Parent, given: argparse.Namespace) -> Path:
    """Where the fork's folder goes."""
    path = given.default_save_path
    return parent.folder.parent if path is None else Path(path).absolute() / parent.folder.parent.name


def existing(parent: Parent, about: dict[str, Any], given: argparse.Namespace) -> Path | None:
    """The folder of the newest fork that is the same."""
    home = home_of(parent, given)
    folders = [path for path in home.glob("version_*") if path.name[8:].isdecimal()]
    newest_first = sorted(folders, key=lambda path: int(path.name[8:]), reverse=True)
    return next((path for path in newest_first if record.fork_in(record.read(path)) == about), None)


def start(parent: Parent, given: argparse.Namespace, build: Any, *, is_class: bool) -> Path:
    """Make the fork, and say what it is."""
    skip, hparams = ranges_in(given.skip_batches, given.batch), hparams_of(parent.saved)
    edits = edits_of(pairs_in(given.set), hparams, parent.saved)
    if not is_class and set(edits.hparams) - set(edits.options):
        raise MisconfigurationException(
            f"{given.model} returns a model of its own making, which no hyperparameter reaches. Name the class instead."
        )
    about, home = about_of(parent, given), home_of(parent, given)
    folder, said = make_fork(parent, given.batch, edits, skip, home, build, about)
    here, of = (os.path.relpath(path) for path in (folder, parent.folder))
    print(f"{here} is a fork of {of} at batch {given.batch}, from its save at {parent.saved['global_step']}")
    for line in said:
        print(f"  {line}")
    if parent.left_out:
        print(f"  left out, since a folder holds no objects: {', '.join(parent.left_out)}")
    sys.stdout.flush()
    return folder


def refuse_several(place: Environment | None) -> None:
    """Raises where several processes would make a fork."""
    if place is not None and place.nb > 1:
        raise MisconfigurationException(
            f"{place.launcher} started {place.nb} processes, and a fork is made by one. Run the same command alone with"
            " --make_only, and then this one with --resume; or pass --nb_processes."
        )


def train_in_processes(words: list[str], nb: int) -> int:
    """Train the newest fork of these ``words`` to its end, in ``nb`` new processes."""
    code = run_in_processes(resume_in_process, {"words": [*words, "--resume"]}, nb)
    if code == RUN_AGAIN:
        raise Stopped(code)
    return int(code)


def resume_in_process(path: str) -> int:
    """What a new process does; returns the exit status."""
    try:
        return fork(read_job(path)["words"])
    except Stopped as end:  # all of them together
        return int(str(end.code))


def train(parent: Parent, folder: Path, build: Any, place: Environment | None) -> int:
    """Train the fork in ``folder`` to its end, by this process alone or at its ``place`` among several."""
    from pytorch_lightning.checkpoints.checkpoint import upgrade
    from pytorch_lightning.checkpoints.sharded import read_any

    path = newest_save(str(folder))
    saved = upgrade(read_any(path), path)
    torch.set_num_threads(int(saved["parts"]["versions"].get("threads", torch.get_num_threads())))
    module = build(saved)
    options = {**parent.options, **saved["parts"]["fork"]["options"]}
    options["nb_processes"] = 1 if place is None else place.nb_local
    try:
        done = Trainer(**options_in(folder, options, type(module).__name__)).fit(module)
    except Stopped:
        if place is not None and place.rank > 0:
            raise
        print("resume the fork: run its command again with --resume", file=sys.stderr)
        raise
    return 0 if done else 130
