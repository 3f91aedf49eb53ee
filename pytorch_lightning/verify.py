"""``python -m pytorch_lightning verify RUN --script train.py``: do the saves of a run follow from its code and data?

The run was trained with ``certificate=True``. Its chain must be whole, and each save that is kept must be the one that
its line names. Then a model that is built from a class in ``train.py`` (``--module package.module`` imports one
instead) is trained from a save to the next one that is kept, and its weights and the state of its optimizers are
compared with those of that save, bit by bit: for 3 such intervals that are chosen at random, for ``--intervals N``, or
for ``--all``. Nothing of the run is written.

A run never decides which code runs: the class must be defined in the file or module that you name.
"""

import argparse
import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import torch

from pytorch_lightning import seeding
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.chain import NAME, read_chain
from pytorch_lightning.checkpoints.checkpoint import upgrade
from pytorch_lightning.checkpoints.digest import differences, digest, digests, trained_in
from pytorch_lightning.checkpoints.folders import open_folder
from pytorch_lightning.checkpoints.run_store import saves_in, step_of
from pytorch_lightning.checkpoints.sharded import read_any
from pytorch_lightning.checkpoints.snapshot import tensors_of
from pytorch_lightning.errors import LightningError, MisconfigurationException, one_line
from pytorch_lightning.replay import build_module, import_code
from pytorch_lightning.resume.certificate import is_line
from pytorch_lightning.resume.origin import changes, code_of, data_of, options_of, versions_of
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.samples import model_of
from pytorch_lightning.samples import options_of as options_in
from pytorch_lightning.trainer.replaying import Reached, options_of_replay
from pytorch_lightning.trainer.trainer import Trainer

NOT_PLACE = ("seconds", "stop_reason")
"""What of a fit's progress may be another where the state is the same."""
MOST_SHOWN = 3


class Differs(Exception):
    """What isn't as the certificate says."""


@dataclass(frozen=True)
class Kept:
    """A save that is kept, and its line: number ``place`` of the chain, from 0."""

    path: str
    line: Mapping[str, Any]
    place: int


