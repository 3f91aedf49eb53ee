"""``LightningModule``: the contract between a model and the trainer."""

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import torch
from torch import Tensor, nn

from pytorch_lightning.errors import MisconfigurationException, describe
from pytorch_lightning.printing import tell
from pytorch_lightning.processes import whole
from pytorch_lightning.root_module.elsewhere import LightningMethods, OfTheClass
from pytorch_lightning.root_module.hooks import ModelHooks
from pytorch_lightning.root_module.recorded import Recorded

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

REQUIRED = {
    "training_step": "def training_step(self, data_batch, batch_nb):\n    return {'loss': loss}",
    "validation_step": "def validation_step(self, data_batch, batch_nb):\n    return {'val_loss': loss}",
    "validation_end": "def validation_end(self, outputs):\n    return {'val_loss': mean}",
    "configure_optimizers": "def configure_optimizers(self):\n    return [torch.optim.Adam(self.parameters())]",
    "tng_dataloader": "@property\ndef tng_dataloader(self):\n    return DataLoader(...)",
    "val_dataloader": "@property\ndef val_dataloader(self):\n    return DataLoader(...)",
    "test_dataloader": "@property\ndef test_dataloader(self):\n    return DataLoader(...)",
    "test_step": "def test_step(self, data_batch, batch_nb):\n    return {'test_loss': loss}",
    "test_end": "def test_end(self, outputs):\n    return {'test_loss': mean}",
    "forward": "def forward(self, x):\n    return self.layers(x)",
}
"""Hooks without a default, each with the stub to write."""


GIVEN = "_given_loaders"
"""The attribute of a module with the loaders that were passed to a running call, by the property they replace."""


class Standin:
    """``self.experiment`` if there is no Experiment: ``log`` reaches the loggers, other calls do nothing.

    If a module stored it before its first fit (for example in ``__init__``), it forwards to that module's experiment
    later. ``like`` is the experiment of another process: its name, version and other plain values may be read.
    """

    def __init__(self, log: Any = None, module: Any = None, like: Any = None) -> None:
        self._log, self._module, self._like = log, module, like

    def log(self, metrics_dict: Mapping[str, Any], global_step: int | None = None, **_: Any) -> None:
        if self._module is not None and self._module.trainer is not None:
            self._module.trainer.experiment.log(metrics_dict, global_step)
        elif self._log is not None:
            self._log(dict(metrics_dict), global_step)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        trainer = None if self._module is None else self._module.trainer
        value = getattr(self._like if trainer is None else trainer.experiment, name, None)
        if trainer is not None:
            return value
        if value is None and name.startswith(("add_", "log_")):
            value = getattr(getattr(self._log, "__self__", None), "writes", lambda name: None)(name)
            if value is not None:
                return value
        return (lambda *args, **kwargs: None) if value is None or callable(value) else value


class assignable(property):
    """A property that the module's own code may assign. A value that the trainer knows better wins over it; assigning
    another one then raises ``MisconfigurationException``, as it would have no effect."""

    def __init__(self, function: Callable[[Any], Any], of_the_trainer: bool = True) -> None:
        name = function.__name__

        def get(module: Any) -> Any:
            value = function(module)
            is_known = of_the_trainer and module.trainer is not None and not isinstance(value, Standin)
            return value if is_known else module.__dict__.get(name, value)

        def put(module: Any, value: Any) -> None:
            module.__dict__[name] = value
            known = get(module)
            if known is not value and known != value:
                del module.__dict__[name]
                raise MisconfigurationException(
                    f"{name} of {type(module).__name__} is the trainer's to set, and is {known!r} now; received"
                    f" {describe(value)}. Keep a value of your own under another name."
                )

        get.__name__ = name
        super().__init__(get, put, doc=function.__doc__)
        self.__doc__ = function.__doc__


