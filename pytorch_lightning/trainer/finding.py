"""The methods of the Trainer that look at a model before it is trained."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning.options.config import Config
    from pytorch_lightning.trainer.explanation import Explanation
    from pytorch_lightning.trainer.finders import BatchSizes, LrRange, Maker


class Finding:
    """``find_lr``, ``find_batch_size`` and ``explain``. They train copies of the model in fits of their own that write
    nothing, or only plan one: the model, its optimizers, the random streams, the loaders, this Trainer and its files
    stay as they are."""

    options: dict[str, Any]
    config: "Config"

    def find_lr(
        self,
        model: Any,
        tng_dataloader: Any = None,
        *,
        min_lr: float = 1e-7,
        max_lr: float = 1.0,
        nb_steps: int = 100,
        smoothing: float = 0.9,
        diverges: float = 4.0,
    ) -> "LrRange":
        """Train a copy of ``model`` for ``nb_steps`` optimizer steps while the learning rate rises from ``min_lr`` to
        ``max_lr`` by the same factor each step (the range test of Smith, 2017, arXiv:1506.01186), and return what was
        seen: ``.suggestion``, ``.rows`` and ``.plot()``.

        ``tng_dataloader``: on this loader instead of the model's own. ``smoothing`` is the share of the running mean
        that a new loss leaves as it is, from 0 to 1. The test ends early where that mean is more than ``diverges``
        times its lowest value, or a loss isn't finite. Groups keep the ratios of their rates; schedules are left out.
        Raises ``MisconfigurationException`` for several optimizers or processes, steps by hand, and a model that can't
        be copied.
        """
        from pytorch_lightning.trainer import finders

        ends: dict[str, Any] = {"min_lr": min_lr, "max_lr": max_lr, "nb_steps": nb_steps}
        maker = self._maker_of_trials()
        return finders.find_lr(maker, model, tng_dataloader, **ends, smoothing=smoothing, diverges=diverges)

    def find_batch_size(
        self,
        model: Any,
        attribute: str = "batch_size",
        *,
        start: int = 2,
        most: int | None = None,
        nb_steps: int = 3,
        memory_gb: float | None = None,
    ) -> "BatchSizes":
        """Find the largest batch size that fits into memory: double it from ``start`` (at most to ``most``), then halve
        the gap, to a sixteenth. Each size trains a copy of ``model`` for ``nb_steps`` optimizer steps. Returns what was
        seen: ``.suggestion`` and ``.rows``.

        ``attribute`` is an attribute of the module, or an entry of its ``hparams``, that ``tng_dataloader`` reads. On a
        GPU the limit is where torch runs out of memory; on the CPU it is ``memory_gb`` (10^9 bytes, all that this
        process has), by default what it has and 90 % of what is free. There a size that would need more, by what
        smaller ones needed, isn't tried. Raises ``MisconfigurationException`` where ``attribute`` isn't there, or
        changes nothing.
        """
        from pytorch_lightning.trainer import finders

        return finders.find_batch_size(
            self._maker_of_trials(), model, attribute=attribute, start=start, most=most, nb_steps=nb_steps,
            memory=memory_gb,
        )  # fmt: skip

    def explain(self, model: Any, tng_dataloader: Any = None, val_dataloader: Any = None) -> "Explanation":
        """Print what ``fit(model)`` would do, and return it: batches, optimizer steps and samples; when validations,
        rows, saves and schedules fall due; learning rates; what options mean, and which have no effect; the sizes of
        checkpoints; and who wrote which hook. ``tng_dataloader``, ``val_dataloader``: with these loaders.

        Nothing is trained and nothing is left behind: a copy of ``model`` is planned, its loaders and
        ``configure_optimizers`` are called, and the loop runs without steps. Several processes aren't started.
        Raises ``MisconfigurationException`` for what ``fit`` would refuse, and for a model that can't be copied.
        """
        from pytorch_lightning.printing import tell
        from pytorch_lightning.trainer.explain_fit import explain_fit
        from pytorch_lightning.trainer.given_loaders import need_module
        from pytorch_lightning.trainer.trainer import option_defaults

        need_module(model)
        loaders = {"tng_dataloader": tng_dataloader, "val_dataloader": val_dataloader}
        explanation = explain_fit(self._maker_of_trials(), option_defaults(), model, loaders)
        tell(explanation)
        return explanation

    def _maker_of_trials(self) -> "Maker":
        from pytorch_lightning.trainer.finders import Maker

        return Maker(type(self), self.options, self.config)
