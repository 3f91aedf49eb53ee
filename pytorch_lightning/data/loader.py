"""What training and evaluation see of a user's loader."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from pytorch_lightning.errors import Notices
from pytorch_lightning.processes import EVERYTHING, Processes, Share

TORCHS, KEYED = 1, 2
"""Versions of the order: every sampler's own; the same, but more than ``seeding.LISTED`` samples of a DataLoader that
shuffles are in an order of which any part is known at once. Released numbers never change."""


class OrderWatcher(Protocol):
    """Somebody who keeps what the training data were like."""

    def begin_order(self, epoch: int, starts_workers: bool = False) -> None:
        """An iterator of ``epoch`` is about to be made, perhaps again; ``starts_workers`` with new workers."""

    def end_order(self) -> None:
        """What was drawn before is drawn again, and new batches come."""

    def has_changed(self) -> bool:
        """Whether the data changed since the epoch began."""

    def changed(self) -> list[str]:
        """The names of what of the data changed since the epoch began."""


class ReplayableLoader(ABC):
    """The batches of a loader as a function of (seed, epoch, batch number)."""

    nb_drawn = 0
    """How many batches the epoch had, other processes' included; known once ``batches`` was used up."""
    share: Share = EVERYTHING
    """The batches that are this process's, where they are dealt out in rounds."""
    nb_workers: int | None = None
    """How many processes make batches; None where there can't be any, or where they wouldn't help."""

    order = TORCHS
    """The version of the order."""

    takes_back = True
    """Whether the CRC of a position that training goes back to is still known."""
    begins_anywhere = False
    """Whether ``batches`` may be asked for again within an epoch, and reads no data of those before ``start``."""
    bound_to_workers: int | None = None
    """The number of workers, where the order depends on it."""

    finished_epoch: tuple[int, int, int] | None = None
    """The last epoch that ended: its number, its batches, and the CRC of their indices; None where that isn't known."""

    @abstractmethod
    def batches(self, epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Any]:
        """The batches ``start`` to ``limit`` of ``epoch``, those of them that are this process's."""

    def use_in(self, processes: Processes, own: bool) -> None:
        """The same is made in each of ``processes``, which compare what they get first, unless it is each one's
        ``own`` share."""

    def use_order(self, version: int) -> None:
        """The next ``batches`` come in this version of the order."""

    def close(self) -> None:
        """No more batches will be asked for: end the workers that were started for them."""

    def crc_at(self, nb_batches: int) -> int | None:
        """The CRC of the indices of the first ``nb_batches`` batches of the epoch; None where there are none."""
        return None

    def indices_at(self, epoch: int, number: int) -> Any:
        """What the sampler yields for one batch of ``epoch``; None without a sampler."""
        return None

    def crc_again(self, epoch: int, nb_batches: int) -> int | None:
        """The CRC of the indices of the first ``nb_batches`` of ``epoch``, drawn for that; None without a sampler."""
        return None

    def samples_at(self, epoch: int, number: int) -> list[tuple[Any, Any]] | None:
        """Each sample of one batch of ``epoch`` with its index, as a batch of its own: fetched with the others, under
        the batch's random streams, and collated alone. None where they can't be told apart."""
        return None

    looks_at_data: bool | None = None
    """Whether the order may depend on more of the dataset than its length; None where there are no indices."""

    def expect(self, crc: int, on_other_order: Callable[[], None]) -> None:
        """Call ``on_other_order`` where the batches dropped by the next ``batches`` don't have this CRC."""
        del crc, on_other_order  # without indices there is nothing to compare

    def sketch_at(self, nb_batches: int) -> list[Any] | None:
        """The number of the last of the epoch's first ``nb_batches`` batches, and what it was like, where there are no
        indices."""
        return None

    def expect_like(self, sketch: list[Any], on_other_order: Callable[[], None]) -> None:
        """Call ``on_other_order`` where that one of the batches dropped by the next ``batches`` isn't like this."""
        del sketch, on_other_order

    def expect_finished(self, finished: tuple[int, int, int], on_other_order: Callable[[], None]) -> None:
        """Before the next epoch draw this one again, and call ``on_other_order`` where its CRC is another."""
        del finished, on_other_order

    def finish(self, epoch: int, nb_batches: int, is_whole: bool) -> None:
        """``epoch`` ended after ``nb_batches``; ``is_whole``: those are all that there are. What a sampler does behind
        its last index is done."""
        del epoch, nb_batches, is_whole

    def watch(self, watcher: "OrderWatcher") -> None:
        """Tell ``watcher`` of each order that is drawn."""
        del watcher

    def tune(self, nb_processes: int, watcher: "OrderWatcher", notices: Notices) -> str | None:
        """Let the number of workers be chosen while batches are made. Returns why not, where that can't be."""
        del nb_processes, watcher, notices
        return "only a DataLoader over a map-style dataset can be made again with other workers"

    def sampler_state(self, begun: bool) -> dict[str, Any] | None:
        """The state of a sampler that has one: before this epoch if that has ``begun``, otherwise as it is."""
        return None

    def load_sampler(self, state: dict[str, Any], epoch: int, start: int) -> None:
        """Put it back, for the batches from ``start`` of ``epoch``."""

    def own_state(self, epoch: int) -> dict[str, Any] | None:
        """What a loader with a state of its own says of itself; ``epoch`` is the one that is trained, or comes."""
        return None

    def load_own(self, state: dict[str, Any]) -> None:
        """Put it back, for the next ``batches``."""

    def place_in_pass(self, epoch: int, nb_batches: int, is_over: bool) -> list[int] | None:
        """Where an epoch is a part of a pass: the number of the pass, how many batches of it came before ``epoch``, and
        how many of that are done: ``nb_batches``, or what was fetched where the epoch ``is_over``."""
        del epoch, nb_batches, is_over
        return None

    def load_place(self, place: list[int]) -> None:
        """Put it back, for the next ``batches``."""

    on_longer: Callable[[], None] = staticmethod(lambda: None)
    """Told that the loader has more batches than its length says."""
    on_dropped: Callable[[int, int], None] = staticmethod(lambda nb, total: None)
    """Told the number of batches that were fetched and dropped so far, and how many that will be."""


def keeps_state(loader: Any) -> bool:
    """Whether ``loader`` has a state of its own.

    >>> keeps_state([])
    False
    """
    return callable(getattr(loader, "state_dict", None)) and callable(getattr(loader, "load_state_dict", None))


def length_of(loader: Any) -> int | None:
    """How many batches ``loader`` has; None where it can't say."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None
