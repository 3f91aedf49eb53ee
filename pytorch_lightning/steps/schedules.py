"""When learning rates change."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import FitError
from pytorch_lightning.run.metrics import Metrics
from pytorch_lightning.steps.optimizers import Schedule


def value_for(schedule: Schedule, metrics: Metrics) -> float:
    """The value that ``schedule`` watches. Raises ``FitError``, listing the available metrics, if it doesn't exist."""
    there = metrics.all()
    if schedule.monitor not in there:
        raise FitError(
            f"{type(schedule.scheduler).__name__} needs the metric {schedule.monitor!r}, which doesn't exist."
            f" Available: {', '.join(sorted(there))}. Pass {{'scheduler': s, 'monitor': name}}."
        )
    return there[schedule.monitor]


def build_step_schedule(
    schedule: Schedule, metrics: Metrics, count: Callable[[Schedule], int]
) -> Callable[[Sequence[bool]], None]:
    """A function for the end of each window: steps the schedule if its optimizer stepped. ``count`` counts these steps,
    where not every one is the schedule's."""
    advance = _build_advance(schedule, metrics)
    if schedule.frequency == 1:
        return advance

    def advance_at_times(stepped: Sequence[bool]) -> None:
        if stepped[schedule.optimizer_i] and not count(schedule) % schedule.frequency:
            advance(stepped)

    return advance_at_times


def _build_advance(schedule: Schedule, metrics: Metrics) -> Callable[[Sequence[bool]], None]:
    scheduler, optimizer_i = schedule.scheduler, schedule.optimizer_i
    if schedule.monitor is None:

        def advance(stepped: Sequence[bool]) -> None:
            if stepped[optimizer_i]:
                scheduler.step()

        return advance

    def advance_by_value(stepped: Sequence[bool]) -> None:
        # of a validation metric there is no value before the first validation
        if stepped[optimizer_i] and (
            schedule.monitor in metrics.validation or schedule.monitor in metrics.of_training()
        ):
            scheduler.step(value_for(schedule, metrics))

    return advance_by_value


class EpochSchedules:
    """The schedules that count epochs, and the counts of those that count steps.

    One whose optimizer never stepped in an epoch waits for the next; one that watches a validation metric steps only in
    epochs that were validated.
    """

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self._stepped: dict[int, Optimizer] = {}
        """By their ids, since places change where others take part: an optimizer that is new hasn't stepped."""
        self._validated = False
        self._nb_steps: dict[int, int] = {}
        """Of the optimizers whose schedules take a turn in several steps, by the ids of these."""
        self.use(schedules)

    def use(self, schedules: Sequence[Schedule]) -> None:
        """Let these be the schedules."""
        self._schedules = [s for s in schedules if s.interval == "epoch"]
        self._counting = [s for s in schedules if s.interval == "step" and s.frequency > 1]
        self._nb_steps = {id(s.scheduler): self._nb_steps.get(id(s.scheduler), 0) for s in self._counting}

    def count_step(self, schedule: Schedule) -> int:
        """The optimizer of ``schedule`` stepped once more; returns how often it has."""
        self._nb_steps[id(schedule.scheduler)] += 1
        return self._nb_steps[id(schedule.scheduler)]

    @property
    def waits_for_steps(self) -> bool:
        """Whether it has to be told of steps at all."""
        return bool(self._schedules)

    def note_steps(self, optimizers: Sequence[Optimizer], stepped: Sequence[bool]) -> None:
        """Take note of which of ``optimizers`` stepped."""
        self._stepped.update((id(o), o) for o, has_stepped in zip(optimizers, stepped, strict=True) if has_stepped)

    def _has_stepped(self, schedule: Schedule) -> bool:
        return id(schedule.scheduler.optimizer) in self._stepped

    def note_validation(self) -> None:
        """Take note that this epoch was validated."""
        self._validated = True

    def step(self, metrics: Metrics, epoch: int) -> None:
        """The end of an epoch, the number of which is counted from 0."""
        for schedule in self._schedules:
            if (epoch + 1) % schedule.frequency or not self._has_stepped(schedule):
                continue
            if schedule.monitor is None:
                schedule.scheduler.step()
            elif self._validated or (
                schedule.monitor not in metrics.validation and schedule.monitor in metrics.of_training()
            ):
                schedule.scheduler.step(value_for(schedule, metrics))
        self._stepped.clear()
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        stepped = {schedule.optimizer_i for schedule in self._schedules if self._has_stepped(schedule)}
        counts = [self._nb_steps[id(schedule.scheduler)] for schedule in self._counting]
        return {"stepped": sorted(stepped), "validated": self._validated, **({"nb_steps": counts} if counts else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        stepped = [s.scheduler.optimizer for s in self._schedules if s.optimizer_i in state["stepped"]]
        self._stepped, self._validated = {id(o): o for o in stepped}, state["validated"]
        for schedule, nb in zip(self._counting, state.get("nb_steps", ()), strict=False):
            self._nb_steps[id(schedule.scheduler)] = nb


def needed_metrics(callbacks: Sequence[Callback], schedules: Sequence[Schedule]) -> dict[str, str]:
    """The metrics that something needs, and what needs each."""
    needed = {s.monitor: type(s.scheduler).__name__ for s in schedules if s.monitor is not None}
    for callback in callbacks:
        for name in (callback.needed_metric(), *getattr(callback, "named_metrics", ())):
            if name is not None:
                needed[name] = type(callback).__name__
    return needed
