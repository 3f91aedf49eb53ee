"""An optimizer's step without torch's range and hooks, and everything that must bring them back."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tests.recorder import Recorder, quiet_trainer

NB_STEPS = 6


class Plain(Recorder):
    """One weight; ``prepare`` gets the optimizer when it is made, ``between`` before the fourth batch."""

    def __init__(self, kind: Any = torch.optim.SGD, prepare: Any = None, between: Any = None) -> None:
        super().__init__()
        self.kind, self.prepare, self.between = kind, prepare, between
        self.optimizer: Any = None

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step == 3 and self.between is not None:
            self.between(self.optimizer)
        return (self.weight - 3.0).pow(2).sum()

    def configure_optimizers(self) -> Any:
        self.optimizer = self.kind([self.weight], lr=0.1)
        schedule = None if self.prepare is None else self.prepare(self.optimizer)
        return self.optimizer if schedule is None else ([self.optimizer], [{"scheduler": schedule, "interval": "step"}])


def train(tmp_path: Path, **parts: Any) -> float:
    model = Plain(**parts)
    quiet_trainer(tmp_path, max_nb_steps=NB_STEPS, max_nb_epochs=9).fit(model)
    return model.weight.item()


@contextlib.contextmanager
def counted_ranges() -> Iterator[list[str]]:
    """The names of the ranges that torch opens around steps."""
    opened = []
    whole = torch.autograd.profiler.record_function.__init__

    def note(self: Any, name: str, args: Any = None) -> None:
        opened.append(name)
        whole(self, name, args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd.profiler.record_function, "__init__", note)
        yield opened


def counting(called: list[str]) -> Callable[..., Any]:
    return lambda *_: called.append("hook")


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
@pytest.mark.parametrize("scheduled", [False, True])
def test_a_step_opens_no_range_and_is_bit_identical(tmp_path: Path, kind: Any, scheduled: bool) -> None:
    schedule: Any = (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)) if scheduled else None
    with counted_ranges() as opened:
        weight = train(tmp_path, kind=kind, prepare=schedule)
    # a schedule wants to see that there was a first step
    assert opened == [f"Optimizer.step#{kind.__name__}.step"] * scheduled

    model = Plain(kind, schedule)
    model.configure_optimizers()
    scheduler = schedule and schedule(model.optimizer)
    for _ in range(NB_STEPS):
        model.optimizer.zero_grad()
        (model.weight - 3.0).pow(2).sum().backward()
        model.optimizer.step()
        if scheduler:
            scheduler.step()
    assert model.weight.item() == weight


def test_a_schedule_finds_the_order_of_the_steps_right(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(tmp_path, prepare=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9))


@pytest.mark.parametrize("name", ["register_step_pre_hook", "register_step_post_hook"])
@pytest.mark.parametrize(("when", "times"), [("prepare", NB_STEPS), ("between", NB_STEPS - 3)])
def test_hooks_of_an_optimizer_are_called(tmp_path: Path, name: str, when: str, times: int) -> None:
    called: list[str] = []

    def register(optimizer: Any) -> None:
        getattr(optimizer, name)(counting(called))

    train(tmp_path, **{when: register})
    assert len(called) == times


@pytest.mark.parametrize("register", [register_optimizer_step_pre_hook, register_optimizer_step_post_hook])
def test_hooks_of_all_optimizers_are_called(tmp_path: Path, register: Any) -> None:
    called: list[str] = []
    handles = []
    try:
        train(tmp_path, between=lambda _: handles.append(register(counting(called))))
    finally:
        handles[0].remove()
    assert len(called) == NB_STEPS - 3


def test_a_profiler_sees_the_steps_made_under_it(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler's own
        profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        train(tmp_path, between=lambda _: profiler.start())
        profiler.stop()
    counts = {event.key: event.count for event in profiler.key_averages()}
    assert counts["Optimizer.step#SGD.step"] == NB_STEPS - 3


@pytest.mark.parametrize(("when", "times"), [("prepare", NB_STEPS), ("between", NB_STEPS - 3)])
@pytest.mark.parametrize("scheduled", [False, True])
def test_a_step_put_on_an_optimizer_is_called(tmp_path: Path, when: str, times: int, scheduled: bool) -> None:
    called: list[str] = []

    def put(optimizer: Any) -> Any:
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) if scheduled else None
        whole = optimizer.step

        @functools.wraps(whole)
        def step(closure: Any = None) -> Any:
            called.append("own")
            return whole()

        optimizer.step = step
        return schedule

    train(tmp_path, **{when: put if when == "prepare" else lambda optimizer: put(optimizer) and None})
    assert len(called) == times


def test_a_decorated_step_of_a_class_is_called(tmp_path: Path) -> None:
    called: list[str] = []
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)  # wraps SGD.step
    whole = torch.optim.SGD.step

    class Decorated(torch.optim.SGD):
        @functools.wraps(whole)
        def step(self, closure: Any = None) -> Any:
            called.append("own")
            return whole(self)

    train(tmp_path, kind=Decorated)
    assert len(called) == NB_STEPS


def test_a_class_with_a_step_of_its_own_needs_no_closure(tmp_path: Path) -> None:
    class Own(torch.optim.Optimizer):
        def __init__(self, parameters: Any, lr: float) -> None:
            super().__init__(parameters, {"lr": lr})

        def step(self) -> None:  # type: ignore[override]
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    parameter.sub_(parameter.grad.sign())

    with counted_ranges() as opened:
        assert train(tmp_path, kind=Own) == 3.0
    assert opened == []
