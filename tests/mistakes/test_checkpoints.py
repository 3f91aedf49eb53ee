"""Checkpoints that are missing, damaged, foreign, or of another model: named before anything is trained."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.errors import CheckpointError
from tests.mistakes.honest import Honest, Refusals, planted, trainer_in


def written(folder: Path, model: Any | None = None) -> Path:
    """A checkpoint after one epoch."""
    path = folder / "a.ckpt"
    trainer = trainer_in(folder, experiment=False)
    trainer.fit(model or Honest())
    trainer.save_checkpoint(path)
    return path


def missing(folder: Path) -> Path:
    written(folder)
    return folder / "b.ckpt"


def a_folder(folder: Path) -> Path:
    written(folder)
    return folder


def changed(**changes: Any) -> Any:
    def change(folder: Path) -> Path:
        path = written(folder)
        checkpoint = torch.load(path, weights_only=True)
        kept = {key: value for key, value in {**checkpoint, **changes}.items() if value is not None}
        torch.save(kept, path)
        return path

    return change


def stored(make: Any) -> Any:
    def store(folder: Path) -> Path:
        torch.save(make(), folder / "a.ckpt")
        return folder / "a.ckpt"

    return store


def truncated(folder: Path) -> Path:
    path = written(folder)
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def flipped(folder: Path) -> Path:
    """One bit of a weight."""
    model = Honest()
    with torch.no_grad():
        model.layer.weight.fill_(0.12345)
    path = folder / "a.ckpt"
    trainer = trainer_in(folder, experiment=False)
    trainer.fit(model)
    trainer.save_checkpoint(path)
    content = bytearray(path.read_bytes())
    content[content.index(model.layer.weight.detach().numpy().tobytes())] ^= 1
    path.write_bytes(bytes(content))
    return path


def text(folder: Path) -> Path:
    (folder / "a.ckpt").write_text("hello")
    return folder / "a.ckpt"


def empty(folder: Path) -> Path:
    (folder / "a.ckpt").touch()
    return folder / "a.ckpt"


def weights_only(folder: Path) -> Path:
    keep = ModelCheckpoint(folder / "kept", save_weights_only=True)
    trainer_in(folder, experiment=False, checkpoint_callback=keep).fit(Honest())
    return folder / "kept" / "_ckpt_epoch_1.ckpt"


UNREADABLE: list[tuple[Any, tuple[str, ...]]] = [
    (missing, ("there is no checkpoint at", "b.ckpt", "holds a.ckpt", "Pass the path of one")),
    (a_folder, ("there is no checkpoint at", "holds a.ckpt", "Pass the path of one")),
    (truncated, ("a.ckpt is damaged", "Use an older checkpoint")),
    (flipped, ("a.ckpt is damaged", "Use an older checkpoint")),
    (text, ("a.ckpt is damaged, or isn't a checkpoint", "5 bytes", "Use an older checkpoint")),
    (empty, ("a.ckpt is damaged, or isn't a checkpoint", "0 bytes", "Use an older checkpoint")),
    (stored(Honest), ("more than plain data", "honest.Honest", "could run code", "Save it anew")),
    (stored(lambda: [1]), ("isn't a checkpoint", "it holds a list, not a dict", "Pass a file that a Trainer wrote")),
    (changed(format=99), ("has format 99", "reads up to 3", "Upgrade")),
    (stored(lambda: Honest().state_dict()), ("a.ckpt", "['layer.bias', 'layer.weight']", "Use")),
]


def use(way: str, path: Path, folder: Path, model: Any) -> None:
    """Read a checkpoint in one of the ways that there are."""
    if way == "resume":
        trainer_in(folder, resume=path).fit(model)
    elif way == "test":
        trainer_in(folder).test(model, ckpt=path)
    else:
        type(model).load_from_checkpoint(path)


@pytest.mark.parametrize("way", ["resume", "test", "load_from_checkpoint"])
@pytest.mark.parametrize(("make", "words"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_a_file_that_cannot_be_used(refusal: Refusals, way: str, make: Any, words: tuple[str, ...]) -> None:
    path, model = make(refusal.folder), Honest()
    if way == "resume" and words[-1] == "Use":
        words = (*words[:-1], "use load_from_checkpoint")
    refusal.of(lambda: use(way, path, refusal.folder, model), words, CheckpointError)
    assert model.nb_steps == 0
    assert not (refusal.folder / "logs").exists()


class Wide(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)


@pytest.mark.parametrize("way", ["resume", "test", "load_from_checkpoint"])
def test_the_weights_of_another_model(refusal: Refusals, way: str) -> None:
    path, model = written(refusal.folder), Wide()
    words = (
        "load_model_specific of Wide can't restore",
        "size mismatch for layer.weight",
        "Use the model, with the hyper",
    )
    refusal.of(lambda: use(way, path, refusal.folder, model), words, CheckpointError)
    assert not (refusal.folder / "logs").exists()


def sgd(*attributes: str) -> Any:
    def configure_optimizers(self: Any) -> Any:
        return [torch.optim.SGD([getattr(self.layer, name)], 0.1) for name in attributes]

    return configure_optimizers


NO_FIT = "doesn't fit"


@pytest.mark.parametrize(
    ("make", "model", "words"),
    [
        (weights_only, Honest, ("doesn't hold all that a resume needs", "without parts", "save_weights_only=True")),
        (
            changed(optimizer_states=None),
            Honest,
            ("all that a resume needs", "without optimizer_states", "use load_from"),
        ),
        (changed(parts={}), Honest, ("all that a resume needs", "parts['data']", "use load_from_checkpoint")),
        (changed(format=99, parts=None), Honest, ("has format 99", "reads up to 3", "Upgrade")),
        (changed(parts=3), Honest, ("all that a resume needs", "a dict as parts", "use load_from_checkpoint")),
        (
            written,
            lambda: planted(configure_optimizers=sgd("weight", "bias")),
            (NO_FIT, "holds 1 optimizers", "gives 2", "Resume with the model"),
        ),
        (
            written,
            lambda: planted(configure_optimizers=lambda self: torch.optim.Adam(self.parameters())),
            (NO_FIT, "a different optimizer, SGD, not Adam", "Resume with the optimizer"),
        ),
    ],
    ids=[
        "weights only",
        "no optimizers",
        "no parts",
        "another layout",
        "strange parts",
        "more optimizers",
        "another optimizer",
    ],
)
def test_what_a_resume_cannot_continue(refusal: Refusals, make: Any, model: Any, words: tuple[str, ...]) -> None:
    path, fitted = make(refusal.folder), model()
    refusal.before_training(fitted, words, CheckpointError, resume=path, max_nb_epochs=2)


def test_the_best_checkpoint_of_a_trainer_that_has_none(refusal: Refusals) -> None:
    words = ("ckpt='best'", "needs a ModelCheckpoint", "Pass checkpoint_callback=ModelCheckpoint(folder)")
    refusal.of(lambda: trainer_in(refusal.folder).test(Honest(), ckpt="best"), words, CheckpointError)


def test_a_model_that_its_hparams_do_not_make(refusal: Refusals) -> None:
    class Sized(Honest):
        def __init__(self, hparams: Any) -> None:
            super().__init__()
            self.layer = nn.Linear(hparams.size, 1)

    path = written(refusal.folder)
    with pytest.raises(CheckpointError, match=r"hparams \(required\).*load_from_checkpoint\(path, hparams=\.\.\.\)"):
        Sized.load_from_checkpoint(path)  # none were saved
    with pytest.raises(AttributeError, match="size") as caught:
        Sized.load_from_checkpoint(path, hparams=Namespace(width=3))
    assert caught.value.__notes__[0].startswith("raised by Sized.__init__ with hparams=")
