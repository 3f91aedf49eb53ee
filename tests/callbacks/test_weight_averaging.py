"""Averages of the weights: as torch's swa_utils make them in a loop written by hand."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import swa_utils
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, WeightAveraging
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException
from tests.recorder import quiet_trainer

NB_BATCHES, NB_EPOCHS = 7, 3


class Net(LightningModule):
    """BatchNorm, and a counter that validations change."""

    def __init__(self, nb_outputs: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, nb_outputs))
        self.register_buffer("nb_validated", torch.zeros((), dtype=torch.long))

    def forward(self, x: Any) -> Any:
        return self.layers(x)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return F.cross_entropy(self(data_batch[0]), data_batch[1])

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.nb_validated += 1
        return F.cross_entropy(self(data_batch[0]), data_batch[1])

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).double().mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.02)

    def loader(self, seed: int, nb: int) -> Any:
        x = torch.randn(8 * nb, 6, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=8)

    @property
    def tng_dataloader(self) -> Any:
        return self.loader(1, NB_BATCHES)

    @property
    def val_dataloader(self) -> Any:
        return self.loader(2, 2)

    test_dataloader = val_dataloader


def made(kind: Any, model: Any, use_buffers: bool = False) -> Any:
    if callable(kind):
        return swa_utils.AveragedModel(model, avg_fn=kind, use_buffers=use_buffers)
    function = swa_utils.get_ema_multi_avg_fn(0.9) if kind == "ema" else swa_utils.get_swa_multi_avg_fn()
    return swa_utils.AveragedModel(model, multi_avg_fn=function, use_buffers=use_buffers)


def validated(model: Any) -> float:
    model.eval()
    with torch.no_grad():
        value = float(model.validation_end([model.validation_step(b, 0) for b in model.val_dataloader])["val_loss"])
    model.train()
    return value


def by_hand(
    kind: Any, start: int, every: int, *, use_buffers: bool = False, update_bn: bool = False, accumulate: int = 1
) -> tuple[Any, Any, list[float]]:
    """The model, its average, and what each validation gives."""
    model, average, step, values = Net(), None, 0, list[float]()
    optimizer = model.configure_optimizers()
    for _ in range(NB_EPOCHS):
        batches = list(model.tng_dataloader)
        for first in range(0, len(batches), accumulate):
            window = batches[first : first + accumulate]
            optimizer.zero_grad()
            for batch in window:
                (model.training_step(batch, 0) / len(window)).backward()
            optimizer.step()
            step += 1
            if step >= start and (step - start) % every == 0:
                average = made(kind, model, use_buffers) if average is None else average
                average.update_parameters(model)
        if average is not None and update_bn:
            swa_utils.update_bn(model.tng_dataloader, average)
        values.append(validated(copy.deepcopy(model if average is None else average.module)))
        model.nb_validated += 0 if use_buffers and average is not None else 2
    return model, average, values


class Watcher(Callback):
    """What validations give, and the weights after each."""

    def reset(self) -> None:
        self.values: list[float] = []
        self.after: list[Any] = []

    def on_validation_end(self, run: Any, metrics: Any) -> None:
        self.values.append(metrics["val_loss"])
        self.after.append({name: value.clone() for name, value in run.module.state_dict().items()})


def assert_same(state: Any, other: Any, leave_out: tuple[str, ...] = ("nb_validated",)) -> None:
    assert set(state) - set(leave_out) == set(other) - set(leave_out)
    for name in set(state) - set(leave_out):
        assert torch.equal(state[name], other[name]), name


def third(averaged: Any, current: Any, nb: Any) -> Any:
    return averaged + (current - averaged) / 3


CASES: list[tuple[Any, dict[str, Any]]] = [
    ("ema", {"start": 1, "every": 1}),
    ("ema", {"start": 4, "every": 3}),
    ("ema", {"start": 1, "every": 2, "use_buffers": True}),
    ("swa", {"start": 1, "every": 1}),
    ("swa", {"start": 5, "every": 2, "update_bn": True}),
    (third, {"start": 3, "every": 1}),
]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_it_is_the_one_of_swa_utils(tmp_path: Path, kind: Any, options: dict[str, Any], accumulate: int) -> None:
    model, average, values = by_hand(kind, accumulate=accumulate, **options)
    averaging, watcher, trained = WeightAveraging(kind, **DECAY(kind), **options), Watcher(), Net()
    trainer = quiet_trainer(
        tmp_path, callbacks=[averaging, watcher], max_nb_epochs=NB_EPOCHS, accumulate_grad_batches=accumulate
    )
    trainer.fit(trained)
    assert watcher.values == values
    assert_same(trained.state_dict(), model.state_dict())
    assert_same(averaging.state_dict()["weights"], average.module.state_dict())
    assert averaging.state_dict()["nb"] == int(average.n_averaged)
    assert_same(watcher.after[-1], model.state_dict())
    assert int(trained.nb_validated) == int(model.nb_validated)


def DECAY(kind: Any) -> dict[str, Any]:
    return {"decay": 0.9} if kind == "ema" else {}


@pytest.mark.parametrize("weights_only", [False, True])
def test_files_hold_it_beside_the_weights(tmp_path: Path, weights_only: bool) -> None:
    _, average, values = by_hand("ema", 1, 1)
    keep = ModelCheckpoint(tmp_path / "best", save_top_k=1, save_weights_only=weights_only)
    averaging = WeightAveraging("ema", decay=0.9)
    trainer = quiet_trainer(tmp_path, callbacks=[averaging], checkpoint_callback=keep, max_nb_epochs=NB_EPOCHS)
    model = Net()
    trainer.fit(model)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    assert min(values) == values[-1]
    assert trainer.test(weights="average")["val_loss"] == values[-1]
    assert_same(model.state_dict(), own)
    assert trainer.test()["val_loss"] != values[-1]
    assert trainer.validate(Net(), ckpt="best", weights="average")["val_loss"] == values[-1]
    assert trainer.test(model, ckpt="best", weights="average")["val_loss"] == values[-1]
    assert_same(model.state_dict(), average.module.state_dict())
    assert trainer.test(model, ckpt="best")["val_loss"] != values[-1]
    assert_same(model.state_dict(), own)
    assert len(trainer.predict(model, model.val_dataloader, ckpt="best", weights="average")) == 2
    assert_same(model.state_dict(), average.module.state_dict())
    loaded = Net.load_from_checkpoint(keep.best_path, weights="average")
    assert_same(loaded.state_dict(), average.module.state_dict())
    assert_same(Net.load_from_checkpoint(keep.best_path).state_dict(), own)


def test_its_own_weights_come_back_after_an_exception(tmp_path: Path) -> None:
    class Failing(Net):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            seen.append({name: p.detach().clone() for name, p in self.named_parameters()})
            if self.current_epoch == 1:
                raise RuntimeError("in the validation")
            return super().validation_step(data_batch, batch_nb)

    class Late(Callback):
        def on_evaluation_end(self, run: Any, stage: str) -> None:
            raise ZeroDivisionError

    seen: list[Any] = []
    hand = Net()
    optimizer = hand.configure_optimizers()
    for _ in range(2):
        for batch in hand.tng_dataloader:
            optimizer.zero_grad()
            hand.training_step(batch, 0).backward()
            optimizer.step()
    model = Failing()
    with pytest.raises(RuntimeError, match="in the validation"):
        quiet_trainer(tmp_path, callbacks=[WeightAveraging("ema", decay=0.9)], max_nb_epochs=2).fit(model)
    assert_same(model.state_dict(), hand.state_dict())
    assert not torch.equal(seen[-1]["layers.0.weight"], hand.layers[0].weight)
    model = Net()
    with pytest.raises(ZeroDivisionError):
        quiet_trainer(tmp_path, callbacks=[Late(), WeightAveraging("ema", decay=0.9)], max_nb_epochs=2).fit(model)
    trained = Net()
    quiet_trainer(tmp_path, max_nb_epochs=1).fit(trained)
    assert_same(model.state_dict(), trained.state_dict())


@pytest.mark.parametrize("options", [CASES[1][1], {"start": 2, "every": 2, "update_bn": True}])
@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_a_cut_at_any_batch_changes_nothing(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    class Cut(Net):
        at: int | None = None

        def on_batch_end(self) -> None:
            if self.global_step == self.at:
                raise KeyboardInterrupt

    def run(folder: Path, at: int | None = None, **more: Any) -> tuple[Any, Any, Any]:
        model, averaging, watcher = Cut(), WeightAveraging(kind, **DECAY(kind), **options), Watcher()
        model.at = at
        trainer = quiet_trainer(
            folder,
            callbacks=[averaging, watcher],
            max_nb_epochs=NB_EPOCHS,
            val_check_interval=0.5,
            save_every_nb_batches=1,
            resume="auto",
            **more,
        )
        trainer.fit(model)
        return model.state_dict(), averaging.state_dict(), watcher.values

    model, average, values = run(tmp_path / "whole")
    for at in (1, 5, 9, 12, 20):
        run(tmp_path / str(at), at)
        again, averaged, rest = run(tmp_path / str(at))
        assert_same(again, model, ())
        assert_same(averaged["weights"], average["weights"], ())
        assert averaged["nb"] == average["nb"]
        assert rest == values[len(values) - len(rest) :]


def test_it_begins_with_the_start(tmp_path: Path) -> None:
    averaging, watcher, model = WeightAveraging("swa", start=1000), Watcher(), Net()
    trainer = quiet_trainer(tmp_path, callbacks=[averaging, watcher], max_nb_epochs=2)
    trainer.fit(model)
    assert watcher.values[-1] == validated(model)
    assert averaging.state_dict()["nb"] == 0
    with pytest.raises(MisconfigurationException, match="has averaged something"):
        trainer.test(weights="average")
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="holds no average"):
        trainer.test(ckpt=tmp_path / "a.ckpt", weights="average")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kind": "emma"}, "Did you mean 'ema'"),
        ({"kind": "swa", "decay": 0.9}, "decay is of 'ema'"),
        ({"decay": 1.5}, "from 0 to 1"),
        ({"every": 0}, "every must be a whole number"),
        ({"start": -1}, "start must be a whole number"),
        ({"use_buffers": True, "update_bn": True}, "Pass one of them"),
        ({"update_every_n_steps": 2}, "Write every=n"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, text: str) -> None:
    with pytest.raises(MisconfigurationException, match=text):
        WeightAveraging(**arguments)


@pytest.mark.parametrize(
    ("options", "averages", "text"),
    [
        ({}, [WeightAveraging("ema"), WeightAveraging("swa")], "one WeightAveraging"),
        ({"precision": "bf16-true"}, [WeightAveraging("ema")], "precision='bf16'"),
        ({"data_is_sharded": True, "nb_processes": 1}, [WeightAveraging("ema", update_bn=True)], "data_is_sharded"),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path: Path, options: Any, averages: Any, text: str) -> None:
    with pytest.raises(MisconfigurationException, match=text):
        quiet_trainer(tmp_path, callbacks=averages, **options).fit(Net())


def test_a_stream_is_not_passed_over_twice(tmp_path: Path) -> None:
    class Streamed(Net):
        @property
        def tng_dataloader(self) -> Any:
            return (batch for batch in super().tng_dataloader)

    with pytest.raises(MisconfigurationException, match="stream"):
        quiet_trainer(tmp_path, callbacks=[WeightAveraging("ema", update_bn=True)]).fit(Streamed())


def test_weights_that_come_later_are_refused(tmp_path: Path) -> None:
    class Growing(Net):
        def on_epoch_end(self) -> None:
            self.later = nn.Linear(2, 2)

    with pytest.raises(FitError, match=r"later\.weight"):
        quiet_trainer(tmp_path, callbacks=[WeightAveraging("ema")], max_nb_epochs=2).fit(Growing())
