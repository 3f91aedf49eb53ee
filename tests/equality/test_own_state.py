"""Training loaders that keep their place themselves, cut anywhere: the batches that are left come, each once."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset

from pytorch_lightning.errors import FitError
from tests.equality.models import Classifier, samples
from tests.equality.test_loader_grid import CUTS, NB, SIZE
from tests.equality.test_resume import Killed, SaveAt, comparable, differences
from tests.recorder import quiet_trainer

DATA = TensorDataset(*samples())
AHEAD = 2


class Pass:
    """One epoch of ``Remembering``, two batches of which are always made ahead."""

    def __init__(self, loader: "Remembering", state: dict[str, Any] | None) -> None:
        self.loader, self.ready = loader, deque[Any]()
        if state is not None:
            loader.own.set_state(state["generator"])
        self.before = loader.own.get_state()
        self.order = torch.randperm(NB, generator=loader.own).split(SIZE)
        self.place = 0 if state is None else state["place"]
        self.at_end = state is not None and state["at_end"]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while len(self.ready) <= AHEAD and self.place + len(self.ready) < len(self.order):
            indices = self.order[self.place + len(self.ready)].tolist()
            self.loader.fetched.append(indices)
            self.ready.append(torch.utils.data.default_collate([self.loader.dataset[i] for i in indices]))
        if not self.ready:
            self.at_end = True
            raise StopIteration
        self.place += 1
        return self.ready.popleft()


class Remembering(DataLoader[Any]):
    """Behaves as torchdata's StatefulDataLoader: a state taken after the last batch, but before the end of its
    pass, gives a pass without batches; to ask for a state begins a pass; the order comes from a generator of its own,
    whose first seed is anybody's guess."""

    def __init__(self) -> None:
        super().__init__(DATA, batch_size=SIZE)
        self.own = torch.Generator().manual_seed(int(torch.randint(2**30, ())))
        self.pass_: Any = None
        self.waiting, self.given = False, None
        self.fetched: list[Any] = []

    def __iter__(self) -> Any:
        if not self.waiting:
            self.pass_, self.given = Pass(self, self.given), None
            if self.pass_.at_end:
                self.pass_ = Pass(self, None)
        self.waiting = False
        return self.pass_

    def state_dict(self) -> dict[str, Any]:
        if self.pass_ is None:
            self.pass_, self.waiting = iter(self), True
        return {"generator": self.pass_.before, "place": self.pass_.place, "at_end": self.pass_.at_end}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["place"] > 5:
            raise AssertionError("the state of another loader")
        self.given, self.pass_, self.waiting = state, None, False


class Turning:
    """A loader of one's own: draws its order when a pass begins, from the stream that everybody draws from, and
    begins anew once it was used up."""

    place = 0

    def __init__(self) -> None:
        self.fetched: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        order = np.array_split(np.random.permutation(NB), len(self))
        while self.place < len(order):
            indices = order[self.place].tolist()
            self.fetched.append(indices)
            self.place += 1
            yield tuple(tensor[indices] for tensor in DATA.tensors)
        self.place = 0

    def __len__(self) -> int:
        return 5

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class Unmeasured(Turning):
    """The same, which doesn't know its length."""

    def __len__(self) -> int:
        raise TypeError

    def __iter__(self) -> Iterator[Any]:
        order = np.array_split(np.random.permutation(NB), 5)
        while self.place < len(order):
            self.place += 1
            yield tuple(tensor[order[self.place - 1].tolist()] for tensor in DATA.tensors)
        self.place = 0


