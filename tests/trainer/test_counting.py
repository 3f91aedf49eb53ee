"""Numbers of batches: of an epoch, of a validation, of a test, and between validations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import MisconfigurationException
from tests.equality.test_resume import Killed, SaveAt
from tests.recorder import Recorder, quiet_trainer


class Noting(Recorder):
    """Notes after how many batches it was validated, and skips some of them."""

    def __init__(self, nb_batches: int = 5, skipped: tuple[int, ...] = ()) -> None:
        super().__init__(nb_batches)
        self.skipped = skipped
        self.validated: list[int] = []

    def validation_end(self, outputs: Any) -> Any:
        self.validated = [*self.validated, self.global_step]
        return super().validation_end(outputs)

    @property
    def tng_dataloader(self) -> Any:
        return [None if n in self.skipped else (torch.full((2, 1), float(n)),) for n in range(self.nb_batches)]


def fitted(folder: Path, model: Any, **options: Any) -> Any:
    quiet_trainer(folder, **{"max_nb_epochs": 3, **options}).fit(model)
    return model


def test_the_smaller_of_a_number_and_a_fraction_counts(tmp_path: Path) -> None:
    for percent, most, nb in ((1.0, 3, 3), (0.4, 3, 2), (1.0, 9, 5)):
        model = fitted(tmp_path, Recorder(5), max_nb_tng_batches=most, train_percent_check=percent, max_nb_epochs=2)
        assert [len(seen) for seen in model.seen] == [nb, nb]
        assert (model.trainer.nb_tng_batches, model.trainer.nb_total_steps) == (nb, 2 * nb)
    for percent, most, nb in ((1.0, 2, 2), (0.4, 2, 1), (1.0, 9, 3)):
        options = {"max_nb_val_batches": most, "val_percent_check": percent, "nb_sanity_val_steps": 3}
        model = fitted(tmp_path, Recorder(5), max_nb_epochs=1, **options)
        assert model.validation_sizes == [min(most, 3), nb]
        assert model.trainer.nb_val_batches == nb
        assert model.trainer.validate() == {"val_loss": 1.0}
        assert model.validation_sizes[2:] == [nb]
    quiet_trainer(tmp_path, max_nb_test_batches=1).test(model)
    assert model.validation_sizes[3:] == [1]


def test_each_epoch_of_a_shuffled_loader_has_another_order(tmp_path: Path) -> None:
    class Shuffled(Recorder):
        def loader(self, nb_batches: int) -> Any:
            return DataLoader(super().loader(nb_batches).dataset, batch_size=2, shuffle=True)

    model = fitted(tmp_path, Shuffled(20), max_nb_tng_batches=4)
    whole = fitted(tmp_path, Shuffled(20))
    assert model.seen == [seen[:4] for seen in whole.seen]
    assert len({tuple(seen) for seen in model.seen}) == 3


def test_a_validation_of_an_endless_stream_is_cut_and_begun_again(tmp_path: Path) -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Any:
            while True:
                yield torch.ones(1)

    class Model(Recorder):
        val_dataloader = property(lambda self: DataLoader(Endless(), batch_size=2))  # type: ignore[assignment]

    assert fitted(tmp_path, Model(), max_nb_val_batches=4).validation_sizes == [4, 4, 4]


def test_fast_dev_run_is_still_one_batch(tmp_path: Path) -> None:
    options = {"max_nb_tng_batches": 3, "max_nb_val_batches": 2, "val_every_nb_batches": 3}
    model = fitted(tmp_path, Noting(), fast_dev_run=True, **options)
    assert (model.seen, model.validation_sizes) == ([[0.0]], [1])


def test_validations_are_counted_across_epochs(tmp_path: Path) -> None:
    assert fitted(tmp_path, Noting(), val_every_nb_batches=4).validated == [4, 8, 12]
    assert fitted(tmp_path, Noting(), val_every_nb_batches=7).validated == [7, 14]
    assert fitted(tmp_path, Noting(), val_every_nb_batches=5).validated == [5, 10, 15]
    assert fitted(tmp_path, Noting(), val_every_nb_batches=16).validated == []
    # windows of 2, 2 and 1 batches
    assert fitted(tmp_path, Noting(), val_every_nb_batches=4, accumulate_grad_batches=2).validated == [4, 9, 12]


def test_batches_that_are_skipped_are_not_counted(tmp_path: Path) -> None:
    model = fitted(tmp_path, Noting(5, skipped=(1, 2)), val_every_nb_batches=4)
    assert model.validated == [4, 8]
    assert model.trainer.global_step == 9


@pytest.mark.parametrize("skipped", [(), (1,)])
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 7, 8])
def test_a_resumed_run_validates_after_the_same_batches(tmp_path: Path, cut: int, skipped: tuple[int, ...]) -> None:
    options: dict[str, Any] = {"val_every_nb_batches": 4, "max_nb_tng_batches": 4}
    whole = fitted(tmp_path / "whole", Noting(5, skipped), **options).validated
    path = tmp_path / "cut.ckpt"
    with pytest.raises(Killed):
        fitted(tmp_path / "first", Noting(5, skipped), callbacks=[SaveAt(path, cut - 1, kill=True)], **options)
    assert fitted(tmp_path / "rest", Noting(5, skipped), resume=path, **options).validated == whole


def test_what_says_when_twice_is_refused(tmp_path: Path) -> None:
    for other in ({"val_check_interval": 0.5}, {"val_check_interval": 3}, {"check_val_every_n_epoch": 2}):
        with pytest.raises(MisconfigurationException, match="both say when to validate"):
            quiet_trainer(tmp_path, val_every_nb_batches=4, **other)


def test_a_fraction_of_an_epoch_that_is_cut_can_be_taken(tmp_path: Path) -> None:
    class Stream(Noting):
        tng_dataloader = property(lambda self: ((torch.ones(2, 1),) for _ in range(99)))  # type: ignore[assignment]

    assert fitted(tmp_path, Stream(), max_nb_tng_batches=4, val_check_interval=0.5, max_nb_epochs=2).validated == [
        2, 4, 6, 8,
    ]  # fmt: skip
    with pytest.raises(MisconfigurationException, match="val_check_interval=5 batches is more than an epoch's 4"):
        fitted(tmp_path, Noting(9), max_nb_tng_batches=4, val_check_interval=5)
    with pytest.raises(MisconfigurationException, match=r"train_percent_check=0.5 can't be taken of it"):
        fitted(tmp_path, Stream(), max_nb_tng_batches=4, train_percent_check=0.5)


def test_the_bar_knows_the_length_of_an_epoch(tmp_path: Path) -> None:
    told: list[Any] = []

    class Asking(Callback):
        def on_epoch_start(self, run: Any) -> None:
            told.append(run.nb_tng_batches)

    fitted(tmp_path, Recorder(9), max_nb_tng_batches=4, callbacks=[Asking()], max_nb_epochs=1)
    assert told == [4]
