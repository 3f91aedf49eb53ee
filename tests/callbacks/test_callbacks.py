"""Early stopping and checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import FitError, MisconfigurationException
from tests.recorder import QUIET, Recorder, quiet_trainer


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------------------------------------- early stopping
@pytest.mark.parametrize(("patience", "epochs"), [(0, 2), (1, 2), (3, 4)])
def test_patience(tmp_path: Path, patience: int, epochs: int) -> None:
    trainer = quiet_trainer(tmp_path, early_stop_callback=EarlyStopping(patience=patience), max_nb_epochs=9)
    trainer.fit(Recorder())
    assert trainer.current_epoch == epochs


@pytest.mark.parametrize(
    ("monitor", "mode", "values", "epochs"),
    [
        ("val_loss", "auto", (3.0, 2.0, 1.0, 2.0), 4),
        ("val_acc", "auto", (1.0, 2.0, 3.0, 2.0), 4),
        ("fmeasure_1", "auto", (1.0, 2.0, 3.0, 2.0), 4),
        ("val_acc", "min", (1.0, 2.0), 2),
        ("val_loss", "max", (3.0, 2.0), 2),
        ("val_loss", "min", (1.0, float("nan")), 2),
    ],
)
def test_mode(tmp_path: Path, monitor: str, mode: str, values: Any, epochs: int) -> None:
    class Named(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            return {monitor: super().validation_end(outputs)["val_loss"]}

    stop = EarlyStopping(monitor, mode=mode)
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, max_nb_epochs=4)
    trainer.fit(Named(val_values=values))
    assert trainer.current_epoch == epochs
    assert (stop.stopped_epoch is not None) == ("early" in trainer.progress.stop_reason)


@pytest.mark.parametrize("min_delta", [0.5, -0.5])
def test_min_delta_is_the_least_gain(tmp_path: Path, min_delta: float) -> None:
    trainer = quiet_trainer(tmp_path, early_stop_callback=EarlyStopping(min_delta=min_delta), max_nb_epochs=9)
    trainer.fit(Recorder(val_values=(3.0, 2.0, 1.7)))
    assert trainer.current_epoch == 3


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_fit_that_is_stopped_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str], verbose: int) -> None:
    quiet_trainer(tmp_path, early_stop_callback=EarlyStopping(verbose=verbose), max_nb_epochs=9).fit(Recorder())
    assert capsys.readouterr().out == "early stopping in epoch 2: val_loss didn't improve on 1 in 1 checks\n"
    quiet_trainer(tmp_path, early_stop_callback=EarlyStopping(verbose=verbose), max_nb_epochs=1).fit(Recorder())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("every", ["epoch", "validation"])
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_training_is_no_check_of_a_name_that_a_validation_gives(
    tmp_path: Path, sanity: int, every: str, interval: int
) -> None:
    class Both(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            return {"twice": 1.0}  # training's is 18 in each batch

    stop = EarlyStopping("twice", patience=2, mode="max", every=every)
    options = {"nb_sanity_val_steps": sanity, "check_val_every_n_epoch": interval}
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, max_nb_epochs=19, **options)
    trainer.fit(Both(lr=0.0))
    assert (trainer.current_epoch, stop.wait, stop.best) == (3 * interval, 2, 1.0)


@pytest.mark.parametrize("sanity", [0, 2])
def test_a_name_that_only_training_gives_is_checked_in_each_epoch(tmp_path: Path, sanity: int) -> None:
    stop = EarlyStopping("twice", patience=4, mode="min")
    options = {"nb_sanity_val_steps": sanity, "check_val_every_n_epoch": 3}
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, max_nb_epochs=19, **options)
    trainer.fit(Recorder(lr=0.0))
    assert (trainer.current_epoch, stop.wait) == (5, 4)


@pytest.mark.parametrize(("every", "checks"), [("epoch", 3), ("validation", 9)])
def test_an_epoch_with_several_validations_is_one_check_or_several(tmp_path: Path, every: str, checks: int) -> None:
    class Better(Recorder):
        """Each validation but the last of an epoch is worse than ever."""

        nb = 0

        def validation_end(self, outputs: Any) -> Any:
            self.nb += 1
            return {"val_loss": 100.0 + self.nb if self.nb % 3 else -self.nb}

    stop = EarlyStopping(patience=5, every=every)
    options = {"val_check_interval": 2, "nb_sanity_val_steps": 0}
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, max_nb_epochs=3, **options)
    trainer.fit(Better(nb_batches=6))
    assert (trainer.current_epoch, stop.best, stop.wait) == (3, -9, 0)
    stop = EarlyStopping(patience=2, every=every)
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, max_nb_epochs=3, **options)
    trainer.fit(Better(nb_batches=6))
    assert trainer.current_epoch == (3 if every == "epoch" else 1)


@pytest.mark.parametrize("interval", [2, 3])
@pytest.mark.parametrize("name", ["twice", "seen"])
@pytest.mark.parametrize("cut", [1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 23])
def test_checks_continue_after_a_resume(tmp_path: Path, cut: int, name: str, interval: int) -> None:
    """A cut after any batch changes neither how often is checked nor what counts as a check. 'seen' is training's."""

    class Both(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            output = super().training_step(data_batch, batch_nb)
            return {**output, "prog": {"twice": 18.0, "seen": float(self.current_epoch == 0)}}

        def validation_end(self, outputs: Any) -> Any:
            return {"twice": 1.0}

    def trainer(**options: Any) -> Any:
        stop = EarlyStopping(name, patience=2 if name == "twice" else 5, mode="max")
        values = {"max_nb_epochs": 19, "check_val_every_n_epoch": 2, "nb_sanity_val_steps": 0}
        values["val_check_interval"] = interval
        return quiet_trainer(tmp_path, early_stop_callback=stop, **{**values, **options})

    first = trainer(max_nb_steps=cut)
    first.fit(Both(lr=0.0))
    first.save_checkpoint(tmp_path / "x.ckpt")
    rest = trainer(resume=tmp_path / "x.ckpt")
    rest.fit(Both(lr=0.0))
    assert (rest.current_epoch, rest.global_step) == (6, 24)


MODES = {
    "max": "val_acc acc accuracy valacc val_f1 f1_score auc val/auroc AP mAP mAP@0.5 mAP50 val-iou miou Dice precision"
    " recall@5 r2 R2 bleu BLEU-4 rouge1 rougeL meteor psnr ssim score error_score loss_acc top1",
    "min": "loss val_loss tng_loss valLoss myloss error err mae mse RMSE mape perplexity ppl nll wer cer FID dice_loss"
    " acc_loss vacc_error top5_error val_f1_loss l1",
    None: "confidence gap power rapid cost val_x",
}


@pytest.mark.parametrize(("mode", "name"), [(mode, name) for mode, names in MODES.items() for name in names.split()])
def test_auto_goes_by_the_words_of_a_name(
    tmp_path: Path, mode: str | None, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Named(Recorder):
        """Rises in each epoch."""

        def validation_end(self, outputs: Any) -> Any:
            return {name: float(self.current_epoch)}

    keep = ModelCheckpoint(tmp_path / "w", monitor=name, save_best_only=True)
    stop = EarlyStopping(name, patience=2)
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, checkpoint_callback=keep, max_nb_epochs=5)
    trainer.fit(Named())
    assert trainer.current_epoch == (5 if mode == "max" else 3)
    assert names_in(tmp_path / "w") == [f"_ckpt_epoch_{5 if mode == 'max' else 1}.ckpt"]
    said = capsys.readouterr().err.count(f"mode='auto' takes '{name}' for a metric that is better the lower")
    assert said == (1 if mode is None else 0)


def test_stopping_in_mid_epoch_leaves_the_rest_of_it(tmp_path: Path) -> None:
    stop = EarlyStopping(every="validation")
    trainer = quiet_trainer(
        tmp_path, early_stop_callback=stop, max_nb_epochs=9, val_check_interval=0.25, min_nb_epochs=0
    )
    trainer.fit(Recorder())
    assert (trainer.current_epoch, trainer.batch_nb) == (0, 2)


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize(
    "option",
    [
        {"early_stop_callback": EarlyStopping("val_los")},
        {"checkpoint_callback": ModelCheckpoint("unused", monitor="val_los", save_best_only=True)},
    ],
    ids=["stop", "best"],
)
def test_a_metric_that_nothing_gives_is_an_error_that_lists_what_there_is(
    tmp_path: Path, option: Any, sanity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Recorder()
    with pytest.raises(FitError, match=r"needs the metric 'val_los'.*tng_loss, tng_loss_epoch, twice, val_loss"):
        quiet_trainer(tmp_path, nb_sanity_val_steps=sanity, **option).fit(model)
    assert model.nb("training_step") == (1 if sanity else 4)


def test_a_metric_of_validation_is_missed_at_once_where_there_is_no_validation(tmp_path: Path) -> None:
    class Unvalidated(Recorder):
        pass

    for name in ("validation_step", "validation_end", "val_dataloader"):
        setattr(Unvalidated, name, getattr(LightningModule, name))
    model = Unvalidated()
    with pytest.raises(FitError, match=r"EarlyStopping needs the metric 'val_loss', which doesn't exist"):
        quiet_trainer(tmp_path, early_stop_callback=EarlyStopping()).fit(model)
    assert model.nb("training_step") == 1


def test_a_plateau_whose_metric_is_missing_lists_the_metrics(tmp_path: Path) -> None:
    class Once(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            metrics = super().validation_end(outputs)
            return metrics if self.nb_validations == 1 else {"other": 1.0}

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            return [optimizer], [torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)]

    with pytest.raises(
        FitError, match=r"ReduceLROnPlateau needs the metric 'val_loss'.*other, tng_loss, tng_loss_epoch, twice"
    ):
        quiet_trainer(tmp_path, max_nb_epochs=3).fit(Once())


def test_a_checkpoint_callback_that_compares_nothing_needs_no_metric(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "w", monitor="nothing")
    quiet_trainer(tmp_path, checkpoint_callback=keep).fit(Recorder())
    assert names_in(tmp_path / "w") == ["_ckpt_epoch_1.ckpt"]


@pytest.mark.parametrize(
    ("arguments", "values", "epochs", "said"),
    [
        ({"stopping_threshold": 0.5}, (2.0, 1.0, 0.5, 0.1), 3, "is 0.5, and has reached stopping_threshold=0.5"),
        ({"stopping_threshold": 2.5, "mode": "max"}, (1.0, 2.0, 3.0), 3, "is 3, and has reached"),
        ({"divergence_threshold": 4.0}, (2.0, 4.0, 5.0, 1.0), 3, "is 5, and worse than divergence_threshold=4"),
        ({"divergence_threshold": 1.0, "mode": "max"}, (2.0, 0.5), 2, "is 0.5, and worse than"),
        ({"check_finite": True}, (2.0, float("nan"), 1.0), 2, "is nan, and isn't finite"),
        ({"check_finite": True}, (2.0, float("inf"), 1.0), 2, "is inf, and isn't finite"),
        ({}, (2.0, float("nan"), 1.0, 0.9), 4, None),
        ({"stopping_threshold": 0.1, "divergence_threshold": 9.0}, (2.0, 1.0, 0.5), 4, None),
    ],
)
def test_early_stopping_at_a_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: Any, values: Any, epochs: int, said: str | None
) -> None:
    stop = EarlyStopping(patience=9, **{"mode": "min", **arguments})
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, max_nb_epochs=4)
    trainer.fit(Recorder(val_values=values))
    assert trainer.current_epoch == epochs
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("early stopping")]
    assert (said in lines[0]) if said else (lines == [])


