"""Everything else that may happen to a run: what is lost, what is reported, and that the next start resumes exactly."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Sampler

from pytorch_lightning import Trainer
from pytorch_lightning.checkpoints.store import read_checkpoint
from pytorch_lightning.data import replayable, seeded_view
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException
from pytorch_lightning.resume import rolling
from tests.faults import warm
from tests.faults.killing import (
    CONFIGURATIONS,
    Reference,
    keep_weights,
    kill_at_point,
    result_of,
    run_to_the_end,
    train,
)
from tests.faults.models import BATCH_SIZE, Augmented, Network

References = Callable[[str], Reference]
PLAIN = CONFIGURATIONS["plain"]


def saves(folder: Path, pattern: str = "step-*.ckpt") -> list[Path]:
    return sorted(folder.glob(f"*/version_*/checkpoints/{pattern}"))


def steps(folder: Path) -> list[int]:
    return [int(path.name[5:17]) for path in saves(folder)]


def configured(**options: Any) -> dict[str, Any]:
    return {"options": {"save_every_nb_batches": None, **options}}


def same_as_undisturbed(tmp_path: Path, configuration: dict[str, Any], model: Callable[[], Any] = Network) -> None:
    """Start again under ``tmp_path / 'run'``, and compare with a run that nothing disturbed."""
    train(str(tmp_path / "run"), configuration, model())
    (tmp_path / "whole").mkdir()
    train(str(tmp_path / "whole"), configuration, model())
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")


# ---------------------------------------------------------------------------------------------- exceptions
class Failing(Augmented):
    """Can't read one sample once ``after`` samples were fetched, until it was mended. Counts them in the class: what a
    dataset changes of its own while a batch is made can't be taken back."""

    mended = False
    nb = 0

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, Failing.nb = after, 0

    def __getitem__(self, index: int) -> Any:
        Failing.nb += 1
        if self.nb > self.after and not Failing.mended:
            raise OSError("sample is gone")
        return super().__getitem__(index)


class Reading(Network):
    def __init__(self, after: int, workers: int = 0) -> None:
        super().__init__(workers)
        self.data = Failing(after)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self.data, BATCH_SIZE, shuffle=True, num_workers=self.workers)


class Quiet(Network):
    """Without the hook that changes weights after each batch, inside of windows too."""

    on_batch_end = Network.__mro__[1].on_batch_end  # type: ignore[attr-defined]


def test_a_dataset_that_raises_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = configured()
    with pytest.raises(OSError, match="sample is gone") as error:
        train(str(tmp_path / "run"), configuration, Reading(after=75))
    notes = " ".join(error.value.__notes__)
    for part in ("the dataset of the training loader (epoch 1, batch_nb 2, sample ", "the state at global_step 9 is"):
        assert part in notes
    assert steps(tmp_path / "run") == [0, 9]
    monkeypatch.setattr(Failing, "mended", True)
    same_as_undisturbed(tmp_path, configuration, lambda: Reading(after=0))


class Stumbling(Quiet):
    """Raises in the forward pass of the given call. Counts calls in the class: what a step changes of its module's own
    attributes can't be taken back."""

    nb = 0

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, Stumbling.nb = at, 0

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        Stumbling.nb += 1
        output = super().training_step(data_batch, batch_nb)
        if self.nb == self.at:
            raise ValueError("stumbled")
        return output


@pytest.mark.parametrize(("at", "saved"), [(9, 7), (10, 7), (12, 10), (14, 13)])
def test_an_exception_inside_a_window_costs_no_more_than_the_window(tmp_path: Path, at: int, saved: int) -> None:
    """Windows of 3, 3 and 1 batches; running means, losses and rows of the failed one are taken back."""
    configuration = configured(accumulate_grad_batches=3)
    with pytest.raises(ValueError, match="stumbled"):
        train(str(tmp_path / "run"), configuration, Stumbling(at))
    assert steps(tmp_path / "run") == [0, saved]
    same_as_undisturbed(tmp_path, configuration, lambda: Stumbling(at=0))


