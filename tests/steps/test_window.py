"""Windows of several optimizers, and what is weighed in them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytorch_lightning.errors import FitError, MisconfigurationException
from pytorch_lightning.seeding import step_scope
from tests.recorder import Recorder, quiet_trainer, rows_of


class Two(Recorder):
    """Two weights with an optimizer each, and a loss each."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Parameter(torch.zeros(1))

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
        self.note("step", batch_nb, optimizer_i, self.weight.item(), self.other.item())
        # counts of 1 and 3 for the first optimizer, 3 and 1 for the second
        count = [1.0, 3.0, 3.0, 1.0][2 * optimizer_i + batch_nb % 2]
        slope = 1.0 if batch_nb % 2 == 0 else 2.0
        return {"loss": (self.weight + self.other).sum() * slope, "loss_count": count}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([self.weight], 1.0), torch.optim.SGD([self.other], 1.0)]


def test_each_optimizer_weighs_its_own_losses(tmp_path: Path) -> None:
    model = Two()
    quiet_trainer(tmp_path, accumulate_grad_batches=2, max_nb_steps=1).fit(model)
    assert model.weight.item() == pytest.approx(-(1.0 * 1 + 2.0 * 3) / 4)
    assert model.other.item() == pytest.approx(-(1.0 * 3 + 2.0 * 1) / 4)


def test_each_optimizer_of_a_three_argument_step_is_clipped_by_itself(tmp_path: Path) -> None:
    for accumulate in (1, 2):
        model = Two()
        quiet_trainer(tmp_path, gradient_clip=0.5, max_nb_steps=1, accumulate_grad_batches=accumulate).fit(model)
        assert model.weight.item() == pytest.approx(-0.5, abs=1e-5)
        assert model.other.item() == pytest.approx(-0.5, abs=1e-5)


def test_without_accumulation_each_steps_before_the_next_ones_turn(tmp_path: Path) -> None:
    model = Two()
    quiet_trainer(tmp_path, max_nb_steps=1).fit(model)
    assert [call[1:] for call in model.calls if call[0] == "step"] == [(0, 0, 0.0, 0.0), (0, 1, -1.0, 0.0)]


def test_with_accumulation_all_step_at_the_windows_end(tmp_path: Path) -> None:
    model = Two()
    quiet_trainer(tmp_path, max_nb_steps=1, accumulate_grad_batches=2).fit(model)
    assert {call[3:] for call in model.calls if call[0] == "step"} == {(0.0, 0.0)}


def test_loss_count_for_some_batches_of_a_window_only_is_an_error(tmp_path: Path) -> None:
    class Sometimes(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            output = {"loss": self.weight.sum()}
            return {**output, "loss_count": 2} if batch_nb else output

    with pytest.raises(FitError, match="always or never"):
        quiet_trainer(tmp_path, accumulate_grad_batches=2).fit(Sometimes())


def test_an_epoch_ended_inside_a_window_steps_with_what_there_is(tmp_path: Path) -> None:
    class Ended(Recorder):
        def on_batch_start(self, data_batch: Any) -> int | None:
            return -1 if self.trainer.batch_nb == 1 else None

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.weight.sum() * 4.0

    model = Ended(lr=1.0)
    quiet_trainer(tmp_path, accumulate_grad_batches=4).fit(model)
    assert model.weight.item() == -4.0


def test_rows_inside_a_window_have_no_stale_norms(tmp_path: Path) -> None:
    model = Recorder(lr=0.0)
    quiet_trainer(tmp_path, accumulate_grad_batches=2, track_grad_norm=2, add_log_row_interval=1).fit(model)
    norms = [row["grad_2_norm_total"] for row in rows_of(tmp_path) if row["tng_loss"]]
    assert norms == ["", "6.0", "", "6.0"]


def test_what_each_optimizers_step_shows_is_kept_for_its_own_batch(tmp_path: Path) -> None:
    class Showing(Two):
        def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
            output = super().training_step(data_batch, batch_nb, optimizer_i)
            first = {"g_loss": 1.0 * batch_nb} if batch_nb < 2 else {"late": 5.0}
            return {**output, "prog": [first, {"d_loss": 2.0 * batch_nb}][optimizer_i]}

    quiet_trainer(tmp_path, add_log_row_interval=1, nb_sanity_val_steps=0).fit(Showing())
    rows = rows_of(tmp_path, "Showing")[:4]
    assert [(r["g_loss"], r["d_loss"], r["late"]) for r in rows] == [
        ("0.0", "0.0", ""),
        ("1.0", "2.0", ""),
        ("", "4.0", "5.0"),
        ("", "6.0", "5.0"),
    ]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.LBFGS])
