"""A start with other rates, schedules, hparams or options than the save it resumes: one notice says which are used, and
they are; the log's hyperparameters stay those of the run."""

import copy
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from tests.recorder import quiet_trainer

NB_BATCHES = 4
DATA = torch.randn(NB_BATCHES, 3, generator=torch.Generator().manual_seed(0))


class Net(LightningModule):
    """A layer whose loss, rate and schedule are the hparams' matter."""

    def __init__(self, hparams: Any, kind: Any = torch.optim.SGD, schedule: Any = None) -> None:
        super().__init__(hparams)
        self.layer = nn.Linear(3, 1, bias=False)
        nn.init.constant_(self.layer.weight, 1.0)
        self.options = (kind, schedule)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch[0]).pow(2).mean()

    def configure_optimizers(self) -> Any:
        kind, schedule = self.options
        names = [name for name in ("lr", "weight_decay", "momentum") if name in vars(self.hparams)]
        optimizer = kind(self.parameters(), **{name: vars(self.hparams)[name] for name in names})
        return optimizer if schedule is None else ([optimizer], [schedule(optimizer)])

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(DATA), batch_size=1)


def fit(
    folder: Path,
    hparams: dict[str, Any],
    nb_steps: int | None = None,
    *,
    net: Any = (),
    on_start: Any = None,
    **opts: Any,
) -> Net:
    model = Net(Namespace(**hparams), *net)
    if on_start is not None:
        model.on_fit_start = lambda: on_start(model.trainer)  # type: ignore[method-assign]
    settings = {"max_nb_epochs": 3, "resume": "auto", "max_nb_steps": nb_steps, "seed": 1}
    silence = ("not-shuffled", "no-validation", "first-save", "other-attributes")
    quiet_trainer(folder, **{**settings, "silence": silence, **opts}).fit(model)
    return model


def by_hand(rates: list[float], decay: float = 0.0) -> torch.Tensor:
    weight = torch.ones(1, 3)
    for n, rate in enumerate(rates):
        x = DATA[n % NB_BATCHES][None]
        weight = weight - rate * (2 * (x @ weight.T) * x + decay * weight)
    return weight


def tags(folder: Path, version: int = 0) -> list[str]:
    return (folder / f"logs/Net/version_{version}/meta_tags.csv").read_text().split()[1:]


def near(model: Net, weight: torch.Tensor) -> bool:
    return bool(torch.allclose(model.layer.weight.detach(), weight, rtol=1e-5, atol=1e-7))


def test_a_rate_that_differs_is_listed_and_the_saved_one_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, {"lr": 0.01, "weight_decay": 0.1, "width": 3}, 5)
    assert capsys.readouterr().err == ""
    model = fit(tmp_path, {"lr": 0.5, "weight_decay": 0.3, "width": 3})
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert (
        "Used as saved: lr of SGD (saved 0.01, now 0.5), weight_decay of SGD (saved 0.1, now 0.3); to use new" in said
    )
    assert "Other hparams: lr (saved 0.01, now 0.5), weight_decay (saved 0.1, now 0.3); the module has the new" in said
    assert said.endswith("[other-settings]\n")
    assert near(model, by_hand([0.01] * 12, 0.1))
    assert tags(tmp_path) == ["lr,0.01", "weight_decay,0.1", "width,3"]
    fit(tmp_path, {"lr": 0.01, "weight_decay": 0.1, "width": 3}, max_nb_epochs=4)
    assert capsys.readouterr().err == ""
    fit(tmp_path, {"lr": 0.02, "weight_decay": 0.1, "width": 3}, max_nb_epochs=5)
    assert "lr of SGD (saved 0.01, now 0.02)" in capsys.readouterr().err


def test_a_rate_that_on_fit_start_sets_is_used(tmp_path: Path) -> None:
    def faster(trainer: Trainer) -> None:
        trainer.optimizers[0].param_groups[0]["lr"] = 0.05

    fit(tmp_path, {"lr": 0.01}, 5)
    model = fit(tmp_path, {"lr": 0.05}, on_start=faster)
    assert near(model, by_hand([0.01] * 5 + [0.05] * 7))


def test_a_file_of_another_run_says_it_too_and_its_new_log_shows_what_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = fit(tmp_path, {"lr": 0.01}, 5, resume=None)
    first.trainer.save_checkpoint(tmp_path / "a.ckpt")
    model = fit(tmp_path, {"lr": 0.5, "note": "new"}, resume=tmp_path / "a.ckpt")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Other hparams: lr (saved 0.01, now 0.5), note (saved absent, now 'new');" in said
    assert near(model, by_hand([0.01] * 12))
    assert tags(tmp_path, 1) == ["lr,0.01"]


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({}, {"accumulate_grad_batches": 2}, "now: accumulate_grad_batches (saved 1, now 2); to use"),
        ({}, {"gradient_clip": 0.001}, "now: gradient_clip (saved 0.0, now 0.001); to use"),
        (
            {"gradient_clip": 1.0},
            {"gradient_clip": 1.0, "gradient_clip_algorithm": "value"},
            "(saved 'norm', now 'value')",
        ),
        ({}, {"precision": "bf16"}, "now: precision (saved '32', now 'bf16'); to use the saved values pass those"),
        ({}, {"seed": 2}, "Used as saved: seed (saved 1, now 2); for another seed start a new run."),
        ({}, {"seed": 2, "precision": "bf16"}, "Used as saved: seed (saved 1, now 2)"),
    ],
)
def test_options_that_differ_are_in_one_notice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: dict[str, Any], now: dict[str, Any], words: str
) -> None:
    fit(tmp_path, {"lr": 0.01}, 6, **before)
    capsys.readouterr()
    model = fit(tmp_path, {"lr": 0.01}, **now)
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert words in said
    steps = model.trainer.progress
    assert steps is not None
    assert steps.nb_optimizer_steps == (9 if now.get("accumulate_grad_batches") else 12)