def test_a_value_that_stops_waits_for_the_least_number_of_epochs(tmp_path: Path) -> None:
    stop = EarlyStopping(patience=9, stopping_threshold=1.0)
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, max_nb_epochs=9, min_nb_epochs=3)
    trainer.fit(Recorder(val_values=(0.5,)))
    assert trainer.current_epoch == 3


@pytest.mark.parametrize(("threshold", "epochs"), [(1.0, 2), (0.1, 4)])
def test_a_fit_that_a_value_stopped_stays_stopped_unless_it_may_go_further_now(
    tmp_path: Path, threshold: float, epochs: int
) -> None:
    options: Any = {
        "max_nb_epochs": 4,
        "silence": ("not-shuffled", "already-complete", "already-stopped", "first-save"),
    }
    first = quiet_trainer(tmp_path, early_stop_callback=EarlyStopping(patience=9, stopping_threshold=1.0), **options)
    first.fit(Recorder(val_values=(2.0, 0.5, 0.4)))
    assert first.current_epoch == 2
    first.save_checkpoint(tmp_path / "x.ckpt")
    stop = EarlyStopping(patience=9, stopping_threshold=threshold)
    again = quiet_trainer(tmp_path, early_stop_callback=stop, resume=tmp_path / "x.ckpt", **options)
    again.fit(Recorder(val_values=(0.3, 0.2)))
    assert again.current_epoch == epochs


