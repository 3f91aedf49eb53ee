"""Checkpoint files: plain data, whole, verified, and restored through the model's own hooks."""

import enum
import os
import pickle
import resource
import signal
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.checkpoints.store import read_checkpoint, write_checkpoint
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException
from tests.recorder import Recorder, quiet_trainer


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Settings:
    rate: float
    names: tuple[str, ...]


def saved(tmp_path: Path, model: Any, **options: Any) -> dict[str, Any]:
    trainer = quiet_trainer(tmp_path, **options)
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    return torch.load(tmp_path / "x.ckpt", weights_only=True)  # type: ignore[no-any-return]


def test_a_checkpoint_is_a_plain_dict_with_the_documented_keys(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, Recorder(), max_nb_epochs=2)
    assert (checkpoint["epoch"], checkpoint["global_step"], checkpoint["format"]) == (2, 8, 3)
    assert list(checkpoint["state_dict"]) == ["weight"]
    assert len(checkpoint["optimizer_states"]) == 1
    assert checkpoint["lr_schedulers"] == []
    assert set(checkpoint["parts"]) >= {"progress", "metrics", "precision", "callbacks", "data", "random"}


def test_hparams_are_kept_as_plain_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Recorder()
    model.hparams = Namespace(
        a=1,
        array=np.arange(2),
        scalar=np.float64(0.5),
        path=Path("/x"),
        colour=Colour.RED,
        nested=Settings(0.1, ("n",)),
        many={3},
        method=print,
        odd=object(),
    )
    hparams = saved(tmp_path, model)["hparams"]
    assert hparams.pop("array").tolist() == [0, 1]
    assert hparams == {
        "a": 1,
        "scalar": 0.5,
        "path": "/x",
        "colour": "red",
        "nested": {"rate": 0.1, "names": ("n",)},
        "many": [3],
    }
    assert "hparams that aren't plain data aren't saved: odd" in capsys.readouterr().err


def test_what_a_model_saves_is_converted_and_comes_back(tmp_path: Path) -> None:
    class Saving(Recorder):
        def get_save_dict(self) -> dict[str, Any]:
            return {"weights": self.state_dict(), "history": np.array([1.0, 2.0]), "settings": Settings(0.1, ())}

        def load_model_specific(self, checkpoint: dict[str, Any]) -> None:
            self.load_state_dict(checkpoint["weights"])
            self.note("history", checkpoint["history"].tolist(), checkpoint["settings"]["rate"])

    first = Saving()
    saved(tmp_path, first)
    again = Saving()
    quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt", max_nb_epochs=1).fit(again)
    assert torch.equal(first.weight, again.weight)
    assert again.calls[0] == ("history", [1.0, 2.0], 0.1)


def test_a_save_dict_that_is_not_plain_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    class Odd(Recorder):
        def get_save_dict(self) -> dict[str, Any]:
            return {"state_dict": {}, "deep": {"list": [1, object()]}}

        def load_model_specific(self, checkpoint: dict[str, Any]) -> None:
            pass

    model = Odd()
    with pytest.raises(MisconfigurationException, match=r"get_save_dict of Odd\['deep'\]\['list'\]\[1\]"):
        quiet_trainer(tmp_path).fit(model)
    assert model.calls == []


def test_a_key_of_the_trainers_is_refused(tmp_path: Path) -> None:
    class Taking(Recorder):
        def get_save_dict(self) -> dict[str, Any]:
            return {"state_dict": self.state_dict(), "epoch": 3}

        def load_model_specific(self, checkpoint: dict[str, Any]) -> None:
            pass

    with pytest.raises(MisconfigurationException, match=r"\['epoch'\], which are the trainer's own"):
        quiet_trainer(tmp_path).fit(Taking())


