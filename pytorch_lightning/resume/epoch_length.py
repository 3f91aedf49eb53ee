"""How long an epoch is. A sampler may give each epoch another length, so the length is read at the start of each."""

from typing import Any

from pytorch_lightning.data.index_plan import set_epoch
from pytorch_lightning.data.loader import length_of
from pytorch_lightning.options.config import Config
from pytorch_lightning.processes import Processes, Share
from pytorch_lightning.run.progress import NEVER, at_most, nb_checked
from pytorch_lightning.run.run import FitRun


class EpochLength:
    """The rounds of an epoch, from the length that the user's loader has when the epoch begins."""

    def __init__(self, loader: Any, config: Config, share: Share, run: FitRun, processes: Processes) -> None:
        self._processes = processes
        self._config, self._share, self._run = config, share, run
        self.change(loader)

    def change(self, loader: Any) -> None:
        """``loader`` is the training loader from here on."""
        self._loader = loader
        self._tells = [
            part
            for part in (getattr(loader, name, None) for name in ("dataset", "batch_sampler", "sampler"))
            if part is not None and type(loader) not in (list, tuple)
        ]
        self._at_first = self._nb_batches = self._length()
        if self.goes_on:
            self._tells = []  # an epoch isn't the beginning of anything
        self._resumed: int | None = None

    def at(self, epoch: int) -> int | None:
        """How many rounds ``epoch`` has; None where the loader can't say. An epoch that is resumed has the length that
        it began with."""
        for part in self._tells:
            set_epoch(part, 0 if self._config.overfit_pct else epoch)
        self._nb_batches, self._resumed = self._resumed or self._length(), None
        nb_rounds = None if self._nb_batches is None else self._share.nb_rounds(self._nb_batches)
        if self._config.fast_dev_run:
            return at_most(nb_rounds, 1)
        return at_most(nb_checked(nb_rounds, self._config.train_percent_check), self._config.max_nb_tng_batches)

    def _length(self) -> int | None:
        """That of the longest, where each process has a loader of its own share."""
        own = length_of(self._loader)
        lengths = self._processes.gather(own) if self._share.own else [own]
        return None if None in lengths else (min if self._share.whole else max)(lengths)

    @property
    def goes_on(self) -> bool:
        """Whether a loader without a length is cut into epochs."""
        return self._at_first is None and self._config.max_nb_tng_batches is not None

    @property
    def is_known(self) -> bool:
        """Whether the loader has a length at all."""
        return self._at_first is not None

    @property
    def is_whole(self) -> bool:
        """Whether an epoch is as long as the loader."""
        return (
            self._nb_batches is not None
            and self._config.train_percent_check >= 1.0
            and (self._config.max_nb_tng_batches or NEVER) >= self._share.nb_rounds(self._nb_batches)
            and not self._config.fast_dev_run
            and not (self._share.whole and (self._share.own or self._nb_batches % self._share.nb))
        )

    def state_dict(self) -> int | None:
        """The length of the epoch that is trained, where it isn't that of the first."""
        begun = self._run.progress.epoch_started
        return self._nb_batches if begun and self._nb_batches != self._at_first else None

    def load_state_dict(self, state: int | None) -> None:
        """The next epoch is one that an earlier run began."""
        if self._run.progress.epoch_started:
            self._resumed = state or self._at_first
