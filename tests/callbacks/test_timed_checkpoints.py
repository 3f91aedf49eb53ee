"""ModelCheckpoint by batches and by the clock, the last file, and names from a template."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, model_checkpoint
from pytorch_lightning.errors import FitError, MisconfigurationException
from pytorch_lightning.resume import rolling
from tests.equality.test_resume import Killed
from tests.recorder import Recorder, quiet_trainer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kept_by(tmp_path: Path, model: Any = None, *, options: Any = (), **arguments: Any) -> ModelCheckpoint:
    checkpoint = ModelCheckpoint(tmp_path / "kept", **arguments)
    model = Recorder(5) if model is None else model
    quiet_trainer(tmp_path, **{"max_nb_epochs": 2, "checkpoint_callback": checkpoint, **dict(options)}).fit(model)
    return checkpoint


def steps_of(folder: Path) -> dict[str, int]:
    return {path.name: torch.load(path, weights_only=True)["global_step"] for path in folder.iterdir()}


def test_every_few_batches_across_epochs(tmp_path: Path) -> None:
    kept_by(tmp_path, every_nb_batches=3)
    expected = {"_ckpt_epoch_1_batch_3.ckpt": 3, "_ckpt_epoch_2_batch_1.ckpt": 6, "_ckpt_epoch_2_batch_4.ckpt": 9}
    assert steps_of(tmp_path / "kept") == expected


def test_at_the_last_batch_of_an_epoch_and_of_the_fit(tmp_path: Path) -> None:
    kept_by(tmp_path, every_nb_batches=5)
    assert steps_of(tmp_path / "kept") == {"_ckpt_epoch_1_batch_5.ckpt": 5, "_ckpt_epoch_2_batch_5.ckpt": 10}


def test_inside_a_window_it_waits_for_the_step(tmp_path: Path) -> None:
    kept_by(tmp_path, every_nb_batches=3, options={"accumulate_grad_batches": 2})
    assert sorted(steps_of(tmp_path / "kept").values()) == [4, 7, 9]


def test_where_a_validation_runs_after_the_same_batch_the_file_has_its_value(tmp_path: Path) -> None:
    options = {"val_every_nb_batches": 4, "max_nb_epochs": 3}
    model = Recorder(5, val_values=(0.5, 0.25, 0.125))
    kept = kept_by(tmp_path, model, every_nb_batches=4, filename="{global_step}-{val_loss:.3f}", options=options)
    expected = ["global_step=12-val_loss=0.125.ckpt", "global_step=4-val_loss=0.500.ckpt"]
    assert names(tmp_path / "kept") == [*expected, "global_step=8-val_loss=0.250.ckpt"]
    assert kept.best == 0.125
    at_end = kept_by(tmp_path / "at end", Recorder(4, (0.5, 0.25)), every_nb_batches=4, filename="{val_loss}")
    assert set(at_end.kept.values()) == {0.5, 0.25}


def test_the_best_of_them(tmp_path: Path) -> None:
    options = {"val_every_nb_batches": 2, "max_nb_epochs": 2}
    model = Recorder(4, val_values=(0.5, 0.9, 0.3, 0.8))
    kept = kept_by(tmp_path, model, every_nb_batches=2, save_top_k=2, save_last=True, options=options)
    expected = {"_ckpt_epoch_1_batch_2.ckpt": 2, "_ckpt_epoch_2_batch_2.ckpt": 6, "_ckpt_last.ckpt": 8}
    assert steps_of(tmp_path / "kept") == expected
    assert Path(str(kept.best_path)).name == "_ckpt_epoch_2_batch_2.ckpt"


def test_the_last_of_each_kind(tmp_path: Path) -> None:
    model = Recorder(4, val_values=(0.5, 0.9))
    kept_by(tmp_path, model, save_best_only=True, save_last=True, prefix="a")
    assert steps_of(tmp_path / "kept") == {"a_ckpt_epoch_1.ckpt": 4, "a_ckpt_last.ckpt": 8}
    kept_by(tmp_path / "named", save_top_k=0, save_last=True, filename="{epoch}")
    assert steps_of(tmp_path / "named" / "kept") == {"last.ckpt": 10}


def test_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Clock(Callback):
        """Each batch takes half a minute."""

        def on_batch_end(self, run: Any) -> None:
            nonlocal now
            now += 30.0

    monkeypatch.setattr(model_checkpoint, "time", SimpleNamespace(monotonic=lambda: now))
    options = {"callbacks": [Clock()], "max_nb_epochs": 2}
    kept_by(tmp_path, Recorder(6), every_minutes=2, filename="{global_step}", options=options)
    assert sorted(steps_of(tmp_path / "kept").values()) == [4, 8, 12]


class BySteps(Recorder):
    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": {3: 0.5, 6: 0.9, 9: 0.3}[self.global_step]}


@pytest.mark.parametrize("cut", [2, 3, 4, 5, 6, 9])
def test_a_run_that_is_killed_leaves_the_same_files(tmp_path: Path, cut: int) -> None:
    class Kill(Callback):
        def on_batch_start(self, run: Any, data_batch: Any) -> None:
            if run.progress.global_step == cut:
                raise Killed

    options: dict[str, Any] = {"val_every_nb_batches": 3, "max_nb_epochs": 2, "save_every_nb_batches": 2}
    options |= {"resume": "auto", "silence": ("first-save", "not-shuffled")}
    how: dict[str, Any] = {"every_nb_batches": 3, "save_last": True, "filename": "{epoch}-{global_step}-{val_loss:.1f}"}
    whole = kept_by(tmp_path / "whole", BySteps(5), options=options, **how)
    with pytest.raises(Killed):
        kept_by(tmp_path / "cut", BySteps(5), options={**options, "callbacks": [Kill()]}, **how)
    rest = kept_by(tmp_path / "cut", BySteps(5), options=options, **how)
    assert len(whole.kept) == 3
    assert steps_of(tmp_path / "whole" / "kept") == steps_of(tmp_path / "cut" / "kept")
    assert [Path(p).name for p in rest.kept] == [Path(p).name for p in whole.kept]


def test_names_from_a_template(tmp_path: Path) -> None:
    kept_by(tmp_path, Recorder(4, (0.5, 0.25)), filename="{epoch}-{global_step}-{val_loss:.3f}")
    assert names(tmp_path / "kept") == [
        "epoch=1-global_step=4-val_loss=0.500.ckpt",
        "epoch=2-global_step=8-val_loss=0.250.ckpt",
    ]
    kept_by(tmp_path / "own", Recorder(4), filename="run_epoch={epoch:03d}_{twice:.0f}.ckpt")
    assert names(tmp_path / "own" / "kept") == ["run_epoch=001_twice=5.ckpt", "run_epoch=002_twice=1.ckpt"]


def test_a_later_file_of_the_same_name_replaces_the_earlier_one(tmp_path: Path) -> None:
    kept_by(tmp_path, filename="all")
    assert steps_of(tmp_path / "kept") == {"all.ckpt": 10}


def test_a_metric_that_is_not_there_yet_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"val_every_nb_batches": 4, "max_nb_epochs": 1}
    kept_by(tmp_path, every_nb_batches=2, filename="{global_step}-{val_loss:.2f}", options=options)
    assert names(tmp_path / "kept") == ["global_step=2-val_loss=nan.ckpt", "global_step=4-val_loss=1.00.ckpt"]
    said = capsys.readouterr().err
    assert said.count("there is no val_loss yet at global_step 2, so the name of the checkpoint says nan") == 1


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{epoch", "can't be read"),
        ("{}", "isn't a name"),
        ("{0}", "isn't a name"),
        ("{epoch!r}", "isn't a name"),
        ("{epoch:d.3}", "can't format epoch"),
        ("{val_loss:d}", "can't format val_loss"),
        ("{step}", "write {global_step}"),
        ("a/{epoch}", "without a folder"),
        ("", "must be a text"),
        (3, "must be a text"),
    ],
)
def test_a_template_that_can_not_be_formatted_is_refused(template: Any, what: str) -> None:
    with pytest.raises(MisconfigurationException, match="filename") as error:
        ModelCheckpoint("kept", filename=template)
    assert what in str(error.value)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    model = Recorder(4)
    with pytest.raises(MisconfigurationException, match=r"'val_los', which doesn't exist\. Available: val_loss"):
        kept_by(tmp_path, model, filename="{val_los}", options={"nb_sanity_val_steps": 1})
    assert not model.nb("training_step")
    with pytest.raises(FitError, match="ModelCheckpoint needs the metric 'twise', which doesn't exist"):
        kept_by(tmp_path, model, filename="{twise}", options={"nb_sanity_val_steps": 1})
    assert model.nb("training_step") == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"every_nb_batches": 0}, "every_nb_batches must be a whole number"),
        ({"every_nb_batches": 2.5}, "every_nb_batches must be a whole number"),
        ({"every_minutes": 0}, "every_minutes must be a positive number or timedelta"),
        ({"every_nb_batches": 2, "every_minutes": 1}, "every_nb_batches and every_minutes both say"),
        ({"every_nb_batches": 2, "period": 2}, "every_nb_batches and period both say"),
        ({"filename": "{epoch}", "prefix": "a"}, "is the whole name"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: Any, what: str) -> None:
    with pytest.raises(MisconfigurationException, match=what):
        ModelCheckpoint("kept", **arguments)


def test_a_timedelta_is_minutes() -> None:
    assert ModelCheckpoint("kept", every_minutes=timedelta(seconds=90)).every_minutes == 1.5


def test_two_that_write_the_same_last_file_are_refused(tmp_path: Path) -> None:
    each = [ModelCheckpoint(tmp_path / "kept", filename=name, save_last=True) for name in ("{epoch}", "{global_step}")]
    with pytest.raises(MisconfigurationException, match="would write the same files"):
        quiet_trainer(tmp_path, callbacks=each).fit(Recorder())


def test_files_that_may_be_replaced_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept_by(tmp_path, filename="{epoch}", save_last=True)
    capsys.readouterr()
    kept_by(tmp_path, filename="{epoch}", save_last=True)
    assert "holds checkpoints of an earlier run" in capsys.readouterr().err


def test_early_stopping_beside_it(tmp_path: Path) -> None:
    options = {"early_stop_callback": EarlyStopping(patience=1), "max_nb_epochs": 9}
    kept_by(tmp_path, every_nb_batches=4, save_last=True, options=options)
    assert steps_of(tmp_path / "kept")["_ckpt_last.ckpt"] == 8


@pytest.mark.parametrize("begun", [False, True], ids=["a new run", "a resumed run"])
def test_rolling_saves_come_by_the_clock_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Steps that take long, in an epoch that is long: how long the start took says nothing of them."""
    now, saved = 0.0, list[int]()

    class Clock(Callback):
        def on_batch_end(self, run: Any) -> None:
            nonlocal now
            now += 30.0

    options: dict[str, Any] = {"resume": "auto", "silence": ("first-save", "not-shuffled", "already-complete")}
    if begun:
        quiet_trainer(tmp_path, max_nb_steps=7, **options).fit(Recorder(40))
    save = rolling.RollingSaves.save
    monkeypatch.setattr(rolling, "time", SimpleNamespace(monotonic=lambda: now))

    def noting(self: Any, **how: Any) -> Any:
        saved.append(self._run.progress.global_step)
        return save(self, **how)

    monkeypatch.setattr(rolling.RollingSaves, "save", noting)
    quiet_trainer(tmp_path, max_nb_steps=22, save_every_minutes=2, callbacks=[Clock()], **options).fit(Recorder(40))
    first = 7 if begun else 0
    assert [step - first for step in saved if first < step < 22] == [4, 8, 12] + [16, 20] * (not begun)