class LightningModule(ModelHooks, Recorded, LightningMethods, nn.Module):
    """An ``nn.Module`` that also defines how it is trained.

    Every fit requires ``training_step``, ``configure_optimizers`` and ``tng_dataloader``. A validation requires
    ``validation_step`` and ``val_dataloader``, and runs ``validation_end`` where there is one. ``test_dataloader`` is
    for ``Trainer.test``. ``get_save_dict`` and ``load_model_specific`` have defaults.

    ``hparams`` may be anything, usually a Namespace. It is a plain attribute.
    """

    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.hparams = hparams
        self.example_input_array: Any = None
        self._tng_dataloader: DataLoader[Any] | None = None
        self._val_dataloader: DataLoader[Any] | None = None
        self._test_dataloader: DataLoader[Any] | None = None

    # ------------------------------------------------------------------ what a user writes
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The forward pass; your steps call it as ``self.forward(x)`` or ``self(x)``."""
        self._missing("forward")

    # what follows batch_nb is a subclass's choice, and what it calls its arguments
    def training_step(
        self, data_batch: Any, batch_nb: int, /, *args: Any, **kwargs: Any
    ) -> dict[str, Any] | Tensor | None:
        """The loss of one batch.

        Returns a dict with ``loss`` (a tensor of one element), optionally ``prog`` (a dict of tensors of one
        element or numbers, for the bar and the log) and ``loss_count`` (the number of items that the loss is a
        mean over); or the loss alone. With a third argument, ``optimizer_i``, it is called once per optimizer.
        """
        self._missing("training_step")

    def validation_step(self, data_batch: Any, batch_nb: int, /, *args: Any, **kwargs: Any) -> Any:
        """What ``validation_end`` needs from one batch. Runs in eval mode, without gradients.

        With several loaders there is a third argument, ``dataloader_i``.
        """
        self._missing("validation_step")

    def validation_end(self, outputs: list[Any], /) -> dict[str, Any] | None:
        """Numbers of the whole validation set, from one entry of ``outputs`` per batch (a list of lists with
        several loaders). What it returns goes to the bar, the log and the callbacks.

        Without one, each number under a key of the dicts that the steps returned is averaged over their batches.
        """
        self._missing("validation_end")

    def test_step(self, data_batch: Any, batch_nb: int, /, *args: Any, **kwargs: Any) -> Any:
        """The ``validation_step`` of the test set; by default ``validation_step`` itself is used."""
        self._missing("test_step")

    def test_end(self, outputs: list[Any], /) -> dict[str, Any] | None:
        """The ``validation_end`` of the test set; by default ``validation_end`` itself is used."""
        self._missing("test_end")

    def predict_step(self, data_batch: Any, batch_nb: int, /, *args: Any, **kwargs: Any) -> Any:
        """What ``Trainer.predict`` keeps of one batch. Default: ``forward`` of the batch, or of its first entry
        where it is a list or tuple (inputs and labels)."""
        return self.forward(data_batch[0] if isinstance(data_batch, (list, tuple)) else data_batch)

    def configure_optimizers(self) -> Any:
        """The optimizers: a list, or one, or (optimizers, schedulers).

        A scheduler steps once an epoch; ``{'scheduler': s, 'interval': 'step', 'monitor': 'val_loss'}`` says
        otherwise.
        """
        self._missing("configure_optimizers")

    @property
    def tng_dataloader(self) -> Any:
        """The training batches: anything with ``__iter__``, a DataLoader usually."""
        self._missing("tng_dataloader")

    @property
    def val_dataloader(self) -> Any:
        """The validation batches: a loader or a list of loaders."""
        self._missing("val_dataloader")

    @property
    def test_dataloader(self) -> Any:
        """The test batches: a loader or a list of loaders."""
        self._missing("test_dataloader")

    def get_save_dict(self) -> dict[str, Any]:
        """What a checkpoint stores of this model, in addition to what the trainer saves."""
        return {"state_dict": self.state_dict()}

    def load_model_specific(self, checkpoint: dict[str, Any]) -> None:
        """Restore the model from the keys that ``get_save_dict`` returned."""
        self.load_state_dict(checkpoint["state_dict"])

    @staticmethod
    def add_model_specific_args(parent_parser: ArgumentParser, *_: Any, **__: Any) -> ArgumentParser:
        """Add the model's own command line options; returns the parser to use."""
        return parent_parser

    def _missing(self, name: str) -> NoReturn:
        raise MisconfigurationException(
            f"{type(self).__name__} doesn't define {name}, which is required here. Write:\n{REQUIRED[name]}"
        )

    # ------------------------------------------------------------------ what a user reads
    @property
    def trainer(self) -> Any:
        """The trainer of the last fit or test; None before. Not part of a copied or pickled module."""
        return self.__dict__.get("_trainer")

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        self.__dict__["_trainer"] = trainer

    @assignable
    def experiment(self) -> Any:
        """The user's test-tube Experiment; without one a stand-in whose ``log(dict)`` reaches the loggers."""
        return Standin(module=self) if self.trainer is None else self.trainer.experiment

    @assignable
    def current_epoch(self) -> int:
        """The epoch, counted from 0; 0 before a fit."""
        return 0 if self.trainer is None else int(self.trainer.current_epoch)

    @assignable
    def global_step(self) -> int:
        """Training batches finished, over all epochs; 0 before a fit."""
        return 0 if self.trainer is None else int(self.trainer.global_step)

    @assignable
    def on_gpu(self) -> bool:
        """Whether the module's parameters are on an accelerator."""
        parameter = next(self.parameters(), None)
        return parameter is not None and parameter.device.type not in ("cpu", "meta")

    @assignable
    def gradient_clip(self) -> float:
        """The trainer's ``gradient_clip``; 0 before a fit."""
        return 0.0 if self.trainer is None else float(self.trainer.gradient_clip)

    @assignable
    def use_dp(self) -> bool:
        """Whether several GPUs are used in one process; False before a fit."""
        return self.trainer is not None and bool(self.trainer.use_dp)

    @assignable
    def use_ddp(self) -> bool:
        """Whether this is one of several processes; False before a fit."""
        return self.trainer is not None and bool(self.trainer.use_ddp)

    @assignable
    def use_amp(self) -> bool:
        """Whether precision is '16'; False before a fit."""
        return self.trainer is not None and bool(self.trainer.use_amp)

    @partial(assignable, of_the_trainer=False)
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating-point parameter; torch's default dtype if there is none."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.get_default_dtype())

    def manual_backward(self, loss: Tensor, **options: Any) -> None:
        """Add the gradients of ``loss`` (one element), scaled in precision '16': in a ``training_step`` that makes its
        own steps. ``options`` are those of ``Tensor.backward``: ``retain_graph=True``, say. Raises ``FitError`` for a
        loss without a graph."""
        self._manual_steps("manual_backward").backward(loss, **options)

    def manual_step(self, optimizer_i: int = 0, loss: Tensor | None = None) -> None:
        """Step the ``optimizer_i``-th optimizer with the gradients that are there (with several processes, their
        mean), unscaled, tracked and clipped as the options say; then clear them. A ``loss`` gives its gradients before,
        to the parameters of that optimizer only. Counted in ``nb_optimizer_steps``; schedules per step follow. Raises
        ``FitError`` where there are no gradients."""
        self._manual_steps("manual_step").step(optimizer_i, loss)

    def _manual_steps(self, name: str) -> Any:
        steps = None if self.automatic_optimization or self.trainer is None else self.trainer._optimization(name).manual
        if steps is None:
            raise MisconfigurationException(
                f"{name} is for a training_step that makes its own steps, in a fit. Write automatic_optimization ="
                f" False in the class {type(self).__name__}; otherwise return the loss, and the trainer makes them."
            )
        return steps

    def freeze(self) -> None:
        """Turn gradients off for every parameter. Call ``eval()`` too for inference."""
        for parameter in self.parameters():
            parameter.requires_grad = False

    def unfreeze(self) -> None:
        """Turn gradients on for every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad = True

    def summarize(self) -> str:
        """Print and return a table of the children; with sizes where ``example_input_array`` is set."""
        from pytorch_lightning.root_module.summary import summarize

        table = summarize(self, self.example_input_array)
        tell(table)
        return table

    def grad_norm(self, norm_type: float) -> dict[str, float]:
        """The ``norm_type``-norm of each gradient and of all together.

        Keys are ``grad_{p}_norm_{i}``, i counting the parameters from 0, and ``grad_{p}_norm_total``.
        Parameters without a gradient are left out.
        """
        grads = {i: p.grad.detach() for i, p in enumerate(self.parameters()) if p.grad is not None}
        names = [f"grad_{norm_type:g}_norm_{i}" for i in grads] + [f"grad_{norm_type:g}_norm_total"]
        if not grads:
            return {names[-1]: 0.0}
        each = torch.stack([whole(torch.linalg.vector_norm(grad, norm_type)) for grad in grads.values()])
        total = torch.linalg.vector_norm(each, norm_type)
        # read together: on an accelerator each reading waits
        return dict(zip(names, torch.cat([each, total.reshape(1)]).tolist(), strict=True))

    @staticmethod
    def get_process_position(gpus: Any) -> int:
        """Which line a bar takes when several runs share a terminal: the place of the process in its pool.

        >>> LightningModule.get_process_position(gpus=None)
        0
        """
        import multiprocessing

        identity = multiprocessing.current_process()._identity
        return identity[0] - 1 if identity else 0

    # ------------------------------------------------------------------ loading
    @classmethod
    def load_from_metrics(
        cls,
        weights_path: str | Path,
        tags_csv: str | Path,
        on_gpu: Any = False,
        map_location: Any = None,
        **overrides: Any,
    ) -> Self:
        """A model from the checkpoint ``weights_path`` and ``tags_csv``, the ``meta_tags.csv`` of its run. Its
        ``hparams`` are the tags, and other arguments of its constructor those in the checkpoint, or ``overrides``.

        ``map_location`` says where tensors go (default: the GPU if ``on_gpu``, the CPU otherwise). Raises
        ``CheckpointError`` if a file is missing, damaged, or contains code.
        """
        from pytorch_lightning.root_module.loading import load_from_metrics

        return load_from_metrics(cls, weights_path, tags_csv, on_gpu, map_location, overrides)

    @classmethod
    def load_from_checkpoint(
        cls, path: str | Path | None = None, /, hparams: Any = None, map_location: Any = None, **overrides: Any
    ) -> Self:
        """A model from the checkpoint ``path``, made with the arguments that its constructor was called with: those
        that it holds, or ``overrides`` (and ``hparams``) by name. Tensors go to ``map_location`` (default: the CPU).

        Raises ``CheckpointError`` if the file is missing, damaged, or contains code; and, with its name, for an
        argument that isn't plain data and is in no file, if it isn't given.
        """
        from pytorch_lightning.root_module.loading import load_from_checkpoint

        path = overrides.pop("path") if path is None else path
        return load_from_checkpoint(cls, path, hparams, map_location, overrides)

    # ------------------------------------------------------------------ nn.Module's ways
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("tng_dataloader", "val_dataloader", "test_dataloader"):
            if isinstance(cls.__dict__.get(name), property):
                setattr(cls, name, _showing_its_error(cls.__dict__[name], f"{cls.__name__}.{name}", name))

    def __getstate__(self) -> dict[str, Any]:
        from pytorch_lightning.root_module.arguments import without_references

        left_out = ("_trainer", "experiment")
        kept = {k: v for k, v in self.__dict__.items() if k not in left_out and not k.startswith("_lazy_")}
        return {**kept, **without_references(self)}


def _showing_its_error(loader: property, where: str, name: str) -> property:
    """``loader``, with an AttributeError in it raised as a RuntimeError: nn.Module would report the former as
    "no attribute 'tng_dataloader'" and hide its cause. A loader that was passed to ``fit`` wins over it."""
    get = loader.fget
    assert get is not None

    def get_loader(module: Any) -> Any:
        if name in vars(module).get(GIVEN, ()):
            return vars(module)[GIVEN][name]
        try:
            return get(module)
        except AttributeError as cause:
            raise RuntimeError(f"{where} raised AttributeError: {cause}") from cause

    return property(get_loader, loader.fset, loader.fdel, loader.__doc__)


for _name in ("tng_dataloader", "val_dataloader", "test_dataloader"):
    setattr(LightningModule, _name, _showing_its_error(vars(LightningModule)[_name], f"LightningModule.{_name}", _name))
for _name in ("load_from_checkpoint", "load_from_metrics"):
    setattr(LightningModule, _name, OfTheClass(vars(LightningModule)[_name].__func__))