@pytest.mark.parametrize(
    "arguments",
    [
        {"stopping_threshold": "0.5"},
        {"divergence_threshold": float("nan")},
        {"stopping_threshold": 2.0, "divergence_threshold": 1.0, "mode": "min"},
        {"stopping_threshold": 1.0, "divergence_threshold": 2.0, "mode": "max"},
    ],
)
def test_thresholds_that_cannot_work(arguments: Any) -> None:
    with pytest.raises(MisconfigurationException, match="threshold"):
        EarlyStopping(**arguments)


def test_the_best_value_of_each_metric_also_through_a_resume(tmp_path: Path) -> None:
    """The oracle is the list of all values that there were."""
    values = (3.0, 1.0, 2.0, float("nan"), 2.5)
    options: Any = {"silence": ("not-shuffled", "first-save"), "val_check_interval": 0.5}
    losses: list[float] = []

    class Noting(Recorder):
        def on_epoch_end(self) -> None:
            losses.append(self.trainer.metrics["tng_loss"])

        def validation_end(self, outputs: Any) -> Any:
            return {**super().validation_end(outputs), "val_acc": float(self.nb_validations)}

    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, max_nb_steps=5, **options)
    with pytest.raises(MisconfigurationException, match="no metric 'val_loss' so far"):
        trainer.best_metric("val_loss")
    assert trainer.metrics == {}
    assert trainer.folder is None
    trainer.fit(Noting(val_values=values))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = quiet_trainer(tmp_path, max_nb_epochs=2, resume=tmp_path / "x.ckpt", **options)
    again.fit(Noting(val_values=values[2:]))
    assert again.best_metric("val_loss") == 1.0
    assert again.best_metric("val_loss", mode="max") == 3.0
    assert again.best_metric("tng_loss") == min(losses)
    assert again.best_metric("val_acc") == 2.0
    assert again.metrics["val_acc"] == 2.0
    assert again.folder == Path(tmp_path / "logs/Noting/version_1")
    assert (again.folder / "metrics.csv").exists()
    with pytest.raises(MisconfigurationException, match="Did you mean 'val_loss'"):
        again.best_metric("val_los")
    whole = torch.load(tmp_path / "x.ckpt", weights_only=True)
    del whole["parts"]["metrics"]["extremes"]
    torch.save(whole, tmp_path / "older.ckpt")
    older = quiet_trainer(tmp_path, max_nb_epochs=2, resume=tmp_path / "older.ckpt", **options)
    older.fit(Noting(val_values=values[2:]))
    with pytest.raises(MisconfigurationException, match="isn't known"):
        older.best_metric("val_loss")