def test_limits_and_what_only_shows_are_no_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, {"lr": 0.01, "resume": None, "max_nb_epochs": 3}, 5)
    options = {"max_nb_epochs": 4, "log_save_interval": 3, "save_every_nb_batches": 3, "seed": None}
    fit(tmp_path, {"lr": 0.01, "resume": "auto", "max_nb_epochs": 4}, **options)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (lambda o: StepLR(o, 2), lambda o: StepLR(o, 3, 0.5), "step_size of StepLR (saved 2, now 3), gamma of StepLR"),
        (
            lambda o: SequentialLR(o, [LinearLR(o, 0.5), StepLR(o, 2)], [2]),
            lambda o: SequentialLR(o, [LinearLR(o, 0.5), StepLR(o, 3)], [2]),
            "step_size of StepLR in SequentialLR (saved 2, now 3)",
        ),
        (lambda o: MultiStepLR(o, [*range(20, 70)]), lambda o: MultiStepLR(o, [*range(20, 71)]), "milestones of"),
        (lambda o: CosineAnnealingLR(o, 4), lambda o: CosineAnnealingLR(o, 8), "T_max of CosineAnnealingLR (saved 4,"),
    ],
)
def test_a_schedule_that_differs_is_listed_and_goes_on_as_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: Any, now: Any, words: str
) -> None:
    whole = fit(tmp_path / "whole", {"lr": 0.05}, net=(torch.optim.SGD, before))
    fit(tmp_path / "cut", {"lr": 0.05}, 6, net=(torch.optim.SGD, before))
    capsys.readouterr()
    model = fit(tmp_path / "cut", {"lr": 0.05}, net=(torch.optim.SGD, now))
    assert words in capsys.readouterr().err
    assert torch.equal(model.layer.weight, whole.layer.weight)


def test_another_kind_of_optimizer_or_schedule_is_refused(tmp_path: Path) -> None:
    schedules = (lambda o: StepLR(o, 2), lambda o: CosineAnnealingLR(o, 4))
    fit(tmp_path, {"lr": 0.05}, 6, net=(torch.optim.Adam, schedules[0]))
    with pytest.raises(CheckpointError, match="state is that of different schedules, StepLR, not CosineAnnealingLR"):
        fit(tmp_path, {"lr": 0.05}, net=(torch.optim.Adam, schedules[1]))
    inner = [lambda o, last=last: SequentialLR(o, [LinearLR(o, 0.5), last(o)], [2]) for last in schedules]
    fit(tmp_path / "inner", {"lr": 0.05}, 6, net=(torch.optim.Adam, inner[0]))
    with pytest.raises(
        CheckpointError, match="SequentialLR of LinearLR and StepLR, not SequentialLR of LinearLR and C"
    ):
        fit(tmp_path / "inner", {"lr": 0.05}, net=(torch.optim.Adam, inner[1]))
    with pytest.raises(CheckpointError, match="a different optimizer, Adam, not AdamW"):
        fit(tmp_path, {"lr": 0.05}, net=(torch.optim.AdamW, schedules[0]))


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("limit", ["max_nb_epochs", "max_nb_steps"])
@pytest.mark.parametrize("grown", [False, True])
def test_a_raised_limit_that_a_schedule_cannot_reach_is_an_error_before_training(
    tmp_path: Path, interval: str, limit: str, grown: bool
) -> None:
    lengths = {"step": 8, "epoch": 2}

    def schedule(length: int) -> Any:
        return lambda o: {"scheduler": OneCycleLR(o, 0.1, total_steps=length), "interval": interval}

    before = {"max_nb_epochs": 2} if limit == "max_nb_epochs" else {"max_nb_epochs": 3, "nb_steps": 8}
    length = lengths[interval]
    fit(tmp_path, {"lr": 0.1}, net=(torch.optim.SGD, schedule(length)), **before)
    now = {"max_nb_epochs": 5} if limit == "max_nb_epochs" else {"max_nb_epochs": 3, "nb_steps": 12}
    seen: list[int] = []
    net = (torch.optim.SGD, schedule(2 * length if grown else length))
    with pytest.raises(
        MisconfigurationException, match=rf"OneCycleLR ends after its {length} steps; received {limit} is"
    ):
        fit(tmp_path, {"lr": 0.1}, net=net, on_start=lambda trainer: seen.append(1), **now)
    assert seen == []
    fit(tmp_path, {"lr": 0.1}, net=net, **before)  # as before, and nothing is in its way


