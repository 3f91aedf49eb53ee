"""Optimizers that have a train and an eval mode, as those without a schedule of learning rates do."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pytorch_lightning.callbacks.callback import Callback, Run
from pytorch_lightning.errors import MisconfigurationException


class ScheduleFree(Callback):
    """Puts optimizers with the methods ``train()`` and ``eval()`` (those of the package ``schedulefree``) into train
    mode for training, and into eval mode for validations, for checkpoints and at the end of the fit.

    So the weights in a file, and of the model after ``fit``, are those that were validated. Training continues from the
    very weights that it had, not from what ``train()`` computes back from others: these are in the file too, so that a
    resume is exact. Raises ``MisconfigurationException`` where no optimizer has the two methods.

    >>> from pytorch_lightning import LightningModule, Trainer
    >>> class Model(LightningModule):
    ...     def configure_optimizers(self):
    ...         import schedulefree
    ...         return schedulefree.AdamWScheduleFree(self.parameters(), lr=0.0025)
    >>> trainer = Trainer(callbacks=[ScheduleFree()])
    """

    def __init__(self) -> None:
        self._optimizers: list[Any] = []
        self.reset()

    def reset(self) -> None:
        self._module: Any = None
        """While a fit runs, and after it."""
        self._own: dict[str, Tensor] | None = None
        """The weights of training, while the model has others."""
        self._loaded: dict[str, Tensor] = {}

    def before_optimizers(self, module: nn.Module) -> None:
        self.reset()

    def after_optimizers(self, module: nn.Module, optimizers: Sequence[Any], schedulers: Sequence[Any]) -> None:
        self._optimizers = [o for o in optimizers if all(callable(getattr(o, n, None)) for n in ("train", "eval"))]
        if not self._optimizers:
            kinds = ", ".join(type(optimizer).__name__ for optimizer in optimizers)
            raise MisconfigurationException(
                f"ScheduleFree needs an optimizer that has the methods train() and eval(); received {kinds}. Return one"
                " from configure_optimizers (schedulefree.AdamWScheduleFree, say), or leave ScheduleFree out."
            )
        if self._module is not None and self._own is None:  # others have come while training runs
            for optimizer in self._optimizers:
                optimizer.train()

    def on_fit_start(self, run: Run) -> None:
        self._module, loaded, self._loaded = run.module, self._loaded, {}
        with torch.no_grad():
            for optimizer in self._optimizers:
                optimizer.train()
            for name, parameter in run.module.named_parameters() if loaded else ():
                parameter.copy_(loaded[name])

    def on_fit_end(self, run: Run) -> None:
        if self._module is not None:
            self._to_eval()

    @contextlib.contextmanager
    def around_evaluation(self, run: Run, stage: str) -> Iterator[None]:
        with self._in_eval():
            yield

    @contextlib.contextmanager
    def around_save(self, run: Run) -> Iterator[None]:
        with self._in_eval():
            yield

    @contextlib.contextmanager
    def _in_eval(self) -> Iterator[None]:
        if self._module is None or self._own is not None:  # before a fit and after it they are in eval mode
            yield
            return
        try:
            self._to_eval()
            yield
        finally:
            self._to_train()

    @torch.no_grad()
    def _to_eval(self) -> None:
        self._own = {name: p.detach().clone() for name, p in self._module.named_parameters()}
        for optimizer in self._optimizers:
            optimizer.eval()

    @torch.no_grad()
    def _to_train(self) -> None:
        own, self._own = self._own or {}, None
        for optimizer in self._optimizers:
            optimizer.train()
        for name, parameter in self._module.named_parameters():
            parameter.copy_(own[name])

    def state_dict(self) -> dict[str, Any]:
        if self._module is None:
            return {"own": self._loaded}
        return {"own": self._own or {name: p.detach() for name, p in self._module.named_parameters()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loaded = dict(state["own"])

    def __getstate__(self) -> dict[str, Any]:
        own = self.state_dict()["own"] if self._module is not None else self._loaded
        return {"_optimizers": [], "_module": None, "_own": None, "_loaded": own}
