"""A run that is killed again and again, and what it has to end with."""

import csv
import hashlib
import json
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import warm
from tests.saves import every_save_written

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "plain": {"options": {"save_every_nb_batches": 3}},
    "windows": {"workers": 2, "options": {"save_every_nb_batches": 4, "accumulate_grad_batches": 3}},
    "validations": {"watched": True, "options": {"save_every_nb_batches": 2, "val_check_interval": 0.4}},
    "gan": {"gan": True, "workers": 2, "options": {"save_every_nb_batches": 5, "precision": "bf16"}},
    "template": {
        "template": True,
        "watched": True,
        "options": {"save_every_nb_batches": 4, "accumulate_grad_batches": 2, "val_check_interval": 0.5},
    },
}
"""What ``train`` makes of its run."""

SMALL = sorted(name for name in CONFIGURATIONS if name != "template")


class Result(NamedTuple):
    """All that must be the same, whatever happened on the way."""

    state: str
    """sha256 of the weights, buffers and the states of optimizers and schedules."""
    position: list[Any]
    rows: list[dict[str, str]]


def train(folder: str, configuration: dict[str, Any], model: Any = None) -> None:
    """The program: it resumes, as users' programs do. ``model`` replaces the configuration's."""
    import torch

    from pytorch_lightning import Trainer
    from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
    from tests.faults.models import Gan, Network

    torch.manual_seed(3)
    options: dict[str, Any] = {"nb_sanity_val_steps": 2, **configuration["options"]}
    if configuration.get("watched"):
        options["early_stop_callback"] = EarlyStopping("val_loss", patience=2, verbose=0)
        options["checkpoint_callback"] = ModelCheckpoint(f"{folder}/best", save_top_k=2)
    if configuration.get("template"):
        from tests.faults.template import Phase, Template

        model, options["callbacks"] = Template(), [Phase(f"{folder}/phase")]
    elif model is None:
        model = (Gan if configuration.get("gan") else Network)(configuration.get("workers", 0))
    trainer = Trainer(
        **{
            "seed": 5,
            "max_nb_epochs": 3,
            "default_save_path": folder,
            "add_log_row_interval": 2,
            "log_save_interval": 3,
            "progress_bar": False,
            "print_weights_summary": False,
            "silence": ("no-validation",),
            "resume": "auto",
            **options,
        }
    )
    with every_save_written():
        assert trainer.fit(model) == 1
    states = [model.state_dict(), *(o.state_dict() for o in [*trainer.optimizers, *trainer.lr_schedulers])]
    progress = trainer.progress
    assert progress is not None
    position = [progress.epoch, progress.global_step, progress.nb_optimizer_steps, progress.nb_validations]
    best = [(p.name, digest(torch.load(p)["state_dict"])) for p in sorted(Path(folder).glob("best/*"))]
    Path(folder, "end.json").write_text(
        json.dumps({"state": digest(states), "position": [*position, progress.stop_reason, best]})
    )


def train_changing(folder: str, made: dict[str, Any], cut: tuple[str, int] | None) -> None:
    """A program made by lot; see ``changing``."""
    from tests.faults.changing import train as train_made

    train_made(folder, made, cut)


def train_steered(folder: str, made: dict[str, Any], cut: tuple[str, int] | None) -> None:
    """A program made by lot; see ``steering``."""
    from tests.faults.steering import train as train_made

    train_made(folder, made, cut)


def train_logged(folder: str, made: dict[str, Any], cut: tuple[str, str, int] | None) -> None:
    """A program with several loggers; see ``logging_by_lot``."""
    from tests.faults.logging_by_lot import train as train_made

    train_made(folder, made, cut)


def train_manual(folder: str, configuration: dict[str, Any], name: str) -> None:
    """A model that makes its own steps; see ``steps/manual_models``."""
    from tests.steps import manual_models

    train(folder, configuration, getattr(manual_models, name)())


def train_with_worker_changes(folder: str, *how: Any) -> None:
    """Another number of workers every two batches; see ``equality/test_worker_changes``."""
    from tests.data.forced.sitecustomize import force

    force()
    from tests.equality.test_worker_changes import train_and_kill

    train_and_kill(Path(folder), *how)


def train_counted(folder: str, configuration: dict[str, Any]) -> None:
    """A model whose windows are so many samples; see ``equality/test_sample_windows``."""
    from tests.equality.test_sample_windows import Uneven

    train(folder, configuration, Uneven())


