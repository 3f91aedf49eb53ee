"""Loaders that can only be iterated: lengths that are wrong or missing, and what becomes of predictions."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from pytorch_lightning.errors import MisconfigurationException
from tests.recorder import Recorder, quiet_trainer


class Stream(IterableDataset[Any]):
    def __init__(self, nb: int) -> None:
        self.nb = nb

    def __iter__(self) -> Any:
        return ((torch.tensor([float(i)]),) for i in range(self.nb))


class Sized(Stream):
    """Has ``nb`` samples, and says ``length``."""

    def __init__(self, nb: int, length: int) -> None:
        super().__init__(nb)
        self.length = length

    def __len__(self) -> int:
        return self.length


class Streaming(Recorder):
    def __init__(self, source: Any, stop_at: int | None = None) -> None:
        super().__init__()
        self.source, self.stop_at = source, stop_at
        self.validated: list[int] = []

    tng_dataloader = property(lambda self: self.source)  # type: ignore[assignment]

    def on_batch_start(self, data_batch: Any) -> int | None:
        return -1 if self.trainer.batch_nb == self.stop_at else None

    def validation_end(self, outputs: Any) -> Any:
        self.validated.append(self.trainer.batch_nb)
        return super().validation_end(outputs)


@pytest.mark.parametrize(
    ("nb", "length", "workers", "said"), [(12, 6, 0, 1), (12, 6, 1, 1), (6, 6, 0, 0), (5, 6, 0, 0)]
)
def test_a_length_that_is_too_short_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nb: int, length: int, workers: int, said: int
) -> None:
    model = Streaming(DataLoader(Sized(nb, length), batch_size=2, num_workers=workers))
    quiet_trainer(tmp_path, max_nb_epochs=2).fit(model)
    assert model.seen == [[0.0, 2.0, 4.0]] * 2
    assert capsys.readouterr().err.count("yields more batches than its length, 3") == said


def test_nothing_is_reported_where_an_epoch_is_shorter_on_purpose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loader = DataLoader(Sized(12, 12), batch_size=2)
    quiet_trainer(tmp_path, max_nb_epochs=1, train_percent_check=0.5).fit(Streaming(loader))
    quiet_trainer(tmp_path, max_nb_epochs=1).fit(Streaming(loader, stop_at=2))
    assert "longer-loader" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("interval", "stop_at", "after"), [(3, None, [3, 6, 9]), (5, None, [5, 10]), (3, 4, [3]), (4, 2, [2]), (1, 4, [4])]
)
def test_an_interval_means_the_same_with_and_without_a_length(
    tmp_path: Path, interval: int, stop_at: int | None, after: list[int]
) -> None:
    for dataset in (Stream(10), Sized(10, 10)):
        model = Streaming(DataLoader(dataset), stop_at)
        options = {"val_check_interval": interval, "nb_sanity_val_steps": 0, "max_nb_epochs": 1}
        quiet_trainer(tmp_path, **options).fit(model)
        assert model.validated == after


@pytest.mark.parametrize("percent", [0.5, 10])
def test_a_share_of_an_endless_validation_is_an_error(tmp_path: Path, percent: float) -> None:
    class Endless:
        def __iter__(self) -> Any:
            return itertools.repeat((torch.ones(1, 1),))

    class Validated(Recorder):
        val_dataloader = property(lambda self: Endless())  # type: ignore[assignment]

    model = Validated()
    with pytest.raises(MisconfigurationException, match=r"the validation loader has no length, so .* of it can't be"):
        quiet_trainer(tmp_path, val_percent_check=percent).fit(model)
    with pytest.raises(MisconfigurationException, match=r"training loader has no length, so train_percent_check=10"):
        quiet_trainer(tmp_path, train_percent_check=10).fit(Streaming(Endless()))
    assert model.calls == []


def test_predictions_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    out, trainer = tmp_path / "out", quiet_trainer(tmp_path)
    long, short = ([torch.full((1, 1), float(n))] * nb for n, nb in ((1, 5), (2, 2)))
    trainer.predict(Recorder(), long, write_to=out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(MisconfigurationException, match=r"holds an earlier prediction \(5 files.*overwrite=True"):
        trainer.predict(Recorder(), short, write_to=out)
    assert len(list(out.glob("*.pt"))) == 5
    trainer.predict(Recorder(), short, write_to=out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["00000000.pt", "00000001.pt", "notes.txt"]