def in_sequence(optimizer: Any) -> Any:
    return SequentialLR(optimizer, [LinearLR(optimizer, 0.5), OneCycleLR(optimizer, 0.1, total_steps=8)], [3])


def in_a_chain(optimizer: Any) -> Any:
    return ChainedScheduler([LinearLR(optimizer, 0.5), OneCycleLR(optimizer, 0.1, total_steps=11)], optimizer)


class AtItsEnd(StepLR):
    """Has a length, and stays at its last rate."""

    total_steps = 11


@pytest.mark.parametrize(
    ("schedule", "refused"), [(in_sequence, True), (in_a_chain, True), (lambda o: AtItsEnd(o, 4), False)]
)
@pytest.mark.parametrize("cut", [2, 6])
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_a_schedule_within_another_has_its_length_too(tmp_path: Path, schedule: Any, refused: bool, cut: int) -> None:
    """Eleven steps are in it, and torch refuses the twelfth."""
    each_step = lambda o: {"scheduler": schedule(o), "interval": "step"}  # noqa: E731
    for folder in ("a", "b"):
        fit(tmp_path / folder, {"lr": 0.1}, cut, net=(torch.optim.SGD, each_step))
    model = fit(tmp_path / "a", {"lr": 0.1}, 11, net=(torch.optim.SGD, each_step))
    assert model.trainer.global_step == 11
    if refused:
        with pytest.raises(
            MisconfigurationException, match=r"OneCycleLR ends after its \d+ steps; received max_nb_steps"
        ):
            fit(tmp_path / "b", {"lr": 0.1}, 12, net=(torch.optim.SGD, each_step))
    else:
        fit(tmp_path / "b", {"lr": 0.1}, 12, net=(torch.optim.SGD, each_step))


def test_fewer_batches_in_a_step_are_more_steps_of_a_schedule(tmp_path: Path) -> None:
    schedule = lambda o: {"scheduler": OneCycleLR(o, 0.1, total_steps=6), "interval": "step"}  # noqa: E731
    fit(tmp_path, {"lr": 0.1}, 2, net=(torch.optim.SGD, schedule), accumulate_grad_batches=2)
    with pytest.raises(
        MisconfigurationException,
        match=r"OneCycleLR ends after its 6 steps; received .*accumulate_grad_batches is 1 and was 2",
    ):
        fit(tmp_path, {"lr": 0.1}, net=(torch.optim.SGD, schedule))
    model = fit(tmp_path, {"lr": 0.1}, net=(torch.optim.SGD, schedule), accumulate_grad_batches=2)
    assert model.trainer.progress.nb_optimizer_steps == 6


def test_when_a_schedule_steps_and_what_differs_late_in_a_long_value_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, now = [*range(100)], [*range(99), 0]
    fit(
        tmp_path, {"lr": 0.05, "widths": before, "gradient_clip": 1.0}, 6, net=(torch.optim.SGD, lambda o: StepLR(o, 2))
    )
    capsys.readouterr()
    each_step = lambda o: {"scheduler": StepLR(o, 2), "interval": "step"}  # noqa: E731
    fit(tmp_path, {"lr": 0.05, "widths": now, "gradient_clip": 2.0}, net=(torch.optim.SGD, each_step))
    said = capsys.readouterr().err
    assert "interval of StepLR (saved 'epoch', now 'step')" in said
    assert "widths (saved [0, 1, 2" in said
    assert "gradient_clip (saved 1.0, now 2.0)" in said


def test_a_limit_that_is_raised_within_the_schedule_is_none(tmp_path: Path) -> None:
    schedule = lambda o: {"scheduler": OneCycleLR(o, 0.1, total_steps=12), "interval": "step"}  # noqa: E731
    fit(tmp_path, {"lr": 0.1}, net=(torch.optim.SGD, schedule), max_nb_epochs=2)
    model = fit(tmp_path, {"lr": 0.1}, net=(torch.optim.SGD, schedule), max_nb_epochs=3)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)
    scheduler, rates = OneCycleLR(optimizer, 0.1, total_steps=12), []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # OneCycleLR moves the momentum too, which SGD without one has not
    assert model.trainer.global_step == 12
    assert model.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])


def test_a_file_of_an_older_layout_is_resumed_and_its_hparams_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, {"lr": 0.01}, 5)
    (save,) = tmp_path.rglob("step-*.ckpt")
    saved = torch.load(save, weights_only=True)
    older = copy.deepcopy(saved)
    del older["parts"]["settings"]
    older["format"] = 2
    torch.save(older, save)
    model = fit(tmp_path, {"lr": 0.5})
    assert "Other hparams: lr (saved 0.01, now 0.5)" in capsys.readouterr().err
    assert near(model, by_hand([0.01] * 12))
    assert tags(tmp_path) == ["lr,0.01"]
