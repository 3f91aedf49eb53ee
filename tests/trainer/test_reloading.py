"""``reload_dataloaders_every_nb_epochs``: the properties are read again, and a resume reads what was read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, random_split

from pytorch_lightning import LightningModule, data_loader
from pytorch_lightning.errors import FitError, MisconfigurationException
from tests.recorder import quiet_trainer

NB_EPOCHS = 6


class Numbers(Dataset[Any]):
    def __init__(self, nb: int, first: int = 0) -> None:
        self.nb, self.first = nb, first

    def __len__(self) -> int:
        return self.nb

    def __getitem__(self, i: int) -> Tensor:
        return torch.tensor(float(self.first + i))


class Growing(LightningModule):
    """Two more samples, and another first one, each time that a loader is made."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.noted: list[Any] = []
        self.validated: list[Any] = []
        self.fails_at = fails_at

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if len(self.noted) == self.fails_at:
            raise KeyError("cut")
        self.noted.append((self.current_epoch, data_batch.tolist()))
        return {"loss": (self.weight * data_batch).pow(2).mean() + self.weight.sum()}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return data_batch.sum()

    def validation_end(self, outputs: Any) -> Any:
        self.validated.append((self.current_epoch, float(sum(outputs))))
        return {"val_loss": float(sum(outputs))}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-9)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Numbers(2 + 2 * self.current_epoch, 100 * self.current_epoch), 2)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(Numbers(1, self.current_epoch))


def fitted(folder: Path, model: Any, every: int | None = 2, **options: Any) -> Any:
    trainer = quiet_trainer(
        folder,
        seed=3,
        max_nb_epochs=NB_EPOCHS,
        reload_dataloaders_every_nb_epochs=every,
        nb_sanity_val_steps=0,
        **options,
    )
    trainer.fit(model)
    return trainer


def cut_and_resumed(folder: Path, make: Any, cut: int, **options: Any) -> Any:
    options |= {"resume": "auto", "save_every_nb_batches": 1}
    with pytest.raises(KeyError, match="cut"):
        fitted(folder, make(cut), **options)
    fitted(folder, model := make(-1), **options)
    return model


def by_hand(every: int | None) -> list[tuple[int, list[float]]]:
    """A loop that makes its loader anew every ``every`` epochs."""
    noted, loader = [], None
    for epoch in range(NB_EPOCHS):
        if loader is None or (every and epoch % every == 0):
            loader = DataLoader(Numbers(2 + 2 * epoch, 100 * epoch), 2)
        noted += [(epoch, batch.tolist()) for batch in loader]
    return noted