# ---------------------------------------------------------------------------------------------- checkpoints
def run(tmp_path: Path, values: tuple[float, ...], **options: Any) -> tuple[ModelCheckpoint, list[str]]:
    keep = ModelCheckpoint(tmp_path / "w", **options)
    trainer = quiet_trainer(tmp_path, checkpoint_callback=keep, max_nb_epochs=len(values))
    trainer.fit(Recorder(val_values=values))
    return keep, names_in(tmp_path / "w")


def test_every_epoch_is_kept_by_default(tmp_path: Path) -> None:
    _, names = run(tmp_path, (3.0, 2.0, 4.0))
    assert names == [f"_ckpt_epoch_{n}.ckpt" for n in (1, 2, 3)]


def test_prefix_and_period(tmp_path: Path) -> None:
    _, names = run(tmp_path, (3.0,) * 5, prefix="mine", period=2)
    assert names == [f"mine_ckpt_epoch_{n}.ckpt" for n in (2, 4)]


def test_save_best_only_keeps_the_best_and_deletes_only_its_own(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w/_ckpt_epoch_99.ckpt").write_text("somebody else's")
    keep, names = run(tmp_path, (3.0, 2.0, 4.0), save_best_only=True)
    assert names == ["_ckpt_epoch_2.ckpt", "_ckpt_epoch_99.ckpt"]
    assert (keep.best, keep.best_path) == (2.0, str(tmp_path / "w/_ckpt_epoch_2.ckpt"))


@pytest.mark.parametrize(
    ("options", "values", "kept", "best"),
    [
        ({"save_top_k": 2}, (3.0, 1.0, 4.0, 2.0, 5.0), [2, 4], 2),
        ({"save_top_k": 2, "mode": "max"}, (3.0, 1.0, 4.0, 2.0), [1, 3], 3),
        ({"save_top_k": 2}, (float("nan"), 1.0, float("nan")), [2], 2),
        ({"save_top_k": 3}, (1.0, 2.0, 3.0), [1, 2, 3], 1),
        ({"save_top_k": -1}, (1.0, 2.0, 3.0), [1, 2, 3], 1),
    ],
)
def test_save_top_k(tmp_path: Path, options: Any, values: Any, kept: list[int], best: int) -> None:
    keep, names = run(tmp_path, values, **options)
    assert names == [f"_ckpt_epoch_{n}.ckpt" for n in kept]
    assert keep.best_path == str(tmp_path / f"w/_ckpt_epoch_{best}.ckpt")


@pytest.mark.parametrize("options", [{}, {"save_top_k": 1}], ids=["all", "top 1"])
def test_the_file_of_a_late_epoch_is_no_larger_than_that_of_an_early_one(tmp_path: Path, options: Any) -> None:
    sizes = []
    for nb in (60, 180):  # more batches than the last losses that are kept
        keep = ModelCheckpoint(tmp_path / f"{nb:03d}/w", **options)
        trainer = quiet_trainer(tmp_path / f"{nb:03d}", checkpoint_callback=keep, max_nb_epochs=nb)
        trainer.fit(Recorder(val_values=tuple(1 / n for n in range(1, 181))))
        sizes.append((tmp_path / f"{nb:03d}/w/_ckpt_epoch_{nb}.ckpt").stat().st_size)
    assert sizes[1] <= sizes[0] + 128, "the names of files have a digit more"


def test_where_all_are_kept_a_resumed_run_knows_the_best(tmp_path: Path) -> None:
    values = (5.0, 1.0, *range(10, 2, -1), 2.0)
    run(tmp_path, values)
    save = torch.load(tmp_path / f"w/_ckpt_epoch_{len(values)}.ckpt")
    named = [Path(path).name for path in save["parts"]["callbacks"]["ModelCheckpoint val_loss 0"]["kept"]]
    assert named == [f"_ckpt_epoch_{n}.ckpt" for n in (2, 7, 8, 9, 10, 11)]
    again = ModelCheckpoint(tmp_path / "w")
    last = tmp_path / f"w/_ckpt_epoch_{len(values)}.ckpt"
    trainer = quiet_trainer(tmp_path, checkpoint_callback=again, max_nb_epochs=len(values) + 1, resume=last)
    trainer.fit(Recorder(val_values=(*values, 3.0)))
    assert (again.best, again.best_path) == (1.0, str(tmp_path / "w/_ckpt_epoch_2.ckpt"))


@pytest.mark.parametrize("options", [{"save_best_only": True}, {"save_top_k": 1}], ids=["best", "top 1"])
def test_a_worse_check_of_the_same_epoch_does_not_replace_the_best_weights(tmp_path: Path, options: Any) -> None:
    keep = ModelCheckpoint(tmp_path / "w", **options)
    trainer = quiet_trainer(tmp_path, checkpoint_callback=keep, val_check_interval=1 / 3, max_nb_epochs=1)
    trainer.fit(Recorder(nb_batches=3, val_values=(3.0, 1.0, 2.0)))
    assert names_in(tmp_path / "w") == ["_ckpt_epoch_1.ckpt"]
    assert torch.load(tmp_path / "w/_ckpt_epoch_1.ckpt")["global_step"] == 2
    assert keep.kept == {keep.best_path: 1.0}


def test_the_best_of_all_that_were_kept_is_known(tmp_path: Path) -> None:
    keep, names = run(tmp_path, (3.0, 1.0, float("nan"), 2.0))
    assert len(names) == 4
    assert keep.best_path == str(tmp_path / "w/_ckpt_epoch_2.ckpt")
    newest, _ = run(tmp_path, (3.0, 1.0), monitor="nothing")
    assert newest.best_path == str(tmp_path / "w/_ckpt_epoch_2.ckpt")


def test_nan_is_never_among_the_best(tmp_path: Path) -> None:
    _, names = run(tmp_path, (float("nan"), 3.0, float("nan")), save_top_k=2)
    assert names == ["_ckpt_epoch_2.ckpt"]


def test_a_second_fit_begins_with_fresh_callbacks(tmp_path: Path) -> None:
    stop, keep = EarlyStopping(patience=2), ModelCheckpoint(tmp_path / "w", save_best_only=True)
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, checkpoint_callback=keep, max_nb_epochs=9)
    trainer.fit(Recorder(val_values=(1.0, 1.0)))
    assert (trainer.current_epoch, stop.wait) == (3, 2)
    trainer.fit(Recorder(val_values=(5.0, 4.0, 3.0, 3.0)))
    assert (trainer.current_epoch, stop.best) == (5, 3.0)
    assert (keep.best, keep.best_path) == (3.0, str(tmp_path / "w/_ckpt_epoch_3.ckpt"))
    # the file of the first fit is under the name of this one's first epoch, and went with it
    assert names_in(tmp_path / "w") == ["_ckpt_epoch_3.ckpt"]


