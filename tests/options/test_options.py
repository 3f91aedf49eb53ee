"""Each option of the Trainer does what its name says: taken out, a test here turns red."""

import datetime
import math
import signal
import threading
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import SHOWN, FitError, MisconfigurationException
from pytorch_lightning.options.config import flags, options
from pytorch_lightning.strategies import SingleDevice
from pytorch_lightning.trainer.trainer import option_defaults
from tests.recorder import QUIET, Recorder, quiet_trainer, rows_of


# ---------------------------------------------------------------------------------------------- how long
def test_max_nb_epochs(tmp_path: Path) -> None:
    model = Recorder()
    assert quiet_trainer(tmp_path, max_nb_epochs=3).fit(model) == 1
    assert model.nb("training_step") == 12


def test_max_nb_steps_counts_optimizer_steps(tmp_path: Path) -> None:
    model = Recorder()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=9, max_nb_steps=3, accumulate_grad_batches=2)
    assert trainer.fit(model) == 1
    assert (model.nb("training_step"), trainer.progress.nb_optimizer_steps, trainer.global_step) == (6, 3, 6)
    assert "max_nb_steps" in trainer.progress.stop_reason


@pytest.mark.parametrize("max_time", [1e-9, datetime.timedelta(microseconds=1)])
def test_max_time_ends_at_the_next_save_point(tmp_path: Path, max_time: Any) -> None:
    model = Recorder()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=9, max_time=max_time, accumulate_grad_batches=2)
    trainer.fit(model)
    assert model.nb("training_step") == 2
    assert "max_time" in trainer.progress.stop_reason


def test_early_stopping_stops_after_patience_checks_without_gain(tmp_path: Path) -> None:
    model = Recorder(val_values=(1.0, 0.9, 0.95, 0.9, 0.99))
    trainer = quiet_trainer(tmp_path, early_stop_callback=EarlyStopping(patience=2), max_nb_epochs=9)
    trainer.fit(model)
    assert trainer.current_epoch == 4
    assert "val_loss" in trainer.progress.stop_reason


def test_enable_early_stop_false_trains_on(tmp_path: Path) -> None:
    model = Recorder()
    trainer = quiet_trainer(tmp_path, early_stop_callback=EarlyStopping(), max_nb_epochs=5, enable_early_stop=False)
    trainer.fit(model)
    assert trainer.current_epoch == 5


def test_min_nb_epochs_come_before_early_stopping(tmp_path: Path) -> None:
    model = Recorder()
    trainer = quiet_trainer(tmp_path, early_stop_callback=EarlyStopping(), max_nb_epochs=9, min_nb_epochs=4)
    trainer.fit(model)
    assert trainer.current_epoch == 4


def test_patience_counts_validations_not_epochs_without_one(tmp_path: Path) -> None:
    model = Recorder()
    stop = EarlyStopping(patience=2)
    trainer = quiet_trainer(tmp_path, early_stop_callback=stop, max_nb_epochs=20, check_val_every_n_epoch=3)
    trainer.fit(model)
    assert (model.nb_validations, trainer.current_epoch) == (3, 9)


def test_a_training_value_can_be_monitored(tmp_path: Path) -> None:
    model = Recorder(lr=0.0)
    trainer = quiet_trainer(tmp_path, early_stop_callback=EarlyStopping("tng_loss", patience=2), max_nb_epochs=9)
    trainer.fit(model)
    assert trainer.current_epoch == 3


def test_max_time_is_in_minutes() -> None:
    assert Trainer(max_time=2).config.max_seconds == 120.0
    assert Trainer(max_time=datetime.timedelta(minutes=2)).config.max_seconds == 120.0


