"""Callbacks of the Keras kind."""

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks.pt_callbacks import Callback
from tests.recorder import Recorder, quiet_trainer


class Keras:
    """Notes its calls; stops after ``last`` epochs, by its return value or by ``stop_training``."""

    def __init__(self, last: int = 99, flag: bool = False) -> None:
        self.last, self.flag = last, flag
        self.calls: list[Any] = []

    def set_model(self, model: Any) -> None:
        self.calls.append(("set_model", type(model).__name__))

    def set_params(self, params: dict[str, Any]) -> None:
        self.calls.append(("set_params", params))

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append("on_train_begin")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("on_epoch_begin", epoch))

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("on_batch_begin", batch))

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("on_batch_end", batch, logs["twice"]))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> bool:
        self.calls.append(("on_epoch_end", epoch, logs["val_loss"], logs["tng_loss"]))
        if self.flag:
            self.stop_training = epoch + 1 >= self.last
        return not self.flag and epoch + 1 >= self.last

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append("on_train_end")


def test_its_methods_are_called_with_epochs_batches_and_numbers(tmp_path: Path) -> None:
    keras = Keras()
    quiet_trainer(tmp_path, callbacks=[keras]).fit(Recorder(nb_batches=2, lr=0.0))
    assert keras.calls == [
        ("set_params", {"epochs": 1, "steps": 2}),
        ("set_model", "Recorder"),
        "on_train_begin",
        ("on_epoch_begin", 0),
        ("on_batch_begin", 0),
        ("on_batch_end", 0, 18.0),
        ("on_batch_begin", 1),
        ("on_batch_end", 1, 18.0),
        ("on_epoch_end", 0, 1.0, 9.0),
        "on_train_end",
    ]


def test_true_from_on_epoch_end_stops(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, early_stop_callback=Keras(last=2), max_nb_epochs=9)
    trainer.fit(Recorder())
    assert trainer.current_epoch == 2


def test_stop_training_stops_after_min_nb_epochs(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, callbacks=[Keras(last=2, flag=True)], max_nb_epochs=9, min_nb_epochs=3)
    trainer.fit(Recorder())
    assert trainer.current_epoch == 3


def test_one_method_is_enough(tmp_path: Path) -> None:
    class One:
        ends = 0

        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            self.ends += 1

    one = One()
    quiet_trainer(tmp_path, callbacks=[one], max_nb_epochs=3).fit(Recorder())
    assert one.ends == 3


def test_a_class_of_2019_stops_its_model_saves_and_may_be_used_again(tmp_path: Path) -> None:
    class Keeper(Callback):
        def __init__(self, last: int) -> None:
            super().__init__()
            self.last = last

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_begin(epoch, logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert self.params == {"epochs": 9, "steps": 4}
            self.save_function(str(tmp_path / f"epoch_{epoch}.ckpt"))
            if epoch + 1 == self.last:
                self.model.stop_training = True

    trainer = quiet_trainer(tmp_path, checkpoint_callback=Keeper(2), max_nb_epochs=9)
    for _ in range(2):
        model = Recorder()
        trainer.fit(model)
        assert trainer.current_epoch == 2
        trainer.fit(model)  # its own stop_training is forgotten too
        assert trainer.current_epoch == 2
    assert sorted(p.name for p in tmp_path.glob("*.ckpt")) == ["epoch_0.ckpt", "epoch_1.ckpt"]


def test_a_method_that_is_not_overridden_costs_nothing_per_batch(tmp_path: Path, monkeypatch: Any) -> None:
    from pytorch_lightning.run.metrics import Metrics

    reads: list[int] = []
    numbers = Metrics.all
    monkeypatch.setattr(Metrics, "all", lambda self: (reads.append(1), numbers(self))[1])

    class Ends(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            pass

    quiet_trainer(tmp_path, callbacks=[Ends()]).fit(Recorder(nb_batches=50))
    assert len(reads) == 2