def test_prog_of_each_optimizer_is_kept_and_that_of_an_earlier_batch_is_not(tmp_path: Path, optimizer: Any) -> None:
    class Telling(Two):
        def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
            loss = (self.weight + self.other - 3.0).pow(2).sum()
            return {"loss": loss, "prog": {f"seen_by_{optimizer_i}": batch_nb, f"in_{batch_nb}": 1}}

        def configure_optimizers(self) -> Any:
            return [optimizer([self.weight], 0.1), optimizer([self.other], 0.1)]

    trainer = quiet_trainer(tmp_path, max_nb_steps=2)
    trainer.fit(Telling())
    shown = {name: value for name, value in trainer.tqdm_metrics.items() if name.startswith(("seen", "in"))}
    assert shown == {"seen_by_0": 1, "in_1": 1, "seen_by_1": 1}


# ---------------------------------------------------------------------------------------------- LBFGS
class Closure(Recorder):
    """Two evaluations of the loss per step."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.note("step", self.global_step, batch_nb)
        return (self.weight - 3.0).pow(2).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), 0.1, max_iter=2, max_eval=2)


def test_batches_that_are_none_have_a_place_in_a_closures_window_and_no_loss(tmp_path: Path) -> None:
    class Gaps(Closure):
        @property
        def tng_dataloader(self) -> Any:
            batch = [torch.ones(2, 1)]
            return [batch, None, batch, None, None]

    for accumulate in (1, 2, 3):
        model = Gaps()
        trainer = quiet_trainer(tmp_path, accumulate_grad_batches=accumulate, max_nb_epochs=2)
        trainer.fit(model)
        assert sorted({call[2] for call in model.calls if call[0] == "step"}) == [0, 2]
        assert (trainer.global_step, model.nb_validations) == (4, 2)


def test_a_hook_ends_the_epoch_before_a_closures_window(tmp_path: Path) -> None:
    class Ended(Closure):
        def on_batch_start(self, data_batch: Any) -> int | None:
            return -1 if data_batch[0][0] == 4.0 else None

    for accumulate in (1, 2, 3):
        model = Ended()
        trainer = quiet_trainer(tmp_path, accumulate_grad_batches=accumulate, max_nb_epochs=2)
        trainer.fit(model)
        assert (trainer.global_step, model.nb_validations) == (4, 2)
        assert {call[2] for call in model.calls if call[0] == "step"} == {0, 1}


def test_a_closures_epoch_ends_with_a_loader_of_unknown_length(tmp_path: Path) -> None:
    class Endless:
        def __iter__(self) -> Any:
            yield from ([torch.ones(1, 1)] for _ in range(5))

    class Unknown(Closure):
        @property
        def tng_dataloader(self) -> Any:
            return Endless()

    for accumulate in (1, 2, 5):
        model = Unknown()
        trainer = quiet_trainer(tmp_path, accumulate_grad_batches=accumulate, max_nb_epochs=2)
        trainer.fit(model)
        assert (trainer.global_step, model.nb_validations) == (10, 2)


def test_only_the_first_evaluation_of_a_closure_is_seen(tmp_path: Path) -> None:
    class Trying(Closure):
        nb_evaluations = 0

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            self.nb_evaluations += 1
            loss = (self.weight - 3.0).pow(2).sum()
            # what a line search tries may well not be finite
            return {
                "loss": loss if self.nb_evaluations == 1 else loss * float("inf"),
                "prog": {"n": self.nb_evaluations},
            }

    model = Trying()
    trainer = quiet_trainer(tmp_path, max_nb_steps=1)
    trainer.fit(model)
    assert model.nb_evaluations > 1
    assert (trainer.avg_loss, trainer.tqdm_metrics["n"]) == (9.0, 1)


def test_an_optimizers_own_zero_grad_is_called(tmp_path: Path) -> None:
    class Halving(torch.optim.SGD):
        """Keeps half of a gradient for the next step."""

        def zero_grad(self, set_to_none: bool = True) -> None:
            for parameter in self.param_groups[0]["params"]:
                parameter.grad.mul_(0.5)

    class Kept(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.weight.sum()

        def configure_optimizers(self) -> Any:
            return Halving([self.weight], 1.0)

    model = Kept()
    quiet_trainer(tmp_path, max_nb_steps=3).fit(model)
    assert model.weight.item() == -(1.0 + 1.5 + 1.75)


def test_a_schedule_of_steps_waits_for_the_first_validation(tmp_path: Path) -> None:
    class Plateau(Recorder):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD([self.weight], 0.1)
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    trainer = quiet_trainer(tmp_path, max_nb_epochs=3)
    trainer.fit(Plateau())
    assert trainer.lr_schedulers[0].last_epoch == 8


# ---------------------------------------------------------------------------------------------- configure_optimizers
@pytest.mark.parametrize(
    ("returned", "nb_optimizers", "nb_schedules"),
    [
        (lambda a, b, s: a, 1, 0),
        (lambda a, b, s: [a], 1, 0),
        (lambda a, b, s: (a, b), 2, 0),
        (lambda a, b, s: (a, s), 1, 1),
        (lambda a, b, s: (a, [s]), 1, 1),
        (lambda a, b, s: ([a], s), 1, 1),
        (lambda a, b, s: ([a, b], [s]), 2, 1),
        (lambda a, b, s: ([a], {"scheduler": s}), 1, 1),
        (lambda a, b, s: (a, {"scheduler": s, "interval": "epoch"}), 1, 1),
        (lambda a, b, s: ([a], []), 1, 0),
    ],
)
def test_what_configure_optimizers_may_return(
    tmp_path: Path, returned: Any, nb_optimizers: int, nb_schedules: int
) -> None:
    class Returning(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Parameter(torch.zeros(1))

        def configure_optimizers(self) -> Any:
            first, second = torch.optim.SGD([self.weight], 0.1), torch.optim.SGD([self.other], 0.1)
            return returned(first, second, torch.optim.lr_scheduler.ExponentialLR(first, 0.5))

    trainer = quiet_trainer(tmp_path, silence=("not-shuffled", "unused-parameter"), max_nb_epochs=2)
    trainer.fit(Returning())
    assert (len(trainer.optimizers), len(trainer.lr_schedulers)) == (nb_optimizers, nb_schedules)
    assert trainer.optimizers[0].param_groups[0]["lr"] == (0.025 if nb_schedules else 0.1)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda s: {"scheduler": s, "every": "step"}, r"Remove \['every'\]"),
        (lambda s: {"scheduler": s, "interval": "batch"}, "'interval': 'step' or 'epoch'"),
        (lambda s: {"scheduler": 3}, "as a scheduler"),
        (lambda s: "cosine", "'cosine' .str. as a scheduler"),
    ],
)
def test_what_it_may_not_return_as_a_schedule(tmp_path: Path, schedule: Any, message: str) -> None:
    class Returning(Recorder):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD([self.weight], 0.1)
            return [optimizer], [schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))]

    model = Returning()
    with pytest.raises(MisconfigurationException, match=message):
        quiet_trainer(tmp_path).fit(model)
    assert model.calls == []


# ---------------------------------------------------------------------------------------------- numbers of a batch
class Numbered(Recorder):
    """Notes where ``on_batch_start`` stands, and what it draws."""

    def on_batch_start(self, data_batch: Any) -> None:
        self.note("start", self.trainer.batch_nb, self.global_step, float(torch.rand(())))


class NumberedLBFGS(Numbered):
    """The same with an optimizer that calls ``training_step`` itself."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.note("step", batch_nb, self.trainer.batch_nb, self.global_step)
        return {"loss": (self.weight - 1).pow(2).sum()}

    def on_batch_end(self) -> None:
        self.note("end", self.trainer.batch_nb, self.global_step)

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        self.note("update", batch_nb)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=2)]