def test_a_file_is_deleted_only_by_the_fit_that_wrote_it(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "w", save_best_only=True)
    trainer = quiet_trainer(tmp_path, checkpoint_callback=keep, max_nb_epochs=2)
    trainer.fit(Recorder(val_values=(2.0, 1.0)))
    trainer.fit(Recorder(val_values=(3.0, 4.0)))
    assert names_in(tmp_path / "w") == ["_ckpt_epoch_1.ckpt", "_ckpt_epoch_2.ckpt"]


def test_save_top_0_saves_nothing(tmp_path: Path) -> None:
    _, names = run(tmp_path, (3.0, 1.0), save_top_k=0)
    assert names == []


def test_a_file_is_deleted_only_when_its_successor_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.resume import saver as saving

    there: list[list[str]] = []
    write = saving.write_checkpoint

    def watched(checkpoint: Any, path: Any) -> Any:
        before = names_in(tmp_path / "w")
        result = write(checkpoint, path)
        there.append(before)
        return result

    monkeypatch.setattr(saving, "write_checkpoint", watched)
    run(tmp_path, (3.0, 2.0, 1.0), save_best_only=True)
    assert there == [[], ["_ckpt_epoch_1.ckpt"], ["_ckpt_epoch_2.ckpt"]]


def test_save_weights_only_leaves_the_rest_out(tmp_path: Path) -> None:
    run(tmp_path, (1.0,), save_weights_only=True)
    checkpoint = torch.load(tmp_path / "w/_ckpt_epoch_1.ckpt", weights_only=True)
    assert set(checkpoint) == {"state_dict", "epoch", "global_step", "hparams", "init_arguments", "format", "library"}