def test_max_time_counts_over_all_restarts(tmp_path: Path) -> None:
    first = quiet_trainer(tmp_path, max_nb_steps=2)
    first.fit(Recorder())
    first.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert 0.0 < saved["parts"]["progress"]["seconds"] < 60.0
    saved["parts"]["progress"]["seconds"] = 3600.0
    torch.save(saved, tmp_path / "x.ckpt")
    model = Recorder()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=9, max_time=61, resume=tmp_path / "x.ckpt")
    trainer.fit(model)
    assert model.nb("training_step") == 34, "a minute is left"
    assert trainer.progress.seconds > 3600.0
    model = Recorder()
    quiet_trainer(tmp_path, max_nb_epochs=9, max_time=59, resume=tmp_path / "x.ckpt").fit(model)
    assert model.nb("training_step") == 1


# ---------------------------------------------------------------------------------------------- how much
def test_percent_checks_leave_a_share_of_each_loader(tmp_path: Path) -> None:
    model = Recorder(nb_batches=10)
    trainer = quiet_trainer(tmp_path, train_percent_check=0.5, val_percent_check=0.67, test_percent_check=0.5)
    trainer.fit(model)
    assert (model.nb("training_step"), model.validation_sizes) == (5, [2])
    trainer.test()
    assert model.validation_sizes == [2, 1]


def test_a_tiny_share_is_one_batch_and_a_huge_one_is_all(tmp_path: Path) -> None:
    model = Recorder(nb_batches=3)
    quiet_trainer(tmp_path, train_percent_check=0.1, val_percent_check=100).fit(model)
    assert (model.nb("training_step"), model.validation_sizes) == (1, [3])


def test_overfit_pct_gives_the_same_batches_each_epoch_unshuffled(tmp_path: Path) -> None:
    class Shuffled(Recorder):
        def loader(self, nb_batches: int) -> Any:
            data = TensorDataset(torch.arange(2.0 * nb_batches).unsqueeze(1))
            return DataLoader(data, batch_size=2, shuffle=True)

    model = Shuffled(nb_batches=10)
    quiet_trainer(tmp_path, overfit_pct=0.3, max_nb_epochs=2, val_percent_check=1.0).fit(model)
    assert model.seen == [[0.0, 2.0, 4.0]] * 2
    assert model.validation_sizes == [1, 1]


def test_a_negative_overfit_pct_is_off(tmp_path: Path) -> None:
    model = Recorder()
    quiet_trainer(tmp_path, overfit_pct=-1).fit(model)
    assert model.nb("training_step") == 4


def test_fast_dev_run_runs_one_batch_of_each_and_keeps_nothing(tmp_path: Path) -> None:
    class Watch(Callback):
        ends: list[str]

        def __init__(self) -> None:
            self.ends = []

        def on_epoch_end(self, run: Any) -> None:
            self.ends.append("epoch")

        def on_validation_end(self, run: Any, metrics: Any) -> None:
            self.ends.append("validation")

    model, watch = Recorder(), Watch()
    folder = tmp_path / "weights"
    options = {**QUIET, "nb_sanity_val_steps": 5}
    trainer = Trainer(
        checkpoint_callback=ModelCheckpoint(folder),
        callbacks=[watch],
        fast_dev_run=True,
        check_val_every_n_epoch=7,
        max_nb_epochs=50,
        min_nb_epochs=3,
        default_save_path=tmp_path / "logs",
        **options,
    )
    assert trainer.fit(model) == 1
    assert (model.nb("training_step"), model.validation_sizes) == (1, [1, 1])  # the sanity check, then the epoch's end
    assert watch.ends == ["validation", "epoch"]
    assert not folder.exists()
    assert not (tmp_path / "logs").exists()
    trainer.test()
    assert model.validation_sizes[2:] == [1]


def test_a_validation_by_itself_takes_its_share(tmp_path: Path) -> None:
    model = Recorder()
    quiet_trainer(tmp_path, val_percent_check=0.67).validate(model)
    assert model.validation_sizes == [2]


