"""Attributes are state: what user code changed since the fit began, kept and put back.

An attribute is marked (a checksum of its value) before any user code of the fit runs, and again when training begins.
What differs from either when a checkpoint is made is in it, with the first mark: so a value that a start finds other
than the first start found it is the program's business, and is left alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.checkpoint import fitting
from pytorch_lightning.errors import CheckpointError, Notices
from pytorch_lightning.resume.owners import (
    Owner,
    attributes_of,
    delete_attribute,
    has_state,
    is_of_the_program,
    owners_of,
    owners_of_callbacks,
    set_attribute,
)
from pytorch_lightning.resume.plain_values import (
    Decoder,
    Encoder,
    NotPlainError,
    TooLargeError,
    fingerprint,
    storage_is_shared,
    writable_memory,
)

LEAST_LIMIT = 16 * 2**20
"""Bytes that may always be kept; as many as the model has, where that is more."""
HERE = "~"
"""How a mark begins that means something in this process only: that of what can't be kept."""
HEAD = "attributes 1"
"""How the list of first marks begins."""
GONE = "gone"
"""The mark of an attribute that isn't there."""

Marks = dict[str, str]
Kept = dict[str, dict[str, list[Any]]]
"""By owner and attribute: the first mark, and the value; without a value where the attribute was taken away."""


class Copy(NamedTuple):
    """A value at some moment."""

    mark: str
    nodes: list[Any]
    value: Any