@pytest.mark.parametrize("virtual_ranks", [1, 2])
@pytest.mark.parametrize("kind", [Numbered, NumberedLBFGS])
def test_a_batch_inside_a_window_begins_with_its_own_numbers(tmp_path: Path, kind: Any, virtual_ranks: int) -> None:
    model = kind(nb_batches=5 * virtual_ranks)
    options = {"accumulate_grad_batches": 2, "virtual_ranks": virtual_ranks, "max_nb_epochs": 2, "seed": 3}
    assert quiet_trainer(tmp_path, **options).fit(model) == 1
    expected = []
    for step in range(10):
        for rank in range(virtual_ranks):
            with step_scope(3, step, rank):
                expected.append((step % 5, step, float(torch.rand(()))))
    assert [entry[1:] for entry in model.calls if entry[0] == "start"] == expected


@pytest.mark.parametrize("virtual_ranks", [1, 2])
def test_a_closure_over_a_window_sees_the_numbers_of_each_batch(tmp_path: Path, virtual_ranks: int) -> None:
    model = NumberedLBFGS(nb_batches=5 * virtual_ranks)
    options = {"accumulate_grad_batches": 2, "virtual_ranks": virtual_ranks, "max_nb_epochs": 2}
    assert quiet_trainer(tmp_path, **options).fit(model) == 1
    steps = [entry[1:] for entry in model.calls if entry[0] == "step"]
    assert {step[0] for step in steps} == set(range(5))
    assert all(batch_nb == standing == step % 5 for batch_nb, standing, step in steps)
    ends = [entry[1:] for entry in model.calls if entry[0] == "end"]
    assert ends == [(step % 5, step) for step in range(10)]
    assert [entry[1] for entry in model.calls if entry[0] == "update"] == [1, 3, 4] * 2