@pytest.mark.parametrize("every", [1, 2, 4, 7, 0, None])
def test_loaders_are_those_of_a_loop_that_makes_them_anew(tmp_path: Path, every: int | None) -> None:
    model = Growing()
    trainer = fitted(tmp_path, model, every)
    assert model.noted == by_hand(every)
    firsts = [epoch if every == 1 else epoch // (every or 99) * (every or 99) for epoch in range(NB_EPOCHS)]
    assert model.validated == [(epoch, float(first)) for epoch, first in enumerate(firsts)]
    assert trainer.nb_tng_batches == 1 + firsts[-1]


@pytest.mark.parametrize("cut", [2, 4, 5, 9, 13])
def test_a_resume_reads_what_was_read(tmp_path: Path, cut: int) -> None:
    model = cut_and_resumed(tmp_path, Growing, cut)
    assert model.noted == by_hand(2)
    assert model.validated == [(0, 0.0), (1, 0.0), (2, 2.0), (3, 2.0), (4, 4.0), (5, 4.0)]


def test_a_resume_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    for nb in (1, 2, 3, 4, NB_EPOCHS):
        trainer = quiet_trainer(
            tmp_path,
            seed=3,
            max_nb_epochs=nb,
            reload_dataloaders_every_nb_epochs=2,
            nb_sanity_val_steps=0,
            resume="auto",
        )
        trainer.fit(model := Growing())
    assert model.noted == by_hand(2)


class Drawing(Growing):
    """Splits anew each time, by numbers that nobody seeds."""

    @property
    def tng_dataloader(self) -> Any:
        first, _ = random_split(Numbers(40), [6, 34])
        return DataLoader(first, 2, shuffle=True)


def test_what_a_property_draws_is_drawn_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    fitted(tmp_path / "whole", whole := Drawing())
    samples = [{x for e, batch in whole.noted if e == epoch for x in batch} for epoch in range(NB_EPOCHS)]
    assert samples[0] == samples[1] != samples[2] == samples[3] != samples[4]
    torch.manual_seed(1)
    fitted_again = Drawing(11)
    options: dict[str, Any] = {"resume": "auto", "save_every_nb_batches": 1}
    with pytest.raises(KeyError, match="cut"):
        fitted(tmp_path / "cut", fitted_again, **options)
    torch.manual_seed(1)  # as a program does in each start
    torch.rand(3)  # in the middle of a fit it doesn't matter any more
    torch.manual_seed(1)
    fitted(tmp_path / "cut", resumed := Drawing(), **options)
    assert resumed.noted == whole.noted


class Cached(Growing):
    @data_loader
    def tng_dataloader(self) -> Any:
        return Growing.tng_dataloader.fget(self)  # type: ignore[attr-defined]


class CachedByHand(Growing):
    @property
    def tng_dataloader(self) -> Any:
        if self._tng_dataloader is None:
            self._tng_dataloader = Growing.tng_dataloader.fget(self)  # type: ignore[attr-defined]
        return self._tng_dataloader


@pytest.mark.parametrize("kind", [Cached, CachedByHand])
def test_a_loader_that_was_kept_is_made_anew(tmp_path: Path, kind: Any) -> None:
    fitted(tmp_path, model := kind())
    assert model.noted == by_hand(2)


class Streaming(Growing):
    """A stream without a length, which an epoch's end cuts."""

    class Endless(IterableDataset[Any]):
        def __init__(self, first: int) -> None:
            self.first = first

        def __iter__(self) -> Iterator[Tensor]:
            n = self.first
            while True:
                yield torch.tensor(float(n))
                n += 1

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(self.Endless(100 * self.current_epoch), 2)


def test_a_stream_begins_anew(tmp_path: Path) -> None:
    fitted(tmp_path / "whole", whole := Streaming(), max_nb_tng_batches=2)
    starts = [0, 4, 200, 204, 400, 404]
    assert whole.noted == [(e, [s + 2.0 * i, s + 2.0 * i + 1]) for e, s in enumerate(starts) for i in range(2)]
    for cut in (3, 5, 7):
        resumed = cut_and_resumed(tmp_path / str(cut), Streaming, cut, max_nb_tng_batches=2)
        assert resumed.noted == whole.noted


class Curriculum(Growing):
    """The data of an attribute that a hook changes."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__(fails_at)
        self.stage = 0

    def on_epoch_end(self) -> None:
        self.stage += 10

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Numbers(4, self.stage), 2)


def test_a_property_sees_the_attributes_of_its_epoch(tmp_path: Path) -> None:
    fitted(tmp_path / "whole", whole := Curriculum(), 1)
    assert [batch for _, batch in whole.noted][::2] == [[10.0 * e, 10.0 * e + 1] for e in range(NB_EPOCHS)]
    for cut in (3, 5, 6):
        assert cut_and_resumed(tmp_path / str(cut), Curriculum, cut, every=1).noted == whole.noted


class ChangedSince(Curriculum):
    """What its loader is made of changes while that is used."""

    def on_batch_end(self) -> None:
        self.stage += 1


def test_a_property_sees_what_was_there_when_it_was_read(tmp_path: Path) -> None:
    fitted(tmp_path / "whole", whole := ChangedSince(), 2)
    assert [batch[0] for _, batch in whole.noted][::2] == [0.0, 0.0, 24.0, 24.0, 48.0, 48.0]
    for cut in (5, 6, 7):
        resumed = cut_and_resumed(tmp_path / str(cut), ChangedSince, cut)
        assert resumed.noted == whole.noted
        assert resumed.stage == whole.stage


class OfTheClass(Growing):
    """What its loader is made of is in no attribute."""

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Numbers(4 + 2 * OfTheClass.nb_made), 2)

    nb_made = 0

    def on_batch_end(self) -> None:
        OfTheClass.nb_made += 1


def test_what_cannot_be_made_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FitError, match="the training data changed since the checkpoint"):
        cut_and_resumed(tmp_path, OfTheClass, 9)


def test_loaders_passed_to_fit_cannot_be_read_again(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, reload_dataloaders_every_nb_epochs=2)
    with pytest.raises(MisconfigurationException, match=r"reads the loaders of the module again.*tng_dataloader"):
        trainer.fit(Growing(), DataLoader(Numbers(2)))


def test_a_loader_that_is_wrong_later_is_an_error_before_its_first_batch(tmp_path: Path) -> None:
    class Ending(Growing):
        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(Numbers(0 if self.current_epoch else 4), 2)

    with pytest.raises(MisconfigurationException, match="tng_dataloader returned an empty loader"):
        fitted(tmp_path, model := Ending())
    assert [epoch for epoch, _ in model.noted] == [0, 0, 1, 1]


def test_workers_of_the_loaders_before_end(tmp_path: Path) -> None:
    import multiprocessing

    class Working(Growing):
        nb_workers: list[int] = []

        @property
        def tng_dataloader(self) -> Any:
            return DataLoader(Numbers(4, self.current_epoch), 2, num_workers=1, persistent_workers=True)

        def on_epoch_end(self) -> None:
            self.nb_workers.append(len(multiprocessing.active_children()))

    fitted(tmp_path, model := Working())
    assert set(Working.nb_workers) == {1}
    assert [batch[0] for _, batch in model.noted][::2] == [0.0, 0.0, 2.0, 2.0, 4.0, 4.0]
