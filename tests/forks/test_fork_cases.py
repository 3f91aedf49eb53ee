"""Forks that are drawn: up to the batch a fork is its parent, and from there on a loop by hand that is edited there."""

import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning import Trainer
from pytorch_lightning.forks.child import rows_of
from pytorch_lightning.forks.command import main
from tests.forks.models import ASKED, SEEN, ByHand, Model

MODULE = "tests.forks.models"
EDITS = ("lr", "learning_rate", "dropout", "gradient_clip", "accumulate", "decay", "alpha", "skip", "epochs", "nothing")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--first-seed")
        metafunc.parametrize("seed", range(first, first + metafunc.config.getoption("--forks")))


def drawn(rng: random.Random) -> tuple[Namespace, dict[str, Any]]:
    """The hparams and the Trainer's options of a parent."""
    hparams = Namespace(
        init=rng.randrange(100), norm=rng.random() < 0.4, dropout=rng.choice([0.0, 0.2, 0.5]), alpha=1.0,
        learning_rate=rng.choice([0.02, 0.05]), decay=rng.choice([0.0, 0.01]), groups=rng.choice([1, 2]),
        optimizer=rng.choice(["sgd", "adam", "adamw", "rmsprop"]), nb=rng.randrange(17, 40),
        schedule=rng.choice(["none", "step", "lambda", "cosine", "cycle", "sequence"]),
        batch_size=rng.choice([2, 3, 5]),
        order=rng.choice(["shuffled", "shuffled", "weighted", "plain"]), drop_last=rng.random() < 0.3,
    )  # fmt: skip
    hparams.drop_last |= hparams.norm  # a batch of one has no variance
    options = {
        "max_nb_epochs": rng.choice([2, 3]), "seed": rng.randrange(1000),
        "accumulate_grad_batches": rng.choice([1, 1, 2, 3]), "gradient_clip": rng.choice([0, 0, 0.5]),
        "val_check_interval": rng.choice([1.0, 0.5]), "add_log_row_interval": rng.choice([1, 2]),
        "save_every_nb_batches": rng.choice([3, 4, 6]), "keep_saves": rng.choice(["newest", "spaced"]),
    }  # fmt: skip
    return hparams, options


class Drawn:
    """A parent that is trained, and a fork of it that is to be made."""

    def __init__(self, rng: random.Random, folder: Path) -> None:
        self.hparams, self.options = drawn(rng)
        quiet: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "save_every_minutes": 0}
        SEEN.clear()
        trainer = Trainer(**self.options, **quiet, resume="auto", default_save_path=folder)
        trainer.fit(Model(self.hparams))
        self.folder, self.parent_seen, nb = folder / "Model" / "version_0", dict(SEEN), trainer.global_step
        saves = sorted(int(path.name[5:17]) for path in (self.folder / "checkpoints").glob("step-*.ckpt"))
        accumulate, per_epoch = self.options["accumulate_grad_batches"], nb // self.options["max_nb_epochs"]
        ends = [n for n in range(nb + 1) if n % per_epoch % accumulate == 0 and n >= saves[0]]
        self.batch = rng.choice(ends[:-1] or ends)
        self.save = max(step for step in saves if step <= self.batch)
        self.words: list[str] = []
        self.skipped: list[int] = []
        self.new = Namespace(**vars(self.hparams))
        self.nb_epochs, self.accumulate = self.options["max_nb_epochs"], accumulate
        self.clip, self.rate = float(self.options["gradient_clip"]), 0.0
        for kind in rng.sample(EDITS, rng.choice([1, 2, 3])):
            self.edit(kind, rng, nb)

    def edit(self, kind: str, rng: random.Random, nb: int) -> None:
        is_set: dict[str, Any] = {}
        if kind == "lr" and self.new.learning_rate == self.hparams.learning_rate:
            self.rate = is_set["lr"] = rng.choice([0.001, 0.03])
        elif kind == "learning_rate" and not self.rate:
            self.new.learning_rate = is_set["learning_rate"] = rng.choice([0.001, 0.04])
        elif kind == "dropout":
            self.new.dropout = is_set["dropout"] = 0.35
        elif kind == "decay":
            self.new.decay = is_set["decay"] = 0.02
        elif kind == "alpha":
            self.new.alpha = is_set["alpha"] = 0.7
        elif kind == "gradient_clip":
            self.clip = is_set["gradient_clip"] = 0.1
        elif kind == "accumulate" and self.hparams.schedule != "cycle":
            self.accumulate = is_set["accumulate_grad_batches"] = rng.choice([1, 2, 4])
        elif kind == "epochs":
            self.nb_epochs = is_set["max_nb_epochs"] = self.nb_epochs + 1
        elif kind == "skip":
            first = rng.choice([self.batch, rng.randrange(self.batch, max(self.batch + 1, nb))])
            end = first + rng.randrange(1, 12)
            self.skipped = list(range(first, end))
            self.words += ["--skip_batches", f"{first}:{end}"]
        self.words += ["--set", *(f"{name}={value}" for name, value in is_set.items())] if is_set else []

    def fork(self) -> None:
        SEEN.clear()
        ASKED.clear()
        words = [str(self.folder), str(self.batch), "--module", MODULE, *self.words]
        assert main(words) == 0
        self.child, self.asked = self.folder.with_name("version_1"), list(ASKED)

    def by_hand(self) -> ByHand:
        hand = ByHand(self.hparams, self.options["seed"], self.nb_epochs, self.options["accumulate_grad_batches"])
        hand.clip, hand.hparams_before = float(self.options["gradient_clip"]), self.hparams

        def edit(hand: ByHand) -> None:
            hand.accumulate, hand.clip, hand.alpha = self.accumulate, self.clip, self.new.alpha
            for layer in hand.net:
                if isinstance(layer, torch.nn.Dropout):
                    layer.p = self.new.dropout
            if self.rate:
                hand.set_rate(self.rate)
            hand.configure_again(self.new)

        return hand.train(self.batch, edit, self.skipped)


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def end_of(folder: Path) -> list[torch.Tensor]:
    """The weights in the last save of a run."""
    path = max((folder / "checkpoints").glob("step-*.ckpt"))
    state = torch.load(path, weights_only=True)["state_dict"]
    return [value for name, value in state.items() if name.endswith(("weight", "bias"))]


def before(folder: Path, batch: int) -> list[dict[str, str]]:
    return [row for row in rows_of(folder / "metrics.csv") if int(row["global_step"]) < batch]


def test_a_fork_is_its_parent_up_to_the_batch_and_then_a_loop_that_is_edited_there(tmp_path: Path, seed: int) -> None:
    case = Drawn(random.Random(seed), tmp_path)
    parent = {path: path.read_bytes() for path in case.folder.rglob("*") if path.is_file()}
    case.fork()
    hand = case.by_hand()
    what = f"seed {seed}: {case.words} at {case.batch}, {case.hparams}, {case.options}"
    for step, weights in SEEN.items():
        assert same(weights, hand.seen[step]), f"batch {step}, {what}"
        if step <= case.batch and step in case.parent_seen:
            assert same(weights, case.parent_seen[step]), f"batch {step}, {what}"
    trained = [n for n in range(case.save, len(hand.order)) if n not in case.skipped]
    assert sorted(SEEN) == trained, what
    assert case.asked == [index for n in trained for index in hand.order[n]], what
    assert same(end_of(case.child), hand.end), what
    assert before(case.child, case.batch) == before(case.folder, case.batch) != [] or case.batch == 0
    assert {path: path.read_bytes() for path in case.folder.rglob("*") if path.is_file()} == parent