class AttributesPart:
    """The attributes of the module and its submodules, of the training data, and of callbacks without a
    ``state_dict``."""

    def __init__(
        self, module: nn.Module, callbacks: Sequence[Callback], notices: Notices, device: torch.device
    ) -> None:
        self._module, self._notices, self._device = module, notices, device
        self._roots = [Owner("module", module), *owners_of_callbacks(callbacks)]
        self._data: list[Owner] = []
        self._nb_workers = 0
        self._is_persistent = False
        sizes = [t.nbytes for t in [*module.parameters(), *module.buffers()] if not nn.parameter.is_lazy(t)]
        self._limit = max(LEAST_LIMIT, sum(sizes))
        self._first: dict[int, Marks] = {}
        self._begun: dict[int, Marks] = {}
        self._alive: list[Any] = []
        self._saved: dict[str, Any] | None = None
        self._epoch: int | None = None
        self._at_iter: dict[str, dict[str, Copy]] = {}
        """What the training data were when the epoch's iterator was made."""
        self._for_workers: dict[str, dict[str, Copy]] | None = None
        """The same of the first epoch, where workers live on from there."""
        self._now: dict[str, dict[str, Copy]] | None = None
        """What they are, while they are as they were."""
        self._note_first(self._roots)

    def note_loader(self, loader: Any) -> None:
        """The training loader was made: what it is made of is state from here on."""
        names = {
            "dataset": "training dataset",
            "sampler": "sampler",
            "batch_sampler": "batch sampler",
            "collate_fn": "",
        }
        for name, path in names.items():
            part = getattr(loader, name, None)
            is_plain = isinstance(part, (list, tuple, dict, torch.Tensor)) or not hasattr(part, "__dict__")
            if (
                part is None
                or is_plain
                or has_state(part)
                or (not path and not is_of_the_program(type(part).__module__))
            ):
                continue
            self._data.append(Owner(path or "collate_fn", part))
        self._nb_workers = getattr(loader, "num_workers", 0)
        self._is_persistent = bool(getattr(loader, "persistent_workers", False))
        self._note_first(self._data)

    # ------------------------------------------------------------------------------------------ marks
    def _note_first(self, roots: Iterable[Owner]) -> None:
        for _, held in owners_of(roots):
            if id(held) not in self._first:
                self._alive.append(held)
                self._first[id(held)] = {name: self._mark(value) for name, value in attributes_of(held).items()}

    def begin(self) -> None:
        """Training begins: the hooks before it have run."""
        self._note_first([*self._data, *self._roots])
        for _, held in owners_of([*self._data, *self._roots]):
            self._begun[id(held)] = {name: self._mark(value) for name, value in attributes_of(held).items()}

    def _mark(self, value: Any) -> str:
        encoder = Encoder(self._limit)
        try:
            return fingerprint(encoder.nodes, encoder.add(value))
        except TooLargeError:
            length = len(value) if hasattr(value, "__len__") else ""
            return f"{HERE}large {id(value)} {getattr(value, '_version', '')} {length}"
        except NotPlainError:
            return f"{HERE}{id(value)}{_inside(value)}"

    def _has_changed(self, held: Any, name: str, mark: str) -> bool:
        begun = self._begun.get(id(held), {}).get(name, GONE)
        if mark.startswith(HERE):
            # what was made before training is made again by the next start
            return mark != begun
        return mark != self._first[id(held)].get(name, GONE) or mark != begun

    # ------------------------------------------------------------------------------------------ saving
    def state_dict(self) -> dict[str, Any]:
        """What changed, as plain data."""
        if not self._begun:  # a save before training
            return self._saved or {"nodes": [], "values": {}, "first": HEAD}
        changed, lost = self._find_changed()
        encoder, values = Encoder(self._limit), Kept({})
        for size, path, name, first, value, is_gone in sorted(changed, key=lambda entry: entry[0]):
            try:
                entry = [first] if is_gone else [first, encoder.add(value)]
            except TooLargeError:
                lost.append(f"{path}.{name} ({size / 1e6:.0f} MB)")
                continue
            values.setdefault(path, {})[name] = entry
        self._say(values, lost)
        state: dict[str, Any] = {"nodes": encoder.nodes, "values": values, "first": self._first_marks()}
        at_iter = self._different(self._at_iter)
        if at_iter:
            state |= {"epoch": self._epoch, "workers": self._nb_workers, "at_iter": at_iter}
        if self._for_workers is not None:
            state["for_workers"] = self._different(self._for_workers)
        return state

    def _first_marks(self) -> str:
        """What the first start found, a line each."""
        lines = [HEAD]
        for path, held in owners_of([*self._data, *self._roots]):
            marks = sorted(self._first.get(id(held), {}).items())
            lines += [f"{path}\t{name}\t{mark}" for name, mark in marks if not mark.startswith(HERE)]
        return "\n".join(lines)

    def _find_changed(self) -> tuple[list[tuple[int, str, str, str, Any, bool]], list[str]]:
        changed, lost = [], []
        for path, held in owners_of([*self._data, *self._roots]):
            if id(held) not in self._first:
                continue  # who holds it has changed, and that is noticed
            first, now = self._first[id(held)], self._values_now(path, held)
            for name in sorted({*first, *now}):
                if name not in now:
                    changed.append((0, path, name, first[name], None, True))
                    continue
                mark = self._mark(now[name])
                if not self._has_changed(held, name, mark):
                    if _is_iterator(now[name]):
                        lost.append(f"{path}.{name} (an iterator)")
                elif mark.startswith(HERE):
                    if not _is_made_by_the_fit(now[name]):
                        lost.append(f"{path}.{name}")
                else:
                    encoder = Encoder(float("inf"))
                    encoder.add(now[name])
                    changed.append((encoder.size, path, name, first.get(name, GONE), now[name], False))
        return changed, lost

    def has_changed(self) -> bool:
        """Whether anything changed since training began, so perhaps in the step that failed just now."""
        changed, lost = self._find_changed()
        return bool(changed or lost)

    def data_has_changed(self) -> bool:
        """Whether the training data changed since the epoch began, so perhaps while the batch was made."""
        return any(
            self._mark(value) != self._at_iter.get(path, {})[name].mark
            for path, held in owners_of(self._data)
            if not _is_of_sampler(path)
            for name, value in attributes_of(held).items()
            if name in self._at_iter.get(path, {})
        )

    def _values_now(self, path: str, held: Any) -> dict[str, Any]:
        now = attributes_of(held)
        if self._now is not None and path in self._now:
            now.update({name: self._decoded(copy) for name, copy in self._now[path].items()})
        return now

    def _say(self, values: Kept, lost: Sequence[str]) -> None:
        if lost:
            self._notices.say(
                "lost-attributes",
                f"changed while training, and a checkpoint can't hold it: {_shown(lost)}. A resumed fit finds it as the"
                " program makes it. Keep what matters of it in on_save_checkpoint(checkpoint), put it back in"
                " on_load_checkpoint(checkpoint)",
            )
        names = [f"{path}.{name}" for path, attributes in values.items() for name in attributes]
        if names:
            self._notices.say_in_detail(
                "kept-attributes", f"changed while training, and kept in checkpoints: {_shown(names)}"
            )

    # ------------------------------------------------------------------------------------------ restoring
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what is to be put back when training begins: hooks before that may set attributes too."""
        if state["first"].split("\n")[0] != HEAD:
            raise CheckpointError("the marks of attributes are of another version.")
        self._saved = state
        if "at_iter" in state:
            self._epoch, self._at_iter = state["epoch"], _copies(state["at_iter"])
        if "for_workers" in state:
            self._for_workers = _copies(state["for_workers"])

    @fitting("the part 'attributes' of the checkpoint")
    def restore(self) -> None:
        """Put back what ``load_state_dict`` was given."""
        if self._saved is None:
            return
        state, left = self._saved, []
        decoder = Decoder(state["nodes"], self._device, writable_memory())
        owners: dict[str, Any] = dict(owners_of([*self._data, *self._roots]))
        for path, attributes in state["values"].items():
            if path not in owners:
                left.append(path)
                continue
            for name, (first, *value) in attributes.items():
                if not self._put(owners[path], name, first, value, decoder):
                    left.append(f"{path}.{name}")
        for line in state["first"].split("\n")[1:]:
            path, name, mark = line.split("\t")
            found = self._first.get(id(owners.get(path)), {})
            if name in found and name not in state["values"].get(path, {}) and found[name] != mark:
                left.append(f"{path}.{name}")
        if self._for_workers is not None:  # what isn't in the checkpoint is as it was then
            saved, self._for_workers = self._for_workers, self._copied()
            for path, copies in saved.items():
                self._for_workers.setdefault(path, {}).update(copies)
        if left:
            self._notices.say(
                "other-attributes",
                f"other than at the first start, and left as the program makes it: {_shown(left)}",
            )

    def _put(self, held: Any, name: str, first: str, value: list[Any], decoder: Decoder) -> bool:
        found = self._first.get(id(held), {}).get(name, GONE)
        there = attributes_of(held)
        if found != first or storage_is_shared(there.get(name)):
            return False
        if not value:
            return delete_attribute(held, name)
        try:
            made = decoder.value(value[0], there.get(name))
        except NotPlainError:
            return False
        return made is there.get(name, GONE) or set_attribute(held, name, made)

    # ------------------------------------------------------------------------------------------ the training data
    def begin_order(self, epoch: int, starts_workers: bool = False) -> None:
        """The iterator of ``epoch`` is about to be made, or made again: then the data are as they were at first."""
        is_again = self._epoch == epoch
        # they must see what those saw that they stand for, in whichever epoch they start
        like_others = starts_workers and self._is_persistent and self._for_workers is not None
        if is_again:
            self._now = self._copied()
            self._apply(self._at_iter)
        elif like_others:  # samplers begin this epoch for the first time, and move on
            self._now = _without_samplers(self._copied())
        self._epoch, self._at_iter = epoch, self._copied()
        if not (self._is_persistent and self._nb_workers):
            return
        if self._for_workers is None:
            self._for_workers = self._at_iter
        elif like_others:
            self._apply(_without_samplers(self._for_workers))
            self._for_workers = self._copied()

    def end_order(self) -> None:
        """What was done before is done again: from here on the data are as they are now."""
        now, self._now = self._now, None
        if now is None:
            return
        saved, self._saved = self._saved, None
        if saved is not None and saved.get("workers", self._nb_workers) != self._nb_workers:
            self._say_other_workers(now, saved.get("workers"))
        self._apply(now)

    def _say_other_workers(self, now: Mapping[str, Mapping[str, Copy]], before: Any) -> None:
        """Where an attribute changed inside the epoch: workers see what it was when the epoch began."""
        inside = [
            f"{path}.{name}"
            for path, held in owners_of(self._data)
            if bool(before) != bool(self._nb_workers) or not path.startswith("training dataset")
            for name, value in attributes_of(held).items()
            if name in now.get(path, {}) and self._mark(value) != now[path][name].mark
        ]
        if inside:
            self._notices.say(
                "workers-attributes",
                f"{_shown(inside)} changed inside an epoch, and workers see what it was when that began:"
                f" num_workers was {before} and is {self._nb_workers}, so the batches may be others. Resume with as"
                " many workers",
            )

    def _copied(self) -> dict[str, dict[str, Copy]]:
        found: dict[str, dict[str, Copy]] = {}
        for path, held in owners_of(self._data):
            for name, value in attributes_of(held).items():
                encoder = Encoder(self._limit, copies=True)
                try:
                    encoded = encoder.add(value)
                except (NotPlainError, TooLargeError):
                    continue
                found.setdefault(path, {})[name] = Copy(fingerprint(encoder.nodes, encoded), encoder.nodes, encoded)
        return found

    def _apply(self, copies: Mapping[str, Mapping[str, Copy]]) -> None:
        for path, held in owners_of(self._data):
            there = attributes_of(held)
            for name, copy in copies.get(path, {}).items():
                if name in there and self._mark(there[name]) == copy.mark:
                    continue
                made = self._decoded(copy, there.get(name))
                if made is not there.get(name, GONE):
                    set_attribute(held, name, made)

    def _decoded(self, copy: Copy, like: Any = None) -> Any:
        return Decoder(copy.nodes, self._device, writable_memory()).value(copy.value, like)

    def _different(self, copies: Mapping[str, Mapping[str, Copy]]) -> dict[str, Any]:
        """Those of ``copies`` that aren't what the first start found, or what is there now."""
        found: dict[str, dict[str, Any]] = {}
        for path, held in owners_of(self._data):
            first, now = self._first.get(id(held), {}), self._values_now(path, held)
            for name, copy in copies.get(path, {}).items():
                if copy.mark != first.get(name) or name not in now or self._mark(now[name]) != copy.mark:
                    found.setdefault(path, {})[name] = list(copy)
        return found


def _is_of_sampler(path: str) -> bool:
    return path.startswith(("sampler", "batch sampler"))


def _without_samplers(copies: Mapping[str, dict[str, Copy]]) -> dict[str, dict[str, Copy]]:
    """What workers have: samplers stay here, and give the order of the epoch that is trained."""
    return {path: of_path for path, of_path in copies.items() if not _is_of_sampler(path)}


def _copies(saved: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Copy]]:
    return {path: {name: Copy(*copy) for name, copy in copies.items()} for path, copies in saved.items()}


def _inside(value: Any) -> str:
    """What a container of things that aren't plain holds, by their ids."""
    if isinstance(value, (list, tuple, set, dict)) and len(value) <= 10_000:
        items = value.values() if isinstance(value, dict) else value
        return f" {sorted(map(id, items))}"
    return ""


def _is_iterator(value: Any) -> bool:
    return hasattr(type(value), "__next__") and not has_state(value)


def _is_made_by_the_fit(value: Any) -> bool:
    """Whether a value stands for something that has a part of its own, or is no state: loaders, optimizers, what calls
    something."""
    known = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.utils.data.DataLoader)
    return isinstance(value, (*known, type)) or (callable(value) and not hasattr(value, "__dict__"))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