def test_verbose_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, (1.0,), verbose=1)
    assert f"saved {tmp_path}/w/_ckpt_epoch_1.ckpt" in capsys.readouterr().out
    run(tmp_path, (1.0,))
    assert capsys.readouterr().out == ""


def test_with_validation_it_saves_after_validations_only(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "w")
    quiet_trainer(tmp_path, checkpoint_callback=keep, max_nb_epochs=5, check_val_every_n_epoch=2).fit(Recorder())
    assert names_in(tmp_path / "w") == ["_ckpt_epoch_2.ckpt", "_ckpt_epoch_4.ckpt"]


def test_where_all_are_kept_the_best_is_the_best(tmp_path: Path) -> None:
    keep, _ = run(tmp_path, (2.0, 1.0, 3.0))
    assert keep.best_path == str(tmp_path / "w/_ckpt_epoch_2.ckpt")


@pytest.mark.parametrize(
    ("options", "values", "kept", "step"),
    [
        ({}, (1.0, 2.0), 2.0, 4),
        ({"save_top_k": 1}, (1.0, 2.0), 1.0, 2),
        ({"save_top_k": 1}, (2.0, 1.0), 1.0, 4),
        ({"save_best_only": True}, (1.0, 2.0), 1.0, 2),
    ],
)
def test_a_later_file_of_an_epoch_replaces_the_earlier_one_unless_it_is_worse(
    tmp_path: Path, options: Any, values: Any, kept: float, step: int
) -> None:
    keep = ModelCheckpoint(tmp_path / "w", **options)
    trainer = quiet_trainer(tmp_path, checkpoint_callback=keep, val_check_interval=0.5)
    trainer.fit(Recorder(val_values=values))
    assert keep.kept == {keep.best_path: kept}
    assert keep.best == kept
    assert torch.load(keep.best_path, weights_only=True)["global_step"] == step