def test_one_save_hook_without_the_other_must_fit_the_default(tmp_path: Path) -> None:
    class SavesMore(Recorder):
        def get_save_dict(self) -> dict[str, Any]:
            return {"state_dict": self.state_dict(), "more": 1}

    class LoadsMore(Recorder):
        def load_model_specific(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["more"]

    class Fits(Recorder):
        def get_save_dict(self) -> dict[str, Any]:
            return {"state_dict": self.state_dict()}

    with pytest.raises(MisconfigurationException, match=r"more.*Override load_model_specific too"):
        quiet_trainer(tmp_path).fit(SavesMore())
    with pytest.raises(MisconfigurationException, match="Override get_save_dict too"):
        quiet_trainer(tmp_path).fit(LoadsMore())
    assert quiet_trainer(tmp_path).fit(Fits()) == 1


def test_hooks_add_to_a_checkpoint_and_read_it(tmp_path: Path) -> None:
    class Adding(Recorder):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["mine"] = np.float32(4.0)

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.note("loaded", checkpoint["mine"])

    assert saved(tmp_path, Adding())["mine"] == 4.0
    model = Adding()
    quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt").fit(model)
    assert model.calls[0] == ("loaded", 4.0)


def test_on_save_checkpoint_may_not_change_the_trainers_keys(tmp_path: Path) -> None:
    class Changing(Recorder):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["epoch"] = 99

    with pytest.raises(CheckpointError, match=r"changed the keys \['epoch'\]"):
        saved(tmp_path, Changing())


def test_save_checkpoint_during_a_fit_is_written_at_the_next_save_point(tmp_path: Path) -> None:
    class Asking(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            if batch_nb == 0:
                self.trainer.save_checkpoint(tmp_path / "asked.ckpt")
            self.note("there", (tmp_path / "asked.ckpt").exists())
            return super().training_step(data_batch, batch_nb)

    model = Asking()
    quiet_trainer(tmp_path, accumulate_grad_batches=2).fit(model)
    assert [call[1] for call in model.calls if call[0] == "there"] == [False, False, True, True]
    assert torch.load(tmp_path / "asked.ckpt", weights_only=True)["parts"]["progress"]["batch_nb"] == 2


def test_nothing_can_be_saved_before_a_fit(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="before fit"):
        quiet_trainer(tmp_path).save_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "kind", [torch.float32, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]
)
def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path: Path, kind: torch.dtype) -> None:
    class Exploding(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.other = torch.nn.Parameter(torch.ones(3).to(kind), requires_grad=kind == torch.complex64)

        def on_batch_end(self) -> None:
            self.trainer.save_checkpoint(tmp_path / "x.ckpt")
            if self.global_step == 2:
                self.other.data = torch.full((3,), torch.nan).to(kind)

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return {"loss": (self.weight * 0).sum()}

    with pytest.raises(FitError, match="a weight isn't finite"):
        quiet_trainer(tmp_path).fit(Exploding())
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert (checkpoint["global_step"], checkpoint["state_dict"]["weight"].item()) == (2, 0.0)


# ---------------------------------------------------------------------------------------------- files
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint({"x": torch.zeros(10)}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="can't be written"):
            write_checkpoint({"x": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert torch.equal(read_checkpoint(path)["x"], torch.zeros(10))
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_save_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: (order.append("fsync"), fsync(f))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b))[1])
    write_checkpoint({"x": 1}, tmp_path / "a.ckpt")
    assert order == ["fsync", "replace", "fsync"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.find(bytes(torch.arange(1000.0).numpy().tobytes()[400:440])) + 3
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "is damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:900]), "damaged|no checkpoint"),
        (lambda p: p.write_bytes(b""), "damaged|no checkpoint"),
        (lambda p: p.write_text("hello"), "damaged|no checkpoint"),
        (lambda p: torch.save([1, 2], p), "holds a list, not a dict"),
        (lambda p: torch.save({"x": print}, p), "more than plain data"),
        (lambda p: p.write_bytes(pickle.dumps({"x": Namespace()})), "more than plain data|isn't a checkpoint"),
        (lambda p: p.unlink(), "there is no checkpoint"),
    ],
    ids=["flipped bit", "truncated", "empty", "text", "list", "code", "bare pickle", "missing"],
)
def test_a_file_that_cannot_be_trusted_is_refused(tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint({"x": torch.arange(1000.0)}, path)
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"state_dict": c["state_dict"]}, "doesn't hold all that a resume needs"),
        (lambda c: {**c, "format": 99}, "Upgrade"),
        (lambda c: {**c, "optimizer_states": []}, "holds 0 optimizers, and that gives 1"),
        (lambda c: {**c, "state_dict": {"other": torch.zeros(1)}}, "load_model_specific of Recorder can't restore"),
    ],
    ids=["weights only", "newer", "optimizers", "other model"],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_a_resume(tmp_path: Path, change: Any, message: str) -> None:
    torch.save(change(saved(tmp_path, Recorder())), tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=message):
        quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt").fit(Recorder())


def test_a_missing_checkpoint_names_those_that_are_there(tmp_path: Path) -> None:
    saved(tmp_path, Recorder())
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*y.ckpt.*holds x.ckpt"):
        quiet_trainer(tmp_path, resume=tmp_path / "y.ckpt").fit(Recorder())


# ---------------------------------------------------------------------------------------------- resume
def test_a_resume_takes_the_seed_from_the_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, Recorder(), seed=11)
    trainer = quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt", seed=12, max_nb_epochs=2)
    trainer.fit(Recorder())
    assert trainer.seed == 11


def test_a_validation_that_was_due_at_the_interruption_runs_after_it_once(tmp_path: Path) -> None:
    class Cut(Callback):
        def on_batch_end(self, run: Any) -> None:
            if run.progress.batch_nb == 3:
                run.save(tmp_path / "cut.ckpt")

    whole = Recorder()
    quiet_trainer(tmp_path, callbacks=[Cut()]).fit(whole)
    rest = Recorder()
    quiet_trainer(tmp_path, resume=tmp_path / "cut.ckpt").fit(rest)
    assert rest.nb("training_step") == 0
    assert (whole.nb_validations, rest.nb_validations) == (1, 1)


