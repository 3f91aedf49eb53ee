"""What a run was begun with: a later start may have other rates, hparams and options, and is told which are used."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from torch.optim import Optimizer

from pytorch_lightning.checkpoints.checkpoint import plain_hparams
from pytorch_lightning.errors import CheckpointError, Problem, one_line, raise_together
from pytorch_lightning.options.config import Config, options
from pytorch_lightning.run.hooks import is_overridden
from pytorch_lightning.run.progress import NEVER, accumulation_at
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.optimizers import Schedule

COMPARED = (
    "precision", "accumulate_grad_batches", "gradient_clip", "gradient_clip_algorithm", "gradient_clip_norm_type",
    "train_percent_check", "val_percent_check", "val_check_interval", "check_val_every_n_epoch", "overfit_pct",
    "add_log_row_interval", "track_grad_norm", "stop_on_nan", "deterministic", "compile", "fused_optimizers",
    "exact_elastic", "gather_validation",
)  # fmt: skip
"""The options that numbers and rows depend on. The seed is that of the save, and schedules hold their milestones."""
LIMITS = ("max_nb_epochs", "max_nb_steps")
OF_PROGRESS = {"last_epoch", "base_lrs", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step"}
OF_PROGRESS |= {"_schedulers", "_schedule_phases"}
OF_SPEED = {"params", "param_names", "initial_lr", "fused", "foreach"}
MOST_SHOWN = 8


class SettingsPart:
    """The values that ``configure_optimizers`` gave, the hparams and the options. Those of optimizers, schedules and
    hparams stay those of the first start, as what is used and logged does."""

    def __init__(
        self, config: Config, run: FitRun, optimizers: Sequence[Optimizer], schedules: Sequence[Schedule]
    ) -> None:
        self._config, self._run, self._schedules = config, run, schedules
        self._kinds = [type(schedule.scheduler).__name__ for schedule in schedules]
        self._configured = _values_of(optimizers, [schedule.scheduler for schedule in schedules])
        self._options = {name: repr(getattr(config, name)) for name in COMPARED}
        self._saved: dict[str, Any] = {}
        self._limits = {name: getattr(config, name) for name in LIMITS}
        self.hparams = plain_hparams(run.module.hparams, run.notices)
        """Those that the run was begun with."""

    def state_dict(self) -> dict[str, Any]:
        own = {"schedules": self._kinds, "configured": self._configured, "options": self._options}
        return {**own, "limits": self._limits, "hparams": self.hparams}

    def compare(self, checkpoint: dict[str, Any], path: str) -> None:
        """Look at the save that is resumed: one notice lists what differs from it, and which is used. Raises
        ``CheckpointError`` where schedules are of other kinds: they would take each other's numbers."""
        self._saved = saved = checkpoint["parts"].get("settings", {})
        before, now = saved.get("schedules", self._kinds), self._kinds
        if len(before) == len(now) and before != now:
            raise CheckpointError(
                f"{path} doesn't fit configure_optimizers: the state is that of different schedules,"
                f" {', '.join(before)}, not {', '.join(now)}. Resume with the schedules that wrote it."
            )
        self.hparams, hparams = saved.get("hparams", checkpoint.get("hparams")) or {}, self.hparams
        self._say(saved, hparams, checkpoint["parts"]["data"]["seed"])
        self._configured = saved.get("configured", self._configured)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing more: ``compare`` comes before the optimizers' own states."""

    def _say(self, saved: dict[str, Any], hparams: dict[str, Any], seed: int) -> None:
        stay = _changes(saved.get("configured", {}), self._configured)
        if self._config.seed not in (None, seed):
            stay.append(f"seed (saved {seed}, now {self._config.seed})")
        new = _changes(saved.get("options", {}), self._options)
        first, given = ({k: _shown(v) for k, v in h.items() if k not in options()} for h in (self.hparams, hparams))
        others = _changes({**dict.fromkeys(given, "absent"), **first}, {**dict.fromkeys(first, "absent"), **given})
        texts = (
            (stay, "Used as saved: {}; to use new values set them in on_fit_start, for a new seed start a new run."),
            (new, "Used as they are now: {}; to use the saved values pass those."),
            (others, "Other hparams: {}; the module has the new ones, and logs keep the first."),
        )
        said = [text.format(_list(changes)) for changes, text in texts if changes]
        if said:
            self._run.notices.say("other-settings", " ".join(["this start differs from the save it resumes.", *said]))

    def check_lengths(self) -> None:
        """Raises ``MisconfigurationException`` where a limit was raised and a schedule ends before it is reached."""
        before = self._saved.get("limits", {})
        raised = [
            f"{name} is {now or 'None'} and was {before[name]}"
            for name, now in self._limits.items()
            if before.get(name) is not None and (now is None or now > before[name])
        ]
        for schedule in self._schedules if raised else ():
            total = getattr(schedule.scheduler, "total_steps", None)
            if isinstance(total, int) and schedule.scheduler.last_epoch + self._steps_left(schedule, total) > total:
                kind = type(schedule.scheduler).__name__
                old = " and ".join(f"{name}={before[name]}" for name in LIMITS if before[name] is not None)
                advice = f"Pass {old}, or start a new run, without resume, whose {kind} is long enough"
                raise_together([Problem(f"{kind} ends after its {total} steps", ", ".join(raised), advice)])

    def _steps_left(self, schedule: Schedule, enough: int) -> int:
        """How often ``schedule`` will step, or a larger number than ``enough``; 0 where that isn't known."""
        run, progress, config = self._run, self._run.progress, self._config
        nb_batches, whole = run.nb_tng_batches, schedule.interval == "epoch"
        if nb_batches is None or (not whole and is_overridden(run.module, "optimizer_step")):
            return 0
        left = NEVER if config.max_nb_steps is None else config.max_nb_steps - progress.nb_optimizer_steps
        steps, epochs, done = 0, 0, progress.batch_nb
        for epoch in range(progress.epoch, config.max_nb_epochs):
            steps += ceil((nb_batches - done) / accumulation_at(epoch, config.accumulate_grad_batches))
            epochs, done = epochs + (steps <= left), 0
            if steps >= left or epochs > enough:
                break
        return epochs if whole else min(steps, left)