class Breaking(Quiet):
    """Raises once in a hook of the eleventh batch that comes after the optimizer's step."""

    broken = False
    hook = ""

    def look(self, hook: str) -> None:
        if self.broken and hook == self.hook and self.global_step == 10:
            raise ValueError("broken")

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.look("on_before_zero_grad")


class BreakingLater(Breaking):
    def on_batch_end(self) -> None:
        self.look("on_batch_end")


@pytest.mark.parametrize(
    ("kind", "hook"),
    [(BreakingLater, "on_batch_end"), (Breaking, "on_before_zero_grad")],
    ids=["batch end", "zero grad"],
)
def test_an_exception_after_a_step_saves_nothing_of_the_broken_window(
    tmp_path: Path, kind: type[Breaking], hook: str
) -> None:
    model = type("Broken", (kind,), {"broken": True, "hook": hook})()
    with pytest.raises(ValueError, match="broken"):
        train(str(tmp_path / "run"), configured(), model)
    assert steps(tmp_path / "run") == [0]
    same_as_undisturbed(tmp_path, configured(), type("Broken", (kind,), {}))


def test_a_validation_that_raises_costs_only_the_validation(tmp_path: Path) -> None:
    class Unlucky(Network):
        lucky = False

        def validation_end(self, outputs: Any) -> Any:
            if self.global_step > 7 and not Unlucky.lucky:
                raise ValueError("no luck")
            return super().validation_end(outputs)

    with pytest.raises(ValueError, match="no luck"):
        train(str(tmp_path / "run"), configured(), Unlucky())
    (save,) = tmp_path.glob("run/*/*/checkpoints/step-000000000014.ckpt")
    assert read_checkpoint(save)["parts"]["progress"]["nb_validations"] == 1
    Unlucky.lucky = True
    same_as_undisturbed(tmp_path, configured(), Unlucky)


def test_a_save_is_made_before_a_validation_that_may_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Looking(Network):
        saved: list[int] = []
        seen: list[list[int]] = []

        def on_save_checkpoint(self, checkpoint: Any) -> None:
            self.saved.append(checkpoint["global_step"])

        def validation_end(self, outputs: Any) -> Any:
            self.seen.append(list(self.saved))
            return super().validation_end(outputs)

    now = time.monotonic
    monkeypatch.setattr(rolling.time, "monotonic", lambda: now() * 1000)  # a second has always passed
    monkeypatch.setattr(rolling, "MOST_OF_THE_TIME", 1000.0)
    train(str(tmp_path), configured(nb_sanity_val_steps=0, save_every_minutes=0), Looking(0))
    assert Looking.seen == [[0, 7], [0, 7, 14], [0, 7, 14, 21]]


class Exploding(Quiet):
    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        output = super().training_step(data_batch, batch_nb)
        return {"loss": output["loss"] * (float("nan") if self.global_step == 10 else 1.0)}


def test_a_loss_that_is_not_finite_stops_with_all_that_helps_and_saves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FitError) as error:
        train(str(tmp_path), configured(save_every_nb_batches=4), Exploding())
    said = " ".join([str(error.value), *error.value.__notes__])
    for part in ("(epoch 1, batch_nb 3)", "lr_0=", "samples of the batch: ["):
        assert part in said
    # one that falls due while another is written is skipped, so which it is depends on the disk
    assert re.search(r"newest save from before this is \S+/step-0{11}[048]\.ckpt", said)
    assert list(tmp_path.glob("Exploding/*/checkpoints/step*"))
    assert not list(tmp_path.glob("Exploding/*/checkpoints/step-000000000010.ckpt"))


def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path: Path) -> None:
    with pytest.raises(FitError, match="a weight isn't finite"):
        train(str(tmp_path), configured(save_every_nb_batches=4), Broken())
    found = sorted(int(path.name[5:17]) for path in tmp_path.glob("Broken/*/checkpoints/step*"))
    assert found
    assert set(found) <= {0, 4, 8}
    weights = read_checkpoint(next(tmp_path.glob(f"Broken/*/checkpoints/step-{found[-1]:012d}.ckpt")))["state_dict"]
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())


