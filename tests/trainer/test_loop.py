"""What is called, in which order, and what the loop makes of what hooks return."""

import weakref
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException
from pytorch_lightning.loggers import CSVLogger, Logger
from tests.recorder import Recorder, quiet_trainer, rows_of


class EveryHook(Recorder):
    """Notes every optional hook."""

    def on_fit_start(self) -> None:
        self.note("on_fit_start")

    def on_sanity_check_start(self) -> None:
        self.note("on_sanity_check_start")

    def on_epoch_start(self) -> None:
        self.note("on_epoch_start")

    def on_batch_start(self, data_batch: Any) -> None:
        self.note("on_batch_start", self.trainer.batch_nb)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        # in the test windows of two batches begin with even ones
        assert (self.weight.grad is None) == (batch_nb % 2 == 0), "a window starts without gradients"
        return super().training_step(data_batch, batch_nb)

    def on_after_backward(self) -> None:
        assert self.weight.grad is not None
        self.note("on_after_backward")

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        self.note("optimizer_step", epoch_nb, batch_nb, optimizer_i)
        optimizer.step()

    def on_before_zero_grad(self, optimizer: Any) -> None:
        assert self.weight.grad is not None
        self.note("on_before_zero_grad")

    def on_batch_end(self) -> None:
        assert self.weight.grad is not None, "those of a window are there until the next one's first step"
        self.note("on_batch_end", self.trainer.batch_nb, self.global_step)

    def on_pre_performance_check(self) -> None:
        assert self.weight.grad is None, "memory is worth more than time"
        self.note("on_pre_performance_check")

    def on_post_performance_check(self) -> None:
        assert self.training
        self.note("on_post_performance_check")

    def on_epoch_end(self) -> None:
        self.note("on_epoch_end")

    def on_fit_end(self) -> None:
        self.note("on_fit_end")


def test_hooks_are_called_in_their_order(tmp_path: Path) -> None:
    model = EveryHook(nb_batches=3)
    quiet_trainer(tmp_path, nb_sanity_val_steps=1, accumulate_grad_batches=2).fit(model)
    assert model.calls == [
        ("on_fit_start",),
        ("on_sanity_check_start",),
        ("validation_step", 0),
        ("validation_end", 1),
        ("on_epoch_start",),
        ("on_batch_start", 0),
        ("training_step", 0, 0),
        ("on_batch_end", 0, 0),
        ("on_batch_start", 1),
        ("training_step", 0, 1),
        ("on_after_backward",),
        ("optimizer_step", 0, 1, 0),
        ("on_before_zero_grad",),
        ("on_batch_end", 1, 1),
        ("on_batch_start", 2),
        ("training_step", 0, 2),
        ("on_after_backward",),
        ("optimizer_step", 0, 2, 0),
        ("on_before_zero_grad",),
        ("on_batch_end", 2, 2),
        ("on_pre_performance_check",),
        *[("validation_step", i) for i in range(3)],
        ("validation_end", 3),
        ("on_post_performance_check",),
        ("on_epoch_end",),
        ("on_fit_end",),
    ]