def _values_of(optimizers: Sequence[Optimizer], schedulers: Sequence[Any]) -> dict[str, str]:
    """The values of groups and schedules, by a name that a reader understands."""
    found = {}
    for n, optimizer in enumerate(optimizers):
        for i, group in enumerate(optimizer.param_groups):
            where = type(optimizer).__name__ + (f" {n + 1}" if len(optimizers) > 1 else "")
            where += f", group {i + 1}" if len(optimizer.param_groups) > 1 else ""
            values = {**group, "lr": group["initial_lr"]} if "initial_lr" in group else group
            found.update(
                {f"{k} of {where}": _shown(v) for k, v in values.items() if k not in OF_SPEED and _is_plain(v)}
            )
    for n, scheduler in enumerate(schedulers):
        where = type(scheduler).__name__ + (f" {n + 1}" if len(schedulers) > 1 else "")
        for inner in (scheduler, *getattr(scheduler, "_schedulers", ())):
            within = "" if inner is scheduler else f"{type(inner).__name__} in "
            found.update(_named(inner.state_dict(), OF_PROGRESS, within + where))
    return found


def _named(values: dict[str, Any], others: set[str], where: str) -> dict[str, str]:
    return {f"{k} of {where}": _shown(v) for k, v in values.items() if k not in others and _is_plain(v)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    numbers = getattr(value, "ndim", None) == 0  # tensors and numpy's
    return numbers or value is None or isinstance(value, (bool, int, float, complex, str))


def _shown(value: Any) -> str:
    return one_line(repr(value.item() if getattr(value, "ndim", None) == 0 else value), 80)


def _changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    return [f"{k} (saved {before[k]}, now {v})" for k, v in now.items() if before.get(k, v) != v]


def _list(changes: Sequence[str]) -> str:
    return ", ".join(changes[:MOST_SHOWN]) + (f" and {len(changes) - MOST_SHOWN} more" * (len(changes) > MOST_SHOWN))
