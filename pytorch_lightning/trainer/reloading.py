"""Loaders that are read again every n epochs: ``reload_dataloaders_every_nb_epochs``."""

from typing import Any, cast

from pytorch_lightning import seeding
from pytorch_lightning.data.replayable import sizes_of
from pytorch_lightning.errors import MisconfigurationException, Problem, raise_together
from pytorch_lightning.root_module.root_module import GIVEN
from pytorch_lightning.trainer.basis import Basis, FitRequest
from pytorch_lightning.trainer.given_loaders import forget_loaders
from pytorch_lightning.trainer.training_data import NewestLoader, plan_loader, read_training_loader


class Reloading:
    """Reads the loaders of the module again, and puts what it finds in the place of what was there.

    What their properties draw depends on the seed and the epoch alone, and the attributes that they read are kept as
    they were: so a resumed fit reads the same.
    """

    def __init__(self, request: FitRequest, basis: Basis) -> None:
        self._request, self._basis = request, basis
        self._every = request.config.reload_dataloaders_every_nb_epochs or 0
        self._attributes = basis.attributes.snapshot()
        """Those of the module and the callbacks when the loaders were read last."""
        given = vars(request.module).get(GIVEN)
        if given:
            raise MisconfigurationException(
                f"reload_dataloaders_every_nb_epochs={self._every} reads the loaders of the module again; received"
                f" {' and '.join(given)}, passed to fit. Leave one of them out."
            )

    def begin_epoch(self) -> None:
        """An epoch begins."""
        epoch = self._request.run.progress.epoch
        if epoch and epoch % self._every == 0:
            self._attributes = self._basis.attributes.snapshot()
            self._read(epoch)

    def state_dict(self) -> dict[str, Any]:
        """What the loaders were made of that is the user's own."""
        return {"attributes": self._attributes}

    def follow(self, saved: dict[str, Any] | None) -> None:
        """A fit is resumed from a save that holds ``saved``: read the loaders as they were read last before it."""
        self._attributes = self._attributes if saved is None else saved["attributes"]
        progress = self._request.run.progress
        epoch = progress.epoch if progress.epoch_started else progress.epoch - 1
        newest = epoch // self._every * self._every
        if newest > 0:
            with self._basis.attributes.as_in(self._attributes):
                self._read(newest)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: ``follow`` has it, before the data are restored."""

    def _read(self, epoch: int) -> None:
        """Read them for ``epoch``."""
        request, basis, run = self._request, self._basis, self._request.run
        progress, run.counting = run.progress, None
        forget_loaders(request.module)
        before, progress.epoch = progress.epoch, epoch  # the properties may ask for it
        problems = list[Problem]()
        try:
            with seeding.preserved():
                seeding.seed_streams(basis.seed, seeding.LOADERS, epoch)
                loader = read_training_loader(request, basis.share, basis.attributes, problems)
                raise_together(problems)
                seeding.seed_streams(basis.seed, seeding.LOADERS, epoch, 1)
                validation, _ = basis.validate(loader)
        finally:
            progress.epoch = before
        self._put(loader, validation)
        run.note_lengths(basis.length.at(epoch), 0 if validation is None else validation.nb_batches)

    def _put(self, loader: Any, validation: Any) -> None:
        request, basis = self._request, self._basis
        basis.loader.close()
        planned = plan_loader(request, loader, basis.seed, basis.share, basis.attributes.data)
        planned.use_order(basis.loader.order)
        cast("NewestLoader", basis.loader).now = planned
        basis.sizes.clear()
        basis.sizes.update(sizes_of(loader))
        basis.length.change(loader)
        if validation is not None and basis.validation is not None:
            basis.validation.close()
            vars(basis.validation).update(vars(validation))
