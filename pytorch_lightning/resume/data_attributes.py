"""The attributes of the training data: what they were when an epoch's iterator was made, and what they are now.

An iterator that is made again must see what the first one saw, and so must workers that stand for others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from pytorch_lightning.data.combined import parts_of
from pytorch_lightning.errors import Notices
from pytorch_lightning.resume.glance import NOT_SEEN, Seen
from pytorch_lightning.resume.plain_values import (
    Decoder,
    Encoder,
    NotPlainError,
    TooLargeError,
    fingerprint,
    writable_memory,
)
from pytorch_lightning.run.owners import (
    Owner,
    attributes_of,
    delete_attribute,
    has_state,
    is_of_the_program,
    owners_of,
    set_attribute,
)

Marks = dict[str, str]
"""By attribute."""
GONE = "gone"
"""The mark of an attribute that isn't there."""
UNKNOWN = "~"
"""The mark of one that is there and can't be copied."""


class Copy(NamedTuple):
    """A value at some moment."""

    mark: str
    nodes: list[Any]
    value: Any


Copies = dict[str, dict[str, Copy]]
"""By owner and attribute; every attribute that an owner had is in it."""


class DataAttributes:
    """The training dataset, its sampler and batch sampler, and what the loader makes batches with."""

    def __init__(self, limit: int, mark: Callable[[Any], str], notices: Notices, device: torch.device) -> None:
        self.owners: list[Owner] = []
        self._limit, self._mark, self._notices, self._device = limit, mark, notices, device
        self._nb_workers, self._workers_before = 0, 0
        self._is_persistent = False
        self._epoch: int | None = None
        self._at_iter: Copies = {}
        """What the data were when the epoch's iterator was made."""
        self._for_workers: Copies | None = None
        """The same of the first epoch, where workers live on from there."""
        self._seen: dict[tuple[str, str], tuple[str, Seen]] = {}
        self._now: Copies | None = None
        """What they are, while they are as they were."""

    def note_loader(self, loader: Any) -> None:
        """The training loader was made: what it is made of is state from here on, and nothing else."""
        self.owners.clear()
        self._seen.clear()
        self._at_iter, self._for_workers, self._now = {}, None, None
        self._nb_workers = self._workers_before = getattr(loader, "num_workers", 0)
        self._is_persistent = bool(getattr(loader, "persistent_workers", False))
        for of, each in parts_of(loader).items():
            self._note_parts(each, "" if of is None else f" of {of!r}")

    def _note_parts(self, loader: Any, of: str) -> None:
        names = {
            "dataset": "training dataset",
            "sampler": "sampler",
            "batch_sampler": "batch sampler",
            "collate_fn": "",
        }
        for name, path in names.items():
            part = getattr(loader, name, None)
            is_plain = isinstance(part, (list, tuple, dict, torch.Tensor)) or not hasattr(part, "__dict__")
            is_own = part is not None and is_of_the_program(type(part).__module__)
            # the order of a sampler that has a state, and the data of such a loader, go by that
            goes_by_state = has_state(part) and ("sampler" in name or has_state(loader) or not is_own)
            if part is None or is_plain or goes_by_state or not (path or is_own):
                continue
            self.owners.append(Owner((path or "collate_fn") + of, part))

    # ------------------------------------------------------------------------------------------ while training
    def begin_order(self, epoch: int, starts_workers: bool = False) -> None:
        """The iterator of ``epoch`` is about to be made, or made again: then the data are as they were at first."""
        is_again = self._epoch == epoch
        # they must see what those saw that they stand for, in whichever epoch they start
        like_others = starts_workers and self._is_persistent and self._for_workers is not None
        if is_again:
            self._now = self.copied(self._at_iter)
            self.apply(self._at_iter)
        elif like_others:  # samplers begin this epoch for the first time, and move on
            self._now = _without_samplers(self.copied())
        self._epoch, self._at_iter = epoch, self.copied(self._at_iter)
        if not (self._is_persistent and self._nb_workers):
            return
        if self._for_workers is None:
            self._for_workers = self._at_iter
        elif like_others:
            self.apply(_without_samplers(self._for_workers))
            self._for_workers = self.copied()

    def end_order(self) -> None:
        """What was done before is done again: from here on the data are as they are now."""
        now, self._now = self._now, None
        if now is None:
            return
        if self._workers_before != self._nb_workers:
            self._say_other_workers(now)
            self._workers_before = self._nb_workers
        self.apply(now)

    def _say_other_workers(self, now: Copies) -> None:
        """Where an attribute changed inside the epoch: workers see what it was when the epoch began."""
        before = self._workers_before
        inside = [
            f"{path}.{name}"
            for path, held in owners_of(self.owners)
            if bool(before) != bool(self._nb_workers) or not path.startswith("training dataset")
            for name, value in attributes_of(held).items()
            if name in now.get(path, {}) and now[path][name].mark not in (UNKNOWN, self._mark(value))
        ]
        if inside:
            self._notices.say(
                "workers-attributes",
                f"{shown(inside)} changed inside an epoch, and workers see what it was when that began:"
                f" num_workers was {before} and is {self._nb_workers}, so the batches may be others. Resume with as"
                " many workers",
            )

    def has_changed(self) -> bool:
        """Whether the training data changed since the epoch began, so perhaps while the batch was made."""
        return next(self._changed(), None) is not None

    def changed(self) -> list[str]:
        """The names of what of the data changed since the epoch began."""
        return list(self._changed())

    def _changed(self) -> Iterator[str]:
        for path, held in owners_of(self.owners):
            before, there = self._at_iter.get(path), attributes_of(held)
            if before is None or _is_of_sampler(path):
                continue
            yield from (f"{path}.{name}" for name in before.keys() ^ there.keys())
            for name, copy in before.items():
                if name in there and copy.mark != UNKNOWN and not self._is_still((path, name), there[name], copy.mark):
                    yield f"{path}.{name}"

    def _is_still(self, place: tuple[str, str], value: Any, mark: str) -> bool:
        """Whether ``value`` has this mark. Where it had when it was looked at last, that's seen sooner."""
        before, seen = self._seen.pop(place, (None, None))
        if before != mark or seen is None or seen.value is not value or not seen.fits():
            if self._mark(value) != mark:
                return False
            try:
                seen = Seen(value)
            except NOT_SEEN:
                return True
        self._seen[place] = mark, seen
        return True

    def values_now(self, path: str, held: Any) -> dict[str, Any]:
        """The attributes of an owner, whatever is being done again."""
        there = attributes_of(held)
        if self._now is None or path not in self._now:
            return there
        return {
            name: there[name] if copy.mark == UNKNOWN else self._decoded(copy)
            for name, copy in self._now[path].items()
            if copy.mark != UNKNOWN or name in there
        }

    # ------------------------------------------------------------------------------------------ saving
    def state_dict(
        self, owners: Sequence[Owner], first_marks: Callable[[Any], Mapping[str, str]], marks: Mapping[str, Marks]
    ) -> dict[str, Any]:
        """What isn't as the first start found it (``first_marks`` of an owner), or as it is now (``marks``, by owner).
        ``owners``: those of the data now."""
        state: dict[str, Any] = {}
        at_iter = self._different(self._at_iter, owners, first_marks, marks)
        if at_iter:
            state |= {"epoch": self._epoch, "workers": self._nb_workers, "at_iter": at_iter}
        if self._for_workers is not None:
            state["for_workers"] = self._different(self._for_workers, owners, first_marks, marks)
        return state

    def _different(
        self,
        copies: Copies,
        owners: Sequence[Owner],
        first_marks: Callable[[Any], Mapping[str, str]],
        marks: Mapping[str, Marks],
    ) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for path, held in owners:
            first, now = first_marks(held), marks.get(path)
            now = dict.fromkeys(self.values_now(path, held), "") if now is None else now
            for name, copy in copies.get(path, {}).items():
                is_same = copy.mark == first.get(name) == now.get(name)
                if not is_same and copy.mark != UNKNOWN:
                    found.setdefault(path, {})[name] = list(copy)
            # what came later is taken away
            for name in now if path in copies else ():
                if name not in copies[path]:
                    found.setdefault(path, {})[name] = [GONE, [], None]
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what a checkpoint holds. The data are what they were when it was made: what isn't in it was the same
        then."""
        if "at_iter" in state:
            self._epoch, self._at_iter = state["epoch"], self._completed(state["at_iter"])
            self._workers_before = state.get("workers", self._nb_workers)
        if "for_workers" in state:
            self._for_workers = self._completed(state["for_workers"])

    def _completed(self, saved: Mapping[str, Mapping[str, Any]]) -> Copies:
        copies = self.copied()
        for path, of_path in saved.items():
            copies.setdefault(path, {}).update({name: Copy(*copy) for name, copy in of_path.items()})
        return {path: {n: c for n, c in found.items() if c.mark != GONE} for path, found in copies.items()}

    # ------------------------------------------------------------------------------------------ copies
    def copied(self, before: Copies | None = None) -> Copies:
        """What the data are; what is still as in ``before`` isn't copied again."""
        copies: Copies = {}
        for path, held in owners_of(self.owners):
            was, of_path = (before or {}).get(path, {}), copies.setdefault(path, {})
            for name, value in attributes_of(held).items():
                copy = was.get(name)
                is_still = copy and copy.mark != UNKNOWN and self._is_still((path, name), value, copy.mark)
                of_path[name] = copy if copy and is_still else self._copy(value)
        return copies

    def _copy(self, value: Any) -> Copy:
        encoder = Encoder(self._limit, copies=True)
        try:
            encoded = encoder.add(value)
        except (NotPlainError, TooLargeError):
            return Copy(UNKNOWN, [], None)
        return Copy(fingerprint(encoder.nodes, encoded), encoder.nodes, encoded)

    def apply(self, copies: Copies) -> None:
        for path, held in owners_of(self.owners):
            if path not in copies:
                continue
            there = attributes_of(held)
            for name in there.keys() - copies[path].keys():
                delete_attribute(held, name)
            for name, copy in copies[path].items():
                if copy.mark == UNKNOWN or (name in there and self._is_still((path, name), there[name], copy.mark)):
                    continue
                made = self._decoded(copy, there.get(name))
                if made is not there.get(name, GONE):
                    set_attribute(held, name, made)

    def _decoded(self, copy: Copy, like: Any = None) -> Any:
        return Decoder(copy.nodes, self._device, writable_memory(), copies=True).value(copy.value, like)


def _is_of_sampler(path: str) -> bool:
    return path.startswith(("sampler", "batch sampler"))


def _without_samplers(copies: Copies) -> Copies:
    """What workers have: samplers stay here, and give the order of the epoch that is trained."""
    return {path: of_path for path, of_path in copies.items() if not _is_of_sampler(path)}


def shown(names: list[str]) -> str:
    """A few of ``names``, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
