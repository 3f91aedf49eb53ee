"""Each entry of a checkpoint is needed: a run that resumes without it ends otherwise, is refused, or reports it.

Nothing here knows what a checkpoint holds: the entries are those of real files, so a new one whose loss no test would
notice fails.
"""

import contextlib
import copy
import itertools
import os
import random
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader

from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import CheckpointError, LightningError
from tests.equality.models import BATCH_SIZE, Augmented, Validated
from tests.equality.test_loader_grid import Rotating, Stream
from tests.equality.test_resume import differences
from tests.recorder import quiet_trainer, rows_of

NB_EPOCHS, NB_BATCHES = 4, 5
CUTS = (8, 10)
"""Batches that are finished when a run is cut: in an epoch, and at the end of one. Validations are after the second and
the fourth batch of each."""

PARTS = (
    "attributes", "callbacks", "data", "epoch_schedules", "gradients", "groups", "loggers", "metrics", "modes",
    "precision", "progress", "random", "settings", "versions",
)  # fmt: skip
"""All but what rolling saves add."""

READ_ELSEWHERE = {
    "lr_schedulers/0/_last_lr": "equality/test_schedules.py: test_the_last_rates_are_there_after_a_resume",
    "parts/progress/validated_step": "trainer/test_counting.py: test_a_resumed_run_validates_after_the_same_batches",
    "parts/progress/seconds": "checkpoints/test_checkpoint.py: test_max_time_counts_over_restarts",
    "parts/run/id": "checkpoints/test_run_store.py: test_a_run_keeps_its_id_over_restarts_and_its_job",
    "parts/run/job": "checkpoints/test_run_store.py: test_a_run_keeps_its_id_over_restarts_and_its_job",
    "parts/callbacks/ModelCheckpoint val_loss 0/filepath": "resume/test_resume_auto.py: "
    "test_weights_in_the_folder_of_a_version_resume_in_that_version",
    "parts/settings/limits/max_nb_epochs": "resume/test_other_settings.py: "
    "test_a_raised_limit_that_a_schedule_cannot_reach_is_an_error_before_training",
    "parts/settings/limits/max_nb_steps": "resume/test_other_settings.py: "
    "test_a_raised_limit_that_a_schedule_cannot_reach_is_an_error_before_training",
    "parts/settings/schedules": "resume/test_other_settings.py: test_another_kind_of_optimizer_or_schedule_is_refused",
    "parts/data/order": "data/test_large_order.py: test_a_run_of_before_keeps_torchs_order",
    "parts/attributes/nb": "launchers/test_attributes_of_processes.py: "
    "test_fewer_processes_get_what_all_had_and_reduced_metrics",
    "parts/run/finished": "resume/test_resume_auto.py: test_a_run_without_a_log_keeps_its_saves_by_default",
}
"""Entries that no number of a run depends on, and the test that needs them."""
FOR_READERS = {"epoch", "global_step", "hparams", "library", "format"} | {
    # a resume takes the best of what is kept
    "parts/callbacks/ModelCheckpoint val_loss 0/best",
    "parts/callbacks/ModelCheckpoint val_loss 0/best_path",
}
"""What a resume takes from the parts, or doesn't need."""


