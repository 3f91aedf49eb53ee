"""Attributes are state: what user code changed since the fit began, kept and put back.

An attribute is marked (a checksum of its value) before any user code of the fit runs, and again when training begins.
What differs from either when a checkpoint is made is in it, with the first mark: so a value that a start finds other
than the first start found it is the program's business, and is left alone.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.checkpoints.checkpoint import fitting
from pytorch_lightning.errors import CheckpointError, Notices
from pytorch_lightning.processes import is_sharded
from pytorch_lightning.resume.data_attributes import GONE, DataAttributes, Marks, shown
from pytorch_lightning.resume.each_process import State, join, merged_metrics, own_of
from pytorch_lightning.resume.glance import NUMBERS, Glance, glance, mark_of_leaf
from pytorch_lightning.resume.plain_values import (
    Decoder,
    Encoder,
    NotPlainError,
    TooLargeError,
    fingerprint,
    storage_is_shared,
    writable_memory,
)
from pytorch_lightning.run.owners import (
    Owner,
    attributes_of,
    delete_attribute,
    has_state,
    owners_of,
    owners_of_callbacks,
    set_attribute,
)
from pytorch_lightning.strategies import Strategy

LEAST_LIMIT = 16 * 2**20
"""Bytes that may always be kept; as many as the model has, where that is more."""
HERE = "~"
"""How a mark begins that means something in this process only: that of what can't be kept."""
HEAD = "attributes 1"
"""How the list of first marks begins."""

Kept = dict[str, dict[str, list[Any]]]
"""By owner and attribute: the first mark, and the value; without a value where the attribute was taken away."""


