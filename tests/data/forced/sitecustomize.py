"""``pytest --auto-workers``: every Trainer has ``auto_nb_workers=True``, and the number of workers changes every two
batches, whatever they take. This folder is on PYTHONPATH then, so that python imports it in programs of tests, too.
"""

import importlib.util
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from typing import Any

OPTION = "--auto-workers"
EVERY = 2
"""Batches made by one number of workers."""
MOST = 2


def _patch_trainer(module: Any) -> None:
    module.Trainer.__init__.__kwdefaults__["auto_nb_workers"] = True


def force_tuner(module: Any) -> None:
    """Numbers take turns: all up to ``MOST``, and none only where the user asked for none."""
    init, kind = module.WorkerTuner.__init__, module.WorkerTuner

    def begin_unsettled(tuner: Any, *args: Any, **options: Any) -> None:
        init(tuner, *args, **options)
        tuner.settled, tuner._nb_asked = False, 0
        tuner._found = defaultdict(lambda: module.Measured(1.0, 1.0))
        tuner._turns = [nb for nb in (tuner.begun, 2, 1, 2) if nb or not tuner.begun]

    def next_turn(tuner: Any) -> int | None:
        if tuner.settled:  # something of the data changed
            return None
        tuner._nb_asked += 1
        nb_changes, rest = divmod(tuner._nb_asked, EVERY)
        nb = tuner._turns[nb_changes % len(tuner._turns)]
        return None if rest or nb == tuner.nb else nb

    kind.__init__, kind._choice, kind._settle = begin_unsettled, next_turn, lambda tuner: None
    module.CHECK_SHARE = 1e9  # a close look between any two batches
    module.cores_for = lambda nb_processes: MOST
    module.LEAST_SHARE_FREE = 0.0


def _patch_errors(module: Any) -> None:
    """Tests may count on what else is said."""
    say = module.Notices.say

    def say_others(notices: Any, code: str, *text: Any, **key: Any) -> None:
        if code not in ("auto-workers", "no-auto-workers"):
            say(notices, code, *text, **key)

    module.Notices.say = say_others


PATCHES = {
    "pytorch_lightning.errors": _patch_errors,
    "pytorch_lightning.trainer.trainer": _patch_trainer,
    "pytorch_lightning.data.worker_tuning": force_tuner,
}


class Patching:
    """Finds the modules of ``PATCHES`` where they are, and patches them when they have been run."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if name not in PATCHES:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)  # type: ignore[arg-type]
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_patch(module: Any) -> None:
            run(module)
            PATCHES[name](module)

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec


def force() -> None:
    """In this process, and in those that it starts."""
    folder = os.path.dirname(os.path.abspath(__file__))
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *(path for path in before if path and path != folder)])
    for name, patch in PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])
    sys.meta_path.insert(0, Patching())  # type: ignore[arg-type]


if __name__ == "sitecustomize":
    force()