def test_callbacks_see_the_run_at_their_places(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watch(Callback):
        def on_fit_start(self, run: Any) -> None:
            seen.append(("fit", run.nb_tng_batches, run.nb_val_batches, run.max_nb_epochs))

        def on_epoch_start(self, run: Any) -> None:
            seen.append(("epoch", run.progress.epoch))

        def on_batch_end(self, run: Any) -> None:
            seen.append(("batch", run.progress.batch_nb, run.metrics.of_training()["twice"]))

        def on_validation_end(self, run: Any, metrics: Any) -> None:
            seen.append(("validated", metrics))

        def on_epoch_end(self, run: Any) -> None:
            seen.append(("ended", run.metrics.all()["val_loss"]))

        def on_fit_end(self, run: Any) -> None:
            seen.append("over")

    quiet_trainer(tmp_path, callbacks=[Watch()]).fit(Recorder(nb_batches=1, lr=0.0))
    assert seen == [
        ("fit", 1, 3, 1),
        ("epoch", 0),
        ("batch", 0, 18.0),
        ("validated", {"val_loss": 1.0}),
        ("ended", 1.0),
        "over",
    ]


class WatchPasses(Callback):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_evaluation_start(self, run: Any, stage: str, nb_batches: int | None) -> None:
        self.seen.append(("start", stage, nb_batches))

    def on_evaluation_batch_end(self, run: Any, stage: str, batch_nb: int) -> None:
        self.seen.append((stage, batch_nb))

    def on_evaluation_end(self, run: Any, stage: str) -> None:
        self.seen.append(("end", stage))


def test_callbacks_see_each_pass_over_a_data_set(tmp_path: Path) -> None:
    watch = WatchPasses()
    trainer = quiet_trainer(tmp_path, callbacks=[watch], nb_sanity_val_steps=1)
    trainer.fit(Recorder(nb_batches=1))
    trainer.test()
    trainer.predict()
    assert watch.seen == [
        *[("start", "sanity", 1), ("sanity", 0), ("end", "sanity")],
        *[("start", "validation", 3), ("validation", 0), ("validation", 1), ("validation", 2), ("end", "validation")],
        *[("start", "test", 2), ("test", 0), ("test", 1), ("end", "test")],
        *[("start", "predict", 2), ("predict", 0), ("predict", 1), ("end", "predict")],
    ]


def test_callbacks_see_the_end_of_a_pass_that_failed(tmp_path: Path) -> None:
    class Failing(Recorder):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            raise ValueError("mine")

    watch = WatchPasses()
    with pytest.raises(ValueError, match="mine"):
        quiet_trainer(tmp_path, callbacks=[watch]).validate(Failing())
    assert watch.seen == [("start", "validation", 3), ("end", "validation")]


def test_a_callback_stops_the_fit_with_a_reason(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_batch_end(self, run: Any) -> None:
            if run.progress.global_step == 5:
                run.stop("seen enough")

    trainer = quiet_trainer(tmp_path, callbacks=[Stop()], max_nb_epochs=9)
    assert trainer.fit(Recorder()) == 1
    assert (trainer.progress.stop_reason, trainer.global_step, trainer.batch_nb) == ("seen enough", 6, 2)


def test_on_batch_start_ends_the_epoch_with_minus_one(tmp_path: Path) -> None:
    class Short(Recorder):
        def on_batch_start(self, data_batch: Any) -> int | None:
            return -1 if self.trainer.batch_nb == 2 else None

    model = Short()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2)
    trainer.fit(model)
    assert [call[1:] for call in model.calls if call[0] == "training_step"] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert model.nb_validations == 2, "an epoch that ends early is validated"
    assert trainer.global_step == 4


def test_a_batch_that_is_none_is_skipped(tmp_path: Path) -> None:
    class Gaps(Recorder):
        @property
        def tng_dataloader(self) -> Any:
            batch = [torch.ones(2, 1)]
            return [batch, None, batch, None]

    model = Gaps()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    assert [call[2] for call in model.calls if call[0] == "training_step"] == [0, 2]
    assert trainer.global_step == 2


def test_a_users_optimizer_step_may_let_its_turn_pass(tmp_path: Path) -> None:
    class EverySecond(Recorder):
        def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
            if batch_nb % 2:
                self.note("grad", self.weight.grad.item())
                optimizer.step()

    model = EverySecond(lr=0.0)
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    assert [call[1] for call in model.calls if call[0] == "grad"] == [-12.0, -12.0], (
        "gradients are added up until the step"
    )
    assert trainer.progress.nb_optimizer_steps == 2


def test_a_passed_turn_is_refused_in_16_bit(tmp_path: Path) -> None:
    class Never(Recorder):
        def optimizer_step(self, *arguments: Any) -> None:
            pass

    with pytest.raises(FitError, match=r"precision='16'.*accumulate_grad_batches"):
        quiet_trainer(tmp_path, precision="16").fit(Never())


@pytest.mark.parametrize(
    "returned",
    [
        lambda loss: loss,
        lambda loss: loss.reshape(1),
        lambda loss: {"loss": loss.reshape(1, 1)},
        lambda loss: OrderedDict(loss=loss, other=object()),
        lambda loss: {"loss": loss, "prog": {"n": 3, "x": np.float32(2.0), "name": "text"}},
        lambda loss: {"loss": loss, "tqdm_metrics": {"n": 3}},
    ],
)
def test_what_a_training_step_may_return(tmp_path: Path, returned: Any) -> None:
    class Returning(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return returned((self.weight - 3.0).pow(2).sum())

    model = Returning()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    assert model.weight.item() > 0.5
    assert trainer.tqdm_metrics.get("n", 3) == 3


def test_prog_keeps_no_graph_alive(tmp_path: Path) -> None:
    inside: list[Any] = []

    class Telling(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            doubled = self.weight * 2
            inside.append(weakref.ref(doubled))
            return {"loss": self.weight.sum(), "prog": {"square": doubled.square().sum()}}

        def on_batch_end(self) -> None:
            assert inside[-1]() is None

    quiet_trainer(tmp_path).fit(Telling())
    assert len(inside) == 4


@pytest.mark.parametrize("key", ["prog", "tqdm_metrics"])
def test_what_prog_holds_is_shown(tmp_path: Path, key: str) -> None:
    class Telling(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            told = {"n": batch_nb, "x": np.float32(2.0), "name": "text", "tng_loss": torch.tensor([7.0])}
            return {"loss": (self.weight - 3.0).pow(2).sum(), key: told}

    trainer = quiet_trainer(tmp_path)
    trainer.fit(Telling())
    shown = {"n": 3, "x": 2.0, "name": "text", "tng_loss": 7.0, "val_loss": 1.0}
    assert trainer.tqdm_metrics == shown
    assert rows_of(tmp_path, "Telling")[0]["tng_loss"] == "7.0"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda loss: {"los": loss}, r"returned a dict with the keys \['los'\]"),
        (lambda loss: {"loss": 3.0}, r"'loss': 3.0 \(float\)"),
        (lambda loss: loss.expand(4), r"a loss of shape \(4,\); expected one element. Return loss.mean"),
        (lambda loss: loss.detach(), "without a graph"),
        (lambda loss: {"loss": loss, "prog": {"out": loss.expand(3)}}, r"shape \(3,\) under 'out'"),
    ],
)
def test_what_it_may_not_return_is_named_with_its_place(tmp_path: Path, returned: Any, message: str) -> None:
    class Returning(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return returned((self.weight - 3.0).pow(2).sum())

    with pytest.raises(FitError, match=message):
        quiet_trainer(tmp_path).fit(Returning())


Pair = namedtuple("Pair", "x y")


@dataclass
class Both:
    x: torch.Tensor
    y: torch.Tensor


class Movable:
    def __init__(self) -> None:
        self.x = torch.ones(2, 1)

    def to(self, device: Any) -> Any:
        return self


@pytest.mark.parametrize("precision", ["32", "64"])
@pytest.mark.parametrize(
    "batch",
    [
        torch.ones(2, 1),
        [torch.ones(2, 1)],
        (torch.ones(2, 1), "name"),
        Pair(torch.ones(2, 1), torch.ones(2)),
        {"x": torch.ones(2, 1), "name": "n"},
        Both(torch.ones(2, 1), torch.ones(2)),
        Movable(),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_batches_of_any_kind_arrive_unchanged(tmp_path: Path, batch: Any, precision: str) -> None:
    class Kind(Recorder):
        @property
        def tng_dataloader(self) -> Any:
            return [batch]

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            assert type(data_batch) is type(batch)
            x = data_batch
            if not isinstance(batch, torch.Tensor):
                x = getattr(batch, "x", None) if hasattr(batch, "x") else data_batch["x" if "x" in batch else 0]
                x = data_batch.x if hasattr(data_batch, "x") else x
            if not isinstance(batch, Movable):
                assert x.dtype == (torch.float64 if precision == "64" else torch.float32)
            return (self(x.to(self.dtype)) - 3.0).pow(2).mean()

    model = Kind()
    quiet_trainer(tmp_path, precision=precision).fit(model)
    assert model.weight.item() != 0.0


# ---------------------------------------------------------------------------------------------- validation
def test_validation_runs_without_gradients_in_eval_mode_and_puts_modes_back(tmp_path: Path) -> None:
    class Modes(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def on_epoch_start(self) -> None:
            self.norm.eval()  # a frozen layer stays frozen

        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.note("modes", self.training, self.norm.training, torch.is_grad_enabled())
            return super().validation_step(data_batch, batch_nb)

        def on_post_performance_check(self) -> None:
            self.note("modes", self.training, self.norm.training, torch.is_grad_enabled())

    model = Modes()
    quiet_trainer(tmp_path, silence=("not-shuffled",)).fit(model)
    modes = [call[1:] for call in model.calls if call[0] == "modes"]
    assert modes == [(False, False, False)] * 3 + [(True, False, True)]


def test_a_fit_begins_in_training_mode_and_with_gradients_wherever_it_is_called(tmp_path: Path) -> None:
    class Modes(Recorder):
        def on_batch_start(self, data_batch: Any) -> None:
            self.note("modes", self.training, torch.is_grad_enabled())

    model = Modes()
    model.eval()
    with torch.no_grad():
        quiet_trainer(tmp_path).fit(model)
        assert not torch.is_grad_enabled()
    assert {call[1:] for call in model.calls if call[0] == "modes"} == {(True, True)}


def test_a_validation_batch_that_is_none_is_skipped(tmp_path: Path) -> None:
    class Gaps(Recorder):
        @property
        def val_dataloader(self) -> Any:
            return [None, [torch.ones(2, 1)], None, [torch.ones(2, 1)]]

    model = Gaps()
    quiet_trainer(tmp_path).fit(model)
    assert [call[1] for call in model.calls if call[0] == "validation_step"] == [1, 3]
    assert model.validation_sizes == [2]


def test_an_exception_in_validation_is_raised_and_modes_are_put_back(tmp_path: Path) -> None:
    class Bad(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            raise ZeroDivisionError("mine")

    model = Bad()
    with pytest.raises(ZeroDivisionError, match="mine"):
        quiet_trainer(tmp_path).fit(model)
    assert model.training
    assert torch.is_grad_enabled()


def test_a_users_exception_is_raised_unchanged_with_its_place(tmp_path: Path) -> None:
    class Bad(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            if self.global_step == 6:
                raise LookupError("mine")
            return super().training_step(data_batch, batch_nb)

    with pytest.raises(LookupError, match="mine") as caught:
        quiet_trainer(tmp_path, max_nb_epochs=3).fit(Bad())
    assert caught.value.__notes__ == ["raised while fitting Bad (epoch 1, batch_nb 2)"]


def test_outputs_arrive_in_loader_order_detached(tmp_path: Path) -> None:
    class Outputs(Recorder):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            with torch.enable_grad():
                return {"x": data_batch[0][0] * self.weight.exp(), "more": [self.weight * 1]}

        def validation_end(self, outputs: Any) -> Any:
            assert not any(o["x"].requires_grad or o["more"][0].requires_grad for o in outputs)
            return {"order": float(outputs[2]["x"] - outputs[1]["x"])}

    trainer = quiet_trainer(tmp_path)
    trainer.fit(Outputs(lr=0.0))
    assert trainer.tqdm_metrics["order"] == 2.0


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), torch.tensor(0.5), torch.tensor([0.5]), np.array([0.5])])
def test_validation_numbers_may_be_of_any_kind(tmp_path: Path, value: Any) -> None:
    trainer = quiet_trainer(tmp_path)
    trainer.fit(Recorder(val_values=(value,)))
    assert trainer.tqdm_metrics["val_loss"] == 0.5
    assert [row["val_loss"] for row in rows_of(tmp_path) if row["val_loss"]] == ["0.5"]


def test_validation_may_return_nothing(tmp_path: Path) -> None:
    class Silent(Recorder):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            return None

        def validation_end(self, outputs: Any) -> Any:
            assert outputs == [None] * 3

    assert quiet_trainer(tmp_path).fit(Silent()) == 1


def test_what_validation_end_may_not_return(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"validation_end of Recorder gave a Tensor of shape \(2,\) under 'val_loss'"):
        quiet_trainer(tmp_path).fit(Recorder(val_values=(torch.ones(2),)))  # type: ignore[arg-type]


def test_validation_end_returns_a_dict_or_nothing(tmp_path: Path) -> None:
    class Ending(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            return torch.tensor(1.0)

    with pytest.raises(FitError, match=r"validation_end of Ending returned a Tensor of shape \(\); expected a dict"):
        quiet_trainer(tmp_path).fit(Ending())


def test_a_share_of_a_loader_without_length_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    class Unknown(Recorder):
        unknown = "val_dataloader"

        def loader(self, nb_batches: int) -> Any:
            ready = super().loader(nb_batches)
            is_unknown = (nb_batches == 3) == (self.unknown == "val_dataloader")

            class Unsized:
                def __iter__(self) -> Any:
                    return iter(ready)

            return Unsized() if is_unknown else ready

    model = Unknown()
    with pytest.raises(MisconfigurationException, match=r"the validation loader has no length, so a fraction \(0.5\)"):
        quiet_trainer(tmp_path, val_percent_check=0.5).fit(model)
    model.unknown = "tng_dataloader"
    with pytest.raises(MisconfigurationException, match=r"training loader has no length, so train_percent_check=0.5"):
        quiet_trainer(tmp_path, train_percent_check=0.5).fit(model)
    with pytest.raises(MisconfigurationException, match=r"training loader has no length, so val_check_interval=0.5"):
        quiet_trainer(tmp_path, val_check_interval=0.5).fit(model)
    assert model.calls == []


def test_a_hook_must_be_a_method(tmp_path: Path) -> None:
    model = Recorder()
    model.on_epoch_end = 5  # type: ignore[assignment,method-assign]
    with pytest.raises(MisconfigurationException, match=r"Recorder.on_epoch_end must be a method; received 5"):
        quiet_trainer(tmp_path).fit(model)
    assert model.calls == []


def test_several_validation_loaders_give_a_list_of_lists(tmp_path: Path) -> None:
    class Several(Recorder):
        @property
        def val_dataloader(self) -> Any:
            return [self.loader(3), self.loader(2)]

        def validation_step(self, data_batch: Any, batch_nb: int, dataloader_i: int) -> Any:
            return (batch_nb, dataloader_i)

        def validation_end(self, outputs: Any) -> Any:
            assert outputs == [[(0, 0), (1, 0), (2, 0)], [(0, 1), (1, 1)]]
            return {"val_loss": 1.0}

    trainer = quiet_trainer(tmp_path)
    trainer.fit(Several())
    assert trainer.nb_val_batches == 5


def test_several_loaders_need_a_third_argument(tmp_path: Path) -> None:
    class Several(Recorder):
        @property
        def val_dataloader(self) -> Any:
            return [self.loader(3), self.loader(2)]

    with pytest.raises(MisconfigurationException, match=r"2 loaders.*dataloader_i"):
        quiet_trainer(tmp_path).fit(Several())


def test_a_list_of_batches_is_one_loader(tmp_path: Path) -> None:
    class Ready(Recorder):
        @property
        def val_dataloader(self) -> Any:
            return [[torch.ones(2, 1)], [torch.ones(2, 1)]]

    model = Ready()
    quiet_trainer(tmp_path).fit(model)
    assert model.validation_sizes == [2]


# ---------------------------------------------------------------------------------------------- test, predict
def test_test_runs_the_validation_steps_where_there_are_no_others(tmp_path: Path) -> None:
    model = Recorder()
    assert quiet_trainer(tmp_path).test(model) == {"val_loss": 1.0}
    assert model.validation_sizes == [2]


def test_test_runs_test_step_and_test_end_where_defined(tmp_path: Path) -> None:
    class Tested(Recorder):
        def test_step(self, data_batch: Any, batch_nb: int) -> Any:
            return batch_nb

        def test_end(self, outputs: Any) -> Any:
            return {"test_sum": sum(outputs)}

    trainer, model = quiet_trainer(tmp_path), Tested()
    trainer.fit(model)
    assert trainer.test() == {"test_sum": 1}
    assert rows_of(tmp_path, "Tested")[-1]["test_sum"] == "1"


def test_the_best_weights_need_a_callback_that_saved_some(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path)
    trainer.fit(Recorder())
    with pytest.raises(CheckpointError, match="ckpt='best' needs a ModelCheckpoint that has saved something"):
        trainer.test(ckpt="best")


def test_a_test_runs_in_the_trainers_precision(tmp_path: Path) -> None:
    model = Recorder()
    quiet_trainer(tmp_path, precision="64").test(model)
    assert model.dtype == torch.float64


def test_a_test_names_the_hooks_that_it_lacks(tmp_path: Path) -> None:
    class Bare(LightningModule):
        pass

    with pytest.raises(MisconfigurationException) as caught:
        quiet_trainer(tmp_path).test(Bare())
    for name in ("2 problems", "test_dataloader", "validation_step"):
        assert name in str(caught.value)
    with pytest.raises(MisconfigurationException, match="doesn't define test_dataloader"):
        quiet_trainer(tmp_path).predict(Bare())


def test_validate_runs_the_validation_set(tmp_path: Path) -> None:
    model = Recorder()
    assert quiet_trainer(tmp_path).validate(model) == {"val_loss": 1.0}
    assert model.validation_sizes == [3]


def test_test_takes_the_best_weights_or_a_path(tmp_path: Path) -> None:
    from pytorch_lightning.callbacks import ModelCheckpoint

    class Weighed(Recorder):
        def test_end(self, outputs: Any) -> Any:
            return {"weight": self.weight.item()}

    keep = ModelCheckpoint(tmp_path / "w", save_best_only=True)
    trainer = quiet_trainer(tmp_path, checkpoint_callback=keep, max_nb_epochs=3)
    model = Weighed(nb_batches=1, val_values=(1.0, 0.5, 2.0))
    trainer.fit(model)
    last = model.weight.item()
    best = torch.load(keep.best_path, weights_only=True)["state_dict"]["weight"].item()
    assert trainer.test() == {"weight": last}
    assert trainer.test(ckpt="best") == {"weight": best}
    assert best != last
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    assert Trainer(print_weights_summary=False).test(Weighed(), ckpt=tmp_path / "own.ckpt") == {"weight": best}


def test_predict_gives_the_outputs_in_order(tmp_path: Path) -> None:
    model = Recorder()
    model.weight.data.fill_(2.0)
    outputs = quiet_trainer(tmp_path).predict(model)
    assert [o.tolist() for o in outputs] == [[[0.0], [2.0]], [[4.0], [6.0]]]
    assert not outputs[0].requires_grad
    own = quiet_trainer(tmp_path).predict(model, [torch.ones(1, 1)])
    assert own[0].item() == 2.0


def test_predict_writes_to_a_folder(tmp_path: Path) -> None:
    model = Recorder()
    model.weight.data.fill_(2.0)
    assert quiet_trainer(tmp_path).predict(model, write_to=tmp_path / "out") == []
    files = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in files] == ["00000000.pt", "00000001.pt"]
    assert torch.load(files[1], weights_only=True).tolist() == [[4.0], [6.0]]


def test_a_users_predict_step_is_run(tmp_path: Path) -> None:
    class Own(Recorder):
        def predict_step(self, data_batch: Any, batch_nb: int) -> Any:
            return {"n": batch_nb, "grad": torch.is_grad_enabled(), "training": self.training}

    assert quiet_trainer(tmp_path).predict(Own())[1] == {"n": 1, "grad": False, "training": False}


# ---------------------------------------------------------------------------------------------- programs
def test_a_model_without_validation_trains_with_no_argument_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Plain(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.layer(data_batch[0]).pow(2).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.ones(4, 1)), shuffle=True)

    monkeypatch.chdir(tmp_path)
    assert Trainer().fit(Plain()) == 1
    captured = capsys.readouterr()
    assert captured.err.count("[no-validation]") == 1
    assert (tmp_path / "lightning_logs/Plain/version_0/metrics.csv").exists()
    assert "lightning_logs/Plain/version_0" in captured.out


def test_a_trainer_inside_validation_end_works(tmp_path: Path) -> None:
    class Outer(Recorder):
        def validation_end(self, outputs: Any) -> Any:
            inner = Recorder(nb_batches=2)
            trainer = quiet_trainer(tmp_path / "inner", max_nb_epochs=2)
            trainer.fit(inner)
            return {"val_loss": inner.weight.item(), "steps": trainer.global_step}

    model = Outer()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2)
    trainer.fit(model)
    assert (trainer.global_step, trainer.tqdm_metrics["steps"]) == (8, 4)
    plain = Recorder()
    quiet_trainer(tmp_path / "plain", max_nb_epochs=2).fit(plain)
    assert torch.equal(plain.weight, model.weight)


def test_fit_again_is_a_fresh_run_from_the_weights_that_are_there(tmp_path: Path) -> None:
    model = Recorder()
    trainer = quiet_trainer(tmp_path)
    trainer.fit(model)
    before = model.weight.item()
    trainer.fit(model)
    assert (trainer.global_step, trainer.current_epoch) == (4, 1)
    assert model.weight.item() > before


def test_attributes_that_users_read(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path)
    assert (trainer.global_step, trainer.current_epoch, trainer.optimizers, trainer.model) == (0, 0, [], None)
    model = Recorder(lr=0.0)
    trainer.fit(model)
    assert (trainer.model, trainer.nb_tng_batches, trainer.nb_val_batches, trainer.max_nb_epochs) == (model, 4, 3, 1)
    assert trainer.avg_loss == 9.0
    assert trainer.tng_tqdm_dic == trainer.tqdm_metrics == {"tng_loss": 9.0, "twice": 18.0, "val_loss": 1.0}
    assert (trainer.use_dp, trainer.use_ddp, trainer.use_amp) == (False, False, False)
    assert (trainer.proc_rank, trainer.node_rank, trainer.world_size) == (0, 0, 1)
    assert isinstance(trainer.optimizers[0], torch.optim.SGD)
    assert trainer.lr_schedulers == []


class Keeping(Logger):
    """Keeps its rows."""

    folder = version = None

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def log_hyperparams(self, hparams: Any) -> None:
        pass

    def log_metrics(self, metrics: Any, step: int) -> None:
        self.rows.append((metrics, step))

    def save(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_experiment_stand_in_logs_rows(tmp_path: Path) -> None:
    class Logging(Recorder):
        def on_epoch_end(self) -> None:
            self.experiment.log({"mine": torch.tensor(4.0)})
            self.experiment.log({"mine": 5}, global_step=99)
            self.experiment.add_image("x", None)  # does nothing

    keep = Keeping()
    quiet_trainer(tmp_path, experiment=[CSVLogger(tmp_path / "logs", "Logging"), keep]).fit(Logging())
    assert [row["mine"] for row in rows_of(tmp_path, "Logging")[-2:]] == ["4.0", "5"]
    place = {"epoch": 0, "batch_nb": 4}
    assert keep.rows[-2:] == [
        ({**place, "global_step": 4, "mine": 4.0}, 4),
        ({**place, "global_step": 99, "mine": 5}, 99),
    ]


def test_a_loader_is_read_once_a_fit_and_its_length_may_be_unknown(tmp_path: Path) -> None:
    class Endless:
        def __iter__(self) -> Any:
            yield from ([torch.ones(1, 1)] for _ in range(5))

    class Unknown(Recorder):
        nb_read = 0

        @property
        def tng_dataloader(self) -> Any:
            self.nb_read += 1
            return Endless()

    model = Unknown()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2)
    trainer.fit(model)
    assert (model.nb_read, model.nb("training_step"), model.nb_validations) == (1, 10, 2)
    assert trainer.nb_tng_batches is None


def test_an_iterator_that_is_used_up_is_an_error(tmp_path: Path) -> None:
    class Once(Recorder):
        @property
        def tng_dataloader(self) -> Any:
            return iter([[torch.ones(1, 1)]])

    with pytest.raises(FitError, match="can't start again"):
        quiet_trainer(tmp_path, max_nb_epochs=2).fit(Once())


def test_a_loader_without_a_single_batch_is_an_error(tmp_path: Path) -> None:
    class Empty(Recorder):
        @property
        def tng_dataloader(self) -> Any:
            return (batch for batch in [])

    with pytest.raises(FitError, match="yielded no batches"):
        quiet_trainer(tmp_path).fit(Empty())
