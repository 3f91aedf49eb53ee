"""Trials of Optuna that end early."""

import os
from typing import Any

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.callbacks.monitor import AfterEpochs, from_first
from pytorch_lightning.errors import MisconfigurationException, describe


class OptunaPruning(Callback):
    """Reports ``monitor`` to ``trial`` after each validation, and where the study's pruner says so ends the fit with
    ``optuna.TrialPruned``, which comes out of ``trainer.fit``.

    The step of a report is the number of the validation, counted from 0; for a metric that only training gives it is
    the number of the epoch, at whose end it is reported. No step is reported twice, also after a resume. With several
    processes the first one reports, and all raise; ``trial`` may be None in the others. Raises
    ``MisconfigurationException`` for a study with several objectives, and for one in memory that the processes of the
    fit can't reach. Needs the extra ``[optuna]``.

    >>> from pytorch_lightning import Trainer
    >>> def objective(trial):  # for study.optimize
    ...     model = Model(lr=trial.suggest_float("lr", 1e-4, 1.0, log=True))
    ...     trainer = Trainer(callbacks=[OptunaPruning(trial, "val_acc")], max_nb_epochs=5)
    ...     trainer.fit(model)
    ...     return trainer.metrics["val_acc"]
    """

    def __init__(self, trial: Any, monitor: str = "val_loss") -> None:
        try:
            from optuna.trial import BaseTrial
        except ImportError as error:
            raise MisconfigurationException(
                "OptunaPruning needs optuna, which isn't installed. Install the extra [optuna]:"
                ' pip install "pytorch-lightning-classic[optuna]"'
            ) from error
        if not isinstance(monitor, str):
            raise MisconfigurationException(
                f"OptunaPruning: monitor must be the name of a metric; received {describe(monitor)}. Pass 'val_loss',"
                " say."
            )
        if trial is not None and not isinstance(trial, BaseTrial):
            raise MisconfigurationException(
                f"OptunaPruning: trial must be a trial of Optuna; received {describe(trial)}."
                " Pass what the study calls the objective with."
            )
        if type(trial).__name__ == "TorchDistributedTrial":  # each of its methods waits for all processes
            raise MisconfigurationException(
                "OptunaPruning: trial can't be a TorchDistributedTrial, since only the first process reports."
                " Pass the trial that it was made of, and None in the other processes."
            )
        if len(getattr(getattr(trial, "study", None), "directions", ())) > 1:
            raise MisconfigurationException(
                "OptunaPruning: the study has several objectives, and Optuna prunes by one alone. Leave the callback"
                " out, or create the study with one direction."
            )
        self.trial: Any = trial
        self.monitor, self._made_in = monitor, os.getpid()
        self.reset()

    def reset(self) -> None:
        self.reported: dict[int, float] = {}
        """What the run reported, by step."""
        self._there: dict[int, float] = {}
        """What the trial has; in the first process."""
        self._after_epochs = AfterEpochs(self.monitor)

    def on_fit_start(self, run: Run) -> None:
        if run.module.trainer.proc_rank:
            return
        if self.trial is None:
            raise MisconfigurationException(
                "OptunaPruning: trial is None in the first process, which reports. Pass the trial there."
            )
        if (study := getattr(self.trial, "study", None)) is None:  # a FixedTrial, which keeps nothing
            return
        from optuna.storages import InMemoryStorage

        if isinstance(self.trial.storage, InMemoryStorage) and self._made_in != os.getpid():
            raise MisconfigurationException(
                "OptunaPruning: the study is in the memory of one process, and the fit runs in others. Write"
                " optuna.create_study(storage='sqlite:///search.db', study_name='search', load_if_exists=True), say."
            )
        self._there = dict(study.get_trials(deepcopy=False)[self.trial.number].intermediate_values)
        for step, value in self.reported.items():  # a trial that continues the run of another one
            self._report(run, step, value)

    def on_validation_end(self, run: Run, metrics: dict[str, float | int]) -> None:
        self._after_epochs.note_validation(metrics)
        if self.monitor in metrics:
            self._look(run, run.progress.nb_validations - 1, metrics[self.monitor])

    def on_epoch_end(self, run: Run) -> None:
        values = self._after_epochs.values(run)
        for step, value in enumerate(values, run.progress.epoch - len(values) + 1):
            self._look(run, step, value)

    def _look(self, run: Run, step: int, value: float) -> None:
        """Report ``value``, and end the fit where the pruner says so."""
        is_pruned = False
        if not run.module.trainer.proc_rank:
            self._report(run, step, value)
            is_pruned = self.trial.should_prune()
        self.reported[step], is_pruned = from_first(run, (float(value), is_pruned))
        if is_pruned:
            from optuna import TrialPruned

            raise TrialPruned(f"{self.monitor} is {self.reported[step]:g} in epoch {run.progress.epoch + 1}")

    def _report(self, run: Run, step: int, value: float) -> None:
        """Once for each step: the fit may come by again, where it was killed."""
        if step not in self._there:
            self.trial.report(value, step)
            self._there[step] = value
        elif (there := self._there[step]) != value and (there == there or value == value):
            text = (
                f"step {step} of the trial was reported as {there:g} before, which stays; {self.monitor} is {value:g}"
                " now. A trial can be reported to by one run alone"
            )
            run.notices.say("reported-before", text)

    def needed_metric(self) -> str | None:
        return self.monitor

    def state_dict(self) -> dict[str, Any]:
        return {"reported": list(self.reported.items()), "waiting": list(self._after_epochs.waiting)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reported = {int(step): float(value) for step, value in state["reported"]}
        self._after_epochs.waiting = list(state["waiting"])