class AttributesPart:
    """The attributes of the module and its submodules, of the training data, and of callbacks without a
    ``state_dict``."""

    def __init__(self, module: nn.Module, callbacks: Sequence[Callback], notices: Notices, strategy: Strategy) -> None:
        self._module, self._notices = module, notices
        self._device, self._processes = strategy.device, strategy.processes
        self._roots = [Owner("module", module), *owners_of_callbacks(callbacks)]
        sizes = [t.nbytes for t in [*module.parameters(), *module.buffers()] if not nn.parameter.is_lazy(t)]
        self._limit = max(LEAST_LIMIT, sum(sizes))
        self._first: dict[int, Marks] = {}
        self._at: dict[str, Marks] = {}
        """The same by path: an object that a resume makes stands in the place of the one that was found there."""
        self._begun: dict[int, Marks] = {}
        self._structure: Any = {}
        """Layers and hooks, when training begins."""
        self._glances: dict[tuple[int, str], Glance] = {}
        self._alive: list[Any] = []
        self._loader: Any = None
        self._of_the_fit: tuple[Sequence[Any], Sequence[Any]] = (), ()
        self._head: tuple[list[tuple[str, int]], str] | None = None
        """The list of first marks that was made last, and of which owners."""
        self._saved: State | None = None
        self._joined: State | None = None
        self.data = DataAttributes(self._limit, self._mark, notices, strategy.device)
        self._note_first(self._roots)

    def note_loader(self, loader: Any) -> None:
        """The training loader was made: what it is made of is state from here on. What is new where there was another
        one before is as it is found."""
        before = dict(owners_of(self.data.owners))
        self._loader, self._head = loader, None
        self.data.note_loader(loader)
        for path in before:
            self._at.pop(path, None)
        self._note_first(self.data.owners)
        now = dict(owners_of([*self.data.owners, *self._roots]))
        for path, held in owners_of(self.data.owners):
            self._at[path] = self._first[id(held)]
            if self._begun:
                self._begun.setdefault(id(held), self._first[id(held)])
        gone = {*map(id, before.values())} - {*map(id, now.values())}
        self._alive = [held for held in self._alive if id(held) not in gone]
        for marks in (self._first, self._begun):
            for number in gone:
                marks.pop(number, None)

    @property
    def loader(self) -> Any:
        """The training loader, as the user's program made it."""
        return self._loader

    # ------------------------------------------------------------------------------------------ marks
    def _note_first(self, roots: Iterable[Owner]) -> None:
        self._head = None
        for path, held in owners_of(roots):
            if id(held) not in self._first:
                self._alive.append(held)
                there, before = attributes_of(held), self._at.get(path, {})
                glances = {name: glance(value) for name, value in there.items()}
                marks = {name: before.get(name) or self._mark(there[name], seen) for name, seen in glances.items()}
                self._first[id(held)] = self._at[path] = marks
                self._glances.update({(id(held), name): seen for name, seen in glances.items() if seen is not None})

    def begin(self, optimizers: Sequence[Any], schedules: Sequence[Any]) -> None:
        """Training begins: the hooks before it have run. ``optimizers`` and ``schedules``, those of now, have parts of
        their own."""
        from pytorch_lightning.resume.structure import structure_of

        self._of_the_fit = optimizers, schedules
        self._saved = None
        self._note_first([*self.data.owners, *self._roots])
        for _, held in owners_of([*self.data.owners, *self._roots]):
            there = attributes_of(held)
            self._begun[id(held)] = {name: self._mark_again(held, name, value) for name, value in there.items()}
        self._glances.clear()
        self._structure = structure_of(self._module)

    def _mark_again(self, held: Any, name: str, value: Any) -> str:
        before = self._glances.get((id(held), name))
        # where this misses a write past torch, a save still finds another value than the first, and keeps it
        is_same = before is not None and before.fits(glance(value))
        return self._first[id(held)][name] if is_same else self._mark(value)

    def _mark(self, value: Any, seen: Glance | None = None) -> str:
        if type(value) in NUMBERS:
            return mark_of_leaf(value)
        quick = None if seen is None else seen.mark(value, self._limit)
        if quick is not None:
            return quick
        encoder = self._encoder(self._limit)
        try:
            return fingerprint(encoder.nodes, encoder.add(value))
        except TooLargeError:
            length = len(value) if hasattr(value, "__len__") else ""
            return f"{HERE}large {id(value)} {getattr(value, '_version', '')} {length}"
        except NotPlainError:
            return f"{HERE}{_seen(value)}{_inside(value)}"

    def _encoder(self, limit: float) -> Encoder:
        from pytorch_lightning.resume.stateful import StateEncoder

        return StateEncoder(limit, self._is_of_the_fit)

    def _is_of_the_fit(self, value: Any) -> bool:
        from pytorch_lightning.resume.stateful import is_part_of

        if value is self._loader or any(owner.held is value for owner in self.data.owners):
            return True
        optimizers, schedules = self._of_the_fit
        return is_part_of(value, [*optimizers, *(schedule.scheduler for schedule in schedules)])

    def _has_changed(self, held: Any, name: str, mark: str) -> bool:
        begun = self._begun.get(id(held), {}).get(name, GONE)
        if mark.startswith(HERE):
            # what was made before training is made again by the next start
            return mark != begun
        return mark != self._first[id(held)].get(name, GONE) or mark != begun

    # ------------------------------------------------------------------------------------------ saving
    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Every process enters it where the first one makes a checkpoint, so that what each has is in it."""
        if self._processes.nb > 1 and self._begun:
            owners = [held for _, held in owners_of([*self.data.owners, *self._roots])]
            self._joined = join(self.state_dict(), self._processes, owners)
        try:
            yield
        finally:
            self._joined = None

    def state_dict(self) -> State:
        """What changed, as plain data."""
        if self._joined is not None:
            return self._joined
        if not self._begun:  # a save before training
            return self._saved or {"nodes": [], "values": {}, "first": HEAD}
        of_data = owners_of(self.data.owners)
        owners = owners_of(self._roots, of_data)
        changed, lost, marks = self._find_changed(owners)
        encoder, values = self._encoder(self._limit), Kept({})
        for size, path, name, first, value, is_gone in sorted(changed, key=lambda entry: entry[0]):
            try:
                entry = [first] if is_gone else [first, encoder.add(value)]
            except TooLargeError:
                lost.append(f"{path}.{name} ({size / 1e6:.0f} MB)")
                continue
            values.setdefault(path, {})[name] = entry
        self._say(values, lost)
        nb = self._processes.nb
        state: State = {"nodes": encoder.nodes, "values": values, "first": self._first_marks(owners), "nb": nb}
        return {**state, **self.data.state_dict(of_data, lambda held: self._first.get(id(held), {}), marks)}

    def _first_marks(self, owners: Sequence[Owner]) -> str:
        """What the first start found, a line each."""
        of = [(path, id(held)) for path, held in owners]
        if self._head is not None and self._head[0] == of:
            return self._head[1]
        lines = [HEAD]
        for path, held in owners:
            marks = sorted(self._first.get(id(held), {}).items())
            lines += [f"{path}\t{name}\t{mark}" for name, mark in marks if not mark.startswith(HERE)]
        self._head = of, "\n".join(lines)
        return self._head[1]

    def _find_changed(
        self, owners: Sequence[Owner]
    ) -> tuple[list[tuple[int, str, str, str, Any, bool]], list[str], dict[str, Marks]]:
        """What changed, what of it can't be kept, and the marks of everything now."""
        from pytorch_lightning.resume.stateful import keeps_state
        from pytorch_lightning.resume.structure import changes, structure_of

        changed, lost = [], changes(self._structure, structure_of(self._module)) if self._begun else []
        marks: dict[str, Marks] = {}
        for path, held in owners:
            if id(held) not in self._first:
                continue  # who holds it has changed, and that is noticed
            first, now = self._first[id(held)], self.data.values_now(path, held)
            for name in sorted({*first, *now}):
                if name not in now:
                    changed.append((0, path, name, first[name], None, True))
                    continue
                mark = marks.setdefault(path, {})[name] = self._mark(now[name], glance(now[name]))
                if mark.startswith(HERE) and keeps_state(now[name]):  # whether it changed can't be told
                    lost.append(f"{path}.{name} (its state_dict() isn't plain data)")
                elif not self._has_changed(held, name, mark):
                    if _is_iterator(now[name]):
                        lost.append(f"{path}.{name} (an iterator)")
                elif mark.startswith(HERE):
                    if not _is_made_by_the_fit(now[name]):
                        lost.append(f"{path}.{name}")
                else:
                    encoder = self._encoder(float("inf"))
                    encoder.add(now[name])
                    changed.append((encoder.size, path, name, first.get(name, GONE), now[name], False))
        return changed, lost, marks

    def has_changed(self) -> bool:
        """Whether anything changed since training began, so perhaps in the step that failed just now."""
        changed, lost, _ = self._find_changed(owners_of([*self.data.owners, *self._roots]))
        return bool(changed or lost)

    def _say(self, values: Kept, lost: list[str]) -> None:
        if lost:
            self._notices.say(
                "lost-attributes",
                f"changed while training, and a checkpoint can't hold it: {shown(lost)}. A resumed fit finds it as the"
                " program makes it. Keep what matters of it in on_save_checkpoint(checkpoint), put it back in"
                " on_load_checkpoint(checkpoint)",
            )
        names = [f"{path}.{name}" for path, attributes in values.items() for name in attributes]
        if names:
            self._notices.say_in_detail(
                "kept-attributes", f"changed while training, and kept in checkpoints: {shown(names)}"
            )

    # ------------------------------------------------------------------------------------------ at another time
    def snapshot(self) -> State:
        """What changed of the module and the callbacks until now, as plain data; what isn't plain is left out."""
        encoder, values = Encoder(self._limit), Kept({})
        for path, held in owners_of(self._roots) if self._begun else ():
            for name, value in attributes_of(held).items():
                if not self._has_changed(held, name, self._mark(value, glance(value))):
                    continue
                with contextlib.suppress(NotPlainError, TooLargeError):
                    values.setdefault(path, {})[name] = [self._first[id(held)].get(name, GONE), encoder.add(value)]
        return {"nodes": encoder.nodes, "values": values, "first": HEAD}

    @contextlib.contextmanager
    def as_in(self, state: State) -> Iterator[None]:
        """A scope in which the module and the callbacks are as in that ``snapshot``."""
        owners, before = dict(owners_of(self._roots)), list[tuple[Any, str, Any]]()
        decoder = Decoder(state["nodes"], self._device, lambda address: False)
        with fitting("the part 'reloading' of the checkpoint"):
            for path, attributes in state["values"].items():
                held = owners.get(path)
                for name, (first, value) in attributes.items() if held is not None else ():
                    if self._first.get(id(held), {}).get(name, GONE) == first:
                        made = decoder.value(value)
                        before.append((held, name, attributes_of(held).get(name, GONE)))
                        set_attribute(held, name, made)
        try:
            yield
        finally:
            for held, name, value in reversed(before):
                delete_attribute(held, name) if value is GONE else set_attribute(held, name, value)

    # ------------------------------------------------------------------------------------------ restoring
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what is to be put back when training begins: hooks before that may set attributes too."""
        if state["first"].split("\n")[0] != HEAD:
            raise CheckpointError("the marks of attributes are of another version.")
        self._saved = state

    @fitting("the part 'attributes' of the checkpoint")
    def restore(self) -> None:
        """Put back what ``load_state_dict`` was given."""
        if self._saved is None:
            return
        owners: dict[str, Any] = dict(owners_of([*self.data.owners, *self._roots]))
        state, of_others = own_of(self._saved, self._processes)
        left, merged = list[str](), set[Any]()
        for place, first, made in merged_metrics(self._saved, owners, self._processes, self._device):
            merged.add(place)
            if self._first.get(id(owners[place.path]), {}).get(place.name, GONE) == first:
                set_attribute(owners[place.path], place.name, made)
        self._say_of_others([str(place) for place in of_others if place not in merged])
        from pytorch_lightning.resume.stateful import StateDecoder

        decoder = StateDecoder(state["nodes"], self._device, writable_memory())
        for path, attributes in state["values"].items():
            if path not in owners:
                left.append(path)
                continue
            for name, (first, *value) in attributes.items():
                if (path, name, "values") not in merged and not self._put(owners[path], name, first, value, decoder):
                    left.append(f"{path}.{name}")
        for line in state["first"].split("\n")[1:]:
            path, name, mark = line.split("\t")
            found = self._first.get(id(owners.get(path)), {})
            if name in found and name not in state["values"].get(path, {}) and found[name] != mark:
                left.append(f"{path}.{name}")
        self.data.restore(state)
        if left:
            self._notices.say(
                "other-attributes",
                f"other than at the first start, and left as the program makes it: {shown(left)}",
            )

    def _say_of_others(self, names: list[str]) -> None:
        if names:
            self._notices.say(
                "attributes-of-processes",
                f"each process had its own, and the number of processes was {(self._saved or {})['nb']} and is"
                f" {self._processes.nb}: {shown(list(dict.fromkeys(names)))}. They are as the program makes them",
            )

    def _put(self, held: Any, name: str, first: str, value: list[Any], decoder: Decoder) -> bool:
        found = self._first.get(id(held), {}).get(name, GONE)
        there = attributes_of(held)
        if found != first or storage_is_shared(there.get(name)) or _holds_shards(there.get(name)):
            return False
        if not value:
            return delete_attribute(held, name)
        try:
            made = decoder.value(value[0], there.get(name))
        except NotPlainError:
            return False
        return made is there.get(name, GONE) or set_attribute(held, name, made)


def _inside(value: Any) -> str:
    """What a container of things that aren't plain holds."""
    if isinstance(value, (list, tuple, set, dict)) and len(value) <= 10_000:
        items = value.values() if isinstance(value, dict) else value
        return f" {sorted(map(_seen, items))}"
    return ""


def _holds_shards(value: Any) -> bool:
    """Whether it is, or directly holds, a shard: what is saved is whole."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
    return any(map(is_sharded, items))


def _seen(value: Any) -> str:
    """Which object it is, and of a tensor how often it was changed."""
    is_counted = isinstance(value, torch.Tensor) and not value.is_inference()
    return f"{id(value)} {value._version}" if is_counted else str(id(value))


def _is_iterator(value: Any) -> bool:
    return hasattr(type(value), "__next__") and not has_state(value)


def _is_made_by_the_fit(value: Any) -> bool:
    """Whether a value stands for something that has a part of its own, or is no state: loaders, what calls
    something."""
    return isinstance(value, (torch.utils.data.DataLoader, type)) or (
        callable(value) and not hasattr(value, "__dict__")
    )