def main(words: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0 where all that was compared agrees."""
    given, parser = _parsed(words)
    try:
        lines = read_chain(f"{given.run}/{NAME}", is_line)
        print(f"chain: {len(lines)} lines, whole")
        kept = kept_saves(given.run, lines)
        print(f"saves: {len(kept)} kept, each as its line says")
        intervals = chosen([*pairwise(kept)], given)
        retraining = Retraining(given, parser, kept, lines)
    except (LightningError, Differs) as error:
        print(f"differs: {error}" if isinstance(error, Differs) else error, file=sys.stderr)
        return 1
    agree = [said(begin, end, retraining) for begin, end in intervals]
    print(f"{sum(agree)} of {len(agree)} intervals agree")
    return 0 if all(agree) else 1


def _parsed(words: list[str] | None) -> tuple[Any, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(
        "python -m pytorch_lightning verify", description="Check the certificate of a run by training it again."
    )
    parser.add_argument("run", help="the folder of the run, such as .../version_0")
    code = parser.add_mutually_exclusive_group(required=True)
    code.add_argument("--script", help="the file that defines the model's class; it is run as if it were imported")
    code.add_argument("--module", help="the module that defines the model's class, package.module")
    parser.add_argument("--model", help="the name in it of another class, or of a function that returns the model")
    parser.add_argument("--callbacks", help="the name in it of a list of the run's callbacks, or of a function that"
                        " returns it")  # fmt: skip
    number = parser.add_mutually_exclusive_group()
    number.add_argument("--intervals", type=int, default=3, help="how many intervals are trained again (default: 3)")
    number.add_argument("--all", action="store_true", help="train all of them again")
    parser.add_argument("--seed", type=int, help="chooses the intervals (default: a new one, which is printed)")
    return parser.parse_args(words), parser


def kept_saves(run: str, lines: Sequence[Mapping[str, Any]]) -> list[Kept]:
    """The saves of the run, the oldest first. Raises ``Differs`` where one isn't that of a line, or the newest line has
    no save."""
    kept, folder = list[Kept](), f"{run}/checkpoints"
    for name in reversed(saves_in(open_folder(folder).names())):
        saved = read_any(f"{folder}/{name}")
        found = digests(saved) if isinstance(saved.get("parts"), dict) else None
        own = [(place, line) for place, line in enumerate(lines) if line.get("global_step") == step_of(name)]
        same = [(place, line) for place, line in own if line.get("sha256") == found]
        if not same:
            why = "its hash isn't that of its line" if own else f"there is no line of it in {NAME}"
            raise Differs(f"the save {name}: {why}")
        kept.append(Kept(f"{folder}/{name}", same[-1][1], same[-1][0]))
    if any(later.place <= earlier.place for earlier, later in pairwise(kept)):
        raise Differs("the lines of the saves have another order than the saves")
    if kept and kept[-1].place != len(lines) - 1:
        raise Differs(
            f"the last line of {NAME} is of global_step {lines[-1]['global_step']}, and the save that it names isn't"
            " there. The run was killed before it wrote that, or the line was added: resume the run, which goes on from"
            " its newest save"
        )
    if len(kept) < 2:
        raise MisconfigurationException(
            f"{folder} holds {len(kept)} saves, and training is compared from one save to the next. Train with"
            " certificate=True, keep_saves='spaced' and save_every_nb_batches."
        )
    return kept


def chosen(intervals: list[tuple[Kept, Kept]], given: Any) -> list[tuple[Kept, Kept]]:
    """The intervals to train again, in their order."""
    if given.all or given.intervals >= len(intervals):
        return intervals
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    places = sorted(random.Random(seed).sample(range(len(intervals)), max(1, given.intervals)))
    print(f"intervals: {len(places)} of {len(intervals)}, chosen by --seed {seed}")
    return [intervals[place] for place in places]


def said(begin: Kept, end: Kept, retraining: "Retraining") -> bool:
    """Print what was found of an interval; whether it agrees."""
    where = f"global_step {begin.line['global_step']} to {end.line['global_step']}"
    try:
        print(f"{where}: {retraining.compare(begin, end)}", flush=True)
        return True
    except Differs as error:
        print(f"{where}: differs: {error}", flush=True)
    except LightningError as error:
        print(f"{where}: can't be trained again: {error}", flush=True)
    except Exception as error:
        print(f"{where}: training raised {type(error).__name__}: {one_line(str(error), 300)}", flush=True)
    return False


class Retraining:
    """Trains intervals of a run again. ``given`` are the words of the command line."""

    def __init__(
        self, given: Any, parser: argparse.ArgumentParser, kept: Sequence[Kept], lines: Sequence[Mapping[str, Any]]
    ) -> None:
        self._lines = lines
        versions = kept[-1].line["versions"]
        on_gpu = versions["device"].startswith("cuda") and torch.cuda.is_available()
        here = {"gpus": 1 if on_gpu else None, "nb_gpu_nodes": 1, "fast_dev_run": False}
        self._device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        self._options, folder = options_in(kept[-1].path, parser, here)
        self._code = import_code(given.script, given.module)
        self._callbacks = given.callbacks
        self._make = model_of(self._code, os.path.basename(os.path.dirname(folder)), given.model)

    def compare(self, begin: Kept, end: Kept) -> str:
        """What was compared, where training from ``begin`` gives ``end``. Raises ``Differs``, or what training
        raises."""
        between = self._lines[begin.place + 1 : end.place + 1]
        self._refuse(begin, between)
        torch.set_num_threads(end.line["versions"]["threads"])
        saved = upgrade(read_any(begin.path), begin.path)
        code = self._compare_origin(saved, between)
        retrace = Retrace(begin, end)
        with tempfile.TemporaryDirectory(prefix="verify_") as scratch, contextlib.suppress(Reached):
            retrace.scratch = scratch
            options = options_of_replay(self._options, begin.path, end.line["global_step"], scratch)
            callbacks = [*self._callbacks_of_run(), retrace]
            Trainer(**{**options, "callbacks": callbacks, "certificate": True}).fit(self._build(saved))
            absent = f". {retrace.hint}" if retrace.hint else ""
            raise Differs(f"training ended at another place than that of the save{absent}")
        nb = end.line["global_step"] - begin.line["global_step"]
        return f"agrees: code ({', '.join(code)}), data ({nb} batches), options, versions, {retrace.nb_tensors} tensors"

    def _build(self, saved: dict[str, Any]) -> LightningModule:
        return build_module({"hparams_is_dict": False, **saved}, self._make)

    def _callbacks_of_run(self) -> list[Callback]:
        if self._callbacks is None:
            return []
        found = getattr(self._code, self._callbacks, None)
        found = found() if callable(found) else found
        if not isinstance(found, (list, tuple)):
            raise MisconfigurationException(
                f"--callbacks {self._callbacks} names no list, and no function that returns one. Name what is in the"
                " file or module."
            )
        return [*found]

    def _refuse(self, begin: Kept, between: Sequence[Mapping[str, Any]]) -> None:
        """Raises ``MisconfigurationException`` for what one process can't repeat, or what wasn't noted."""
        several, options = max(line["processes"] for line in between), between[-1]["options"]
        why = None
        if options.get("data_is_sharded") == "True" and several > 1:
            why = "with data_is_sharded=True each process had data of its own"
        elif several > 1 and between[-1]["virtual_ranks"] > 2 and options.get("exact_elastic") != "True":
            why = f"it ran on {several} processes without exact_elastic=True: one process sums gradients otherwise"
        elif any(line["since"] != begin.line["since"] for line in between):
            why = "a start without certificate=True trained a part of it, of which nothing was noted"
        if why is not None:
            raise MisconfigurationException(f"{why}.")

    def _compare_origin(self, saved: dict[str, Any], between: Sequence[Mapping[str, Any]]) -> list[str]:
        """Raises ``Differs`` where code, data, options or versions are others than in one of the lines. Returns the
        names of the files that were compared."""
        with seeding.preserved():
            module = self._build(saved)
            loader = module.tng_dataloader
            now: dict[str, dict[str, Any]] = {"code": code_of(module, loader), "data": data_of(loader)}
        chosen = self._options
        now["options"] = options_of(Trainer(**{**chosen, "distributed_backend": None, "nb_processes": 1}).config)
        own = {name: chosen[name] for name in ("seed", "virtual_ranks") if chosen[name] is not None}
        now["versions"] = versions_of(self._device)
        for kind in ("code", "data", "options", "versions"):
            for line in between:
                found = changes(line[kind], now[kind])
                if kind == "options":
                    found += changes({name: line[name] for name in own}, own)
                if found:
                    raise Differs(f"{kind}: {_list(found)}")
        return [*now["code"]]


class Retrace(Callback):
    """Compares a fit that begins with the save ``begin`` with the save ``end`` where it comes to the same place, and
    raises ``Differs``, or ``Reached`` where both are the same."""

    scratch: str
    hint = ""
    """What may be why training went elsewhere."""
    nb_tensors = 0

    def __init__(self, begin: Kept, end: Kept) -> None:
        self._begin, self._end = begin, end
        self._saved = read_any(end.path)
        self._place, self._step = place_of(self._saved), end.line["global_step"]

    def on_fit_start(self, run: Any) -> None:
        self._certificate = run.module.trainer._plan.rolling.certificate
        self._certificate.begin(self._begin.line)
        absent = [name for name in self._end.line["callbacks"] if name not in (*self._names(run), "Watchdog")]
        if absent:
            names = one_line(", ".join(map(str, absent)))
            self.hint = f"The run had callbacks that aren't here: {names}; pass --callbacks NAME"

    def _names(self, run: Any) -> list[str]:
        return [callback.state_name for callback in run.module.trainer.config.callbacks]

    def on_batch_end(self, run: Any) -> None:
        nb_done = run.progress.global_step + 1  # this one is counted next
        if nb_done > self._step:
            raise Differs(f"training never came to the place of the save. {self.hint}".rstrip())
        self._ask(run, nb_done)

    def on_validation_end(self, run: Any, metrics: Any) -> None:
        self._ask(run, run.progress.global_step)

    def on_epoch_end(self, run: Any) -> None:
        self._ask(run, run.progress.global_step)

    def on_fit_end(self, run: Any) -> None:
        if sys.exception() is None:
            self._ask(run, run.progress.global_step)

    def _ask(self, run: Any, nb_done: int) -> None:
        if nb_done == self._step:
            path = f"{self.scratch}/retrained.ckpt"
            run.save(path, on_saved=lambda: self._look(path))

    def _look(self, path: str) -> None:
        found = read_any(path)
        if place_of(found) != self._place:
            return
        own, noted = self._certificate.entry()["batches"], self._end.line["batches"]
        for rank in noted:
            mine = own.get(rank, [0, 0])
            if mine != noted[rank]:
                what = "the order of the samples" if mine[0] != noted[rank][0] else "what the batches hold"
                of_rank = f" of virtual rank {rank}" if len(noted) > 1 else ""
                raise Differs(f"data: {what}{of_rank} isn't what was trained on. {self.hint}".rstrip())
        trained, before = trained_in(found), trained_in(self._saved)
        if digest(trained) != self._end.line["sha256"].get("weights"):
            what = _list([*islice(differences(before, trained), 100)])
            raise Differs(f"weights: {what}. {self.hint}".rstrip())
        # on several processes each has attributes of its own, and what is kept says so
        alone = self._end.line["processes"] == self._begin.line["processes"] == 1
        state, was = state_in(found, alone), state_in(self._saved, alone)
        if digest(state) != digest(was):
            raise Differs(f"state: {_list([*islice(differences(was, state), 100)])}. {self.hint}".rstrip())
        self.nb_tensors = sum(1 for _ in tensors_of(trained))
        raise Reached

    def state_dict(self) -> dict[str, Any]:
        return {}  # its attributes aren't the run's

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def place_of(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Where in a fit a save was made."""
    return {name: value for name, value in saved["parts"]["progress"].items() if name not in NOT_PLACE}


def state_in(saved: Mapping[str, Any], alone: bool) -> dict[str, Any]:
    """What training goes on with, beside what was trained: attributes that changed, losses that schedules look at,
    gradients that wait for a step, the loss scale, what is trained, the seed, and batches that are left out."""
    parts = saved["parts"]
    attributes, data = parts.get("attributes", {}), parts["data"]
    return {
        "attributes": {name: attributes.get(name) for name in ("nodes", "values")} if alone else {},
        "losses": parts.get("metrics", {}).get("losses") if alone else [],
        "gradients": parts.get("gradients", {}).get("waiting"),
        **{name: parts.get(name) for name in ("precision", "epoch_schedules", "fork", "rewound")},
        "modes": parts.get("modes", {}).get("now"),
        **{name: data.get(name) for name in ("seed", "virtual_ranks", "order")},
    }


def _list(found: Sequence[str]) -> str:
    more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    return ", ".join(found[:MOST_SHOWN]) + more


if __name__ == "__main__":
    sys.exit(main())
