"""What a window that failed is taken back to, so that the state before it can be saved."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pytorch_lightning.loggers.logger import LoggerGroup, Noted
from pytorch_lightning.resume.attributes import AttributesPart
from pytorch_lightning.run.hooks import Hooks, is_overridden
from pytorch_lightning.run.run import FitRun
from pytorch_lightning.steps.buffers import BufferUndo
from pytorch_lightning.steps.current_step import CurrentStep

CHANGING = ("on_batch_start", "on_batch_end")
"""Hooks inside a window that may change what can't be taken back."""

AROUND = ("on_pre_performance_check", "on_evaluation_start")
"""Hooks before the first batch of a validation."""


class WindowStart:
    """The state at a window's start, as far as a window changes it before its optimizers step: the position, the
    numbers of the run, and buffers. Parameters are what they were until then."""

    def __init__(
        self,
        module: nn.Module,
        run: FitRun,
        loggers: LoggerGroup,
        hooks: Hooks,
        current: CurrentStep,
        buffers: BufferUndo | None,
        attributes: AttributesPart,
    ) -> None:
        self._module, self._run, self._loggers, self._current = module, run, loggers, current
        self.buffers, self._attributes = buffers, attributes
        # where a user's own step lets its turn pass, gradients are from before the window
        waits = is_overridden(module, "optimizer_step")
        self._hooks_change = waits or not all(_is_ours(hook) for name in CHANGING for hook in hooks[name])
        self.is_whole_in_validation = all(_is_ours(hook) for name in AROUND for hook in hooks[name])
        """Whether weights are the same in a validation as before it: a hook may put averaged ones in their place."""
        self._place: tuple[int, int] | None = None
        self._rows: Noted = 0.0, 0, []
        self._numbers: Any = None

    def note_for(self, accumulate: int) -> Callable[[], None] | None:
        """What is to be called before each window of ``accumulate`` batches. None: a single batch changes nothing
        before the optimizers step, where there are no buffers."""
        self._place = None
        return self.note if accumulate > 1 or self.buffers is not None else None

    def note(self) -> None:
        """A window is about to begin."""
        progress = self._run.progress
        self._place, self._rows = (progress.batch_nb, progress.global_step), self._loggers.note_rows()
        self._numbers = self._run.metrics.note()
        if self.buffers is not None:
            self.buffers.note()

    def go_back(self) -> bool:
        """Put back the state from before the window that failed; False where that can't be done."""
        progress = self._run.progress
        place = (progress.batch_nb, progress.global_step)
        is_first = self._place in (None, place)
        # while it was being fetched no hook was called for the batch
        if progress.steps_begun or (self._hooks_change and not (is_first and self._current.is_fetching)):
            return False
        # what user code changed of its own in the step that failed isn't known apart from what it changed before
        is_fetching = is_first and self._current.is_fetching
        if self._attributes.data.has_changed() if is_fetching else self._attributes.has_changed():
            return False
        # many large ones would cost more than the time that a save at an exception wins
        can = self.buffers.can_go_back(self._module) if self.buffers is not None else not [*self._module.buffers()]
        if not can:
            return False
        progress.epoch_over = False
        if self._place is None:
            return True
        progress.batch_nb, progress.global_step = self._place
        self._run.metrics.take_back(self._numbers)
        self._loggers.keep_rows(self._rows)
        if self.buffers is not None:
            self.buffers.go_back()
        return True


def _is_ours(hook: Any) -> bool:
    method = getattr(hook, "func", hook)
    function = getattr(method, "__func__", method)  # one that was assigned to the object is no method
    return str(getattr(function, "__module__", "")).startswith("pytorch_lightning.")