def train_certified(folder: str, described: dict[str, Any]) -> None:
    """A run that will be verified; see ``tests/certified.py``."""
    from tests.certified import train as train_described

    train_described(Path(folder), described)


def run_example(path: str, folder: str, *options: str) -> None:
    """A program, as if it were started in ``folder``."""
    os.chdir(folder)
    sys.argv = [path, *options]
    runpy.run_path(path, run_name="__main__")


def keep_weights(folder: str) -> None:
    """A fit of one epoch that writes to nothing but ``folder``, once."""
    from pytorch_lightning import Trainer
    from pytorch_lightning.callbacks import ModelCheckpoint
    from tests.faults.models import Network

    trainer = Trainer(
        experiment=False,
        checkpoint_callback=ModelCheckpoint(folder, prefix="a+"),
        max_nb_epochs=1,
        progress_bar=False,
        print_weights_summary=False,
    )
    assert trainer.fit(Network()) == 1


def digest(states: Any) -> str:
    """sha256 of nested plain data, tensors by their bytes."""
    import torch

    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(f"{value.dtype}{tuple(value.shape)}".encode())
            found.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                found.update(str(key).encode())
                add(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        elif not callable(value):
            found.update(repr(value).encode())

    add(states)
    return found.hexdigest()


def result_of(folder: Path) -> Result:
    """What a finished run left behind."""
    end = json.loads((folder / "end.json").read_text())
    versions = sorted(folder.glob("*/version_*"), key=lambda path: int(path.name[8:]))
    with open(versions[-1] / "metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "created_at" and k[:4] != "gpu_"} for row in csv.DictReader(file)]
    return Result(end["state"], end["position"], rows)


class Reference(NamedTuple):
    """A run that nothing disturbed."""

    result: Result
    seconds: float


def reference(folder: Path, name: str) -> Reference:
    warm.run(print, output=folder / "said")  # what processes are forked from is there from now on
    began = time.monotonic()
    ended = warm.run(train, str(folder), CONFIGURATIONS[name], output=folder / "said")
    assert ended.code == 0, ended.said
    return Reference(result_of(folder), time.monotonic() - began)


def run_to_the_end(folder: Path, name: str) -> Result:
    ended = warm.run(train, str(folder), CONFIGURATIONS[name], output=folder / "said")
    assert ended.code == 0, ended.said
    return result_of(folder)


def kill_at_point(folder: Path, name: str, fault: str) -> bool:
    """Run under ``FAULT=fault``. Whether the point was reached; the run is at its end where it wasn't."""
    ended = warm.run(train, str(folder), CONFIGURATIONS[name], output=folder / "said", fault=fault)
    assert ended.code in (0, -signal.SIGKILL, -signal.SIGXFSZ), f"{fault}: {ended.said}"
    return ended.code != 0


def kill_at_time(folder: Path, name: str, seconds: float) -> bool:
    """Run, and kill that after ``seconds``, wherever it is. Whether it was killed; else it was at its end."""
    process = warm.started(train, str(folder), CONFIGURATIONS[name], output=folder / "said")
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), (folder / "said").read_text()
    return process.exitcode != 0


POINTS = {
    "fit.begin": 1, "batch.run": 20, "update.begin": 20, "update.end": 20, "epoch.trained": 3, "epoch.end": 3,
    "validation.begin": 3, "validation.batch": 12, "validation.run": 3, "validation.end": 3, "rolling.save": 8,
    "writer.copy": 8, "writer.copied": 8, "writer.thread": 8, "write.begin": 8, "write.written": 8, "write.synced": 8,
    "write.renamed": 8, "write.durable": 8, "store.prune": 4, "store.replace": 2, "store.done": 8,
    "rows.rewritten": 3, "rows.columns": 8, "rows.written": 8, "fit.last": 1, "fit.end": 1,
}  # fmt: skip
"""Every point on the way of one process, and about how often it is visited."""


def kill_by_seed(folder: Path, name: str, seed: int, seconds: float) -> list[str]:
    """One to three kills that follow from ``seed``, at points and at times; says which."""
    draw, done = random.Random(seed), []
    for _ in range(draw.choice((1, 1, 2, 3))):
        if draw.random() < 0.5:
            point = draw.choice(sorted(POINTS))
            fault = f"{point}:{draw.randint(1, POINTS[point])}"
            reached = kill_at_point(folder, name, fault)
            done.append(fault if reached else f"{fault}, not reached")
        else:
            after = draw.uniform(0.1, 1.0) * seconds
            kill_at_time(folder, name, after)
            done.append(f"after {after:.3f} s")
    return done