class PlainSampler(Remembering):
    """The same around a torch sampler with a generator, neither of which is in its state."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["generator"] = torch.Generator().manual_seed(4)

    def __iter__(self) -> Any:
        is_new, made = not self.waiting, super().__iter__()
        if is_new:
            made.order = torch.randperm(NB, generator=self.generator).split(SIZE)
        return made


class Level(Sampler[int]):
    """The order depends on something that the loader holds."""

    level = 0

    def __iter__(self) -> Iterator[int]:
        return iter([(i * (2 * self.level + 5)) % NB for i in range(NB)])

    def __len__(self) -> int:
        return NB


class Levels(DataLoader[Any]):
    """Iterates as any DataLoader, and has a state that isn't a position."""

    def __init__(self) -> None:
        super().__init__(DATA, batch_size=SIZE, sampler=Level())

    def state_dict(self) -> dict[str, int]:
        return {"level": self.sampler.level}  # type: ignore[attr-defined]

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.level = state["level"]  # type: ignore[attr-defined]


class Trained(Classifier):
    def __init__(self, loader: Any) -> None:
        super().__init__(norm=True, dropout=0.2)
        self.loader = loader

    def on_epoch_end(self) -> None:
        if isinstance(self.loader, Levels):
            self.loader.sampler.level += 1  # type: ignore[attr-defined]

    @property
    def tng_dataloader(self) -> Any:
        return self.loader


KINDS = [Remembering, PlainSampler, Turning, Unmeasured, Levels]


def trained(folder: Path, loader: Any, **options: Any) -> Any:
    silence = ("not-shuffled", "no-validation", "own-state")
    trainer = quiet_trainer(folder, **{"max_nb_epochs": 3, "silence": silence, **options})
    assert trainer.fit(Trained(loader)) == 1
    trainer.save_checkpoint(folder / "end.ckpt")
    found = comparable(torch.load(folder / "end.ckpt", weights_only=True))
    found["parts"].pop("callbacks")
    return found


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loader_with_its_own_state_resumes_from_there(tmp_path: Path, kind: Any, cut: int) -> None:
    torch.manual_seed(3)
    whole = trained(tmp_path / "whole", kind())
    torch.manual_seed(3)
    path = tmp_path / "cut.ckpt"
    with pytest.raises(Killed):
        trained(tmp_path / "first", kind(), callbacks=[SaveAt(path, cut, kill=True)])
    torch.manual_seed(12345), np.random.seed(1)  # another process has other streams
    rest = trained(tmp_path / "rest", kind(), resume=path)
    assert differences(whole, rest) == []


@pytest.mark.parametrize("kind", [Remembering, Turning])
def test_nothing_is_fetched_again(tmp_path: Path, kind: Any) -> None:
    torch.manual_seed(3)
    first, second = kind(), kind()
    trained(tmp_path / "whole", first, callbacks=[SaveAt(tmp_path / "cut.ckpt", 6)])
    torch.manual_seed(12345)
    trained(tmp_path / "rest", second, resume=tmp_path / "cut.ckpt")
    assert second.fetched == first.fetched[7:]


@pytest.mark.parametrize("kind", KINDS)
def test_it_may_be_interrupted_several_times_in_one_epoch(tmp_path: Path, kind: Any) -> None:
    torch.manual_seed(3)
    whole = trained(tmp_path / "whole", kind())
    torch.manual_seed(3)
    before: dict[str, Any] = {}
    for cut in (0, 6, 7, 8):
        path = tmp_path / f"{cut}.ckpt"
        with pytest.raises(Killed):
            trained(tmp_path / "first", kind(), callbacks=[SaveAt(path, cut, kill=True)], **before)
        before = {"resume": path}
        torch.manual_seed(cut)
    assert differences(whole, trained(tmp_path / "rest", kind(), **before)) == []


@pytest.mark.parametrize("kind", [Remembering, Turning])
@pytest.mark.parametrize(
    "options", [{"accumulate_grad_batches": 2}, {"virtual_ranks": 2}, {"train_percent_check": 0.6}]
)
def test_it_resumes_with_every_option_that_counts_batches(tmp_path: Path, kind: Any, options: Any) -> None:
    torch.manual_seed(3)
    nb = 3 if options.get("train_percent_check") or options.get("virtual_ranks") else 5
    for cut in (0, nb - 1, nb):
        torch.manual_seed(3)
        path = tmp_path / f"{cut}.ckpt"
        whole = trained(tmp_path / "whole", kind(), callbacks=[SaveAt(path, cut)], **options)
        torch.manual_seed(12345)
        assert differences(whole, trained(tmp_path / "rest", kind(), resume=path, **options)) == []