def test_a_checkpoint_made_after_a_validation_does_not_repeat_it(tmp_path: Path) -> None:
    first = Recorder(nb_batches=4)
    keep = ModelCheckpoint(tmp_path / "w")
    quiet_trainer(tmp_path, checkpoint_callback=keep, val_check_interval=0.5, max_nb_steps=2).fit(first)
    assert first.nb_validations == 0 or first.nb_validations == 1
    rest = Recorder(nb_batches=4)
    path = tmp_path / "w/_ckpt_epoch_1.ckpt"
    if not path.exists():
        pytest.fail("the checkpoint of the validation in mid-epoch wasn't written")
    quiet_trainer(tmp_path, resume=path, val_check_interval=0.5).fit(rest)
    assert [call[2] for call in rest.calls if call[0] == "training_step"] == [2, 3]
    assert rest.nb_validations == 1


def test_a_sanity_check_is_not_repeated(tmp_path: Path) -> None:
    saved(tmp_path, Recorder())
    model = Recorder()
    quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt", nb_sanity_val_steps=2, max_nb_epochs=2).fit(model)
    assert model.validation_sizes == [3]


def test_a_finished_run_is_continued_where_its_limit_is_raised(tmp_path: Path) -> None:
    saved(tmp_path, Recorder(), max_nb_epochs=2)
    same, more = Recorder(), Recorder()
    assert quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt", max_nb_epochs=2).fit(same) == 1
    assert quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt", max_nb_epochs=3).fit(more) == 1
    assert (same.nb("training_step"), more.nb("training_step")) == (0, 4)


def test_changed_data_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    class Shuffled(Recorder):
        nb_samples = 20

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.arange(float(self.nb_samples)).unsqueeze(1)), 2, shuffle=True)

    saved(tmp_path, Shuffled(), max_nb_steps=3)
    other = Shuffled()
    other.nb_samples = 30
    with pytest.raises(FitError, match=r"number of samples was 20 and is 30.*resume_check='warn'"):
        quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt").fit(other)
    quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt", resume_check="warn").fit(other)
    said = capsys.readouterr().err
    assert "[other-data]" in said
    assert "[other-order]" in said


def test_max_time_counts_over_restarts(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, Recorder())
    checkpoint["parts"]["progress"]["seconds"] = 100.0
    torch.save(checkpoint, tmp_path / "x.ckpt")
    trainer = quiet_trainer(tmp_path, resume=tmp_path / "x.ckpt", max_nb_epochs=5, max_time=1.5)
    model = Recorder()
    trainer.fit(model)
    assert model.nb("training_step") == 1


def test_a_file_asked_for_in_the_last_hook_is_written(tmp_path: Path) -> None:
    class Last(Recorder):
        def on_fit_end(self) -> None:
            self.trainer.save_checkpoint(tmp_path / "end.ckpt")

    quiet_trainer(tmp_path).fit(Last())
    assert read_checkpoint(tmp_path / "end.ckpt")["global_step"] == 4


def test_weights_that_are_not_finite_are_left_out_if_training_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Bad(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.weight.sum() * (float("nan") if self.current_epoch else 1.0)

    keep = ModelCheckpoint(tmp_path / "w", monitor="val_loss", verbose=1)
    options: Any = {"checkpoint_callback": keep, "stop_on_nan": False, "max_nb_epochs": 3}
    assert quiet_trainer(tmp_path, **options).fit(Bad()) == 1
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["_ckpt_epoch_1.ckpt"]
    captured = capsys.readouterr()
    assert captured.out.count("saved") == 1
    assert captured.err.count("a weight isn't finite, so") == 1
    first = str(tmp_path / "w/_ckpt_epoch_1.ckpt")
    assert (keep.best_path, list(keep.kept)) == (first, [first])


def test_a_file_that_is_left_out_takes_no_place_among_the_best(tmp_path: Path) -> None:
    """The better values are of weights that aren't finite, and the files before them stay."""

    class Breaking(Recorder):
        def on_batch_end(self) -> None:
            if self.current_epoch > 1:
                self.weight.data.fill_(float("nan"))

    keep = ModelCheckpoint(tmp_path / "w", save_best_only=True, period=2)
    options: Any = {"checkpoint_callback": keep, "stop_on_nan": False, "max_nb_epochs": 4}
    trainer = quiet_trainer(tmp_path, silence=("not-shuffled", "loss-not-finite", "weights-not-finite"), **options)
    assert trainer.fit(Breaking(val_values=(3.0, 2.0, 1.0, 0.5))) == 1
    first = str(tmp_path / "w/_ckpt_epoch_2.ckpt")
    assert (keep.best, keep.best_path, keep.kept) == (2.0, first, {first: 2.0})
    assert [str(path) for path in (tmp_path / "w").iterdir()] == [first]
    trainer.validate(ckpt="best")
    assert keep.state_dict()["last_epoch"] == 2
