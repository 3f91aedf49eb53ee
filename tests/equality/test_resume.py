"""A fit that resumes from a checkpoint ends bit-identical to an uninterrupted one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader

from pytorch_lightning.callbacks import Callback
from tests.equality.models import BATCH_SIZE, Augmented, Classifier, Gan, Validated, assert_same, fit
from tests.recorder import quiet_trainer

NB_EPOCHS, WINDOW = 4, 2
NB_STEPS = NB_EPOCHS * 3
"""Five batches an epoch, in windows of 2, 2 and 1."""


class Everything(Validated):
    """Shuffling, augmentation, dropout, batch normalization, momentum and a schedule of steps."""

    def __init__(self) -> None:
        super().__init__(norm=True, dropout=0.3)

    def configure_optimizers(self) -> Any:
        optimizer = Adam(self.parameters(), 0.02)
        return [optimizer], [{"scheduler": OneCycleLR(optimizer, 0.05, total_steps=NB_STEPS), "interval": "step"}]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Augmented(), batch_size=BATCH_SIZE, shuffle=True, num_workers=0)


class Killed(Exception):
    pass


class SaveAt(Callback):
    """Asks for a checkpoint after one batch; ends the fit after a later one if told so."""

    def __init__(self, path: Path, global_step: int, kill: bool = False) -> None:
        self.path, self.global_step, self.kill = path, global_step, kill

    def on_batch_end(self, run: Any) -> None:
        if self.kill and self.path.exists():
            raise Killed
        if run.progress.global_step == self.global_step:
            run.save(self.path)


def finished(tmp_path: Path, model: Any, **options: Any) -> Any:
    """The checkpoint after a fit of ``model``."""
    trainer = quiet_trainer(tmp_path, max_nb_epochs=NB_EPOCHS, accumulate_grad_batches=WINDOW, **options)
    assert trainer.fit(model) == 1
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    return torch.load(tmp_path / "end.ckpt", weights_only=True)


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two checkpoints aren't the same, bit for bit."""
    kinds = torch.Tensor, dict, (list, tuple)
    if any(isinstance(one, kind) != isinstance(other, kind) for kind in kinds):
        return [place]
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and one.equal(other) else [place]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{place}: {one.keys() ^ other.keys()}"]
        return [found for key in one for found in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [place]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{place}/{i}")]
    return [] if one == other else [f"{place}: {one} {other}"]


def comparable(checkpoint: Any) -> Any:
    """All but the wall time, and the streams, which are the caller's own again after a fit."""
    checkpoint["parts"]["progress"].pop("seconds", None)
    checkpoint["parts"].pop("random", None)
    checkpoint["parts"]["attributes"].pop("first", None)  # also of callbacks, which aren't the same here
    checkpoint["parts"].pop("loggers", None)  # each fit has a folder of its own here
    return checkpoint


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 6, 12, 14, 18])
def test_an_interrupted_fit_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path, cut: int) -> None:
    """Cuts inside a window (which is finished first), between windows, and at the end of an epoch."""
    whole = finished(tmp_path / "whole", Everything())

    path = tmp_path / "cut.ckpt"
    with pytest.raises(Killed):
        finished(tmp_path / "first", Everything(), callbacks=[SaveAt(path, cut, kill=True)])
    torch.manual_seed(12345)  # another process has other streams

    rest = finished(tmp_path / "rest", Everything(), resume=path)
    assert differences(comparable(whole), comparable(rest)) == []


@pytest.mark.parametrize(
    "options", [{}, {"val_check_interval": 2}, {"precision": "16"}, {"gradient_clip": 0.1}], ids=str
)
def test_saving_disturbs_nothing_and_a_file_of_a_fit_that_was_resumed_is_as_good(tmp_path: Path, options: Any) -> None:
    class SavesItself(Everything):
        def on_batch_end(self) -> None:
            if self.global_step == 12:
                self.trainer.save_checkpoint(tmp_path / "middle.ckpt")

    plain = finished(tmp_path / "plain", Everything(), **options)
    saving = finished(tmp_path / "saving", SavesItself(), **options)
    assert differences(comparable(plain), comparable(saving)) == []
    rest = finished(tmp_path / "rest", Everything(), resume=tmp_path / "middle.ckpt", **options)
    assert differences(comparable(plain), comparable(rest)) == []


@pytest.mark.parametrize("cut", [3, 7])
def test_an_interrupted_gan(tmp_path: Path, cut: int) -> None:
    whole = fit(tmp_path, Gan())
    with pytest.raises(Killed):
        fit(tmp_path, Gan(), callbacks=[SaveAt(tmp_path / "cut.ckpt", cut, kill=True)])
    assert_same(whole, fit(tmp_path, Gan(), resume=tmp_path / "cut.ckpt"))


def test_what_hooks_draw_between_batches_resumes_too(tmp_path: Path) -> None:
    class Drawing(Classifier):
        """Adds noise to a weight between two batches, from the streams as they are there."""

        def on_batch_end(self) -> None:
            with torch.no_grad():
                self.layers[0].bias.add_(torch.randn(8), alpha=0.01)

        def on_epoch_end(self) -> None:
            with torch.no_grad():
                self.layers[0].bias.add_(torch.randn(8), alpha=0.01)

        def configure_optimizers(self) -> Any:
            return SGD(self.parameters(), 0.1)

    torch.manual_seed(1)
    whole = fit(tmp_path, Drawing(), callbacks=[SaveAt(tmp_path / "cut.ckpt", 9)])
    torch.manual_seed(2)
    assert_same(whole, fit(tmp_path, Drawing(), resume=tmp_path / "cut.ckpt"))


def test_a_plateau_remembers_that_its_epoch_was_validated_before_the_interruption(tmp_path: Path) -> None:
    class Plateau(Validated):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), 0.1)
            return [optimizer], [ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.2)]

    class SaveAfterValidation(Callback):
        def on_validation_end(self, run: Any, metrics: Any) -> None:
            if run.progress.epoch == 1:
                run.save(tmp_path / "cut.ckpt")

    options: Any = {"nb_epochs": 6, "val_check_interval": 4}  # the fifth batch comes after the validation
    whole = fit(tmp_path, Plateau(), callbacks=[SaveAfterValidation()], **options)
    rest = fit(tmp_path, Plateau(), resume=tmp_path / "cut.ckpt", **options)
    assert_same(whole, rest)
    plateaus = [model.trainer.lr_schedulers[0] for model in (whole, rest)]
    assert [plateau.last_epoch for plateau in plateaus] == [6, 6]
