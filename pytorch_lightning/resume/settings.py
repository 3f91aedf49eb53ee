"""What a run was begun with: a later start may have other rates, hparams and options, and is told which are used."""

import copy
from collections.abc import Iterator, Sequence
from math import ceil, inf
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from pytorch_lightning.checkpoints.checkpoint import fitting, plain_hparams
from pytorch_lightning.errors import CheckpointError, Problem, one_line, raise_together
from pytorch_lightning.options.config import Config, options
from pytorch_lightning.run.hooks import is_overridden
from pytorch_lightning.run.progress import NEVER, accumulation_at
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.optimizers import Schedule

COMPARED = (
    "precision", "accumulate_grad_batches", "gradient_clip", "gradient_clip_algorithm", "gradient_clip_norm_type",
    "train_percent_check", "val_percent_check", "val_check_interval", "check_val_every_n_epoch", "overfit_pct",
    "accumulate_nb_samples", "max_nb_tng_batches", "max_nb_val_batches", "val_every_nb_batches",
    "add_log_row_interval", "track_grad_norm", "stop_on_nan", "deterministic", "compile", "fused_optimizers",
    "exact_elastic", "gather_validation", "uneven_batches",
)  # fmt: skip
"""The options that numbers and rows depend on. The seed is that of the save, and schedules hold their milestones."""
LIMITS = ("max_nb_epochs", "max_nb_steps")
OF_LENGTH = (
    "accumulate_grad_batches",
    "accumulate_nb_samples",
    "train_percent_check",
    "max_nb_tng_batches",
    "overfit_pct",
)
"""Options that change how many steps a fit has."""
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
        self._kinds = [_kind(schedule.scheduler) for schedule in schedules]
        self._configured = _values_of(optimizers, [schedule.scheduler for schedule in schedules])
        states = [_plain(schedule.scheduler.state_dict()) for schedule in schedules]
        self.fresh = {"groups": [_groups_of(optimizer) for optimizer in optimizers], "schedules": states}
        """What ``configure_optimizers`` gave at this start."""
        self._options = {name: repr(getattr(config, name)) for name in COMPARED}
        for n, schedule in enumerate(schedules):
            where = type(schedule.scheduler).__name__ + (f" {n + 1}" if len(schedules) > 1 else "")
            self._options |= {f"{k} of {where}": repr(getattr(schedule, k)) for k in ("interval", "monitor")}
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
        with fitting(f"{path}: its settings"):
            self._compare(checkpoint, path)

    def _compare(self, checkpoint: dict[str, Any], path: str) -> None:
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
        seeds = [] if self._config.seed in (None, seed) else [f"seed (saved {seed}, now {self._config.seed})"]
        new = _changes(saved.get("options", {}), self._options)
        silent = set(options()) - {*COMPARED, "seed"}  # the fit's own limits, and what only shows
        first, given = ({k: _text(v) for k, v in h.items() if k not in silent} for h in (self.hparams, hparams))
        others = _changes({**dict.fromkeys(given, "absent"), **first}, {**dict.fromkeys(first, "absent"), **given})
        texts = (
            (stay, "Used as saved: {}; to use new values set them in on_fit_start."),
            (seeds, "Used as saved: {}; for another seed start a new run."),
            (new, "Used as they are now: {}; to use the saved values pass those."),
            (others, "Other hparams: {}; the module has the new ones, and logs keep the first."),
        )
        said = [text.format(_list(changes)) for changes, text in texts if changes]
        if said:
            self._run.notices.say("other-settings", " ".join(["this start differs from the save it resumes.", *said]))

    def check_lengths(self) -> None:
        """Raises ``MisconfigurationException`` where there will be more steps than before, and a schedule ends."""
        with fitting("the settings of the checkpoint"):
            self._check_lengths()

    def _check_lengths(self) -> None:
        before, options = self._saved.get("limits", {}), self._saved.get("options", {})
        changed = {name: (before.get(name), now) for name, now in self._limits.items()}
        changed = {k: (old, now) for k, (old, now) in changed.items() if old is not None and (now is None or now > old)}
        changed |= {
            k: (options[k], self._options[k]) for k in OF_LENGTH if options.get(k, self._options[k]) != self._options[k]
        }
        for schedule in self._schedules if changed else ():
            for cycle, begins, ends in _cycles(schedule.scheduler):
                total = cycle.total_steps
                steps = min(self._steps_left(schedule, total + begins), ends) - begins
                if (0 if begins else cycle.last_epoch) + steps > total:
                    kind = type(cycle).__name__
                    received = ", ".join(f"{name} is {now} and was {old}" for name, (old, now) in changed.items())
                    old = " and ".join(f"{name}={old}" for name, (old, _) in changed.items())
                    advice = f"Pass {old}, or start a new run, without resume, whose {kind} is long enough"
                    raise_together([Problem(f"{kind} ends after its {total} steps", received, advice)])

    def _steps_left(self, schedule: Schedule, enough: int) -> int:
        """How often ``schedule`` will step, or a larger number than ``enough``; 0 where that isn't known."""
        run, progress, config = self._run, self._run.progress, self._config
        nb_batches, whole = run.nb_tng_batches, schedule.interval == "epoch"
        by_hand = not run.module.automatic_optimization or is_overridden(run.module, "optimizer_step")
        if nb_batches is None or (not whole and (by_hand or config.accumulate_nb_samples is not None)):
            return 0
        left = NEVER if config.max_nb_steps is None else config.max_nb_steps - progress.nb_optimizer_steps
        steps, epochs, done = 0, 0, progress.batch_nb
        for epoch in range(progress.epoch, config.max_nb_epochs):
            steps += ceil((nb_batches - done) / accumulation_at(epoch, config.accumulate_grad_batches))
            epochs, done = epochs + (steps <= left), 0
            if steps >= left or epochs > enough:
                break
        return epochs if whole else min(steps, left)


