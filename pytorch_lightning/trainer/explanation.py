"""``Trainer.explain``: what a fit will do, as data and as a text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

COUNTS = ("nb_batches", "nb_optimizer_steps", "nb_samples", "nb_validations")
FEW = 4
"""Places that the text shows of a longer list."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What ``Trainer.explain`` returns. Epochs and batches are counted from 0, and places are as ``run.progress`` has
    them when something happens. A number is None where it isn't known before training; ``notes`` say why.
    ``str(explanation)`` is the text."""

    module: str
    """The name of its class."""
    where: dict[str, Any]
    """``device``, ``strategy``, ``nb_processes``, ``virtual_ranks``, ``precision`` and ``seed``."""
    start: dict[str, Any]
    """``resume`` (the file, or None), ``epoch``, ``batch_nb`` and ``global_step`` at which training begins."""
    nb_batches_per_epoch: int | None
    """Training batches of the first epoch; with several virtual ranks rounds: one batch on each of them."""
    nb_val_batches: int | None
    """Batches of a validation, over all loaders and processes; 0 without one."""
    epochs: list[dict[str, Any]] = field(default_factory=list)
    """For each epoch ``epoch``, ``nb_batches``, ``nb_optimizer_steps`` (windows of accumulation), ``nb_samples`` (over
    all processes) and ``nb_validations``: what is left of it."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What falls due, in order: ``event`` ('sanity check', 'validation', 'row' of the log, 'flush' of the log,
    'schedule' of an epoch, 'check' of early stopping, 'save', 'delete'), ``epoch``, ``batch_nb``, ``global_step`` and
    ``nb_optimizer_steps``. A save has ``path``, ``weights_only``, ``rolling`` for those of a resume, and ``if_better``
    (a metric) where it is written only if that is better than what is kept."""
    rates: list[dict[str, Any]] = field(default_factory=list)
    """The learning rates, ``lr_0`` and so on, where they change: ``nb_optimizer_steps`` steps are made before."""
    schedules: list[dict[str, Any]] = field(default_factory=list)
    """For each schedule ``scheduler``, ``optimizer_i``, ``interval``, ``frequency``, ``monitor`` and ``nb_steps``."""
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    """For each kind of file ``by``, ``folder``, ``bytes`` of one file, and what is kept: ``keeps``."""
    hooks: dict[str, list[str]] = field(default_factory=dict)
    """Each hook that somebody wrote, and whose it is, in the order in which they are called."""
    options: dict[str, Any] = field(default_factory=dict)
    """Every option, as it was understood."""
    given: list[str] = field(default_factory=list)
    """The options whose value isn't the default."""
    without_effect: dict[str, str] = field(default_factory=dict)
    """The options that were given and change nothing: each with the reason."""
    stop_reason: str | None = None
    """Why training ends, unless a callback, a metric or the clock ends it before; None where that isn't known."""
    notes: list[str] = field(default_factory=list)
    """What isn't known before training, and what was taken for granted."""

    @property
    def nb_batches(self) -> int | None:
        """Training batches in all that are left."""
        return self._sum("nb_batches")

    @property
    def nb_optimizer_steps(self) -> int | None:
        """Optimizer steps in all that are left."""
        return self._sum("nb_optimizer_steps")

    @property
    def nb_samples(self) -> int | None:
        """Training samples in all that are left, each time that one is used."""
        return self._sum("nb_samples")

    @property
    def nb_validations(self) -> int | None:
        """Validations in all that are left."""
        return self._sum("nb_validations")

    def _sum(self, name: str) -> int | None:
        values = [epoch[name] for epoch in self.epochs]
        return None if self.stop_reason is None or None in values else sum(values)

    def events(self, event: str) -> list[dict[str, Any]]:
        """The rows of one kind."""
        return [row for row in self.rows if row["event"] == event]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        w = self.where
        yield f"what a fit of {self.module} will do (nothing is trained now)"
        ranks = f", {_counted(w['virtual_ranks'], 'virtual rank')}" if w["virtual_ranks"] > 1 else ""
        place = f"{w['device']}, {_counted(w['nb_processes'], 'process')} ({w['strategy']}){ranks}"
        yield _line("where", f"{place}, precision {w['precision']}, seed {w['seed']}")
        if self.start["resume"] is not None:
            at = f"epoch {self.start['epoch']}, batch_nb {self.start['batch_nb']}"
            yield _line("resumes", f"{self.start['resume']} ({at}, global_step {self.start['global_step']})")
        yield from self._lines_of_epochs()
        yield from self._lines_of_rows()
        for name in [name for name in (self.rates[0] if self.rates else ()) if name.startswith("lr_")]:
            each = [f"{r[name]:.4g} from step {r['nb_optimizer_steps']}" for r in self.rates if name in r]
            yield _line(name, _few(each))
        for s in self.schedules:
            every = f"every {s['interval']}" if s["frequency"] == 1 else f"every {s['frequency']} {s['interval']}s"
            nb = "" if s["nb_steps"] is None else f", {_counted(s['nb_steps'], 'time')}"
            yield _line("schedule", f"{s['scheduler']} {every}{nb}{', by ' + s['monitor'] if s['monitor'] else ''}")
        for c in self.checkpoints:
            yield _line("files", f"{c['by']}: {_size(c['bytes'])} each in {c['folder']}; {c['keeps']}")
        for owner in dict.fromkeys(owner for owners in self.hooks.values() for owner in owners):
            own = [name for name, owners in self.hooks.items() if owner in owners]
            yield _line("hooks", f"{owner}: {', '.join(own)}")
        for name in self.given:
            why = f" has no effect: {self.without_effect[name]}" if name in self.without_effect else ""
            yield _line("option", f"{name}={_value(self.options[name])}{why}")
        yield from (_line("note", note) for note in self.notes)

    def _lines_of_epochs(self) -> Iterator[str]:
        words = dict(zip(COUNTS, ("batch", "step", "sample", "validation"), strict=True))
        if not self.epochs:
            yield _line("epochs", "unknown" if self.stop_reason is None else "none is left")
        for values, group in groupby(self.epochs, lambda epoch: [epoch[name] for name in COUNTS]):
            each = [epoch["epoch"] for epoch in group]
            which = f"{each[0]} to {each[-1]}, each" if len(each) > 1 else f"{each[0]}"
            told = ", ".join(_counted(v, words[n]) for n, v in zip(COUNTS, values, strict=True))
            yield _line("epochs" if len(each) > 1 else "epoch", f"{which}: {told}")
        if self.epochs:
            yield _line("in all", ", ".join(_counted(getattr(self, name), words[name]) for name in COUNTS))
        if self.stop_reason:
            yield _line("ends", self.stop_reason)

    def _lines_of_rows(self) -> Iterator[str]:
        kinds: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            kind = "rolling save" if "rolling" in row else row["event"]
            kinds.setdefault(f"{kind} if better" if "if_better" in row else kind, []).append(row)
        kinds.pop("schedule", None)  # told below
        for name, rows in kinds.items():
            size = f", {_counted(self.nb_val_batches, 'batch')} each" if name == "validation" else ""
            yield _line(name, f"{len(rows)}{size}, at global_step {_few([str(row['global_step']) for row in rows])}")


def _line(name: str, text: str) -> str:
    return f"  {name:<14} {text}"


def _few(values: Sequence[str]) -> str:
    return ", ".join(values if len(values) <= FEW + 1 else [*values[:FEW], "...", values[-1]])


def _counted(number: int | None, word: str) -> str:
    ending = "" if number == 1 else "es" if word.endswith(("ch", "s")) else "s"
    return f"{'?' if number is None else f'{number:,}'} {word}{ending}"


def _size(nb_bytes: int | None) -> str:
    if nb_bytes is None:
        return "of unknown size"
    return f"{nb_bytes / 1e6:.1f} MB" if nb_bytes >= 1e6 else f"{nb_bytes / 1e3:.0f} kB"


def _value(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    plain = value is None or isinstance(value, (str, int, float, dict))
    return repr(value) if plain else type(value).__name__