def test_overfit_pct_needs_no_word_about_the_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_trainer(tmp_path, overfit_pct=0.5, silence=()).fit(Recorder())
    assert "[not-shuffled]" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": 50},
        {"val_check_interval": 0.1},
        {"min_nb_epochs": 5, "max_nb_epochs": 2},
        {"train_percent_check": 0.01, "val_percent_check": 0.01},
    ],
    ids=str,
)
def test_a_trial_runs_with_any_other_option(tmp_path: Path, options: dict[str, Any]) -> None:
    model = Recorder()
    assert quiet_trainer(tmp_path, fast_dev_run=True, **options).fit(model) == 1
    assert (model.nb("training_step"), model.validation_sizes) == (1, [1])


def test_a_trial_needs_no_length_of_a_loader(tmp_path: Path) -> None:
    class Endless(Recorder):
        def loader(self, nb_batches: int) -> Any:
            class Unsized:
                def __iter__(self) -> Any:
                    return iter([[torch.ones(2, 1)]] * 5)

            return Unsized()

    model = Endless()
    options = {"train_percent_check": 0.5, "val_percent_check": 0.5, "val_check_interval": 0.5}
    assert quiet_trainer(tmp_path, fast_dev_run=True, **options).fit(model) == 1
    assert (model.nb("training_step"), model.validation_sizes) == (1, [1])


def test_a_trial_leaves_the_users_experiment_alone(tmp_path: Path) -> None:
    from test_tube import Experiment

    class Logging(Recorder):
        def on_epoch_end(self) -> None:
            self.experiment.log({"mine": 1.0})

    experiment = Experiment(name="trial", save_dir=str(tmp_path / "tt"))
    model = Logging()
    trainer = quiet_trainer(tmp_path, fast_dev_run=True, experiment=experiment)
    trainer.fit(model)
    assert experiment.metrics == []
    assert trainer.experiment is not experiment
    assert quiet_trainer(tmp_path, experiment=experiment).experiment is experiment


# ---------------------------------------------------------------------------------------------- validation
@pytest.mark.parametrize(
    ("interval", "after"),
    [(1.0, [10]), (1, [10]), (0.5, [5, 10]), (0.25, [3, 5, 8, 10]), (3, [3, 6, 9]), (10, [10]), (0.95, [10])],
)
def test_val_check_interval(tmp_path: Path, interval: float, after: list[int]) -> None:
    model = Recorder(nb_batches=10)
    quiet_trainer(tmp_path, val_check_interval=interval).fit(model)
    nb_trained, validated = 0, []
    for name in model.names():
        nb_trained += name == "training_step"
        if name == "validation_end":
            validated.append(nb_trained)
    assert validated == after


def test_a_validation_inside_a_window_waits_for_its_end(tmp_path: Path) -> None:
    model = Recorder(nb_batches=8)
    quiet_trainer(tmp_path, val_check_interval=3, accumulate_grad_batches=4).fit(model)
    order = [name for name in model.names() if name in ("training_step", "validation_end")]
    assert order == (["training_step"] * 4 + ["validation_end"]) * 2


def test_check_val_every_n_epoch(tmp_path: Path) -> None:
    model = Recorder()
    quiet_trainer(tmp_path, check_val_every_n_epoch=2, max_nb_epochs=5).fit(model)
    assert model.nb_validations == 2


@pytest.mark.parametrize(("steps", "sizes"), [(0, []), (2, [2]), (50, [3])])
def test_nb_sanity_val_steps(tmp_path: Path, steps: int, sizes: list[int]) -> None:
    model = Recorder(val_values=(0.0, 1.0))
    trainer = quiet_trainer(tmp_path, nb_sanity_val_steps=steps)
    trainer.fit(model)
    assert model.validation_sizes[: len(sizes)] == sizes
    assert model.nb_validations == len(sizes) + 1
    assert [row["val_loss"] for row in rows_of(tmp_path) if row["val_loss"]] == ["1.0" if sizes else "0.0"]