def _groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [_plain({k: v for k, v in g.items() if k not in ("params", "param_names")}) for g in optimizer.param_groups]


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A copy of what is plain in ``state``, and in the schedules in it."""
    inner = {"_schedulers": [_plain(one) for one in state["_schedulers"]]} if "_schedulers" in state else {}
    return {**{k: copy.deepcopy(v) for k, v in state.items() if k not in inner and _is_plain(v)}, **inner}


def _kind(scheduler: Any) -> str:
    inner = [_kind(one) for one in getattr(scheduler, "_schedulers", ())]
    return type(scheduler).__name__ + (f" of {' and '.join(inner)}" if inner else "")


def _cycles(scheduler: Any) -> Iterator[tuple[OneCycleLR, int, float]]:
    """Each schedule of fixed length in ``scheduler``, and between which of its next steps it moves."""
    if isinstance(scheduler, OneCycleLR):
        yield scheduler, 0, inf
    inner = getattr(scheduler, "_schedulers", ())
    milestones = [m - scheduler.last_epoch for m in getattr(scheduler, "_milestones", ())]
    begins, ends = [0, *milestones], [*milestones, inf]
    for n, one in enumerate(inner):
        first, last = (begins[n], ends[n]) if milestones else (0, inf)
        yield from ((cycle, max(0, first), last) for cycle, _, _ in _cycles(one) if last > 0)


def _values_of(optimizers: Sequence[Optimizer], schedulers: Sequence[Any]) -> dict[str, str]:
    """The values of groups and schedules, by a name that a reader understands."""
    found = {}
    for n, optimizer in enumerate(optimizers):
        for i, group in enumerate(optimizer.param_groups):
            where = type(optimizer).__name__ + (f" {n + 1}" if len(optimizers) > 1 else "")
            where += f", group {i + 1}" if len(optimizer.param_groups) > 1 else ""
            values = {**group, "lr": group["initial_lr"]} if "initial_lr" in group else group
            found.update({f"{k} of {where}": _text(v) for k, v in values.items() if k not in OF_SPEED and _is_plain(v)})
    for n, scheduler in enumerate(schedulers):
        where = type(scheduler).__name__ + (f" {n + 1}" if len(schedulers) > 1 else "")
        for inner in (scheduler, *getattr(scheduler, "_schedulers", ())):
            within = "" if inner is scheduler else f"{type(inner).__name__} in "
            found.update(_named(inner.state_dict(), OF_PROGRESS, within + where))
    return found


def _named(values: dict[str, Any], others: set[str], where: str) -> dict[str, str]:
    return {f"{k} of {where}": _text(v) for k, v in values.items() if k not in others and _is_plain(v)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    numbers = getattr(value, "ndim", None) == 0  # tensors and numpy's
    return numbers or value is None or isinstance(value, (bool, int, float, complex, str))


def _text(value: Any) -> str:
    return repr(value.item() if getattr(value, "ndim", None) == 0 else value)


def _changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    changed = {k: (before[k], v) for k, v in now.items() if before.get(k, v) != v}
    return [f"{k} (saved {one_line(old, 80)}, now {one_line(new, 80)})" for k, (old, new) in changed.items()]


def _list(changes: Sequence[str]) -> str:
    return ", ".join(changes[:MOST_SHOWN]) + (f" and {len(changes) - MOST_SHOWN} more" * (len(changes) > MOST_SHOWN))