class Watching(Callback):
    """Keeps all that a callback may see, and where."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def note(self, run: Any, hook: str) -> None:
        place = run.progress.epoch, run.progress.batch_nb, run.progress.global_step
        self.seen.append([hook, *place, sorted(run.metrics.all().items()), run.metrics.epoch_loss])

    def on_epoch_start(self, run: Any) -> None:
        self.note(run, "epoch start")

    def on_batch_start(self, run: Any, data_batch: Any) -> None:
        self.note(run, "batch start")

    def on_epoch_end(self, run: Any) -> None:
        self.note(run, "epoch end")

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


class CutAt(Callback):
    """Ctrl-C in the last batch before the cut."""

    def __init__(self, nb_batches: int) -> None:
        self.nb_batches = nb_batches

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step + 1 == self.nb_batches:
            os.kill(os.getpid(), signal.SIGINT)


class Scaled(Validated):
    """Scaled gradients, a loss that isn't finite, a step and an epoch schedule, dropout, batch normalization, hooks
    that draw, and a sampler with a state."""

    def __init__(self) -> None:
        super().__init__(norm=True, dropout=0.3)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = self.loss(data_batch)
        return {"loss": loss * (float("inf") if self.global_step == 1 else 1.0), "prog": {"shown": loss}}

    def on_epoch_end(self) -> None:
        drawn = float(torch.rand(())) + float(np.random.rand()) + random.random()
        with torch.no_grad():
            self.layers[0].bias.add_(0.01 * drawn)

    def configure_optimizers(self) -> Any:
        first = Adam(self.layers[0].parameters(), 0.02)
        rest = [p for layer in self.layers[1:] for p in layer.parameters()]
        second = SGD(rest, 0.1, momentum=0.9)
        cycle = OneCycleLR(first, 0.05, total_steps=NB_EPOCHS * NB_BATCHES)
        plateau = ReduceLROnPlateau(second, factor=0.5, patience=0, threshold=0.3)
        return [first, second], [{"scheduler": cycle, "interval": "step"}, plateau]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Augmented(), batch_size=BATCH_SIZE, sampler=Rotating())


class Waiting(Scaled):
    """Steps after each third batch only, so that gradients wait; the data are shuffled."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch)}

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        if self.global_step % 3 == optimizer_i:
            optimizer.step()

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Augmented(), batch_size=BATCH_SIZE, shuffle=True)


class Streamed(Scaled):
    """Data without indices, whose order depends on the number of workers."""

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Stream(), batch_size=BATCH_SIZE)


PRECISIONS = {Scaled: "16", Waiting: "32", Streamed: "16"}


class Ending(NamedTuple):
    checkpoint: Any
    rows: list[dict[str, str]]
    files: dict[str, int]
    """The files that are kept, and the batches before each."""
    said: str


def run(folder: Path, kind: type[Scaled], capsys: Any, cut: int | None = None) -> Ending | None:
    """Train in ``folder``, or go on there; None where it was cut."""
    seed = 8 if folder.exists() else 7  # another process has other streams
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    trainer = quiet_trainer(
        folder,
        max_nb_epochs=NB_EPOCHS,
        precision=PRECISIONS[kind],
        early_stop_callback=EarlyStopping(patience=5, min_delta=0.05, every="validation"),
        checkpoint_callback=ModelCheckpoint(folder / "best", save_top_k=2, period=2),
        callbacks=[Watching(), *([] if cut is None else [CutAt(cut)])],
        resume="auto",
        seed=None,
        stop_on_nan=False,
        val_check_interval=2,
        add_log_row_interval=2,
        save_every_minutes=0,
        silence=("not-shuffled", "first-save", "loss-not-finite", "unused-parameter"),
    )
    model = kind()
    if trainer.fit(model) == 0:
        return None
    trainer.save_checkpoint(folder / "end.ckpt")
    checkpoint = torch.load(folder / "end.ckpt", weights_only=True)
    checkpoint["parts"].pop("random")  # the caller's own again
    checkpoint["parts"]["progress"].pop("seconds")
    rows = [{k: v for k, v in row.items() if k != "created_at"} for row in rows_of(folder, kind.__name__)]
    files = {p.name: torch.load(p, weights_only=True)["global_step"] for p in (folder / "best").glob("*.ckpt")}
    return Ending(checkpoint, rows, files, capsys.readouterr().err)