class Persistent(Remembering):
    def __init__(self) -> None:
        DataLoader.__init__(self, DATA, batch_size=SIZE, num_workers=1, persistent_workers=True)
        self.own, self.fetched = torch.Generator(), []
        self.pass_, self.waiting, self.given = None, False, None


def test_an_order_that_workers_keep_to_themselves_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "first", Persistent(), callbacks=[SaveAt(tmp_path / "cut.ckpt", 6)])
    with pytest.raises(FitError, match=r"SequentialSampler has no state_dict. Train with persistent_workers=False"):
        trained(tmp_path / "rest", Persistent(), resume=tmp_path / "cut.ckpt")


class Failing(Trained):
    def on_epoch_start(self) -> None:
        if self.current_epoch == 1:
            raise Killed


@pytest.mark.parametrize("kind", [Remembering, PlainSampler])
def test_rolling_saves_hold_its_place(tmp_path: Path, kind: Any) -> None:
    """The first one asks for its state before it was ever begun, the last one between two epochs."""
    torch.manual_seed(3)
    whole = trained(tmp_path / "whole", kind())
    silence = ("own-state", "first-save", "no-validation", "not-shuffled")
    options = {"resume": "auto", "save_every_nb_batches": 5, "max_nb_epochs": 3, "silence": silence}
    torch.manual_seed(3)
    at_2, model = SaveAt(tmp_path / "2.ckpt", 2), type("Trained", (Failing,), {})
    trainer = quiet_trainer(tmp_path / "auto", callbacks=[at_2], **options)
    with pytest.raises(Killed):
        trainer.fit(model(kind()))
    torch.manual_seed(12345)
    assert differences(whole, trained(tmp_path / "rest", kind(), resume=tmp_path / "2.ckpt")) == []
    torch.manual_seed(12345)
    assert differences(whole, trained(tmp_path / "auto", kind(), resume="auto")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_hooks_draw_is_the_same_with_a_save_as_without(tmp_path: Path, kind: Any) -> None:
    class Drawing(Trained):
        def on_epoch_start(self) -> None:
            drawn.append((torch.rand(()).item(), np.random.rand()))

    def drawn_with(**options: Any) -> list[Any]:
        drawn.clear()
        torch.manual_seed(3)
        silence = ("not-shuffled", "no-validation", "own-state")
        quiet_trainer(tmp_path, max_nb_epochs=3, silence=silence, **options).fit(Drawing(kind()))
        return list(drawn)

    drawn: list[Any] = []
    between = SaveAt(tmp_path / "cut.ckpt", 4)  # the loader's state is read between two epochs
    assert drawn_with(callbacks=[between]) == drawn_with()


def test_a_notice_says_once_that_its_order_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, Remembering(), silence=("not-shuffled", "no-validation"))
    said = capsys.readouterr().err
    assert said.count("Remembering has its own state_dict") == 1
    trained(tmp_path, Levels(), silence=("not-shuffled", "no-validation"))
    assert "own-state" not in capsys.readouterr().err


def test_a_state_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    trained(tmp_path / "whole", Remembering(), callbacks=[SaveAt(tmp_path / "cut.ckpt", 6)])
    saved = torch.load(tmp_path / "cut.ckpt", weights_only=True)
    saved["parts"]["data"]["loader"]["state"]["place"] = 9
    torch.save(saved, tmp_path / "other.ckpt")
    with pytest.raises(FitError, match=r"Remembering can't resume from its own state.*the state of another loader"):
        trained(tmp_path / "rest", Remembering(), resume=tmp_path / "other.ckpt")