# ---------------------------------------------------------------------------------------------- rows
def test_rows_come_each_add_log_row_interval_batches(tmp_path: Path) -> None:
    quiet_trainer(tmp_path, add_log_row_interval=3, max_nb_epochs=2).fit(Recorder(nb_batches=7))
    rows = [(r["epoch"], r["batch_nb"], r["global_step"]) for r in rows_of(tmp_path) if r["tng_loss"]]
    assert rows == [
        ("0", "0", "0"),
        ("0", "3", "3"),
        ("0", "6", "6"),
        ("1", "0", "7"),
        ("1", "3", "10"),
        ("1", "6", "13"),
    ]


def test_a_row_holds_the_mean_loss_the_rate_and_prog(tmp_path: Path) -> None:
    model = Recorder(lr=0.0)
    quiet_trainer(tmp_path).fit(model)
    row = rows_of(tmp_path)[0]
    assert (float(row["tng_loss"]), float(row["twice"]), float(row["lr_0"])) == (9.0, 18.0, 0.0)


def test_tng_loss_is_the_mean_of_the_last_100_batches(tmp_path: Path) -> None:
    class Counting(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.weight.sum() * 0 + batch_nb

    trainer = quiet_trainer(tmp_path)
    trainer.fit(Counting(nb_batches=150))
    assert trainer.avg_loss == sum(range(50, 150)) / 100


def test_log_save_interval_brings_rows_to_the_disk(tmp_path: Path) -> None:
    there: list[bool] = []

    class Looking(Recorder):
        def on_batch_end(self) -> None:
            there.append((tmp_path / "logs/Looking/version_0/metrics.csv").exists())

    quiet_trainer(tmp_path, log_save_interval=3, add_log_row_interval=1).fit(Looking(nb_batches=5))
    assert there == [False, False, True, True, True]


def test_hooks_change_the_row(tmp_path: Path) -> None:
    class Changing(Recorder):
        def on_tng_metrics(self, metrics: dict[str, Any]) -> None:
            metrics["added"] = 7

        def update_tng_log_metrics(self, logs: dict[str, Any]) -> dict[str, Any]:
            return {"added": logs["added"] + 1, "tng_loss": logs["tng_loss"]}

    quiet_trainer(tmp_path).fit(Changing())
    row = rows_of(tmp_path, "Changing")[0]
    assert row["added"] == "8"
    assert not row.get("twice")


def test_a_hook_that_returns_no_row_is_an_error(tmp_path: Path) -> None:
    class Forgetting(Recorder):
        def update_tng_log_metrics(self, logs: dict[str, Any]) -> Any:
            logs["added"] = 1

    with pytest.raises(FitError, match=r"update_tng_log_metrics returned None; expected the dict to log. Return logs"):
        quiet_trainer(tmp_path).fit(Forgetting())


def test_each_group_of_parameters_has_its_rate_in_the_row(tmp_path: Path) -> None:
    class Groups(Recorder):
        def configure_optimizers(self) -> Any:
            other = nn.Parameter(torch.zeros(1))
            groups = [{"params": [self.weight], "lr": 0.1}, {"params": [other], "lr": 0.2}]
            return [torch.optim.SGD(groups), torch.optim.SGD([other], 0.3)]

    quiet_trainer(tmp_path).fit(Groups())
    row = rows_of(tmp_path, "Groups")[0]
    assert [float(row[name]) for name in ("lr_0", "lr_0_1", "lr_1")] == [0.1, 0.2, 0.3]


def test_track_grad_norm_logs_norms_of_the_step(tmp_path: Path) -> None:
    quiet_trainer(tmp_path, track_grad_norm=2, gradient_clip=0.001).fit(Recorder(lr=0.0))
    row = rows_of(tmp_path)[0]
    assert float(row["grad_2_norm_0"]) == float(row["grad_2_norm_total"]) == 6.0


def test_print_nan_grads_names_the_parameter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Bad(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return (self.weight * 0).sqrt().sum()

    quiet_trainer(tmp_path, print_nan_grads=True, max_nb_steps=1).fit(Bad())
    assert "the gradient of weight isn't finite (epoch 0, batch_nb 0)" in capsys.readouterr().out


def test_track_grad_norm_is_the_norm_that_is_named(tmp_path: Path) -> None:
    class Two(Recorder):
        def __init__(self) -> None:
            super().__init__(lr=0.0)
            self.weight = nn.Parameter(torch.zeros(2))

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return (self.weight * torch.tensor([3.0, -4.0])).sum()

    for norm, value in ((1, 7.0), (2, 5.0), (float("inf"), 4.0)):
        quiet_trainer(tmp_path / str(norm), track_grad_norm=norm).fit(Two())
        assert float(rows_of(tmp_path / str(norm), "Two")[0][f"grad_{norm}_norm_total"]) == value


# ---------------------------------------------------------------------------------------------- steps
def test_gradient_clip_limits_the_norm_and_off_is_off(tmp_path: Path) -> None:
    moved = {}
    for clip in (0, -1, 0.5):
        model = Recorder(lr=1.0)
        quiet_trainer(tmp_path, gradient_clip=clip, max_nb_steps=1).fit(model)
        moved[clip] = model.weight.item()
    assert moved == {0: 6.0, -1: 6.0, 0.5: pytest.approx(0.5, abs=1e-5)}
    assert Trainer(gradient_clip=-1).gradient_clip == 0


def test_gradient_clip_by_value(tmp_path: Path) -> None:
    class Two(Recorder):
        def __init__(self) -> None:
            super().__init__(lr=1.0)
            self.weight = nn.Parameter(torch.zeros(2))

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return (self.weight * torch.tensor([-0.25, 4.0])).sum()

    model = Two()
    quiet_trainer(tmp_path, gradient_clip=0.5, gradient_clip_algorithm="value", max_nb_steps=1).fit(model)
    assert model.weight.tolist() == [0.25, -0.5]


def test_stop_on_nan_stops_before_the_weights_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Bad(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.weight.sum() * (math.nan if batch_nb == 2 else 1.0)

    model = Bad()
    with pytest.raises(
        FitError, match=r"the loss isn't finite \(nan\), global_step 2, lr_0=0.1. \(epoch 0, batch_nb 2\)"
    ):
        quiet_trainer(tmp_path).fit(model)
    assert bool(torch.isfinite(model.weight))
    trainer = quiet_trainer(tmp_path, stop_on_nan=False, silence=("loss-not-finite", "not-shuffled"))
    assert trainer.fit(Bad()) == 1
    assert trainer.global_step == 4
    assert "2 losses weren't finite" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- again
def test_the_seed_decides_order_and_none_takes_torchs(tmp_path: Path) -> None:
    class Shuffled(Recorder):
        def loader(self, nb_batches: int) -> Any:
            data = TensorDataset(torch.arange(2.0 * nb_batches).unsqueeze(1))
            return DataLoader(data, batch_size=2, shuffle=True)

    def order(seed: int | None) -> list[list[float]]:
        model = Shuffled(nb_batches=10)
        quiet_trainer(tmp_path, seed=seed, max_nb_epochs=2).fit(model)
        return model.seen

    assert order(3) == order(3) != order(4)
    assert order(3)[0] != order(3)[1]
    torch.manual_seed(3)
    assert order(None) == order(3)


def test_fit_leaves_the_callers_random_streams_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    trainer = quiet_trainer(tmp_path)
    trainer.fit(Recorder())
    trainer.validate()
    trainer.test()
    trainer.predict()
    assert torch.equal(torch.rand(1), expected)


def test_the_seed_decides_what_a_validation_draws(tmp_path: Path) -> None:
    class Drawing(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            return {"val_loss": torch.rand(1)}

    def drawn(seed: int | None) -> Any:
        return quiet_trainer(tmp_path, seed=seed).validate(Drawing())

    assert drawn(3) == drawn(3) != drawn(4)
    torch.manual_seed(3)
    assert drawn(None) == drawn(3)


def test_deterministic_holds_during_the_fit_only(tmp_path: Path) -> None:
    during = []

    class Looking(Recorder):
        def on_batch_end(self) -> None:
            during.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

        def validation_end(self, outputs: Any) -> Any:
            self.on_batch_end()

    torch.backends.cudnn.benchmark = True
    try:
        quiet_trainer(tmp_path, deterministic=True, val_percent_check=0.1, max_nb_steps=1).fit(Looking())
        quiet_trainer(tmp_path, deterministic=True).validate(Looking())
        quiet_trainer(tmp_path, max_nb_steps=1).fit(Looking())
        assert during == [(True, False)] * 2 + [(False, True)]
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False


# ---------------------------------------------------------------------------------------------- seen and kept
def test_print_weights_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_trainer(tmp_path, print_weights_summary=True).fit(Recorder())
    shown = capsys.readouterr().out
    assert "1 parameters, 1 trainable" in shown
    assert "seed 1" in shown
    quiet_trainer(tmp_path).fit(Recorder())
    assert capsys.readouterr().out == ""


def test_the_bar_can_be_turned_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_trainer(tmp_path, progress_bar=True).fit(Recorder())
    line = capsys.readouterr().err
    assert "epoch 1: 4/4 mean_loss=" in line
    assert "val_loss=1" in line
    quiet_trainer(tmp_path).fit(Recorder())
    assert capsys.readouterr().err == ""


def test_a_notice_is_one_line_and_its_code_silences_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_trainer(tmp_path, silence=()).fit(Recorder())
    assert capsys.readouterr().err.count("[not-shuffled]") == 1
    quiet_trainer(tmp_path, silence=("not-shuffled",)).fit(Recorder())
    assert capsys.readouterr().err == ""


def test_experiment_false_writes_nothing(tmp_path: Path) -> None:
    quiet_trainer(tmp_path, experiment=False).fit(Recorder())
    assert list(tmp_path.iterdir()) == []


def test_a_run_gets_the_next_free_version(tmp_path: Path) -> None:
    for _ in range(2):
        quiet_trainer(tmp_path).fit(Recorder())
    assert sorted(p.name for p in (tmp_path / "logs/Recorder").iterdir()) == ["version_0", "version_1"]
    files = {"metrics.csv", "meta_tags.csv", "options.yaml", "run.json"}
    assert {p.name for p in (tmp_path / "logs/Recorder/version_1").iterdir()} == files


# ---------------------------------------------------------------------------------------------- Ctrl-C, threads
def test_ctrl_c_ends_the_fit_at_the_next_step_and_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            if self.global_step == 5:
                signal.raise_signal(signal.SIGINT)
            return super().training_step(data_batch, batch_nb)

    before = signal.getsignal(signal.SIGINT)
    model = Interrupted()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=9, accumulate_grad_batches=2)
    assert trainer.fit(model) == 0
    assert trainer.interrupted
    assert trainer.global_step == 6, "the window is finished first"
    assert capsys.readouterr().out == (
        "Ctrl-C: the fit completes this step and saves the state (again: ends at once)\n"
        "interrupted: training isn't complete\n"
    )
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_returns_at_once(tmp_path: Path) -> None:
    class Interrupted(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super().training_step(data_batch, batch_nb)

    model = Interrupted()
    trainer = quiet_trainer(tmp_path)
    assert trainer.fit(model) == 0
    assert (trainer.interrupted, model.nb("training_step")) == (True, 0)


def test_fit_works_outside_the_main_thread(tmp_path: Path) -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(quiet_trainer(tmp_path).fit(Recorder())))
    thread.start()
    thread.join()
    assert results == [1]


# ---------------------------------------------------------------------------------------------- names
def test_callbacks_are_called_in_a_fixed_order(tmp_path: Path) -> None:
    order: list[str] = []

    def noting(cls: Any, *arguments: Any) -> Any:
        return type("Noting", (cls,), {"on_fit_start": lambda self, run: order.append(cls.__name__)})(*arguments)

    quiet_trainer(
        tmp_path,
        checkpoint_callback=noting(ModelCheckpoint, tmp_path / "w"),
        callbacks=[noting(Callback)],
        early_stop_callback=noting(EarlyStopping),
    ).fit(Recorder())
    assert order == ["EarlyStopping", "Callback", "ModelCheckpoint"]


def test_the_two_callbacks_may_come_in_either_order(tmp_path: Path) -> None:
    stop, keep = EarlyStopping(), ModelCheckpoint(tmp_path / "w")
    for first, second in ((stop, keep), (keep, stop)):
        trainer = Trainer(False, first, second, **QUIET)
        assert trainer.early_stop_callback is stop
        assert trainer.checkpoint_callback is keep


@pytest.mark.parametrize(
    ("alias", "value", "option"),
    [
        ("logger", False, "experiment"),
        ("show_progress_bar", False, "progress_bar"),
        ("enable_tqdm", False, "progress_bar"),
        ("gradient_clip_val", 0.5, "gradient_clip"),
        ("row_log_interval", 7, "add_log_row_interval"),
        ("check_grad_nans", True, "print_nan_grads"),
        ("overfit", 0.5, "overfit_pct"),
    ],
)
def test_other_spellings_are_aliases(alias: str, value: Any, option: str) -> None:
    assert getattr(Trainer(**{alias: value}).config, option) == value


def test_a_wrong_value_of_an_alias_is_refused_by_the_options_name() -> None:
    with pytest.raises(MisconfigurationException, match="nb_gpu_nodes must be a whole number"):
        Trainer(nb_nodes=0)


def test_show_progress_bar_is_the_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {k: v for k, v in QUIET.items() if k != "progress_bar"}
    Trainer(show_progress_bar=False, default_save_path=tmp_path, max_nb_epochs=1, **options).fit(Recorder())
    assert capsys.readouterr().err == ""


def test_from_args_takes_no_object_from_a_command_line() -> None:
    hparams = Namespace(experiment="a name", callbacks="two", cluster="none", max_nb_epochs=3, hidden_dim=5)
    trainer = Trainer.from_args(hparams, experiment=False)
    assert (trainer.config.experiment, trainer.config.callbacks, trainer.max_nb_epochs) == (False, (), 3)
    assert Trainer.from_args(vars(hparams), max_nb_epochs=4).config.experiment is None
    assert Trainer.from_args(hparams, max_nb_epochs=4).max_nb_epochs == 4


def test_an_unknown_option_is_named_with_the_nearest_one() -> None:
    with pytest.raises(MisconfigurationException, match=r"no option 'max_nb_epoch'. Did you mean 'max_nb_epochs'"):
        Trainer(max_nb_epoch=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [],
)
def test_an_option_that_is_not_there_yet_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(MisconfigurationException, match=rf"{name}=.* isn't available in this version"):
        Trainer(**{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_clip": "a lot"},
        {"process_position": -1},
        {"overfit_pct": "half"},
        {"track_grad_norm": "2"},
        {"check_val_every_n_epoch": 0},
        {"max_nb_epochs": 0},
        {"max_nb_epochs": 1.5},
        {"min_nb_epochs": -1},
        {"min_nb_epochs": 5, "max_nb_epochs": 2},
        {"max_nb_steps": 0},
        {"max_time": "an hour"},
        {"train_percent_check": -0.5},
        {"val_percent_check": -0.5},
        {"test_percent_check": True},
        {"val_check_interval": 0},
        {"val_check_interval": 2.5},
        {"add_log_row_interval": 0},
        {"log_save_interval": 0},
        {"nb_sanity_val_steps": -1},
        {"accumulate_grad_batches": 0},
        {"accumulate_grad_batches": {}},
        {"lr_scheduler_milestones": "ten"},
        {"precision": "8"},
        {"use_amp": True, "precision": "32"},
        {"amp_level": "O9"},
        {"gradient_clip_algorithm": "l2"},
        {"gradient_clip_norm_type": 0},
        {"gradient_clip_norm_type": "2"},
        {"seed": "x"},
        {"callbacks": [object()]},
        {"early_stop_callback": "val_loss"},
        {"resume_check": "maybe"},
    ],
    ids=lambda options: "-".join(options),
)
def test_a_value_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(MisconfigurationException, match=next(iter(options))):
        Trainer(**options)


def test_all_wrong_values_are_named_together() -> None:
    with pytest.raises(MisconfigurationException) as caught:
        Trainer(max_nb_epochs=0, precision="8", accumulate_grad_batches="many")
    assert all(
        name in str(caught.value) for name in ("3 problems", "max_nb_epochs", "precision", "accumulate_grad_batches")
    )


# ---------------------------------------------------------------------------------------------- gpus
@pytest.mark.parametrize("gpus", [None, [], 0])
def test_no_gpus_is_the_cpu(tmp_path: Path, gpus: Any) -> None:
    model = Recorder()
    quiet_trainer(tmp_path, gpus=gpus).fit(model)
    assert model.weight.device.type == "cpu"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("gpus", [-1, "-1"])
def test_all_gpus_of_a_machine_without_any_is_the_cpu(
    tmp_path: Path, gpus: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet_trainer(tmp_path, gpus=gpus).fit(Recorder())
    assert capsys.readouterr().err.count("[no-gpu]") == 1
    SHOWN.clear()
    model = Recorder()
    quiet_trainer(tmp_path, gpus=gpus).test(model)
    assert capsys.readouterr().err.count("[no-gpu]") == 1
    assert not model.on_gpu


@pytest.mark.parametrize("gpus", [[97], "97", "96;97"])
def test_naming_gpus_that_are_not_there_is_an_error(tmp_path: Path, gpus: Any) -> None:
    with pytest.raises(MisconfigurationException, match="aren't there"):
        quiet_trainer(tmp_path, gpus=gpus).fit(Recorder())
    with pytest.raises(MisconfigurationException, match="aren't there"):
        quiet_trainer(tmp_path, gpus=gpus).test(Recorder())


@pytest.mark.parametrize("name", flags())
def test_a_flag_that_is_given_as_text_means_what_it_says(name: str) -> None:
    """As a plain argparse, a YAML file or an environment variable gives it."""
    for text, value in (("false", False), ("True", True), ("0", False), ("yes", True), ("off", False)):
        assert getattr(Trainer(**{name: text}).config, name) is value
    with pytest.raises(MisconfigurationException, match=f"{name} must be True or False; received 'fales'"):
        Trainer(**{name: "fales"})


def test_what_is_annotated_as_bool_is_a_flag_and_nothing_else() -> None:
    by_default = {name for name, default in option_defaults().items() if isinstance(default, bool)}
    assert set(flags()) == by_default - {"compile", "gather_validation"}
    assert Trainer(compile="false").config.compile is False


def test_the_declaration_and_the_signature_have_the_same_options() -> None:
    assert set(options()) == set(option_defaults())
    for name, option in options().items():
        assert f"{name}: {option.text}" in (Trainer.__doc__ or "")


def test_distributed_backend_takes_a_strategy_of_ones_own_class_and_name(tmp_path: Path) -> None:
    class Own(SingleDevice):
        name = "own"
        nb_placed = 0

        def place(self, module: nn.Module, dtype: torch.dtype | None) -> None:
            self.nb_placed += 1
            super().place(module, dtype)

    model, own = Recorder(), Own()
    assert quiet_trainer(tmp_path, max_nb_epochs=1, distributed_backend=own).fit(model) == 1
    assert (model.nb("training_step"), own.nb_placed) == (4, 1)