def entries(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that a checkpoint holds. A list of plain values is one entry."""
    each: Any = None
    if isinstance(value, dict):
        each = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        each = enumerate(value)
    if not each:
        yield path
        return
    for key, item in each:
        yield from entries(item, (*path, key))


def at(checkpoint: Any, path: Sequence[Any]) -> Any:
    for key in path:
        checkpoint = checkpoint[key]
    return checkpoint


def lost(value: Any, path: tuple[Any, ...], fresh: Any) -> list[Any]:
    """What stands in the place of a value that is lost: what a ``fresh`` run has there, and another value. Of what
    torch makes out of options nothing is lost."""
    found: list[Any] = []
    with contextlib.suppress(KeyError, IndexError):
        found.append(at(fresh, path))
    if isinstance(value, torch.Tensor):
        found.append(torch.zeros_like(value))
    elif path[0] not in ("optimizer_states", "lr_schedulers"):
        if isinstance(value, (bool, int, float)):
            found.append(not value if isinstance(value, bool) else value + 1)
        elif isinstance(value, (str, list)):
            found.append("other" if isinstance(value, str) else value[:-1])
    return [other for other in found if differences(value, other)]


class Cut:
    """A run of ``kind`` that was cut, to go on from as often as one likes."""

    def __init__(self, folder: Path, kind: type[Scaled], cut: int, capsys: Any) -> None:
        self.folder, self.kept, self.kind, self.capsys = folder, folder.with_name("kept"), kind, capsys
        whole = run(folder, kind, capsys)
        assert isinstance(whole, Ending)
        assert whole.said == ""
        self.whole = whole._asdict()
        shutil.rmtree(folder)
        assert run(folder, kind, capsys, cut) is None
        shutil.copytree(folder, self.kept)
        (self.save,), (first,) = (list(folder.rglob(f"step-{step:012d}.ckpt")) for step in (cut, 0))
        self.saved, self.fresh = (torch.load(path, weights_only=True) for path in (self.save, first))

    def ends_the_same(self, path: tuple[Any, ...], value: Any) -> bool:
        """Whether it does with ``value`` in the place of the entry ``path``."""
        changed = copy.deepcopy(self.saved)
        at(changed, path[:-1])[path[-1]] = value
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder)
        torch.save(changed, self.save)
        try:
            end = run(self.folder, self.kind, self.capsys)
        except (LightningError, ValueError):  # torch's, where a schedule ends before the fit
            self.capsys.readouterr()
            return False
        return end is not None and differences(self.whole, end._asdict()) == []


def test_each_entry_of_a_checkpoint_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noticed: set[str] = set()
    tried: set[str] = set()
    for n, (kind, nb_batches) in enumerate(itertools.product(PRECISIONS, CUTS)):
        cut = Cut(tmp_path / str(n) / "run", kind, nb_batches, capsys)
        assert cut.ends_the_same(("library",), cut.saved["library"])
        for path in entries(cut.saved):
            place = "/".join(map(str, path)).replace(str(cut.folder), "")
            if place not in noticed | FOR_READERS | READ_ELSEWHERE.keys():
                others = lost(at(cut.saved, path), path, cut.fresh)
                tried |= {place} if others else set()
                noticed |= {place} if any(not cut.ends_the_same(path, other) for other in others) else set()
    assert len(noticed) > 80
    assert tried - noticed == set()


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_without_a_part_is_refused(tmp_path: Path, part: str) -> None:
    model, options = Validated(), {"max_nb_epochs": 2, "max_nb_steps": 3}
    trainer = quiet_trainer(tmp_path, **options)
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    saved = torch.load(tmp_path / "cut.ckpt", weights_only=True)
    assert sorted(saved["parts"]) == sorted(PARTS)
    del saved["parts"][part]
    torch.save(saved, tmp_path / "cut.ckpt")
    with pytest.raises(CheckpointError, match=part):
        quiet_trainer(tmp_path, resume=tmp_path / "cut.ckpt").fit(Validated())


def test_the_tests_that_need_the_other_entries_are_there() -> None:
    for named in READ_ELSEWHERE.values():
        file, name = named.split(": ")
        assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text()
