"""Layers, parameters and hooks that are replaced in mid-training: said, refused, or the bits of a run without a cut."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytorch_lightning.errors import CheckpointError, FitError
from tests.recorder import quiet_trainer
from tests.resume.test_changes_in_training import Model, assert_same, cut_and_resumed


class Changing(Model):
    """``change`` happens once, after two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.is_changed = nn.Tanh(), False

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.body(x))))  # type: ignore[no-any-return]

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return (self(data_batch) - 1).pow(2).mean()

    def on_batch_end(self) -> None:
        if self.trainer.global_step == 2 and not self.is_changed:
            self.is_changed = True
            self.change()

    def change(self) -> None:
        raise NotImplementedError


class OtherLayer(Changing):
    def change(self) -> None:
        self.act = nn.ReLU()  # type: ignore[assignment]


class ForwardHook(Changing):
    def change(self) -> None:
        self.body.register_forward_hook(lambda layer, received, given: given / 2)


class BackwardPreHook(Changing):
    def change(self) -> None:
        self.body.register_full_backward_pre_hook(lambda layer, gradients: (gradients[0] / 2,))


class GradientHook(Changing):
    def change(self) -> None:
        self.body.weight.register_hook(lambda gradient: gradient / 2)


class NewLayer(Changing):
    def change(self) -> None:
        self.body.more = nn.ReLU()


SAID = {
    OtherLayer: "module.act (ReLU; it was Tanh)",
    ForwardHook: "forward hook of module.body",
    BackwardPreHook: "backward pre-hook of module.body",
    GradientHook: "backward hook of module.body.weight",
    NewLayer: "what module.body holds",
}


@pytest.mark.parametrize("kind", SAID)
def test_a_layer_or_a_hook_that_no_checkpoint_holds_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Any
) -> None:
    trainer = quiet_trainer(tmp_path, max_nb_epochs=1)
    trainer.fit(kind())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "[lost-attributes]" in line]
    assert SAID[kind] in said


def test_hooks_that_are_there_before_training_and_for_one_step_only_are_not_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Watched(Model):
        def on_fit_start(self) -> None:
            self.body.register_forward_hook(lambda layer, received, given: None)

        def on_batch_start(self, data_batch: Any) -> None:
            self.handle = self.head.register_forward_hook(lambda layer, received, given: None)

        def on_batch_end(self) -> None:
            self.handle.remove()
            del self.handle

    quiet_trainer(tmp_path, max_nb_epochs=2, save_every_nb_batches=1, resume="auto").fit(Watched())
    assert "lost-attributes" not in capsys.readouterr().err


class OtherParameter(Changing):
    def change(self) -> None:
        self.head.weight = nn.Parameter(torch.ones(1, 6))


class Reconfigured(OtherParameter):
    def change(self) -> None:
        super().change()
        self.trainer.reconfigure_optimizers()


class Added(OtherParameter):
    def change(self) -> None:
        super().change()
        self.trainer.optimizers[0].add_param_group({"params": [self.head.weight]})


class Written(Changing):
    def change(self) -> None:
        with torch.no_grad():
            self.head.weight.fill_(1)


def test_a_parameter_that_an_optimizer_does_not_have_is_refused_at_the_next_save(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"in the place of head\.weight, .*reconfigure_optimizers"):
        quiet_trainer(tmp_path, max_nb_epochs=2, save_every_nb_batches=1, resume="auto").fit(OtherParameter())


@pytest.mark.parametrize("kind", [Reconfigured, Written])
@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_parameter_that_is_told_or_written_to_is_trained_and_resumed(tmp_path: Path, kind: Any, cut: int) -> None:
    whole, _, again = cut_and_resumed(tmp_path, kind, cut)
    assert_same(whole, again)
    by_hand = kind()  # the new weights were trained on
    assert not whole.head.weight.equal(torch.ones(1, 6))
    assert not whole.head.weight.equal(by_hand.head.weight)


def test_one_that_was_replaced_and_added_is_trained_and_a_resume_refused(tmp_path: Path) -> None:
    first = quiet_trainer(tmp_path / "first", max_nb_epochs=1)
    model = Added()
    first.fit(model)
    assert not model.head.weight.equal(torch.ones(1, 6))
    first.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"head\.weight was replaced while training and added"):
        quiet_trainer(tmp_path / "again", max_nb_epochs=2, resume=tmp_path / "x.ckpt").fit(Added())
