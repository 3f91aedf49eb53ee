"""What test-tube's Experiment needs before a model can use it without care."""

import os
import shutil
import socket
from pathlib import Path
from typing import Any

from pytorch_lightning.errors import Notices
from pytorch_lightning.loggers.metrics_file import whole_rows

# test-tube takes a scalar under a key with one of these in it for an image and fails in every later save()
IMAGE_MARKS = {"png_": "png-", "jpeg": "jp-eg", "jpg": "jp-g"}


def mend(experiment: Any, notices: Notices) -> Path | None:
    """Mend ``experiment`` where it is, once, and return its folder; None where it writes nothing.

    Its paths no longer follow whichever Experiment was made last. Its ``log`` takes tensors and numpy scalars, and
    leaves out what is no number, before a part of the row is written. In debug mode the methods of a SummaryWriter
    do nothing, as its others do. A notice reports one that turned itself off because it couldn't write.
    """
    log_dir = getattr(experiment, "log_dir", None)  # set by SummaryWriter, which a debug experiment doesn't begin
    folder = None if log_dir is None else Path(log_dir).parent
    if experiment.debug:
        if folder is not None:
            say_silent(experiment, notices)
        for name in dir(type(experiment)):
            if log_dir is None and (name.startswith("add_") or name in ("close", "flush")):
                setattr(experiment, name, _do_nothing)
        return None
    if "log" not in vars(experiment):
        own, data_path, log = (experiment.name, experiment.version), experiment.get_data_path, experiment.log
        experiment.get_data_path = lambda *which: str(folder) if which == own else data_path(*which)

        def log_numbers(metrics_dict: Any, *place: Any, **places: Any) -> None:
            log(_numbers(metrics_dict, notices), *place, **places)

        experiment.log = log_numbers
    return folder


def reopen(experiment: Any, version: int, step: int) -> Path | None:
    """Have ``experiment`` log to its run ``version``, which had trained ``step`` batches; returns that folder.

    An Experiment has made the folder of the next version before anybody could tell it. That is removed where it
    holds nothing yet.
    """
    from torch.utils.tensorboard import SummaryWriter

    unused = Path(experiment.log_dir).parent
    experiment.close()
    folder = unused.with_name(f"version_{version}")
    for name in ("get_data_path", "log"):
        vars(experiment).pop(name, None)
    own_tags = dict(experiment.tags)
    experiment.version = version
    SummaryWriter.__init__(experiment, log_dir=str(folder / "tf"), purge_step=step)
    mend(experiment, Notices())
    experiment.metrics, experiment.tags = read_rows(folder / "metrics.csv"), own_tags
    if _is_unused(unused):
        shutil.rmtree(unused)
    return folder


def turn_on_again(experiment: Any) -> None:
    """Undo what a race does: of two Experiments that are made at once and take the same number, the one that finds a
    file half written turns itself off."""
    folder = None if getattr(experiment, "log_dir", None) is None else Path(experiment.log_dir).parent
    if folder is not None and os.access(folder, os.W_OK):
        experiment.debug = False


def stand_aside(experiment: Any) -> None:
    """In a process that isn't the first of a run: from now on ``experiment`` takes every call and does nothing."""
    folder = mend(experiment, Notices())
    if folder is None:
        return
    experiment.close()
    experiment.own_folder = None if experiment.metrics else folder
    experiment.debug, experiment.log_dir = True, None
    mend(experiment, Notices())


def remove_own_folder(experiment: Any) -> None:
    """Remove the folder of one that stands aside, where nobody else has begun to write to it.

    Each Experiment begins an event file there, whose name says who: one of another process, or of an earlier run,
    means that the folder isn't this one's.
    """
    folder = vars(experiment).pop("own_folder", None)
    if folder is None:
        return
    events = list(folder.glob("tf/events.*"))
    mine = f".{socket.gethostname()}.{os.getpid()}."
    if events and all(mine in path.name for path in events) and _is_unused(folder):
        shutil.rmtree(folder)
    else:
        for path in events:
            if mine in path.name:
                path.unlink()


def _is_unused(folder: Path) -> bool:
    """Whether a run's folder holds no row and no checkpoint."""
    rows = folder / "metrics.csv"
    has_rows = rows.exists() and bool(read_rows(rows))
    return folder.is_dir() and not has_rows and not list(folder.rglob("*.ckpt"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv, numbers as numbers."""
    if not path.exists():
        return []
    return [{key: _value(text) for key, text in row.items() if text} for row in whole_rows(path)]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def say_silent(experiment: Any, notices: Notices) -> None:
    """Say that ``experiment`` has turned itself off."""
    notices.say(
        "experiment-silent",
        f"the test-tube experiment {experiment.name!r}, version {experiment.version}, can't write to its folder and"
        f" logs nothing any more. Check the folder {os.path.dirname(experiment.log_dir)}.",
    )


def _numbers(metrics: Any, notices: Notices) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in metrics.items():
        number = _numbers(value, notices) if isinstance(value, dict) else _number(value)
        if number is None:
            notices.say(f"not-logged-{key}", f"{key!r} isn't logged: it is a {type(value).__name__}, not one number")
        else:
            row[_safe(str(key), notices)] = number
    return row


def _number(value: Any) -> Any:
    try:
        return value.item() if hasattr(value, "item") else value if isinstance(value, (bool, int)) else float(value)
    except (TypeError, ValueError, RuntimeError):  # None, a list, a word; several numbers (numpy, torch)
        return None


def _safe(key: str, notices: Notices) -> str:
    safe = "created_at_" if key == "created_at" else key
    for mark, instead in IMAGE_MARKS.items():
        safe = safe.replace(mark, instead)
    if safe != key:
        notices.say(f"renamed-{key}", f"{key!r} is logged as {safe!r}: the name has a special meaning in test-tube")
    return safe


def _do_nothing(*_: Any, **__: Any) -> None:
    """What a debug experiment does."""