def test_without_validation_it_saves_at_each_epochs_end(tmp_path: Path) -> None:

    class Unvalidated(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        training_step = Recorder.training_step
        forward = Recorder.forward
        seen: list[Any] = []
        note = staticmethod(lambda *_: None)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

        @property
        def tng_dataloader(self) -> Any:
            return [[torch.ones(2, 1)]] * 3

    keep = ModelCheckpoint(tmp_path / "w", monitor="tng_loss", save_best_only=True)
    quiet_trainer(tmp_path, checkpoint_callback=keep, max_nb_epochs=3).fit(Unvalidated())
    assert names_in(tmp_path / "w") == ["_ckpt_epoch_3.ckpt"]


def test_a_named_folder_that_cannot_be_written_is_found_before_the_first_batch(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = Recorder()
    with pytest.raises(MisconfigurationException, match=r"filepath of ModelCheckpoint can't be written.*file/w"):
        quiet_trainer(tmp_path, checkpoint_callback=ModelCheckpoint(tmp_path / "file/w")).fit(model)
    with pytest.raises(MisconfigurationException, match="default_save_path can't be written"):
        quiet_trainer(tmp_path, default_save_path=tmp_path / "file/logs").fit(model)
    assert model.calls == []


def test_counters_continue_after_a_resume(tmp_path: Path) -> None:
    def callbacks(folder: str) -> dict[str, Any]:
        return {
            "early_stop_callback": EarlyStopping(patience=3),
            "checkpoint_callback": ModelCheckpoint(tmp_path / folder, save_top_k=2),
        }

    values = (1.0, 2.0, 0.5, 3.0, 0.7, 3.0, 3.0, 3.0)
    whole = quiet_trainer(tmp_path, max_nb_epochs=9, **callbacks("whole"))
    whole.fit(Recorder(val_values=values))
    first = quiet_trainer(tmp_path, max_nb_epochs=4, **callbacks("parts"))
    first.fit(Recorder(val_values=values))
    first.save_checkpoint(tmp_path / "x.ckpt")
    rest = quiet_trainer(tmp_path, max_nb_epochs=9, resume=tmp_path / "x.ckpt", **callbacks("parts"))
    rest.fit(Recorder(val_values=values[4:]))
    assert whole.current_epoch == rest.current_epoch == 6
    assert names_in(tmp_path / "whole") == names_in(tmp_path / "parts")
    assert rest.checkpoint_callback.best == 0.5
    assert rest.checkpoint_callback.best_path == str(tmp_path / "parts/_ckpt_epoch_3.ckpt")


def test_a_period_continues_after_a_resume(tmp_path: Path) -> None:
    first = quiet_trainer(tmp_path, checkpoint_callback=ModelCheckpoint(tmp_path / "w", period=3), max_nb_epochs=2)
    first.fit(Recorder())
    first.save_checkpoint(tmp_path / "x.ckpt")
    keep = ModelCheckpoint(tmp_path / "w", period=3)
    quiet_trainer(tmp_path, checkpoint_callback=keep, max_nb_epochs=5, resume=tmp_path / "x.ckpt").fit(Recorder())
    assert names_in(tmp_path / "w") == ["_ckpt_epoch_3.ckpt"]


@pytest.mark.parametrize(
    ("period", "interval", "values", "epochs"),
    [
        (5, 1, (1.0,), [5, 10]),
        (3, 1, (1.0,), [3, 6, 9]),
        (3, 2, (1.0,), [4, 6, 10]),
        (1, 4, (1.0,), [4, 8]),
        (4, 1, tuple(range(10)), [4, 8]),
        (12, 1, (1.0,), []),
    ],
)
def test_a_period_counts_from_the_first_epoch(
    tmp_path: Path, period: int, interval: int, values: Any, epochs: list[int]
) -> None:
    keep = ModelCheckpoint(tmp_path / "w", period=period)
    options = {"max_nb_epochs": 10, "check_val_every_n_epoch": interval}
    quiet_trainer(tmp_path, checkpoint_callback=keep, **options).fit(Recorder(val_values=values))
    assert keep.kept.keys() == {str(tmp_path / f"w/_ckpt_epoch_{n}.ckpt") for n in epochs}
    best = ModelCheckpoint(tmp_path / "b", period=period, save_best_only=True)
    quiet_trainer(tmp_path, checkpoint_callback=best, **options).fit(Recorder(val_values=values))
    assert best.best_path == (str(tmp_path / f"b/_ckpt_epoch_{epochs[0]}.ckpt") if epochs else None)


@pytest.mark.parametrize("cut", [None, 3, 5, 6])
def test_the_k_best_of_one_epoch_are_kept(tmp_path: Path, cut: int | None) -> None:
    def trainer(**options: Any) -> Any:
        keep = ModelCheckpoint(tmp_path / "w", save_top_k=3)
        values = {"max_nb_epochs": 1, "val_check_interval": 2, "nb_sanity_val_steps": 0, "checkpoint_callback": keep}
        return quiet_trainer(tmp_path, **{**values, **options})

    class Valued(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            return {"val_loss": [5.0, 2.0, 4.0, 1.0, 3.0, 9.0][(self.trainer.batch_nb - 1) // 2]}

    last = trainer(max_nb_steps=cut)
    last.fit(Valued(nb_batches=12))
    if cut is not None:
        last.save_checkpoint(tmp_path / "x.ckpt")
        last = trainer(resume=tmp_path / "x.ckpt")
        last.fit(Valued(nb_batches=12))
    steps = {torch.load(path, weights_only=True)["global_step"] for path in (tmp_path / "w").iterdir()}
    assert steps == {4, 8, 10}
    keep = last.config.checkpoint_callback
    assert torch.load(keep.best_path, weights_only=True)["global_step"] == 8
    assert keep.best == 1.0


def test_files_of_an_earlier_run_are_named_before_they_are_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(**options: Any) -> str:
        keep = ModelCheckpoint(tmp_path / "w", **{"prefix": "p", **options.pop("keep", {})})
        trainer = quiet_trainer(tmp_path, checkpoint_callback=keep, **{"max_nb_epochs": 2, **options})
        trainer.fit(Recorder())
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        return capsys.readouterr().err

    assert fit() == ""
    assert fit(max_nb_epochs=3, resume=tmp_path / "x.ckpt", silence=("first-save", "not-shuffled")) == ""
    assert fit(keep={"prefix": "q"}) == ""
    said = fit()
    assert said.count("[writes-over]") == 1
    assert "earlier run, and those of the same names are replaced: p_ckpt_epoch_1.ckpt, p_ckpt_epoch_2.ckpt;" in said
    assert fit(keep={"save_top_k": 0}) == ""
    assert fit(fast_dev_run=True) == ""


def test_a_resumed_run_writes_its_own_files_again_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Saving(Recorder):
        def on_epoch_end(self) -> None:
            if self.current_epoch == 0:
                self.trainer.save_checkpoint(tmp_path / "x.ckpt")

    for resume in (None, tmp_path / "x.ckpt"):
        keep = ModelCheckpoint(tmp_path / "w")
        quiet_trainer(tmp_path, checkpoint_callback=keep, max_nb_epochs=3, resume=resume).fit(Saving())
        assert len(list((tmp_path / "w").iterdir())) == 3, "those after the first are there already"
    assert "writes-over" not in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"mode": "best"}, {"period": 0}, {"save_best_only": True, "save_top_k": 3}])
def test_options_that_cannot_work(options: Any) -> None:
    with pytest.raises(MisconfigurationException):
        ModelCheckpoint("w", **options)


def test_a_hook_of_a_callback_with_the_wrong_signature_is_found_before_the_first_batch(tmp_path: Path) -> None:
    class Wrong(Callback):
        def on_epoch_end(self) -> None:  # type: ignore[override]
            pass

    class Odd(Callback):
        def on_validation_end(self, run: Any) -> None:  # type: ignore[override]
            pass

    model = Recorder()
    with pytest.raises(MisconfigurationException, match=r"2 problems.*\n.*Wrong.on_epoch_end.*\n.*Odd.on_v"):
        quiet_trainer(tmp_path, callbacks=[Wrong(), Odd()]).fit(model)
    assert model.calls == []


def test_a_subclass_of_the_trainer_keeps_attributes_of_its_own(tmp_path: Path) -> None:
    class Own(Trainer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.folder, self.metrics = "mine", ["mine too"]  # type: ignore[misc, assignment]

    trainer = Own(max_nb_epochs=1, **{**QUIET, "default_save_path": tmp_path})
    trainer.fit(Recorder())
    assert (trainer.folder, trainer.metrics) == ("mine", ["mine too"])