class Broken(Quiet):
    def on_batch_end(self) -> None:
        if self.global_step == 10:
            with torch.no_grad():
                self.layers[-1].weight[0] = float("nan")  # type: ignore[index]

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": torch.nan_to_num(super().training_step(data_batch, batch_nb)["loss"])}


# ---------------------------------------------------------------------------------------------- workers
class Mortal(Augmented):
    """Its worker is killed, as by the system when memory runs out, when ``marks`` says so; each time once."""

    def __init__(self, marks: Path, nb_deaths: int) -> None:
        super().__init__()
        self.marks, self.nb_deaths = marks, nb_deaths

    def __getitem__(self, index: int) -> Any:
        if index == 17 and torch.utils.data.get_worker_info() is not None:
            for n in range(self.nb_deaths):
                try:
                    os.close(os.open(self.marks / str(n), os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Loading(Network):
    def __init__(self, data: Any, workers: int = 2, **options: Any) -> None:
        super().__init__(workers)
        self.data, self.options = data, options

    @property
    def tng_dataloader(self) -> Any:
        shuffle = not isinstance(self.data, IterableDataset)
        options = {"batch_size": BATCH_SIZE, "shuffle": shuffle, "num_workers": self.workers, **self.options}
        return DataLoader(self.data, **options)


@pytest.mark.parametrize(("most", "left"), [(3, 2), (0, 1)], ids=["the same number", "fewer after many deaths"])
def test_a_worker_that_is_killed_is_replaced_and_no_batch_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, most: int, left: int
) -> None:
    monkeypatch.setattr(replayable, "MOST_DEATHS", most)
    (tmp_path / "marks").mkdir()
    train(str(tmp_path / "run"), configured(), Loading(Mortal(tmp_path / "marks", 1)))
    said = capsys.readouterr().err
    assert (tmp_path / "marks" / "0").exists()
    assert "/dev/shm" in said
    assert f"with {left} workers" in said
    train(str(tmp_path / "whole"), configured(), Loading(Mortal(tmp_path, 0), workers=0))
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")


class Endless(IterableDataset[Any]):
    """A stream whose worker is killed at its twentieth sample."""

    def __init__(self, deadly: bool) -> None:
        self.data, self.deadly = Augmented(), deadly

    def __iter__(self) -> Any:
        info = torch.utils.data.get_worker_info()
        for i in range(0 if info is None else info.id, len(self.data), 1 if info is None else info.num_workers):
            if i == 40 and self.deadly and info is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            yield self.data[i]


def test_a_killed_worker_of_an_iterable_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"(?s)/dev/shm.*from the last save.*resume='auto' resumes from there"):
        train(str(tmp_path), configured(), Loading(Endless(deadly=True)))


class Stuck(Augmented):
    def __getitem__(self, index: int) -> Any:
        if index == 17:
            threading.Event().wait(10)
        return super().__getitem__(index)


class Single(Loading):
    """Its loader gives single samples."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return super().training_step([torch.stack([part, part]) for part in data_batch], batch_nb)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class StuckStream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return map(Stuck().__getitem__, range(32))


@pytest.mark.parametrize("batched", [True, False], ids=["batches", "samples"])
@pytest.mark.parametrize("data", [Stuck(), StuckStream()], ids=["map style", "stream"])
def test_a_worker_that_hangs_shows_where_and_ends_at_the_loaders_timeout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: Any, batched: bool
) -> None:
    monkeypatch.setattr(seeded_view, "HANG_SECONDS", 0.2)
    # on a busy machine the worker needs a while to begin
    model = Loading(data, timeout=3) if batched else Single(data, timeout=3, batch_size=None)
    with pytest.raises(RuntimeError, match="timed out after 3 seconds"):
        train(str(tmp_path), configured(), model)
    said = capfd.readouterr().err
    assert "Timeout" in said
    assert re.search(r"test_bad_events.py.* in __getitem__", said)


class Thoughtful(Loading):
    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if batch_nb == 1:
            threading.Event().wait(0.6)
        return super().training_step(data_batch, batch_nb)


@pytest.mark.parametrize("data", [Augmented(), Endless(deadly=False)], ids=["map style", "stream"])
def test_a_worker_that_waits_for_training_is_not_taken_for_one_that_hangs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: Any
) -> None:
    monkeypatch.setattr(seeded_view, "HANG_SECONDS", 0.3)
    train(str(tmp_path), configured(), Thoughtful(data, workers=1))
    assert "Timeout" not in capfd.readouterr().err


def test_an_iterable_dataset_needs_the_number_of_workers_that_it_had(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stumbled"):
        train(str(tmp_path), configured(), StumblingStream(2, at=5))
    for workers in (0, 1):
        with pytest.raises(FitError, match=f"num_workers was 2 and is {workers}"):
            train(str(tmp_path), configured(), StumblingStream(workers))
    train(str(tmp_path), configured(resume_check="warn"), StumblingStream(0))


class StumblingStream(Loading):
    def __init__(self, workers: int, at: int = -1) -> None:
        super().__init__(Endless(deadly=False), workers)
        self.at = at

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step == self.at:
            raise ValueError("stumbled")
        return super().training_step(data_batch, batch_nb)


# ---------------------------------------------------------------------------------------------- the disk
FULL = "full=20000"  # less than a save of this model, more than a program says with its traceback: that is a file too


def under(tmp_path: Path, fault: str, name: str = "plain") -> warm.Ended:
    return warm.run(train, str(tmp_path), CONFIGURATIONS[name], output=tmp_path / "said", fault=fault)


def test_a_full_disk_in_a_periodic_save_is_survived(tmp_path: Path, references: References) -> None:
    ended = under(tmp_path, f"write.begin:3:{FULL},write.begin:4:free")
    assert ended.code == 0, ended.said
    assert ended.said.count("Training continues") == 1
    assert result_of(tmp_path) == references("plain").result


def test_a_full_disk_in_the_final_save_is_raised_and_the_next_start_ends_it(
    tmp_path: Path, references: References
) -> None:
    ended = under(tmp_path, f"fit.last:1:{FULL}")
    assert ended.code == 1
    assert "The disk is full" in ended.said
    assert saves(tmp_path)
    assert run_to_the_end(tmp_path, "plain") == references("plain").result


def test_a_writer_that_fails_is_raised_and_the_next_start_resumes(tmp_path: Path, references: References) -> None:
    ended = under(tmp_path, "writer.thread:3:raise")
    assert ended.code == 1
    assert "InjectedFault" in ended.said
    assert run_to_the_end(tmp_path, "plain") == references("plain").result


def test_weights_that_change_while_a_save_is_written_are_not_in_it(tmp_path: Path, references: References) -> None:
    """The third save waits, with training five batches further when the process is killed after it."""
    assert kill_at_point(tmp_path, "plain", "write.begin:3:sleep=0.3,store.done:3")
    assert run_to_the_end(tmp_path, "plain") == references("plain").result


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weight = read_checkpoint(path)["state_dict"]["layers.0.weight"]
    content[content.index(weight.numpy().tobytes()) + 10] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
def test_a_damaged_newest_save_is_passed_over(
    tmp_path: Path, references: References, damage: Callable[[Path], None]
) -> None:
    assert kill_at_point(tmp_path, "plain", "batch.run:17")
    damage(saves(tmp_path)[-1])
    assert run_to_the_end(tmp_path, "plain") == references("plain").result
    assert "newest good save" in (tmp_path / "said").read_text()


def test_damage_of_all_saves_is_an_error_and_no_new_start(tmp_path: Path) -> None:
    assert kill_at_point(tmp_path, "plain", "batch.run:17")
    for path in saves(tmp_path):
        flip_a_bit(path)
    with pytest.raises(CheckpointError, match="no save in"):
        train(str(tmp_path), PLAIN)
    assert not (tmp_path / "end.json").exists()


def test_code_in_a_save_is_never_run(tmp_path: Path) -> None:
    assert kill_at_point(tmp_path, "plain", "batch.run:17")
    torch.save({"code": print}, saves(tmp_path)[-1])
    with pytest.raises(CheckpointError, match="more than plain data"):
        train(str(tmp_path), PLAIN)


def test_a_clock_that_was_set_back_changes_nothing(tmp_path: Path, references: References) -> None:
    assert kill_at_point(tmp_path, "plain", "batch.run:17")
    for n, path in enumerate(reversed(saves(tmp_path))):
        os.utime(path, (n, n))
    assert run_to_the_end(tmp_path, "plain") == references("plain").result


def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    model = Stumbling(at=1)
    with pytest.raises(MisconfigurationException, match="can't be written"):
        train(str(tmp_path), configured(default_save_path=tmp_path / "file" / "runs"), model)
    assert model.nb == 0


def test_two_runs_cannot_use_the_same_folder(tmp_path: Path) -> None:
    class Twice(Network):
        refused = ""

        def on_epoch_end(self) -> None:
            with pytest.raises(CheckpointError) as error:
                train(str(tmp_path), PLAIN, Twice())
            self.refused = str(error.value)

    model = Twice()
    train(str(tmp_path), PLAIN, model)
    assert "in use by" in model.refused


def test_temporary_files_of_killed_runs_are_removed(tmp_path: Path, references: References) -> None:
    assert kill_at_point(tmp_path, "plain", "write.written:4")
    assert saves(tmp_path, ".step-*.tmp")
    assert run_to_the_end(tmp_path, "plain") == references("plain").result
    assert not saves(tmp_path, ".step-*.tmp")


def test_what_model_checkpoint_left_half_written_is_removed_unless_its_writer_lives(tmp_path: Path) -> None:
    folder, said = tmp_path / "best", tmp_path / "said"
    ended = warm.run(keep_weights, str(folder), output=said, fault="write.written:1")
    assert ended.code == -signal.SIGKILL, ended.said
    (of_the_dead,) = folder.iterdir()
    others = {".b_ckpt_epoch_1.ckpt.1.tmp", ".a+_ckpt_epoch_1.ckpt", ".aa_ckpt_epoch_1.ckpt.1.tmp"}
    for name in others:
        (folder / name).touch()
    process = warm.started(keep_weights, str(folder), output=said, fault="write.written:1:sleep=600")
    try:
        of_the_living = folder / f".a+_ckpt_epoch_1.ckpt.{process.pid}.tmp"
        while not (of_the_living.exists() and of_the_living.stat().st_size):
            assert process.is_alive(), said.read_text()
            process.join(0.02)
        assert not of_the_dead.exists()
        keep_weights(str(folder))
        assert set(os.listdir(folder)) == {of_the_living.name, "a+_ckpt_epoch_1.ckpt", *others}
    finally:
        process.kill()
        process.join()
    keep_weights(str(folder))
    assert set(os.listdir(folder)) == {"a+_ckpt_epoch_1.ckpt", *others}


def test_a_log_that_was_being_written_anew_leaves_no_temporary_file(tmp_path: Path, references: References) -> None:
    assert kill_at_point(tmp_path, "validations", "rows.rewritten:4")
    assert list(tmp_path.glob("*/*/.metrics.csv*"))
    assert run_to_the_end(tmp_path, "validations") == references("validations").result
    newest = max(tmp_path.glob("*/version_*"))  # another one where nothing had been saved yet
    assert not list(newest.glob(".metrics.csv*"))


# ---------------------------------------------------------------------------------------------- what changed
def test_other_versions_and_threads_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kill_at_point(tmp_path, "plain", "batch.run:17")
    torch.set_num_threads(2)
    try:
        train(str(tmp_path), PLAIN)
    finally:
        torch.set_num_threads(1)
    assert "threads was 1 and is 2" in capsys.readouterr().err


class Longer(Network):
    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Augmented(60), BATCH_SIZE, shuffle=True)


class LargerBatches(Network):
    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Augmented(), 2 * BATCH_SIZE, shuffle=True)


class Wider(Network):
    def __init__(self) -> None:
        super().__init__()
        self.layers[-1] = nn.Linear(16, 4)


class OtherOptimizer(Network):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Longer, "the number of samples was 52 and is 60"),
        (LargerBatches, "the batch size was 8 and is 16"),
        (Wider, r"size mismatch for layers\.4\.weight"),
        (OtherOptimizer, "a different optimizer, Adam, not SGD"),
    ],
    ids=["data", "batch size", "model", "optimizer"],
)
def test_what_changed_since_the_save_is_refused(tmp_path: Path, change: type[Network], words: str) -> None:
    assert kill_at_point(tmp_path, "plain", "batch.run:17")
    changed = type("Network", (change,), {})()
    with pytest.raises((CheckpointError, FitError), match=words):
        train(str(tmp_path), PLAIN, changed)


def test_a_finished_run_is_not_run_again_and_resumes_if_there_is_more_to_do(tmp_path: Path) -> None:
    class Counting(Quiet):
        nb = 0

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            Counting.nb += 1
            return super().training_step(data_batch, batch_nb)

        def configure_optimizers(self) -> Any:
            return [torch.optim.Adam(self.parameters(), 0.01)]

    train(str(tmp_path / "run"), configured(max_nb_epochs=2), Counting())
    before = result_of(tmp_path / "run")
    train(str(tmp_path / "run"), configured(max_nb_epochs=2), Counting())
    assert Counting.nb == 14
    assert result_of(tmp_path / "run") == before
    same_as_undisturbed(tmp_path, configured(max_nb_epochs=4), Counting)
    assert len(list(tmp_path.glob("run/Counting/*"))) == 1


def test_a_run_whose_hyperparameters_are_not_plain_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Strange(Stumbling):
        def __init__(self, at: int) -> None:
            super().__init__(at)
            self.hparams = {"lr": 0.1, "lock": threading.Lock()}

    with pytest.raises(ValueError, match="stumbled"):
        train(str(tmp_path / "run"), configured(), Strange(9))
    assert "lock" in capsys.readouterr().err
    same_as_undisturbed(tmp_path, configured(), lambda: Strange(0))


def test_nothing_resumes_automatically(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kill_at_point(tmp_path, "plain", "batch.run:17")
    trainer = Trainer(default_save_path=tmp_path, max_nb_epochs=1, progress_bar=False, print_weights_summary=False)
    trainer.fit(Network())
    assert trainer.global_step == 7
    assert "resume='auto' resumes it" in capsys.readouterr().err


class Counting(Sampler[int]):
    """An order that depends on all that was drawn before, and a state that says so."""

    def __init__(self, nb: int) -> None:
        self.nb, self.nb_drawn = nb, 0

    def __iter__(self) -> Iterator[int]:
        start = self.nb_drawn // self.nb * 7 + self.nb_drawn
        for i in range(self.nb):
            self.nb_drawn += 1
            yield (start + i) % self.nb

    def __len__(self) -> int:
        return self.nb

    def state_dict(self) -> dict[str, int]:
        return {"nb_drawn": self.nb_drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.nb_drawn = state["nb_drawn"]


def test_a_killed_worker_does_not_move_a_samplers_state_on(tmp_path: Path) -> None:
    class Sampled(Loading):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(self.data, BATCH_SIZE, sampler=Counting(len(self.data)), num_workers=self.workers)

    (tmp_path / "marks").mkdir()
    train(str(tmp_path / "run"), configured(), Sampled(Mortal(tmp_path / "marks", 1)))
    assert (tmp_path / "marks" / "0").exists()
    train(str(tmp_path / "whole"), configured(), Sampled(Mortal(tmp_path, 0), workers=0))
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")
